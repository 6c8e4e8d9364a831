"""A short name for content: the same facts give the same 16 characters, on any machine and with any polars version."""

from collections.abc import Iterable
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import polars as pl

_NULL_LENGTH = 2**32 - 1


def fingerprint_of(columns: Iterable[pl.Series]) -> str:
    """The first 16 hex characters of a SHA-256 over the names and values of `columns`, in the order given."""
    digest = sha256()
    for column in columns:
        digest.update(column.name.encode())
        if column.dtype.is_float():
            digest.update(column.cast(pl.Float64).fill_null(float("nan")).to_numpy().astype("<f8").tobytes())
            continue
        words = _as_text(column)
        # Lengths keep ["ab", "c"] apart from ["a", "bc"], and a null apart from an empty text.
        digest.update(words.str.len_bytes().fill_null(_NULL_LENGTH).to_numpy().astype("<u4").tobytes())
        digest.update("".join(words.drop_nulls().to_list()).encode())
    return digest.hexdigest()[:16]


def _as_text(column: pl.Series) -> pl.Series:
    if column.dtype.is_nested():
        return column.to_frame().select(pl.struct(pl.all()).struct.json_encode()).to_series()
    return (column.to_physical() if column.dtype.is_temporal() else column).cast(pl.String)


def fingerprint_arrays(*arrays: npt.NDArray[np.generic]) -> str:
    """The first 16 hex characters of a SHA-256 over the bytes of plain arrays, in the order given."""
    digest = sha256()
    for array in arrays:
        digest.update(array.dtype.str.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
