"""Items: what can be recommended, with the words that describe it. `ItemIdx` is the row of an item in its catalog."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import polars as pl

from lmrec.data.fingerprint import fingerprint_of
from lmrec.errors import DataError, UnknownIdError, nearest
from lmrec.fields import ITEM_ID, ItemId, ItemIdx

_METADATA_KEY = "lmrec.catalog"


@dataclass(frozen=True, eq=False)
class Catalog:
    """The items in a fixed order.

    `frame` holds `item_id` (text, unique, never null), the text columns (text, may be null), the attribute columns and,
    where known, `added_at` (unix seconds). A column may be both text and attribute.
    """

    frame: pl.DataFrame
    text_columns: tuple[str, ...]
    attribute_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wanted = dict.fromkeys((ITEM_ID, *self.text_columns, *self.attribute_columns))
        missing = [name for name in wanted if name not in self.frame.columns]
        if missing:
            raise DataError(
                f"the catalog has no column {missing}; it has {self.frame.columns}. Name columns that exist"
            )
        wrong = [name for name in (ITEM_ID, *self.text_columns) if self.frame.schema[name] != pl.String]
        if wrong:
            raise DataError(f"the catalog's columns {wrong} are not text. Cast them with .cast(pl.String)")
        ids = self.frame[ITEM_ID]
        if ids.null_count() or ids.n_unique() != len(ids):
            twice = ids.filter(ids.is_duplicated()).head(1).to_list()
            raise DataError(
                f"item ids must be present and unique; at fault: {twice or [None]}. Drop or rename such items"
            )

    @property
    def n_items(self) -> int:
        return self.frame.height

    def __len__(self) -> int:
        return self.frame.height

    @cached_property
    def ids(self) -> list[ItemId]:
        """(N,) the item ids, in row order."""
        return self.frame[ITEM_ID].to_list()

    @cached_property
    def indices(self) -> dict[ItemId, ItemIdx]:
        """Item id to row."""
        return {item_id: row for row, item_id in enumerate(self.ids)}

    def index_of(self, item_id: ItemId) -> ItemIdx:
        """The row of an item; `UnknownIdError` with the nearest id where there is none."""
        try:
            return self.indices[item_id]
        except KeyError:
            hint = nearest(item_id, self.ids)
            raise UnknownIdError(
                f"there is no item '{item_id}' among the {self.n_items:,} of the catalog. {hint}"
            ) from None

    @cached_property
    def titles(self) -> list[str]:
        """(N,) what to show a person: the first text column, or the id where that is blank."""
        if not self.text_columns:
            return self.ids
        title = pl.col(self.text_columns[0]).str.strip_chars()
        return (
            self.frame.select(pl.when(title.str.len_bytes() > 0).then(title).otherwise(ITEM_ID)).to_series().to_list()
        )

    @cached_property
    def fingerprint(self) -> str:
        """16 hex characters that change with any id, word, attribute or with the order of items."""
        roles = pl.Series("roles", [json.dumps([self.text_columns, self.attribute_columns])])
        return fingerprint_of([roles, *self.frame.get_columns()])

    def with_items(self, items: pl.DataFrame) -> "Catalog":
        """This catalog with new items appended: known rows keep their `ItemIdx`, columns that are absent become null.

        Raises `DataError` for ids that exist already, unknown columns and values that do not fit a column's type.
        """
        if ITEM_ID not in items.columns:
            raise DataError(f"new items need a column '{ITEM_ID}'; found {items.columns}")
        unknown = [name for name in items.columns if name not in self.frame.columns]
        if unknown:
            hint = nearest(unknown[0], self.frame.columns)
            raise DataError(f"the catalog has no column '{unknown[0]}' for the new items. {hint} Rename or drop it")
        existing = items[ITEM_ID].cast(pl.String).filter(items[ITEM_ID].cast(pl.String).is_in(self.ids))
        if len(existing):
            raise DataError(f"item '{existing[0]}' is in the catalog already. Give new items ids of their own")
        try:
            added = items.cast({name: self.frame.schema[name] for name in items.columns})
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"the new items do not fit the catalog's column types ({error}). Convert the values"
            ) from error
        return replace(self, frame=pl.concat([self.frame, added], how="diagonal"))

    def save_parquet(self, path: Path | str) -> None:
        """One parquet file, which also says which columns are text and which are attributes."""
        roles = {"text_columns": self.text_columns, "attribute_columns": self.attribute_columns}
        self.frame.write_parquet(path, metadata={_METADATA_KEY: json.dumps(roles)})

    @classmethod
    def from_parquet(cls, path: Path | str) -> Self:
        """A catalog written by `save_parquet`; `DataError` where the file is another kind of parquet."""
        roles = pl.read_parquet_metadata(path).get(_METADATA_KEY)
        if roles is None:
            raise DataError("this parquet file is not a saved catalog. Read a raw table with read_dataset", file=path)
        columns = json.loads(roles)
        return cls(pl.read_parquet(path), tuple(columns["text_columns"]), tuple(columns["attribute_columns"]))
