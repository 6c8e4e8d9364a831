"""The catalog as it was at one moment: what a request reads from beginning to end, whatever is written meanwhile."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from lmrec.fields import ITEM_ID, BoolArray, IntArray, ItemId
from lmrec.models.lending import Loans
from lmrec.retrieval.bank import BankView
from lmrec.retrieval.casting import Fields, plain
from lmrec.retrieval.filters import Filter
from lmrec.retrieval.index import ItemIndex

MAX_MASKS = 256
MAX_FIELDS = 50_000
MAX_CHANGED = 1_000
_SAME: Final = object()


class RowCache:
    """What was computed of rows. A row never changes once it is there, so that an answer for it stays right: when rows
    are added, only those are computed."""

    def __init__(self) -> None:
        self._masks: OrderedDict[str, BoolArray] = OrderedDict()
        self._fields: dict[int, Fields] = {}
        self._lowered = pl.Series([], dtype=pl.String)
        self._lock = threading.Lock()

    def mask(self, item_filter: Filter, frame: pl.DataFrame) -> BoolArray:
        """(n,) which rows of the frame pass."""
        with self._lock:
            known = self._masks.get(item_filter.key)
        if known is not None and len(known) >= frame.height:
            return known[: frame.height]
        n_known = 0 if known is None else len(known)
        fresh: BoolArray = frame.slice(n_known).select(item_filter.expr).to_series().to_numpy()
        whole = fresh if known is None else np.concatenate([known, fresh])
        with self._lock:
            self._masks[item_filter.key] = whole
            self._masks.move_to_end(item_filter.key)
            while len(self._masks) > MAX_MASKS:
                self._masks.popitem(last=False)
        return whole

    def lowered_titles(self, titles: Sequence[str], n_rows: int) -> pl.Series:
        known = self._lowered
        if len(known) < n_rows:
            fresh = pl.Series(titles[len(known) : n_rows], dtype=pl.String).str.to_lowercase()
            known = pl.concat([known, fresh], rechunk=True)
            self._lowered = known
        return known.head(n_rows)

    def fields(self, rows: Sequence[int], frame: pl.DataFrame) -> list[Fields]:
        found = {row: known for row in rows if (known := self._fields.get(row)) is not None}
        missing = [row for row in dict.fromkeys(rows) if row not in found]
        if missing:
            # Cell by cell: a gather of ten rows goes through a thread pool and takes a millisecond.
            columns = [column for column in frame.get_columns() if column.name != ITEM_ID]
            found.update((row, {column.name: plain(column[int(row)]) for column in columns}) for row in missing)
            with self._lock:
                if len(self._fields) > MAX_FIELDS:
                    self._fields = {}
                self._fields.update((row, found[row]) for row in missing)
        return [dict(found[row]) for row in rows]


class RowsById(Mapping[ItemId, int]):
    """Item id to living row: a large part that snapshots share and what has changed since, so that a change copies little."""

    def __init__(self, whole: Mapping[ItemId, int], changed: Mapping[ItemId, int | None] | None = None) -> None:
        self._whole = whole
        self._changed: Mapping[ItemId, int | None] = changed or {}  # None: gone
        n_known = sum(item_id in whole for item_id in self._changed)
        n_living = sum(row is not None for row in self._changed.values())
        self._len = len(whole) - n_known + n_living

    def with_changes(self, changes: Mapping[ItemId, int | None]) -> "RowsById":
        changed = {**self._changed, **changes}
        if len(changed) <= MAX_CHANGED:
            return RowsById(self._whole, changed)
        whole = {item_id: row for item_id, row in {**self._whole, **changed}.items() if row is not None}
        return RowsById(whole)

    def get(self, item_id: ItemId, default: Any = None) -> Any:
        row = self._changed.get(item_id, _SAME)
        if row is _SAME:
            return self._whole.get(item_id, default)
        return default if row is None else row

    def __getitem__(self, item_id: ItemId) -> int:
        row: int | None = self.get(item_id)
        if row is None:
            raise KeyError(item_id)
        return row

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self.get(item_id) is not None

    def __iter__(self) -> Iterator[ItemId]:
        yield from (item_id for item_id in self._whole if item_id not in self._changed)
        yield from (item_id for item_id, row in self._changed.items() if row is not None)

    def __len__(self) -> int:
        return self._len


@dataclass(frozen=True, eq=False)
class Borrowers:
    """rows: (L,) rows that came later, in order, and of which of the generation's items they borrow: `loans`."""

    rows: npt.NDArray[np.int64]
    loans: Loans

    def with_more(self, rows: IntArray, loans: Loans) -> "Borrowers":
        return Borrowers(np.concatenate([self.rows, rows]), Loans.joined(self.loans, loans))

    def renumbered(self, kept: IntArray, n_rows: int) -> "Borrowers | None":
        """Those among the kept rows (in order, of n_rows) by their new numbers."""
        place = np.full(n_rows, -1, np.int64)
        place[kept] = np.arange(len(kept))
        alive = np.flatnonzero(place[self.rows] >= 0)
        return Borrowers(place[self.rows[alive]], self.loans.take(alive)) if len(alive) else None


