"""What a user did strictly before an instant: the only maker of model input, so the future cannot slip in."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from lmrec.data.interactions import Interactions
from lmrec.fields import IntArray, Profile, Ragged, gather_ranges, places_before, stable_order


@dataclass(frozen=True, eq=False)
class HistoryIndex:
    """Every user's events side by side, oldest first: user `u` owns `offsets[u]:offsets[u + 1]` of the flat arrays.

    The order within a user is (time, original order). `n_users` rows, users without events have an empty one.
    """

    offsets: npt.NDArray[np.int64]  # (n_users + 1,)
    item_idx: npt.NDArray[np.int32]  # (E,)
    time_ts: npt.NDArray[np.float64]  # (E,)
    weight: npt.NDArray[np.float32]  # (E,)
    profile: Profile | None = None  # (n_users,) what else is known of each user, for histories to carry along

    @classmethod
    def from_interactions(cls, interactions: Interactions) -> Self:
        # Events come in (time, original order); a stable sort by user alone keeps that order within each user.
        order = stable_order(interactions.user_idx)
        counts = np.bincount(interactions.user_idx, minlength=interactions.n_users)
        return cls(
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
            item_idx=interactions.item_idx[order],
            time_ts=interactions.time_ts[order],
            weight=interactions.weight[order],
            profile=None if interactions.profiles is None else interactions.profiles.known,
        )

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def user_idx(self) -> npt.NDArray[np.int32]:
        """(E,) the user of each event, in this index's order."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.offsets))

    def before(self, user_idx: IntArray, instants: npt.NDArray[np.float64]) -> Ragged:
        """Items of each user (B,) strictly before the instant (B,) beside it, oldest first."""
        users = np.asarray(user_idx, np.int64)
        found = gather_ranges(self.item_idx, self.offsets[users], self.positions_before(users, instants))
        return found.of(self.profile_of(users))

    def all(self, user_idx: IntArray) -> Ragged:
        """Every item of each user (B,), oldest first."""
        users = np.asarray(user_idx, np.int64)
        return gather_ranges(self.item_idx, self.offsets[users], self.offsets[users + 1]).of(self.profile_of(users))

    def profile_of(self, user_idx: IntArray) -> Profile | None:
        """(B,) what else is known of these users; None where nothing is of anybody."""
        return None if self.profile is None else self.profile.take(np.asarray(user_idx, np.int64))

    def positions_before(self, user_idx: IntArray, instants: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """(B,) the first place in the flat arrays, within each user's part, that is not strictly before the instant."""
        users = np.asarray(user_idx, np.int64)
        return places_before(self.time_ts, self.offsets[users], self.offsets[users + 1], instants)


@dataclass(frozen=True, eq=False)
class Cases:
    """Questions for the judge: user `user_idx[i]` had `history[i]` at `instants[i]`; what came next was `relevant[i]`.

    `history` is oldest first; `relevant` is unique within its row, never empty and never in that row's history.
    """

    user_idx: npt.NDArray[np.int32]  # (B,)
    instants: npt.NDArray[np.float64]  # (B,)
    history: Ragged  # B rows of item_idx
    relevant: Ragged  # B rows of item_idx

    @classmethod
    def empty(cls) -> Self:
        nothing = Ragged(np.zeros(0, np.int32), np.zeros(1, np.int64))
        return cls(np.zeros(0, np.int32), np.zeros(0, np.float64), nothing, nothing)

    def __len__(self) -> int:
        return len(self.user_idx)

    def take(self, rows: IntArray) -> "Cases":
        """The named rows, in the order given."""
        rows = np.asarray(rows, np.int64)
        return Cases(self.user_idx[rows], self.instants[rows], self.history.take(rows), self.relevant.take(rows))

    def sample(self, n: int, seed: int) -> "Cases":
        """At most `n` rows drawn without replacement, in their first order; all of them where there are no more."""
        if n >= len(self):
            return self
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self), size=n, replace=False)))


@dataclass(frozen=True, eq=False)
class FirstMeetings:
    """When each user first met each item, over a whole log; tells new items from repeats without a loop."""

    codes: npt.NDArray[np.int64]  # (P,) user_idx * n_items + item_idx of each pair, ascending
    first_ts: npt.NDArray[np.float64]  # (P,)
    n_items: int

    @classmethod
    def from_interactions(cls, interactions: Interactions, n_items: int) -> Self:
        by_item = stable_order(interactions.item_idx)
        order = by_item[stable_order(interactions.user_idx[by_item])]
        codes = _pair_codes(interactions.user_idx[order], interactions.item_idx[order], n_items)
        # Events are in time order, so the first event of a pair is its earliest.
        first = np.ones(len(codes), np.bool_)
        first[1:] = codes[1:] != codes[:-1]
        return cls(codes[first], interactions.time_ts[order[first]], n_items)

    def first_ts_of(self, user_idx: IntArray, item_idx: IntArray) -> npt.NDArray[np.float64]:
        """(M,) the first time of each pair (user, item) of two arrays (M,); infinity for pairs that never met."""
        if not len(self.codes):
            return np.full(len(user_idx), np.inf)
        codes = _pair_codes(user_idx, item_idx, self.n_items)
        # In ascending order the search walks through memory once; in any other nearly each step misses the caches.
        order = np.argsort(codes)
        places = np.empty(len(codes), np.int64)
        places[order] = np.searchsorted(self.codes, codes[order])
        np.minimum(places, len(self.codes) - 1, out=places)
        return np.where(self.codes[places] == codes, self.first_ts[places], np.inf)


def _pair_codes(user_idx: IntArray, item_idx: IntArray, n_items: int) -> npt.NDArray[np.int64]:
    return np.asarray(user_idx, np.int64) * n_items + np.asarray(item_idx, np.int64)
