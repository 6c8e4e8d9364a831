"""Batches: what a target may see, how long histories are cut, and that a seed is a promise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrec.data.history import HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.fields import IntArray
from lmrec.training.batches import TrainBatch, Windows, cut_windows, epoch_batches, make_batch

N_ITEMS = 12


@st.composite
def indices(draw: st.DrawFn, max_events: int = 50) -> HistoryIndex:
    """Logs of a few users with coarse times: many events share an instant."""
    n_users, n_events = draw(st.integers(1, 5)), draw(st.integers(1, max_events))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return HistoryIndex.from_interactions(
        Interactions.from_arrays(
            [f"u{user}" for user in range(n_users)],
            rng.integers(n_users, size=n_events),
            rng.integers(N_ITEMS, size=n_events),
            rng.integers(draw(st.integers(1, 30)), size=n_events).astype(float),
            weight=rng.random(n_events) + 0.1,
        )
    )


def index_of(items: list[int], times: list[float], weight: list[float] | None = None) -> HistoryIndex:
    """The log of one user."""
    return HistoryIndex.from_interactions(
        Interactions.from_arrays(["u"], [0] * len(items), items, times, weight=weight)
    )


def whole(index: HistoryIndex) -> Windows:
    return cut_windows(index, 1000, np.random.default_rng(0))


def batch_of(index: HistoryIndex, windows: Windows) -> TrainBatch:
    batch = make_batch(index, windows, np.arange(len(windows)))
    assert batch is not None
    return batch


def test_every_event_is_a_target_seen_from_what_came_before() -> None:
    index = index_of([5, 3, 8], [1.0, 2.0, 3.0])
    batch = batch_of(index, whole(index))
    assert batch.history_idx.tolist() == [[5, 3, 8]]
    assert batch.target_state.tolist() == [0, 1, 2]
    assert batch.target_idx.tolist() == [5, 3, 8]


def test_events_of_one_instant_do_not_see_each_other() -> None:
    index = index_of([5, 3, 8, 1], [1.0, 2.0, 2.0, 3.0])
    assert batch_of(index, whole(index)).target_state.tolist() == [0, 1, 1, 3]


@given(index=indices(), max_history=st.integers(1, 60), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_targets_see_only_events_strictly_before_them(index: HistoryIndex, max_history: int, seed: int) -> None:
    windows = cut_windows(index, max_history, np.random.default_rng(seed))
    for place in range(len(windows)):
        batch = make_batch(index, windows, np.array([place]))
        if batch is None:
            continue
        part = slice(int(windows.start[place]), int(windows.stop[place]))
        items, times = index.item_idx[part], index.time_ts[part]
        assert batch.history_idx[0].tolist() == items.tolist()
        usable = [at for at, time in enumerate(times) if windows.opens[place] or (times < time).any()]
        assert batch.target_idx.tolist() == items[usable].tolist()
        for at, state in zip(usable, batch.target_state.tolist(), strict=True):
            assert (times[:state] < times[at]).all()
            assert (times[state:] >= times[at]).all()  # and it sees all of them


@given(index=indices(), max_history=st.integers(1, 10), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_windows_cut_each_users_life_into_pieces_that_fit(index: HistoryIndex, max_history: int, seed: int) -> None:
    windows = cut_windows(index, max_history, np.random.default_rng(seed))
    assert (windows.stop > windows.start).all()
    assert (windows.stop - windows.start <= max_history).all()
    covered = np.concatenate([np.arange(a, b) for a, b in zip(windows.start, windows.stop, strict=True)])
    assert sorted(covered.tolist()) == list(range(len(index.item_idx)))
    first_of_user = set(index.offsets[:-1][np.diff(index.offsets) > 0].tolist())
    assert set(windows.start[windows.opens].tolist()) == first_of_user


def test_a_window_in_the_middle_of_a_life_claims_no_empty_history() -> None:
    index = index_of(list(range(6)), [1.0, 2.0, 3.0, 4.0, 4.0, 5.0])
    middle = Windows(np.array([3]), np.array([6]), np.array([False]))
    batch = batch_of(index, middle)
    assert batch.target_idx.tolist() == [5]  # items 3 and 4 share the window's first instant
    assert batch.target_state.tolist() == [2]
    alone = Windows(np.array([3]), np.array([5]), np.array([False]))
    assert make_batch(index, alone, np.array([0])) is None


def test_the_first_cut_of_a_long_life_moves_from_epoch_to_epoch() -> None:
    index = index_of([1] * 30, [float(t) for t in range(30)])
    firsts = {int(cut_windows(index, 10, np.random.default_rng(seed)).stop[0]) for seed in range(60)}
    assert firsts == set(range(1, 11))


def test_padding_stands_at_the_right_and_is_masked() -> None:
    events = Interactions.from_arrays(["a", "b"], [0, 1, 1, 1], [4, 5, 6, 7], [1.0, 1.0, 2.0, 3.0])
    index = HistoryIndex.from_interactions(events)
    batch = batch_of(index, whole(index))
    assert batch.history_mask.tolist() == [[True, False, False], [True, True, True]]
    assert batch.target_row.tolist() == [0, 1, 1, 1]
    assert batch.target_idx.tolist() == [4, 5, 6, 7]


def test_weights_follow_their_events_and_a_batch_of_none_is_no_batch() -> None:
    index = index_of([1, 2], [1.0, 2.0], weight=[0.5, 3.0])
    assert batch_of(index, whole(index)).target_weight.tolist() == [0.5, 3.0]
    nothing = index_of([1, 2], [1.0, 2.0], weight=[0.0, 0.0])
    assert make_batch(nothing, whole(nothing), np.array([0])) is None


def flat(batches: list[TrainBatch]) -> list[tuple[object, ...]]:
    return [tuple(str(value.tolist()) for value in vars(batch).values() if value is not None) for batch in batches]


@given(index=indices(), max_history=st.integers(1, 20), batch_events=st.integers(1, 40), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_the_same_seed_gives_the_same_batches(
    index: HistoryIndex, max_history: int, batch_events: int, seed: int
) -> None:
    first = epoch_batches(index, max_history, batch_events, (seed, 0, 1))
    assert flat(epoch_batches(index, max_history, batch_events, (seed, 0, 1))) == flat(first)


def test_epochs_differ(world_index: HistoryIndex) -> None:
    first, second = (epoch_batches(world_index, 8, 50, (0, 0, epoch)) for epoch in (0, 1))
    assert flat(first) != flat(second)


@pytest.fixture
def world_index() -> HistoryIndex:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, 40)
    users: IntArray = np.repeat(np.arange(40), lengths)
    items = rng.integers(N_ITEMS, size=len(users))
    return HistoryIndex.from_interactions(
        Interactions.from_arrays([str(u) for u in range(40)], users, items, rng.random(len(users)))
    )


@pytest.mark.parametrize("batch_events", [1, 25, 100, 10_000])
def test_a_batch_holds_about_as_many_events_as_asked(world_index: HistoryIndex, batch_events: int) -> None:
    batches = epoch_batches(world_index, 30, batch_events, (0, 0, 0))
    held = [int(batch.history_mask.sum()) for batch in batches]
    assert sum(held) == len(world_index.item_idx)
    longest = int(np.diff(world_index.offsets).max())
    assert max(held) <= batch_events + longest
    if batch_events == 10_000:
        assert len(batches) == 1


def test_every_event_is_a_target_once_an_epoch(world_index: HistoryIndex) -> None:
    targets = torch.cat([batch.target_idx for batch in epoch_batches(world_index, 100, 60, (0, 0, 0))])
    assert sorted(targets.tolist()) == sorted(world_index.item_idx.tolist())
