"""Impressions: lists that were shown, and which of their items were clicked. For judging a ranking of what was shown."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from lmrec.data.history import HistoryIndex
from lmrec.data.interactions import INSTANT
from lmrec.errors import DataError
from lmrec.fields import TIMESTAMP, BoolArray, IntArray, Ragged, gather_ranges

_ID, _USER_IDX, _CANDIDATES, _CLICKED = "impression_id", "user_idx", "candidates", "clicked"
_PLACE = "place"


@dataclass(frozen=True, eq=False)
class Impressions:
    """I lists in time order. Users and items are rows of the interactions and the catalog read with them.

    `clicked` lies beside `candidates.values`: `clicked[candidates.offsets[i]:candidates.offsets[i + 1]]` are the answers
    of list `i`. A model may look at what the user did strictly before `time_ts` (unix seconds), as
    `HistoryIndex.before(impressions.user_idx, impressions.time_ts)` gives it.
    """

    impression_id: list[str]  # (I,)
    user_idx: npt.NDArray[np.int32]  # (I,)
    time_ts: npt.NDArray[np.float64]  # (I,)
    candidates: Ragged  # (I, shown) item rows, in the order shown
    clicked: BoolArray  # (all shown,)

    def __post_init__(self) -> None:
        sizes = {len(self.impression_id), len(self.user_idx), len(self.time_ts), len(self.candidates)}
        if len(sizes) > 1 or len(self.clicked) != len(self.candidates.values):
            raise DataError(f"impressions need arrays of one length; these have {sorted(sizes)}")

    def __len__(self) -> int:
        return len(self.impression_id)

    @property
    def n_shown(self) -> int:
        return len(self.clicked)

    def take(self, rows: IntArray) -> Self:
        """The named lists, in the order given."""
        rows = np.asarray(rows, np.int64)
        clicked = Ragged(self.clicked.astype(np.int64), self.candidates.offsets).take(rows).values.astype(bool)
        names = [self.impression_id[int(row)] for row in rows]
        return type(self)(names, self.user_idx[rows], self.time_ts[rows], self.candidates.take(rows), clicked)

    def between(self, first_ts: float = -np.inf, end_ts: float = np.inf) -> Self:
        """The lists shown at `first_ts` or later and before `end_ts`, such as those of a split's test part."""
        return self.take(np.flatnonzero((self.time_ts >= first_ts) & (self.time_ts < end_ts)))

    @property
    def can_be_judged(self) -> BoolArray:
        """(I,) lists with a click and something that was not clicked: there alone is an order right or wrong."""
        n_clicks = np.bincount(self.candidates.row_of_value, weights=self.clicked, minlength=len(self))
        return (n_clicks > 0) & (n_clicks < self.candidates.lengths)

    def save_parquet(self, path: Path | str) -> None:
        """One row a list, with its candidates and clicks as lists."""
        shown = pl.DataFrame(
            {
                "row": self.candidates.row_of_value.astype(np.int64),
                _CANDIDATES: self.candidates.values,
                _CLICKED: self.clicked,
            }
        )
        lists = shown.group_by("row", maintain_order=True).agg(_CANDIDATES, _CLICKED)
        rows = pl.DataFrame({_ID: self.impression_id, _USER_IDX: self.user_idx, TIMESTAMP: self.time_ts})
        rows = rows.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
        rows.join(lists, on="row", how="left", maintain_order="left").drop("row").write_parquet(path)

    @classmethod
    def from_parquet(cls, path: Path | str) -> Self:
        """Impressions written by `save_parquet`; `DataError` where the file is another kind of parquet."""
        frame = pl.read_parquet(path)
        if not {_ID, _USER_IDX, TIMESTAMP, _CANDIDATES, _CLICKED} <= set(frame.columns):
            raise DataError(f"this parquet file holds no impressions; its columns are {frame.columns}", file=path)
        lengths = frame[_CANDIDATES].list.len().fill_null(0).to_numpy().astype(np.int64)
        shown = frame.select(_CANDIDATES, _CLICKED).filter(pl.Series(lengths > 0)).explode(_CANDIDATES, _CLICKED)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        return cls(
            frame[_ID].to_list(),
            frame[_USER_IDX].to_numpy(),
            frame[TIMESTAMP].to_numpy(),
            Ragged(shown[_CANDIDATES].to_numpy(), offsets),
            shown[_CLICKED].to_numpy(),
        )


def shown_beside(index: HistoryIndex, impressions: Impressions) -> Ragged:
    """For each event of the index, in its order, the items that stood in the list it was a click of and were not clicked.

    An event belongs to the list of its user, at its instant, in which its item was clicked; without one its row is empty.
    """
    clicks, rows = np.flatnonzero(impressions.clicked), impressions.candidates.row_of_value
    lists = pl.DataFrame(
        {
            _USER_IDX: impressions.user_idx[rows[clicks]].astype(np.int64),
            TIMESTAMP: impressions.time_ts[rows[clicks]],
            "item": impressions.candidates.values[clicks].astype(np.int64),
            "list": rows[clicks],
        }
    ).unique([_USER_IDX, TIMESTAMP, "item"], keep="first", maintain_order=True)
    events = pl.DataFrame(
        {_USER_IDX: index.user_idx.astype(np.int64), TIMESTAMP: index.time_ts, "item": index.item_idx.astype(np.int64)}
    )
    # Several clicks of one list may stand a little after it: see Interactions.in_given_order.
    events = events.with_row_index(_PLACE).sort(TIMESTAMP)
    of_event = events.join_asof(
        lists.sort(TIMESTAMP),
        on=TIMESTAMP,
        by=[_USER_IDX, "item"],
        strategy="backward",
        tolerance=INSTANT,
        check_sortedness=False,
    ).sort(_PLACE)["list"]
    passed_over = np.where(impressions.clicked, 0, 1)
    kept = np.bincount(rows, weights=passed_over, minlength=len(impressions)).astype(np.int64)
    others = Ragged(
        impressions.candidates.values[~impressions.clicked], np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    )
    known = of_event.is_not_null().to_numpy()
    row = of_event.fill_null(0).to_numpy()
    starts = np.where(known, others.offsets[:-1][row] if len(impressions) else 0, 0)
    stops = np.where(known, others.offsets[1:][row] if len(impressions) else 0, 0)
    return gather_ranges(others.values, starts, stops)
