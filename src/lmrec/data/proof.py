"""The proof that a split does not leak: claims checked on the arrays that came out, and weaknesses said openly."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from lmrec.data.history import Cases, FirstMeetings, HistoryIndex
from lmrec.data.interactions import INSTANT, Interactions
from lmrec.fields import BoolArray, IntArray, Ragged, TimeKind, gather_ranges, ranges

_BLOCK = 4_000_000  # pairs looked up at a time, so that long histories need flat memory


@dataclass(frozen=True, eq=False)
class SplitMasks:
    """Which events (E,) are held out for validation and for test; the rest is for training."""

    validation: BoolArray
    test: BoolArray

    @property
    def train(self) -> BoolArray:
        return ~(self.validation | self.test)


@dataclass(frozen=True)
class Fact:
    """A claim, whether it holds, and the numbers that say so."""

    claim: str
    holds: bool
    evidence: str


@dataclass(frozen=True)
class LeakProof:
    """What was checked, what cannot be promised, and the share of events whose order is arbitrary."""

    facts: tuple[Fact, ...]
    weaknesses: tuple[str, ...]
    tie_share: float

    @property
    def holds(self) -> bool:
        """Whether every claim holds. Weaknesses do not count: they belong to the kind of split."""
        return all(fact.holds for fact in self.facts)

    def as_dict(self) -> dict[str, Any]:
        return {"holds": self.holds, **asdict(self)}


def prove_no_leak(
    kind: str,
    interactions: Interactions,
    masks: SplitMasks,
    validation: Cases,
    test: Cases,
    meetings: FirstMeetings | None,
) -> LeakProof:
    """Check a finished split of `interactions`; `kind` as in `SplitConfig`. meetings: None where repeats are right answers."""
    facts = [_parts_are_apart(masks)]
    # Made anew from the log, whatever the split made its histories of.
    log = HistoryIndex.from_interactions(interactions.select(masks.train) if kind == "cold_items" else interactions)
    for name, cases in (("validation", validation), ("test", test)):
        if len(cases):
            facts.append(_histories_are_past(name, cases, log))
            if meetings is not None:
                facts.append(_relevant_is_new(name, cases, meetings))
    if kind == "time":
        facts += _times_are_apart(interactions, masks, validation, test)
    elif kind in ("last", "last_n"):
        facts.append(_users_end_before_test(interactions, masks))
    elif kind == "cold_items":
        facts += _items_are_cold(interactions, masks, validation, test)
    elif kind == "cold_users":
        facts.append(_users_are_cold(interactions, masks, validation, test))
    return LeakProof(tuple(facts), _find_weaknesses(kind, interactions, masks), interactions.tie_share)


def show_time(time_ts: float, kind: TimeKind = "timestamp") -> str:
    """An instant for a person: ISO 8601 in UTC, or the position.

    >>> show_time(893286638.0), show_time(7.0, "position")
    ('1998-04-22 23:10:38', '7')
    """
    if kind == "position" or not np.isfinite(time_ts):
        return f"{time_ts:g}"
    return f"{datetime.fromtimestamp(time_ts, UTC):%Y-%m-%d %H:%M:%S}"


def _parts_are_apart(masks: SplitMasks) -> Fact:
    both = int((masks.validation & masks.test).sum())
    train, validation, test = (int(part.sum()) for part in (masks.train, masks.validation, masks.test))
    evidence = (
        f"train {train:,}, validation {validation:,}, test {test:,} of {len(masks.test):,} events; {both:,} in two"
    )
    return Fact("no event is in two parts", not both and train + validation + test == len(masks.test), evidence)


def _histories_are_past(name: str, cases: Cases, log: HistoryIndex) -> Fact:
    """Each entry is held against the event at its place among all events of the user: that item, before the instant."""
    late = 0
    for rows in _blocks(cases.history):
        history = cases.history.slice(rows.start, rows.stop)
        begin = log.offsets[cases.user_idx[rows]]
        n_known = np.minimum(history.lengths, log.offsets[cases.user_idx[rows] + 1] - begin)
        late += int((history.lengths - n_known).sum())
        places = ranges(begin, begin + n_known).values
        own = gather_ranges(history.values, history.offsets[:-1], history.offsets[:-1] + n_known).values
        past = log.time_ts[places] < np.repeat(cases.instants[rows], n_known)
        late += int(len(own) - np.count_nonzero(past & (log.item_idx[places] == own)))
    evidence = f"{late:,} of {len(cases.history.values):,} history entries are no event of the user before the instant"
    return Fact(f"every {name} history holds only what its user met strictly before the question", late == 0, evidence)


def _blocks(rows: Ragged) -> Iterator[slice]:
    """Slices of rows that hold about `_BLOCK` values each."""
    start = 0
    while start < len(rows):
        stop = int(np.searchsorted(rows.offsets, rows.offsets[start] + _BLOCK, side="right")) - 1
        stop = max(stop, start + 1)
        yield slice(start, stop)
        start = stop


def _relevant_is_new(name: str, cases: Cases, meetings: FirstMeetings) -> Fact:
    instants = np.repeat(cases.instants, cases.relevant.lengths)
    users = np.repeat(cases.user_idx, cases.relevant.lengths)
    known = int(np.count_nonzero(meetings.first_ts_of(users, cases.relevant.values) < instants))
    evidence = f"{known:,} of {len(cases.relevant.values):,} relevant items had been met before"
    return Fact(f"no {name} question asks for an item that its user had met", known == 0, evidence)


def _times_are_apart(interactions: Interactions, masks: SplitMasks, validation: Cases, test: Cases) -> list[Fact]:
    facts = []
    for later, cases, earlier, mask in (
        ("validation", validation, "training", masks.train),
        ("test", test, "training or validation", ~masks.test),
    ):
        if len(cases):
            end, start = float(interactions.time_ts[mask].max()), float(cases.instants.min())
            evidence = f"the last is at {show_time(end)}, the first question at {show_time(start)}"
            facts.append(Fact(f"no {earlier} event is as late as the first {later} question", end < start, evidence))
    return facts


def _users_end_before_test(interactions: Interactions, masks: SplitMasks) -> Fact:
    ends, starts = _user_borders(interactions, ~masks.test, masks.test)
    late = int((ends > starts).sum())
    return Fact(
        "no user's training or validation event is later than that user's test events",
        late == 0,
        f"{late:,} of {int(np.isfinite(starts).sum()):,} users with test events",
    )


def _items_are_cold(interactions: Interactions, masks: SplitMasks, validation: Cases, test: Cases) -> list[Fact]:
    trained = np.unique(interactions.item_idx[masks.train])
    relevant = np.concatenate([validation.relevant.values, test.relevant.values])
    histories = np.concatenate([np.unique(validation.history.values), np.unique(test.history.values)])
    warm = int(np.isin(relevant, trained).sum())
    foreign = int((~np.isin(histories, trained)).sum())
    return [
        Fact("no relevant item has a training event", warm == 0, f"{warm:,} of {len(relevant):,}"),
        Fact("no history holds an item that is held out", foreign == 0, f"{foreign:,} of {len(histories):,} items"),
    ]


def _users_are_cold(interactions: Interactions, masks: SplitMasks, validation: Cases, test: Cases) -> Fact:
    asked = np.unique(np.concatenate([validation.user_idx, test.user_idx]))
    warm = int(np.isin(asked, interactions.user_idx[masks.train]).sum())
    return Fact("no user of a question has a training event", warm == 0, f"{warm:,} of {len(asked):,} users")


def _find_weaknesses(kind: str, interactions: Interactions, masks: SplitMasks) -> tuple[str, ...]:
    if kind in ("time", "none") or not masks.test.any():
        return ()
    found = []
    if interactions.time_kind == "position":
        found.append(
            "positions order events within a user only: training events may be later than test events of other users, "
            "and how many cannot be measured"
        )
    elif late := _share_later_than_other_users_test(interactions, masks):
        found.append(
            f"{late:.1%} of the training events are later than some test event of another user, so a model may learn "
            "from its future (popularity that was still to come). A time split has no such events"
        )
    ends, starts = _user_borders(interactions, ~masks.test, masks.test)
    if kind in ("last", "last_n") and (tied := int((starts - ends < INSTANT).sum())):
        found.append(
            f"for {tied:,} of {int(np.isfinite(starts).sum()):,} users the cut runs between events of one instant, "
            "whose order is only that of the table"
        )
    return tuple(found)


def _share_later_than_other_users_test(interactions: Interactions, masks: SplitMasks) -> float:
    """The share of training events with a test event of another user before them."""
    users, times = interactions.user_idx[masks.test], interactions.time_ts[masks.test]
    first_user, first_ts = users[0], times[0]  # events are in time order
    others: IntArray = np.flatnonzero(users != first_user)
    other_ts = times[others[0]] if len(others) else np.inf
    train_users, train_ts = interactions.user_idx[masks.train], interactions.time_ts[masks.train]
    earliest: npt.NDArray[np.float64] = np.where(train_users == first_user, other_ts, first_ts)
    return float((train_ts > earliest).mean())


def _user_borders(
    interactions: Interactions, before: BoolArray, after: BoolArray
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(n_users,) each user's latest time among `before` (-inf: none) and earliest among `after` events (inf: none)."""
    ends, starts = np.full(interactions.n_users, -np.inf), np.full(interactions.n_users, np.inf)
    np.maximum.at(ends, interactions.user_idx[before], interactions.time_ts[before])
    np.minimum.at(starts, interactions.user_idx[after], interactions.time_ts[after])
    return ends, starts
