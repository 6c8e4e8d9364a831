"""Interactions: who did what to which item, and when. Checked, in time order, as flat arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from lmrec.data.fingerprint import fingerprint_arrays
from lmrec.data.users import Profiles
from lmrec.errors import DataError
from lmrec.fields import (
    AMOUNT,
    KIND,
    POSITION,
    RATING,
    TIMESTAMP,
    USER_ID,
    WEIGHT,
    BoolArray,
    TimeKind,
    UserId,
    stable_order,
)

_USER_IDX, _ITEM_IDX = "user_idx", "item_idx"
_MICROSECOND = 1e-6
INSTANT = 1e-3
"""What a user did within so many seconds (or so much of a position) was done at one instant: see `in_given_order`."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """E events in the order (time, original order); equal times keep the order that they were given in.

    `user_ids[user_idx[e]]` is the user of event `e`; the list also names users of whom no event is left, so that it
    stays aligned after `select`. `time_ts` is unix seconds, or the place within the user's own order where `time_kind`
    is "position" (then times of two users cannot be compared). Build with `from_arrays`, which sorts.
    """

    user_ids: list[UserId]
    user_idx: npt.NDArray[np.int32]  # (E,)
    item_idx: npt.NDArray[np.int32]  # (E,)
    time_ts: npt.NDArray[np.float64]  # (E,)
    time_kind: TimeKind
    weight: npt.NDArray[np.float32]  # (E,)
    rating: npt.NDArray[np.float32] | None = None  # (E,)
    kind: npt.NDArray[np.object_] | None = None  # (E,) texts such as "view"
    amount: npt.NDArray[np.float32] | None = None  # (E,) how often or how much, where told; the weight was made of it
    profiles: Profiles | None = None  # of user_ids, where a model is to know them; neither saved nor fingerprinted

    @classmethod
    def from_arrays(
        cls,
        user_ids: list[UserId],
        user_idx: npt.ArrayLike,
        item_idx: npt.ArrayLike,
        time_ts: npt.ArrayLike,
        *,
        time_kind: TimeKind = "timestamp",
        weight: npt.ArrayLike | None = None,
        rating: npt.ArrayLike | None = None,
        kind: Sequence[str] | npt.NDArray[np.object_] | None = None,
        amount: npt.ArrayLike | None = None,
    ) -> Self:
        """Events in any order, sorted here. The weight is 1 where none is given."""
        times = np.asarray(time_ts, np.float64)
        weights = np.ones(len(times), np.float32) if weight is None else np.asarray(weight, np.float32)
        events = cls(
            user_ids=user_ids,
            user_idx=np.asarray(user_idx, np.int32),
            item_idx=np.asarray(item_idx, np.int32),
            time_ts=times,
            time_kind=time_kind,
            weight=weights,
            rating=None if rating is None else np.asarray(rating, np.float32),
            kind=None if kind is None else np.asarray(kind, object),
            amount=None if amount is None else np.asarray(amount, np.float32),
        )
        return events._pick(_time_order(times))

    @property
    def n_events(self) -> int:
        return len(self.time_ts)

    @property
    def n_users(self) -> int:
        """All users of the log, with or without events left."""
        return len(self.user_ids)

    def __len__(self) -> int:
        return len(self.time_ts)

    def select(self, mask: BoolArray) -> Self:
        """The events where `mask` (E,) is true, still in order; users keep their numbers."""
        return self._pick(mask)

    @cached_property
    def tie_share(self) -> float:
        """The share of events that have the same user and the same time as another event: their order is arbitrary."""
        if not self.n_events:
            return 0.0
        # Events are in time order: only neighbours can share their time, and mostly few do.
        same = np.concatenate([[False], self.time_ts[1:] == self.time_ts[:-1], [False]])
        near = np.flatnonzero(same[1:] | same[:-1])
        tied = pl.DataFrame({_USER_IDX: self.user_idx[near], TIMESTAMP: self.time_ts[near]}).is_duplicated()
        return float(tied.sum() / self.n_events)

    def in_given_order(self) -> Self:
        """The same events, no two items of a user at one time: of several at one instant each comes a microsecond after the one
        that was given before it, or less where many share it or the user's next instant is near. Events of one item at one
        instant (seen and bought) stay together. Numbered times (position) move by as little."""
        order = stable_order(self.user_idx)
        users, items, times = self.user_idx[order], self.item_idx[order], self.time_ts[order]
        starts = np.flatnonzero(np.append(True, (users[1:] != users[:-1]) | (times[1:] != times[:-1])))
        sizes = np.diff(np.append(starts, len(users)))
        instant = np.repeat(np.arange(len(starts)), sizes)
        frame = pl.DataFrame({"instant": instant, "item": items, "place": np.arange(len(users))})
        # An item's place is that of its first event there.
        place = frame.select(pl.col("place").min().over("instant", "item"))["place"].to_numpy() - starts[instant]
        following = np.full(len(starts), np.inf)  # the same user's next instant
        goes_on = users[starts[1:]] == users[starts[:-1]]
        following[:-1][goes_on] = times[starts[1:]][goes_on]
        room = np.minimum(INSTANT, following - times[starts]) / (sizes + 1)
        moved = np.empty_like(self.time_ts)
        moved[order] = times + place * np.minimum(_MICROSECOND, room)[instant]
        return replace(self, time_ts=moved)._pick(_time_order(moved))

    @cached_property
    def fingerprint(self) -> str:
        """16 hex characters that change with any event, user id or with the order of events."""
        users = "\x1f".join([self.time_kind, *self.user_ids]).encode()
        kinds = b"" if self.kind is None else "\x1f".join(self.kind.tolist()).encode()
        rating = np.zeros(0, np.float32) if self.rating is None else self.rating
        texts = [np.frombuffer(text, np.uint8) for text in (users, kinds)]
        return fingerprint_arrays(self.user_idx, self.item_idx, self.time_ts, self.weight, rating, *texts)

    def save_parquet(self, path: Path | str) -> None:
        """Two files: the events at `path`, the user ids beside them (`events.parquet` -> `events.users.parquet`)."""
        columns: dict[str, npt.NDArray[np.generic] | list[str]] = {
            _USER_IDX: self.user_idx,
            _ITEM_IDX: self.item_idx,
            self.time_kind: self.time_ts,
            WEIGHT: self.weight,
        }
        if self.rating is not None:
            columns[RATING] = self.rating
        if self.kind is not None:
            columns[KIND] = self.kind.tolist()
        if self.amount is not None:
            columns[AMOUNT] = self.amount
        pl.DataFrame(columns).write_parquet(path)
        pl.DataFrame({USER_ID: self.user_ids}, schema={USER_ID: pl.String}).write_parquet(_users_path(path))

    @classmethod
    def from_parquet(cls, path: Path | str) -> Self:
        """Interactions written by `save_parquet`; `DataError` where the file is another kind of parquet."""
        frame = pl.read_parquet(path)
        time_kind: TimeKind = POSITION if POSITION in frame.columns else TIMESTAMP
        if not {_USER_IDX, _ITEM_IDX, time_kind, WEIGHT} <= set(frame.columns):
            raise DataError(
                f"this parquet file is not saved interactions; its columns are {frame.columns}. "
                "Read a raw table with read_dataset",
                file=path,
            )
        return cls(
            user_ids=pl.read_parquet(_users_path(path))[USER_ID].to_list(),
            user_idx=frame[_USER_IDX].to_numpy(),
            item_idx=frame[_ITEM_IDX].to_numpy(),
            time_ts=frame[time_kind].to_numpy(),
            time_kind=time_kind,
            weight=frame[WEIGHT].to_numpy(),
            rating=frame[RATING].to_numpy() if RATING in frame.columns else None,
            kind=np.asarray(frame[KIND].to_list(), object) if KIND in frame.columns else None,
            amount=frame[AMOUNT].to_numpy() if AMOUNT in frame.columns else None,
        )

    def _pick(self, events: "BoolArray | npt.NDArray[np.intp]") -> Self:
        return replace(
            self,
            user_idx=self.user_idx[events],
            item_idx=self.item_idx[events],
            time_ts=self.time_ts[events],
            weight=self.weight[events],
            rating=None if self.rating is None else self.rating[events],
            kind=None if self.kind is None else self.kind[events],
            amount=None if self.amount is None else self.amount[events],
        )


def _time_order(times: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """(E,) a stable order of times; whole seconds within 2^48 of each other, as most are, take the quick way."""
    since = times - times.min(initial=np.inf)
    if len(times) and since.max() < 2.0**48 and (since == np.floor(since)).all():
        return stable_order(since.astype(np.int64))
    return np.argsort(times, kind="stable")


def _users_path(path: Path | str) -> Path:
    return Path(path).with_suffix(".users.parquet")
