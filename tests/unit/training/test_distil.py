"""Distilling: the divergence of two lists, and towers that take a teacher's order."""

from typing import Any

import numpy as np
import pytest
import torch

from lmrec.errors import Interrupted
from lmrec.fields import Ragged
from lmrec.models.heads import HeadConfig
from lmrec.models.two_tower import ItemTowerConfig, TwoTower
from lmrec.models.user_model import UserModelConfig
from lmrec.training.distil import DistilConfig, TaughtLists, distil, list_divergence
from lmrec.training.losses import FullSoftmax

N, K = 12, 5


def test_equal_lists_do_not_diverge_and_the_gradient_keeps_its_size_at_any_temperature() -> None:
    scores = torch.randn(4, K)
    assert list_divergence(scores, scores + 3.0, 2.0).item() == pytest.approx(0.0, abs=1e-6)  # a shift is nothing
    hand = torch.tensor([[np.log(3.0), 0.0]]), torch.zeros(1, 2)
    assert list_divergence(*hand, 1.0).item() == pytest.approx(0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25))
    near, far = (list_divergence(scores, scores.flip(1), t).item() for t in (50.0, 100.0))
    assert near == pytest.approx(far, rel=0.05)


@pytest.fixture
def towers() -> TwoTower:
    torch.manual_seed(0)
    text_vec = np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32)
    user = UserModelConfig(kind="mean", dropout=0.0)
    return TwoTower(text_vec, np.ones(N, np.bool_), ItemTowerConfig(width=8, whiten=8), user, HeadConfig())


@pytest.fixture
def lists() -> TaughtLists:
    """The teacher likes low item numbers, whatever the history."""
    rng = np.random.default_rng(1)
    items = np.stack([rng.permutation(N)[:K] for _ in range(40)]).astype(np.int64)
    history = Ragged.from_rows([rng.permutation(N)[:3] for _ in range(40)])
    return TaughtLists(
        history,
        items,
        (-1.0 * items).astype(np.float32),
        items.min(axis=1),
        np.zeros(40),
        np.zeros((40, K), np.float32),
    )


def order_kept(towers: TwoTower, text_vec: torch.Tensor, lists: TaughtLists) -> float:
    """The share of lists whose best by the towers is the teacher's best."""
    with torch.no_grad():
        item_vec = towers.head.prepare(towers.item_tower(text_vec))
        history = torch.from_numpy(np.stack([lists.history[at] for at in range(len(lists))]).astype(np.int64))
        users = towers.head.prepare(
            towers.final_state(towers.item_tower(text_vec), history, torch.ones_like(history) > 0)
        )
        scores = (item_vec[torch.from_numpy(lists.items)] @ users.unsqueeze(2)).squeeze(2).numpy()
    return float((scores.argmax(1) == lists.teacher.argmax(1)).mean())


def test_the_towers_take_the_order_and_the_best_epoch_is_kept(towers: TwoTower, lists: TaughtLists) -> None:
    text_vec = torch.from_numpy(np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32))
    config = DistilConfig(epochs=30, batch_lists=8, learning_rate=1e-2)
    before = order_kept(towers, text_vec, lists)
    rows: list[dict[str, Any]] = []
    metrics, kept = distil(
        towers, text_vec, lists, FullSoftmax(), config, 0, False, lambda: order_kept(towers, text_vec, lists),
        rows.append, lambda done, total: None, lambda: False,
    )  # fmt: skip
    assert [(row["epoch"], row["validation"]) for row in rows] == list(enumerate(metrics))
    assert metrics[0] == before
    assert metrics[kept] == max(metrics) == order_kept(towers, text_vec, lists) > max(0.8, before)


def test_where_nothing_gets_better_nothing_changes_and_a_stop_is_a_stop(towers: TwoTower, lists: TaughtLists) -> None:
    text_vec = torch.from_numpy(np.random.default_rng(0).normal(size=(N, 8)).astype(np.float32))
    start = {name: value.clone() for name, value in towers.state_dict().items()}
    arguments = (
        towers,
        text_vec,
        lists,
        FullSoftmax(),
        DistilConfig(epochs=1),
        0,
        True,
        lambda: 0.5,
        lambda row: None,
        lambda d, t: None,
    )
    metrics, kept = distil(*arguments, lambda: False)
    assert (metrics, kept) == ([0.5, 0.5], 0)
    assert all(torch.equal(value, start[name]) for name, value in towers.state_dict().items())
    with pytest.raises(Interrupted, match="nothing is kept"):
        distil(*arguments, lambda: True)
