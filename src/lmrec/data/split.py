"""Splits: which events are learnt from, and which become questions for the judge.

| kind       | held out                                             | answers                                         |
|------------|------------------------------------------------------|-------------------------------------------------|
| time       | everything from a moment on                          | how good would we have been, live from then on  |
| last       | each user's last event (validation: the one before)  | as papers report; has a known weakness          |
| last_n     | each user's last n events (validation: the n before) | the same for short test lists                   |
| cold_items | all events of a share of the items                   | are items found that nobody has touched yet     |
| cold_users | all events of a share of the users                   | do strangers get personal results               |
| none       | nothing for the judge; what is newest for choosing   | the last fit before going live                  |
"""

from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lmrec.data.history import Cases, FirstMeetings, HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.data.proof import LeakProof, SplitMasks, prove_no_leak
from lmrec.errors import InputError
from lmrec.fields import BoolArray, IntArray, Ragged, stable_order

SplitKind: TypeAlias = Literal["time", "last", "last_n", "cold_items", "cold_users", "none"]
SplitTarget: TypeAlias = Literal["next", "window"]


class SplitConfig(BaseModel):
    """How to split. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: SplitKind = Field(default="time", description="what is held out; see the table in lmrec.data.split")
    validation: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="time, none: share of events; cold kinds: share of items or users; last and last_n ignore it",
    )
    test: float = Field(default=0.1, ge=0, lt=1, description="as `validation`; none ignores it")
    n: int = Field(
        default=1, ge=1, description="last_n: events of each user that go to test, and as many to validation"
    )
    target: SplitTarget = Field(
        default="next",
        description="next: one case per user and instant; window: one case per user, all that came after the cut",
    )
    seed: int = Field(default=0, description="cold kinds: draws the items or users")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} + test {self.test} leave nothing to train on; keep the sum below 1"
            )
        if self.target == "window" and self.kind in ("cold_items", "cold_users"):
            raise ValueError(
                f"target 'window' needs a cut in time, which kind '{self.kind}' has not; use target 'next'"
            )
        return self


@dataclass(frozen=True, eq=False)
class Split:
    """Training events, questions for validation and test, and the proof that they are apart.

    `cut_ts` is (first instant of validation, first instant of test) for kind "time". `n_dropped` counts, for each
    part, the questions that were dropped because the user had met every relevant item before.
    """

    kind: SplitKind
    target: SplitTarget
    train: Interactions
    validation: Cases
    test: Cases
    proof: LeakProof
    train_and_validation: Interactions
    cut_ts: tuple[float, float] | None = None
    n_dropped: tuple[int, int] = (0, 0)  # (validation, test)


def split_interactions(interactions: Interactions, n_items: int, config: SplitConfig, repeats: bool = False) -> Split:
    """Split a log. Items already in a case's history are not relevant again, unless `repeats` (cold items are new in any case);
    cases left with nothing are dropped.

    Kind "none" holds out the newest part as validation, to be learnt after all (training.refit), where it makes a question.
    Raises `InputError` where time cannot be compared between users, or where a part comes out empty.
    """
    masks, cut_ts = _hold_out(interactions, n_items, config)
    train = interactions.select(masks.train)
    if not len(train):
        raise InputError(
            f"the split '{config.kind}' leaves none of {len(interactions):,} events to train on. "
            "Use --split last (each user's last event), or smaller shares for validation and test"
        )
    # Histories may hold events of the parts that are held out, up to the instant of the question; but no item that
    # is cold by construction.
    index = HistoryIndex.from_interactions(train if config.kind == "cold_items" else interactions)
    any_is_right = repeats and config.kind != "cold_items"
    meetings = None if any_is_right else FirstMeetings.from_interactions(interactions, n_items)
    starts = cut_ts if cut_ts is not None else (None, None)
    validation, validation_dropped = _build_cases(
        interactions.select(masks.validation), index, meetings, config, starts[0]
    )
    if config.kind == "none" and masks.validation.any() and not len(validation):
        return split_interactions(interactions, n_items, config.model_copy(update={"validation": 0.0}), repeats)
    test, test_dropped = _build_cases(interactions.select(masks.test), index, meetings, config, starts[1])
    _require_cases(config, {"validation": validation, "test": test})
    return Split(
        kind=config.kind,
        target=config.target,
        train=train,
        validation=validation,
        test=test,
        proof=prove_no_leak(config.kind, interactions, masks, validation, test, meetings),
        train_and_validation=interactions.select(~masks.test),
        cut_ts=cut_ts,
        n_dropped=(validation_dropped, test_dropped),
    )


def held_out(interactions: Interactions, n_items: int, config: SplitConfig) -> tuple[Interactions, Interactions]:
    """The events of the validation part and of the test part, as `split_interactions` parts them."""
    masks, _ = _hold_out(interactions, n_items, config)
    return interactions.select(masks.validation), interactions.select(masks.test)


def build_cases(interactions: Interactions, held: BoolArray, n_items: int, repeats: bool = False) -> Cases:
    """One question for each user and instant of the held-out events (E,): what did the user meet for the first time, or, where
    `repeats`, at all?

    Histories hold all events of the log that are strictly before the instant, held out or not.
    """
    index = HistoryIndex.from_interactions(interactions)
    meetings = None if repeats else FirstMeetings.from_interactions(interactions, n_items)
    return _build_cases(interactions.select(held), index, meetings, SplitConfig(target="next"), None)[0]


def _hold_out(
    interactions: Interactions, n_items: int, config: SplitConfig
) -> tuple[SplitMasks, tuple[float, float] | None]:
    if config.kind == "time":
        return _hold_out_by_time(interactions, config)
    if config.kind in ("last", "last_n"):
        return _hold_out_last(interactions, config.n if config.kind == "last_n" else 1), None
    if config.kind == "cold_items":
        return _hold_out_drawn(interactions.item_idx, n_items, config), None
    if config.kind == "cold_users":
        return _hold_out_drawn(interactions.user_idx, interactions.n_users, config), None
    return SplitMasks(_newest(interactions, config.validation), np.zeros(len(interactions), bool)), None


def _newest(interactions: Interactions, share: float) -> BoolArray:
    """(E,) which events are the newest `share`; without times each user's last of several. None rather than all of them."""
    if interactions.time_kind == "position" and share:
        from_end, counts = _places_from_end(interactions)
        newest = (counts > 1) & (from_end == 0)
    else:
        newest = interactions.time_ts >= _cut(interactions.time_ts, share)
    return newest if not newest.all() else np.zeros(len(interactions), bool)


