"""User attributes: an optional table. Kept and saved with the data; a user is otherwise known by what they did."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import polars as pl

from lmrec.data.fingerprint import fingerprint_of
from lmrec.errors import DataError
from lmrec.fields import USER_ID


@dataclass(frozen=True, eq=False)
class UserTable:
    """`frame` holds `user_id` (text, unique) and any attributes. Users need not have events, nor the reverse."""

    frame: pl.DataFrame

    def __post_init__(self) -> None:
        if self.frame.schema.get(USER_ID) != pl.String:
            raise DataError(f"a user table needs a text column '{USER_ID}'; found {dict(self.frame.schema)}")

    @property
    def n_users(self) -> int:
        return self.frame.height

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(self.frame.get_columns())

    def save_parquet(self, path: Path | str) -> None:
        self.frame.write_parquet(path)

    @classmethod
    def from_parquet(cls, path: Path | str) -> Self:
        return cls(pl.read_parquet(path))
