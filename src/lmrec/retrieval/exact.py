"""Exact scores of rows that something cheaper has named, and the first k of them."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lmrec.fields import IntArray

Float32: TypeAlias = npt.NDArray[np.float32]
Rows: TypeAlias = npt.NDArray[np.int64]
RowsReader: TypeAlias = Callable[[IntArray], Float32]  # (M,) row numbers -> (M, Q) float rows


_READ_VALUES = 16_000_000  # floats read at a time


def scores_of(query: Float32, rows: Rows, read_rows: RowsReader) -> Float32:
    """(B, Q), (B, M) -> (B, M) exact scores, -inf for row -1; rows are read for some queries at a time, in bounded memory."""
    scores = np.empty(rows.shape, np.float32)
    at_once = max(1, _READ_VALUES // max(1, rows.shape[1] * query.shape[1]))
    for start in range(0, len(rows), at_once):
        asked = rows[start : start + at_once]
        vectors = read_rows(np.maximum(asked, 0).ravel()).reshape(*asked.shape, query.shape[1])
        scores[start : start + at_once] = np.matmul(vectors, query[start : start + at_once, :, None])[:, :, 0]
    scores[rows < 0] = -np.inf
    return scores


def best_of(rows: Rows, scores: Float32, k: int) -> tuple[Rows, Float32]:
    """(B, M) -> (B, k) the first k by score, equal ones by row, and their scores; -1 and -inf where there are no more."""
    order = np.lexsort((rows, -scores), axis=1)[:, :k]
    found, best = nothing_found(len(rows), k)
    best[:, : order.shape[1]] = np.take_along_axis(scores, order, axis=1)
    found[:, : order.shape[1]] = np.take_along_axis(rows, order, axis=1)
    found[np.isneginf(best)] = -1
    return found, best


def score_all(query: Float32, rows: Rows, k: int, read_rows: RowsReader) -> tuple[Rows, Float32]:
    """(B, k) the first k of a few rows (M,) by the plain product, and their scores, as `best_of`."""
    if not len(rows):
        return nothing_found(len(query), k)
    product = query @ read_rows(rows).T
    return best_of(np.broadcast_to(rows, product.shape), product, k)


def nothing_found(n_queries: int, k: int) -> tuple[Rows, Float32]:
    """(B, k) rows of -1 and scores of -inf, to be filled."""
    return np.full((n_queries, k), -1, np.int64), np.full((n_queries, k), -np.inf, np.float32)
