"""A user's history at request time: the log that the run was fitted on, then what the store has heard since.

An event changes the next recommendation, whoever wrote it: histories are kept in memory, but each time the store is asked
whether it has heard something since, and of whom. The log is that of generation 0: later generations are fitted on the
store's events too, and those must not count twice. What events say, and what a return takes back, goes by what that log
was read with.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import merge
from threading import Lock
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from lmrec.artifacts.run import RunFolder
from lmrec.artifacts.weighing import read_weighing
from lmrec.data.catalog import Catalog
from lmrec.data.history import HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.data.users import UserTable
from lmrec.data.weighing import PLAIN, Weighing
from lmrec.errors import DataError, RunFolderError
from lmrec.feedback.events import EVENT_KINDS, Event, Tally, happened_ts
from lmrec.feedback.judging import Judging
from lmrec.feedback.store import Store
from lmrec.fields import TIMESTAMP, ItemId, UserId
from lmrec.retrieval.recommender import read_users
from lmrec.service.returns import Returnable, Settled, Told, are_in_vain, settle

MAX_KEPT: Final = 20_000
MAX_SEEN: Final = 1_000
"""Newest events of a user by which it is known what they have seen: more would take longer to read than a list to make."""
MAX_LASTING: Final = 10_000
"""Newest dismissals, low ratings and returns by which it is known what they do not want, or have no more."""

_Word: TypeAlias = tuple[float, ItemId, bool | None]
_MAX_CAUGHT_UP: Final = 1_000  # events; after more, all histories are read anew


@dataclass(frozen=True, eq=False)
class TrainingLog:
    """The log of generation 0, by user."""

    user_rows: Mapping[UserId, int]
    item_ids: list[ItemId]
    index: HistoryIndex
    has_times: bool
    users: UserTable | None = None
    weighing: Weighing = PLAIN
    returnable: Returnable | None = None

    @classmethod
    def load(cls, run: RunFolder) -> Self:
        """Raises RunFolderError where the run's data cannot be read."""
        try:
            catalog = Catalog.from_parquet(run.data / "catalog.parquet")
            events = Interactions.from_parquet(run.data / "interactions.parquet")
        except (OSError, pl.exceptions.PolarsError, DataError) as error:
            raise RunFolderError(f"the data in {run.data} is missing or damaged. Fit the run again") from error
        weighing = read_weighing(run)
        return cls(
            user_rows={user: row for row, user in enumerate(events.user_ids)},
            item_ids=catalog.ids,
            index=HistoryIndex.from_interactions(events),
            has_times=events.time_kind == TIMESTAMP,
            users=read_users(run),
            weighing=weighing,
            returnable=Returnable.of(events, weighing) if weighing.return_kinds else None,
        )

    @cached_property
    def kinds(self) -> frozenset[str]:
        """What an event may be: what every service understands, what the recipe names, what the log has."""
        return self.weighing.known_kinds.union(EVENT_KINDS)

    def of_user(self, user_id: UserId) -> list[tuple[float, ItemId]]:
        """(unix seconds, item) of each event, oldest first. Without times, -inf: before all that came later."""
        start, stop = self._places(user_id)
        items: npt.NDArray[np.int32] = self.index.item_idx[start:stop]
        times = self.index.time_ts[start:stop].tolist() if self.has_times else [-np.inf] * len(items)
        return [(time_ts, self.item_ids[item]) for time_ts, item in zip(times, items.tolist(), strict=True)]

    def said_of_user(self, user_id: UserId) -> list[tuple[str, float]]:
        """(kind, how often or how much) of each event of `of_user`. Needs `returnable`."""
        assert self.returnable is not None
        start, stop = self._places(user_id)
        return self.returnable.said(start, stop)

    def _places(self, user_id: UserId) -> tuple[int, int]:
        row = self.user_rows.get(user_id)
        if row is None:
            return 0, 0
        start, stop = self.index.offsets[row : row + 2].tolist()
        return start, stop