def _hold_out_by_time(interactions: Interactions, config: SplitConfig) -> tuple[SplitMasks, tuple[float, float]]:
    """Train < first cut <= validation < second cut <= test. Events at the instant of a cut all go to one side."""
    if interactions.time_kind == "position":
        raise InputError(
            "these interactions have a position (an order within each user) and no clock time, so they cannot be split "
            "by time. Use --split last, or give a timestamp column"
        )
    times = interactions.time_ts
    test_ts = _cut(times, config.test)
    validation_ts = _cut(times, config.test + config.validation) if config.validation else test_ts
    masks = SplitMasks(validation=(times >= validation_ts) & (times < test_ts), test=times >= test_ts)
    return masks, (validation_ts, test_ts)


def _cut(times: npt.NDArray[np.float64], share_after: float) -> float:
    """The instant from which on about `share_after` of the ascending `times` lie; infinity for none."""
    place = round(len(times) * (1 - share_after))
    return float(times[place]) if place < len(times) else np.inf


def _hold_out_last(interactions: Interactions, n: int) -> SplitMasks:
    """The last n events of each user to test, the n before to validation; a user with fewer than 2n + 1 stays whole."""
    from_end, counts = _places_from_end(interactions)
    enough = counts > 2 * n
    return SplitMasks(validation=enough & (from_end >= n) & (from_end < 2 * n), test=enough & (from_end < n))


