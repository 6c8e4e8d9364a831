"""A dataset: catalog, interactions, users where known, and what was set aside on the way in."""

from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from lmrec.data.catalog import Catalog
from lmrec.data.impressions import Impressions
from lmrec.data.interactions import Interactions
from lmrec.data.users import UserTable
from lmrec.data.weighing import PLAIN, Weighing
from lmrec.errors import DataError

QUARANTINE_SCHEMA = {"file": pl.String, "row": pl.Int64, "reason": pl.String, "content": pl.String}


def empty_quarantine() -> pl.DataFrame:
    return pl.DataFrame(schema=QUARANTINE_SCHEMA)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Everything that was read.

    `quarantine` has one row for each input row set aside: `file`, `row`, `reason`, `content` (the row as JSON text).
    `notes` are sentences for a person: column guesses, assumptions, counts of what was repaired. `source` says where
    the data came from. `impressions` are lists that were shown, where the source knows them (MIND).
    `weighing` says what an event of this log counts, for those that come later.
    """

    catalog: Catalog
    interactions: Interactions
    users: UserTable | None = None
    quarantine: pl.DataFrame = field(default_factory=empty_quarantine)
    notes: list[str] = field(default_factory=list)
    source: str = ""
    impressions: Impressions | None = None
    weighing: Weighing = PLAIN

    def __post_init__(self) -> None:
        items = self.interactions.item_idx
        if len(items) and not 0 <= int(items.min()) <= int(items.max()) < self.catalog.n_items:
            raise DataError(f"an event names item row {items.max()}, but the catalog has {self.catalog.n_items} items")

    @cached_property
    def fingerprint(self) -> str:
        """Catalog and interactions in one name, 33 characters: `<catalog>-<interactions>`."""
        return f"{self.catalog.fingerprint}-{self.interactions.fingerprint}"
