"""History is what happened strictly before; checked against the plain way to say it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrec.data.history import Cases, FirstMeetings, HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.errors import DataError
from lmrec.fields import Ragged, TimeKind, gather_ranges

from .random_logs import N_ITEMS, logs


def plain_history(log: Interactions, user: int, instant: float) -> list[int]:
    return [
        int(item)
        for u, item, ts in zip(log.user_idx, log.item_idx, log.time_ts, strict=True)
        if u == user and ts < instant
    ]


@given(logs(), st.lists(st.tuples(st.integers(0, 4), st.floats(-1, 45)), max_size=10))
def test_before_equals_the_plain_way(log: Interactions, questions: list[tuple[int, float]]) -> None:
    questions = [(user % log.n_users, instant) for user, instant in questions]
    users = np.array([user for user, _ in questions], np.int64)
    instants = np.array([instant for _, instant in questions], np.float64)
    index = HistoryIndex.from_interactions(log)
    found = index.before(users, instants)
    assert [found[row].tolist() for row in range(len(found))] == [
        plain_history(log, *question) for question in questions
    ]
    everything = index.all(users)
    assert [everything[row].tolist() for row in range(len(users))] == [
        plain_history(log, user, np.inf) for user in users
    ]


@given(logs())
def test_flat_arrays_are_sorted_by_user_then_time_then_order(log: Interactions) -> None:
    index = HistoryIndex.from_interactions(log)
    expected = sorted(range(len(log)), key=lambda event: (log.user_idx[event], log.time_ts[event], event))
    assert index.item_idx.tolist() == log.item_idx[expected].tolist()
    assert index.time_ts.tolist() == log.time_ts[expected].tolist()
    assert index.weight.tolist() == log.weight[expected].tolist()
    assert index.user_idx.tolist() == log.user_idx[expected].tolist()
    assert len(index.offsets) == log.n_users + 1


@given(logs())
def test_first_meetings(log: Interactions) -> None:
    users, items = (grid.ravel() for grid in np.meshgrid(np.arange(log.n_users), np.arange(N_ITEMS)))
    found = FirstMeetings.from_interactions(log, N_ITEMS).first_ts_of(users, items)
    for user, item, first in zip(users, items, found, strict=True):
        times = log.time_ts[(log.user_idx == user) & (log.item_idx == item)]
        assert first == (times.min() if len(times) else np.inf)


def test_gather_nothing() -> None:
    assert len(gather_ranges(np.arange(3), np.zeros(0, int), np.zeros(0, int))) == 0
    assert gather_ranges(np.arange(3), np.array([1, 2]), np.array([1, 2])).lengths.tolist() == [0, 0]


def test_cases_take_and_sample() -> None:
    cases = Cases(
        np.arange(4, dtype=np.int32),
        np.arange(4, dtype=np.float64),
        Ragged.from_rows([[], [1], [1, 2], [3]]),
        Ragged.from_rows([[5], [6, 7], [8], [9]]),
    )
    taken = cases.take(np.array([2, 1]))
    assert (taken.user_idx.tolist(), taken.history[0].tolist(), taken.relevant[1].tolist()) == ([2, 1], [1, 2], [6, 7])
    sample = cases.sample(2, seed=3)
    assert len(sample) == 2
    assert sample.user_idx.tolist() == cases.sample(2, seed=3).user_idx.tolist()
    assert cases.sample(9, seed=0) is cases
    assert len(Cases.empty()) == 0


def test_select_keeps_users_aligned_and_ties_are_counted() -> None:
    log = Interactions.from_arrays(["a", "b", "c"], [2, 0, 0, 1], [0, 1, 2, 3], [5.0, 1.0, 1.0, 3.0], kind=list("wxyz"))
    assert log.tie_share == 0.5
    kept = log.select(log.user_idx == 2)
    assert kept.user_ids == ["a", "b", "c"]
    assert [kept.user_ids[user] for user in kept.user_idx] == ["c"]
    assert kept.kind is not None
    assert kept.kind.tolist() == ["w"]
    assert kept.select(np.zeros(1, bool)).tie_share == 0.0


@pytest.mark.parametrize("time_kind", ["timestamp", "position"])
def test_interactions_come_back_from_parquet(tmp_path: Path, time_kind: TimeKind) -> None:
    log = Interactions.from_arrays(
        ["a", "b"],
        [1, 1],
        [0, 3],
        [2.0, 1.0],
        time_kind=time_kind,
        rating=[4, 5],
        kind=["view", "buy"],
    )
    log.save_parquet(tmp_path / "events.parquet")
    back = Interactions.from_parquet(tmp_path / "events.parquet")
    assert back.fingerprint == log.fingerprint
    assert (back.time_kind, back.user_ids) == (time_kind, ["a", "b"])
    with pytest.raises(DataError, match=r"events\.users\.parquet: this parquet file is not saved interactions"):
        Interactions.from_parquet(tmp_path / "events.users.parquet")


def test_fingerprint_sees_every_array() -> None:
    base = {"user_ids": ["a"], "user_idx": [0, 0], "item_idx": [0, 1], "time_ts": [1.0, 2.0]}
    changes: list[dict[str, object]] = [
        {},
        {"user_ids": ["b"]},
        {"item_idx": [1, 0]},
        {"time_ts": [1.0, 3.0]},
        {"weight": [1, 2]},
        {"rating": [1, 2]},
        {"kind": ["x", "y"]},
        {"time_kind": "position"},
    ]
    prints = [Interactions.from_arrays(**{**base, **change}).fingerprint for change in changes]  # type: ignore[arg-type]
    assert len(set(prints)) == len(changes)