def _places_from_end(interactions: Interactions) -> tuple[IntArray, IntArray]:
    """(E,) how many later events the user of each event has, and how many in all. Events of one item at one time (seen and
    bought) count as one: they are held out together, for each tells the other."""
    order = stable_order(interactions.user_idx)
    users = interactions.user_idx[order]
    fresh = _changes(users, interactions.time_ts[order], interactions.item_idx[order])
    number = np.cumsum(fresh)  # of all users', in order
    counts = np.bincount(users[fresh], minlength=interactions.n_users)
    from_end = np.empty(len(users), np.int64)
    from_end[order] = np.cumsum(counts)[users] - number
    return from_end, counts[interactions.user_idx]


def _hold_out_drawn(idx: IntArray, n: int, config: SplitConfig) -> SplitMasks:
    """All events of a random share of the items (or users) that have events."""
    present = np.flatnonzero(np.bincount(idx, minlength=n))
    drawn = np.random.default_rng(config.seed).permutation(present)
    n_test, n_validation = round(len(present) * config.test), round(len(present) * config.validation)
    part = np.zeros(n, np.int8)
    part[drawn[:n_test]] = 2
    part[drawn[n_test : n_test + n_validation]] = 1
    return SplitMasks(validation=part[idx] == 1, test=part[idx] == 2)


def _build_cases(
    part: Interactions, index: HistoryIndex, meetings: FirstMeetings | None, config: SplitConfig, start_ts: float | None
) -> tuple[Cases, int]:
    """One case per (user, instant) of the events of a part, in time order, and how many were dropped as all repeats.

    meetings: what says which items are new to whom; None where those that are not are right as well.
    """
    if not len(part):
        return Cases.empty(), 0
    instants = part.time_ts if config.target == "next" else _window_starts(part, start_ts)
    order = np.lexsort((part.item_idx, part.user_idx, instants))
    users, items, instants = part.user_idx[order], part.item_idx[order], instants[order]
    n_asked = int(_changes(users, instants).sum())
    if meetings is not None:
        new = meetings.first_ts_of(users, items) >= instants
        users, items, instants = users[new], items[new], instants[new]
    distinct = _changes(users, items, instants)
    users, items, instants = users[distinct], items[distinct], instants[distinct]
    first = np.flatnonzero(_changes(users, instants))
    relevant = Ragged(items, np.append(first, len(items)))
    cases = Cases(users[first], instants[first], index.before(users[first], instants[first]), relevant)
    return cases, n_asked - len(cases)


def _window_starts(part: Interactions, start_ts: float | None) -> npt.NDArray[np.float64]:
    """(E,) where each event's window opens: at the cut, or at the first event of its user in this part."""
    if start_ts is not None:
        return np.full(len(part), start_ts)
    first = np.full(part.n_users, np.inf)
    np.minimum.at(first, part.user_idx, part.time_ts)
    return first[part.user_idx]


def _changes(*columns: npt.NDArray[np.generic]) -> BoolArray:
    """(E,) true where a row differs from the row above it in any column; the first row always does."""
    changed = np.ones(len(columns[0]), bool)
    if len(changed):
        changed[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return changed


def _require_cases(config: SplitConfig, parts: dict[str, Cases]) -> None:
    by_share = config.kind in ("time", "cold_items", "cold_users")
    wanted = {"validation": not by_share or config.validation > 0, "test": not by_share or config.test > 0}
    for name, cases in parts.items():
        if config.kind != "none" and wanted[name] and not len(cases):
            raise InputError(
                f"the split '{config.kind}' leaves no {name} question: {_why_empty(config)}. "
                "Give more events, a larger share, or --split none to train without judging"
            )


def _why_empty(config: SplitConfig) -> str:
    if config.kind in ("last", "last_n"):
        n = config.n if config.kind == "last_n" else 1
        return f"no user has {2 * n + 1} events with something new at the end"
    return "the part has no event in which a user met something new"