@dataclass(frozen=True)
class UserHistory:
    """positive: what counts as history, oldest first. seen: all that the user had to do with. dismissed: not
    wanted, by a dismissal or a low rating that nothing positive followed. attributes: what the user table says."""

    positive: tuple[ItemId, ...] = ()
    seen: frozenset[ItemId] = frozenset()
    dismissed: frozenset[ItemId] = frozenset()
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Users:
    """`forgotten` is replaced, never changed, so readers need no lock."""

    def __init__(self, log: TrainingLog, store: Store, max_history: int) -> None:
        self.log = log
        self._store = store
        self._max_history = max_history
        self.judging = Judging.of(log.weighing)
        self._forgotten: Mapping[UserId, float] = store.forgotten_users()
        self._kept = KeptHistories(store)

    def refresh_forgotten(self) -> None:
        forgotten = self._store.forgotten_users()
        if forgotten != self._forgotten:
            self._forgotten = forgotten
            self._kept.clear()

    def logged(self, user_id: UserId) -> list[tuple[float, ItemId]]:
        """What the training log says, unless the user was forgotten."""
        return [] if user_id in self._forgotten else self.log.of_user(user_id)

    def find(self, query: str, limit: int) -> tuple[list[UserId], int]:
        """Users of the log and of the store whose id holds `query`, those that start with it first, and how many there are
        in all."""
        known = {user for user in self.log.user_rows if query in user and user not in self._forgotten}
        found = [*known.union(self._store.find_users(query))]
        found.sort(key=lambda user: (not user.startswith(query), len(user), user))
        return found[:limit], len(found)

    def returned_in_vain(self, events: Sequence[Event], now: float) -> frozenset[str]:
        """Ids of those of the events, which the store may not have yet, that are returns of what nobody of their user had
        bought, or had given back already. `now`: UTC seconds, when they came."""
        weighing = self.log.weighing
        pairs = {(event.user_id, event.item_id) for event in events if event.kind in weighing.return_kinds}
        held = self._store.returnables(pairs, weighing)
        known = {tally.event_id for _, tally in held}
        fresh = {
            event.event_id: Told(
                event.user_id, event.item_id, happened_ts(event.time_ts, now), event.kind, event.amount
            )
            for event in events
            if (event.user_id, event.item_id) in pairs and event.event_id not in known
        }
        said = [
            *(
                (tally.event_id, Told(who, tally.item_id, tally.time_ts, tally.kind, tally.amount))
                for who, tally in held
            ),
            *fresh.items(),
        ]
        logged = self._logged_of(pairs)
        in_vain = are_in_vain([*logged, *(told for _, told in said)], weighing)[len(logged) :]
        found = {event_id for (event_id, _), is_vain in zip(said, in_vain, strict=True) if is_vain}
        return frozenset(event.event_id for event in events if event.event_id in found)

    def _logged_of(self, pairs: Collection[tuple[UserId, ItemId]]) -> list[Told]:
        """What the log says of these users and items."""
        return [
            Told(user_id, item_id, time_ts, *said)
            for user_id in dict.fromkeys(user_id for user_id, _ in pairs)
            if (logged := self.logged(user_id))
            for (time_ts, item_id), said in zip(logged, self.log.said_of_user(user_id), strict=True)
            if (user_id, item_id) in pairs
        ]

    def history(self, user_id: UserId) -> UserHistory:
        (history,) = self.histories([user_id])
        return history

    def histories(self, user_ids: Sequence[UserId | None]) -> list[UserHistory]:
        """(B,) as of this moment; of nobody an empty one."""
        return self._kept.read(user_ids, self._read)

    def _read(self, user_id: UserId) -> UserHistory:
        heard = self._store.history(user_id, MAX_SEEN, MAX_LASTING, self.log.weighing)
        settled = self._settled(user_id, heard)
        history = join_history(settled.logged, settled.heard, self._max_history)
        if self.log.users is None or user_id in self._forgotten:
            return history
        return replace(history, attributes=self.log.users.attributes(user_id))

    def _settled(self, user_id: UserId, heard: list[Tally]) -> Settled:
        logged, weighing = self.logged(user_id), self.log.weighing
        if not any(tally.kind in weighing.return_kinds for tally in heard):
            return Settled(logged, heard)
        return settle(logged, self.log.said_of_user(user_id) if logged else [], heard, weighing)