@dataclass(frozen=True, eq=False)
class Snapshot:
    """n_rows rows, replaced and deleted ones among them (`alive` False). `rows`: id -> living row.

    `ids` and `titles` may be longer: later rows are none of this snapshot's. `origin`: (n_rows,) the row of the same item
    in the generation's own catalog of n_origin items, -1 where it came later. `popularity`: (n_rows,) recent events.
    `length`: (n_rows,) of the item vectors. `index`: of the first rows; None where the plain product is quick enough.
    `borrowers`: None where no row came later, or none borrows.
    """

    bank: BankView
    frame: pl.DataFrame
    text_columns: tuple[str, ...]
    alive: BoolArray
    rows: RowsById
    ids: Sequence[ItemId]
    titles: Sequence[str]
    origin: npt.NDArray[np.int64]
    n_origin: int
    popularity: npt.NDArray[np.float32]
    length: npt.NDArray[np.float32]
    cache: RowCache
    index: ItemIndex | None = None
    borrowers: Borrowers | None = None

    @property
    def n_rows(self) -> int:
        return len(self.alive)

    @property
    def n_items(self) -> int:
        return len(self.rows)

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        return self.frame.schema

    def row_of(self, item_id: ItemId) -> int | None:
        row: int | None = self.rows.get(item_id)
        return row

    def known_rows(self, item_ids: Sequence[ItemId]) -> list[int]:
        """The living rows of those items that are known, in the order given."""
        return [row for item_id in item_ids if (row := self.rows.get(item_id)) is not None]

    def mask(self, item_filter: Filter) -> BoolArray:
        return self.cache.mask(item_filter, self.frame)

    def fields(self, rows: Sequence[int]) -> list[Fields]:
        """The columns of each row, without the id."""
        return self.cache.fields(rows, self.frame)

    @property
    def lowered_titles(self) -> pl.Series:
        """(n_rows,) what `titles` says, in lower case, to look words up in."""
        return self.cache.lowered_titles(self.titles, self.n_rows)

    @cached_property
    def row_of_origin(self) -> npt.NDArray[np.int64]:
        """(generation's N,) the living row of each item of the generation's own catalog, -1 where it is gone."""
        living = np.flatnonzero(self.alive & (self.origin >= 0))
        found = np.full(self.n_origin, -1, np.int64)
        found[self.origin[living]] = living
        return found

    def origins(self, rows: IntArray) -> npt.NDArray[np.int64]:
        """(M,) rows as the generation numbers them; rows that came later get numbers past its end."""
        origin = self.origin[rows]
        return np.where(origin >= 0, origin, self.n_origin + np.asarray(rows, np.int64))
