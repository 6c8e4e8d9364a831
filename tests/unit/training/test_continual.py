"""Batches of an update: all that is new, some of what is old; and the pull to the old weights."""

import numpy as np
import pytest
import torch

from lmrec.data.history import HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.fields import BoolArray
from lmrec.models.heads import HeadConfig
from lmrec.models.two_tower import ItemTowerConfig, TwoTower
from lmrec.models.user_model import UserModelConfig
from lmrec.training.batches import TrainBatch
from lmrec.training.continual import UpdateConfig, update_batches
from lmrec.training.regularisers import pull_to

N_USERS, N_EACH = 40, 30


def log_with_new_events(n_new_users: int) -> tuple[HistoryIndex, BoolArray]:
    """Each event is of an item of its own; the last three of the first users are new."""
    users = np.repeat(np.arange(N_USERS), N_EACH)
    times = np.tile(np.arange(N_EACH, dtype=float), N_USERS)
    items = np.arange(N_USERS * N_EACH)
    index = HistoryIndex.from_interactions(
        Interactions.from_arrays([f"u{user}" for user in range(N_USERS)], users, items, times)
    )
    return index, (index.user_idx < n_new_users) & (index.time_ts >= N_EACH - 3)


def targets(batches: list[TrainBatch]) -> list[int]:
    return [int(item) for batch in batches for item in batch.target_idx]


@pytest.mark.parametrize("replay", [0.0, 1.0, 4.0])
def test_every_new_event_and_so_much_of_the_old_ones(replay: float) -> None:
    index, is_new = log_with_new_events(10)
    found = [targets(update_batches(index, is_new, 100, 200, replay, (0, epoch))) for epoch in range(20)]
    new_items = set(index.item_idx[is_new].tolist())
    for asked in found:
        assert len(asked) == len(set(asked))
        assert new_items <= set(asked)
    n_old = np.mean([len(asked) - len(new_items) for asked in found])
    assert n_old == pytest.approx(replay * len(new_items), rel=0.15)


def test_much_replay_reaches_users_without_news_and_never_more_than_there_is() -> None:
    index, is_new = log_with_new_events(2)
    asked = targets(update_batches(index, is_new, 100, 200, 30.0, (0,)))
    others = [item for item in asked if item >= 2 * N_EACH]
    assert 100 < len(others) < 200
    everything = targets(update_batches(index, is_new, 100, 200, 1e9, (0,)))
    assert sorted(everything) == list(range(N_USERS * N_EACH))


def test_new_events_see_the_old_ones_before_them() -> None:
    index, is_new = log_with_new_events(1)
    (batch,) = update_batches(index, is_new, 100, 200, 0.0, (0,))
    assert batch.target_state.tolist() == [27, 28, 29]
    assert batch.history_idx.shape == (1, 30)
    assert torch.equal(batch.target_weight, torch.ones(3))


def test_the_same_seed_gives_the_same_batches() -> None:
    index, is_new = log_with_new_events(10)
    first, again, other = (targets(update_batches(index, is_new, 8, 50, 1.0, (seed,))) for seed in (1, 1, 2))
    assert first == again != other


def test_the_pull_is_the_squared_distance() -> None:
    torch.manual_seed(0)
    seen = np.ones(6, np.bool_)
    towers = TwoTower(
        np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32),
        seen,
        ItemTowerConfig(width=4, whiten=2),
        UserModelConfig(kind="mean"),
        HeadConfig(),
    )
    pull = pull_to(towers, 0.5)
    assert pull is not None
    assert pull(towers).item() == 0.0
    with torch.no_grad():
        towers.item_tower.id_residual.weight[1, 2] += 2.0  # type: ignore[union-attr]
    distance = pull(towers)
    assert distance.item() == pytest.approx(2.0)
    distance.backward()  # type: ignore[no-untyped-call]
    gradient = towers.item_tower.id_residual.weight.grad  # type: ignore[union-attr]
    assert gradient is not None
    assert gradient[1, 2].item() == pytest.approx(2.0)
    assert pull_to(towers, 0.0) is None


def test_settings_are_bounded() -> None:
    with pytest.raises(ValueError, match="held_out"):
        UpdateConfig(held_out=1.0)
