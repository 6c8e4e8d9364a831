"""Changed histories: what is known shrinks or loses its order, and no target ever sees itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrec.training.batches import TrainBatch
from lmrec.training.learner import read_items
from lmrec.training.views import HistoryAugmentConfig, view_batch

LENGTHS = (6, 4, 2, 1)
WIDTH = max(LENGTHS)


def toy_batch(ties: bool = False) -> TrainBatch:
    """Four histories in which item 10 r + p stands at place p of row r, each event a target; every other ties with the
    one before it where `ties`. Row 1 does not open a life, so its first event is no target."""
    history, mask = np.zeros((len(LENGTHS), WIDTH), np.int64), np.zeros((len(LENGTHS), WIDTH), np.bool_)
    rows, states, items = [], [], []
    for row, length in enumerate(LENGTHS):
        history[row, :length], mask[row, :length] = 10 * row + np.arange(length), True
        for place in range(length):
            state = place - place % 2 if ties else place
            if row == 1 and state == 0:
                continue
            rows.append(row)
            states.append(state)
            items.append(10 * row + place)
    return TrainBatch(
        torch.from_numpy(history),
        torch.from_numpy(mask),
        torch.tensor(rows),
        torch.tensor(states),
        torch.tensor(items),
        torch.ones(len(items)),
    )


def known_to(batch: TrainBatch) -> list[tuple[int, list[int]]]:
    """(target, the items that its state knows) for every target."""
    return [
        (int(item), batch.history_idx[row, :state].tolist())
        for item, row, state in zip(batch.target_idx, batch.target_row, batch.target_state, strict=True)
    ]


@pytest.mark.parametrize("kind", ["crop", "mask", "reorder"])
@given(seed=st.integers(0, 10_000), ties=st.booleans())
@settings(max_examples=60)
def test_a_target_knows_only_what_it_knew_before(kind: str, seed: int, ties: bool) -> None:
    whole = dict(known_to(toy_batch(ties)))
    config = HistoryAugmentConfig.model_validate({"kinds": [kind], "share": 1.0})
    batch = view_batch(toy_batch(ties), config, np.random.default_rng(seed))
    assert len(batch.target_idx) > 0
    for target, known in known_to(batch):
        assert set(known) <= set(whole[target]), "something of the future"
        if 10 <= target < 20:
            assert known, "a history out of sight is no empty one"
        if kind == "crop":
            assert known == whole[target][len(whole[target]) - len(known) :], "not the newest of what was known"
        if kind == "mask":
            assert known == whole[target]
    assert (batch.target_state <= batch.history_mask.sum(1)[batch.target_row]).all()


def test_each_does_what_it_is_called() -> None:
    def view(kind: str) -> TrainBatch:
        return view_batch(
            toy_batch(), HistoryAugmentConfig.model_validate({"kinds": [kind], "share": 1.0}), np.random.default_rng(3)
        )

    assert view("crop").history_mask.sum(1).tolist() == [4, 2, 2, 1]
    hidden = view("mask").hidden
    assert hidden is not None
    assert hidden[:2].any()
    assert not hidden[2:].any()
    reordered = view("reorder")
    assert reordered.history_idx[0].tolist() != toy_batch().history_idx[0].tolist()
    assert reordered.history_idx[0, 0] == 0
    assert sorted(reordered.history_idx[0].tolist()) == list(range(6))
    assert len(known_to(reordered)) == len(known_to(toy_batch()))


def test_the_same_seed_gives_the_same_view_and_none_is_asked_for_by_default() -> None:
    batch = toy_batch()
    assert view_batch(batch, HistoryAugmentConfig(), np.random.default_rng(0)) is batch
    config = HistoryAugmentConfig(kinds=("crop", "mask", "reorder"), share=0.7)
    one, same, other = (view_batch(batch, config, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert known_to(one) == known_to(same) != known_to(other)


def test_a_hidden_item_is_read_as_nothing_and_is_still_seen() -> None:
    batch = toy_batch()
    hidden = torch.zeros_like(batch.history_mask)
    hidden[0, 1] = True
    batch = TrainBatch(**{**vars(batch), "hidden": hidden}).to(torch.device("cpu"))
    item_vec, rows = read_items(torch.ones(40, 3), batch)
    assert item_vec[rows][0].sum(1).tolist() == [3, 0, 3, 3, 3, 3]