class KeptHistories:
    """Histories as of a mark of the store. Events after it let their users go; a decision lets all go, for it may have been
    to forget somebody; so does a mark that went back: somebody put an older store in place."""

    def __init__(self, store: Store, max_kept: int = MAX_KEPT) -> None:
        self._store = store
        self._max_kept = max_kept
        self._mark = (0, 0)
        self._histories: OrderedDict[UserId, UserHistory] = OrderedDict()
        self._lock = Lock()

    def clear(self) -> None:
        with self._lock:
            self._histories.clear()
            self._mark = (-1, -1)  # what is being read right now is not kept either

    def read(self, user_ids: Sequence[UserId | None], read: Callable[[UserId], UserHistory]) -> list[UserHistory]:
        if not any(user_id is not None for user_id in user_ids):
            return [UserHistory() for _ in user_ids]  # nobody's history needs no store, which may be away
        mark = self._catch_up()
        with self._lock:
            known = {user_id: self._histories.get(user_id) for user_id in user_ids if user_id is not None}
        fresh = {user_id: read(user_id) for user_id, history in known.items() if history is None}
        with self._lock:
            if self._mark == mark:  # else somebody has caught up with more than what was read here
                self._histories.update(fresh)
                while len(self._histories) > self._max_kept:
                    self._histories.popitem(last=False)
        found = {**known, **fresh}
        return [(found[user_id] if user_id is not None else None) or UserHistory() for user_id in user_ids]

    def _catch_up(self) -> tuple[int, int] | None:
        """Let go of what the store has heard of since; the mark that what is read from now on may be kept under, if any."""
        last_event, last_decision = mark = self._store.changes_mark()
        known_event, known_decision = self._mark
        if mark == self._mark:
            return mark
        few = last_decision == known_decision and 0 < last_event - known_event <= _MAX_CAUGHT_UP
        heard = self._store.events_after(known_event, _MAX_CAUGHT_UP) if few else []
        with self._lock:
            if self._mark != (known_event, known_decision):
                return None  # another thread was quicker
            if few:
                for stored in heard:
                    self._histories.pop(stored.event.user_id, None)
                # Whoever wrote on meanwhile was read too; the mark goes no further than what is known to be read.
            else:
                self._histories.clear()
            self._mark = mark
        return mark


def join_history(logged: list[tuple[float, ItemId]], heard: list[Tally], max_history: int) -> UserHistory:
    """Both sources by time, the newest `max_history` good ones of them as history.

    An item that was dismissed, or rated low, leaves the history, and is wanted again once something positive follows. What says
    neither was seen all the same.

    >>> heard = [Tally(1, "b", 5.0, good=True), Tally(2, "a", 6.0, good=False)]
    >>> join_history([(1.0, "a"), (2.0, "c")], heard, 10).positive
    ('c', 'b')
    """
    said: Iterable[_Word] = ((time_ts, item_id, True) for time_ts, item_id in logged)
    later: Iterable[_Word] = ((tally.time_ts, tally.item_id, tally.good) for tally in heard)
    words = list(merge(said, later, key=lambda word: word[0]))
    last_word = {item_id: is_good for _, item_id, is_good in words if is_good is not None}
    dismissed = frozenset(item_id for item_id, is_good in last_word.items() if not is_good)
    return UserHistory(
        positive=tuple(item_id for _, item_id, is_good in words if is_good and item_id not in dismissed)[-max_history:],
        seen=frozenset(item_id for _, item_id, _ in words),
        dismissed=dismissed,
    )
