"""The retriever: what an item's vector is made of, with and without training events."""

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lmrec.fields import FloatArray
from lmrec.models.heads import HeadConfig
from lmrec.models.two_tower import ItemTower, ItemTowerConfig, TwoTower, whitening
from lmrec.models.user_model import UserModelConfig

N_ITEMS, TEXT_WIDTH, WIDTH = 6, 12, 8
SEEN = np.array([True, True, False, True, False, True])


def text_vectors(n: int = N_ITEMS, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((n, TEXT_WIDTH)).astype(np.float32)


def tower(source: Literal["text+id", "text", "id"] = "text+id", id_dropout: float = 0.0) -> ItemTower:
    torch.manual_seed(0)
    config = ItemTowerConfig(width=WIDTH, source=source, whiten=5, id_dropout=id_dropout)
    return ItemTower(text_vectors(), SEEN, config)


def set_residual(item_tower: ItemTower, value: float) -> None:
    assert item_tower.id_residual is not None
    nn.init.constant_(item_tower.id_residual.weight, value)


def test_the_id_residual_begins_at_nothing() -> None:
    item_tower, text_vec = tower(), torch.from_numpy(text_vectors())
    torch.testing.assert_close(item_tower(text_vec), item_tower.project(text_vec))


def test_unseen_items_are_made_of_words_alone_whatever_the_residual_holds() -> None:
    item_tower, text_vec = tower(), torch.from_numpy(text_vectors())
    set_residual(item_tower, 7.0)
    difference = item_tower(text_vec) - item_tower.project(text_vec)
    expected = torch.from_numpy(SEEN).float().unsqueeze(1) * 7.0
    torch.testing.assert_close(difference, expected.expand(-1, WIDTH), atol=1e-5, rtol=0)


def test_the_residuals_of_unseen_items_get_no_gradient() -> None:
    item_tower = tower()
    item_tower(torch.from_numpy(text_vectors())).square().sum().backward()
    assert item_tower.id_residual is not None
    grad = item_tower.id_residual.weight.grad
    assert grad is not None
    assert ((grad.abs().sum(1) > 0).numpy() == SEEN).all()


@pytest.mark.parametrize("source", ["text+id", "text"])
def test_rows_beyond_the_training_catalog_are_words_alone(source: Literal["text+id", "text"]) -> None:
    item_tower, text_vec = tower(source), torch.from_numpy(text_vectors(N_ITEMS + 3))
    if source == "text+id":
        set_residual(item_tower, 7.0)
    vectors = item_tower(text_vec)
    assert vectors.shape == (N_ITEMS + 3, WIDTH)
    torch.testing.assert_close(vectors[N_ITEMS:], item_tower.project(text_vec[N_ITEMS:]))
    torch.testing.assert_close(vectors[:N_ITEMS], item_tower(text_vec[:N_ITEMS]))


def test_an_id_tower_sees_no_words_and_a_text_tower_no_ids() -> None:
    ids, words = tower("id"), tower("text")
    first, second = torch.from_numpy(text_vectors(seed=0)), torch.from_numpy(text_vectors(seed=1))
    torch.testing.assert_close(ids(first), ids(second))
    assert ids.project(first).abs().sum() == 0
    assert not torch.allclose(ids(first)[0], ids(first)[1])
    assert words.id_residual is None
    assert not torch.allclose(words(first), words(second))


def test_items_train_without_their_residual_at_the_rate_asked_and_never_when_judged() -> None:
    item_tower, text_vec = tower(id_dropout=0.3), torch.from_numpy(text_vectors())
    set_residual(item_tower, 1.0)
    torch.manual_seed(1)
    words = item_tower.project(text_vec)
    kept = torch.stack([(item_tower(text_vec) - words).detach()[SEEN] for _ in range(400)])
    # An item is left out whole or not at all.
    assert torch.allclose(kept, kept[..., :1].expand_as(kept), atol=1e-4)
    assert kept.mean().item() == pytest.approx(0.7, abs=0.05)
    item_tower.eval()
    assert (item_tower(text_vec) - words)[SEEN].mean().item() == pytest.approx(1.0, abs=1e-4)


@given(seed=st.integers(0, 50), rank=st.integers(1, TEXT_WIDTH))
@settings(max_examples=25)
def test_whitening_gives_unit_covariance_about_zero(seed: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    # Correlated, of different sizes, and far from the origin.
    mixing = rng.standard_normal((TEXT_WIDTH, TEXT_WIDTH)) + 2 * np.eye(TEXT_WIDTH)
    text_vec = rng.standard_normal((500, TEXT_WIDTH)) @ mixing + 5.0
    mean, directions = whitening(text_vec, rank, epsilon=1e-9)
    white = (text_vec - mean) @ directions
    assert directions.shape == (TEXT_WIDTH, rank)
    np.testing.assert_allclose(white.mean(0), 0.0, atol=1e-3)
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(rank), atol=5e-3)


def test_directions_of_mere_noise_stay_small() -> None:
    text_vec = text_vectors(200)
    text_vec[:, -1] *= 1e-6
    mean, directions = whitening(text_vec, TEXT_WIDTH)
    deviations = ((text_vec - mean) @ directions).std(0)
    assert deviations[:-1] == pytest.approx(1.0, abs=0.01)
    assert deviations[-1] < 1e-3


def test_equal_texts_whiten_to_something_finite() -> None:
    mean, directions = whitening(np.ones((4, TEXT_WIDTH), np.float32), 5)
    assert np.isfinite(mean).all()
    assert np.isfinite(directions).all()


def test_no_whitening_keeps_every_direction_and_brings_unit_vectors_to_unit_entries() -> None:
    mean, directions = whitening(text_vectors(), 0)
    assert (mean == 0).all()
    np.testing.assert_allclose(directions, np.eye(TEXT_WIDTH) * TEXT_WIDTH**0.5, rtol=1e-6)


def test_user_states_do_not_see_the_length_of_item_vectors() -> None:
    torch.manual_seed(0)
    towers = TwoTower(text_vectors(), SEEN, ItemTowerConfig(width=WIDTH), UserModelConfig(heads=2), HeadConfig()).eval()
    item_vec = torch.randn(N_ITEMS, WIDTH)
    history, mask = torch.tensor([[0, 3, 5]]), torch.ones(1, 3, dtype=torch.bool)
    states = towers.user_states(item_vec, history, mask)
    lengths = torch.tensor([0.1, 1.0, 9.0, 2.0, 1.0, 30.0]).unsqueeze(1)
    torch.testing.assert_close(towers.user_states(item_vec * lengths, history, mask), states, atol=1e-5, rtol=1e-4)


def test_whole_items_are_dropped_while_learning_wherever_histories_are_read() -> None:
    torch.manual_seed(0)
    config = UserModelConfig(heads=2, dropout=0.0, item_dropout=0.5)
    towers = TwoTower(text_vectors(), SEEN, ItemTowerConfig(width=WIDTH), config, HeadConfig())
    read = torch.randn(N_ITEMS, WIDTH), torch.tensor([[0, 3, 5]]), torch.ones(1, 3, dtype=torch.bool)
    for states in (towers.user_states, towers.final_state):
        towers.train()
        assert len({float(states(*read).detach().sum()) for _ in range(20)}) > 1
        towers.eval()
        assert len({float(states(*read).detach().sum()) for _ in range(3)}) == 1


def test_a_text_user_is_the_projection_of_their_words_and_a_newcomer_is_learnt() -> None:
    towers = TwoTower(
        text_vectors(), SEEN, ItemTowerConfig(width=WIDTH), UserModelConfig(kind="text"), HeadConfig()
    ).eval()
    texts = torch.from_numpy(text_vectors(2, seed=4))
    users = towers.user_from_text(texts, torch.tensor([True, False]))
    torch.testing.assert_close(users[0], towers.item_tower.project(texts)[0])
    torch.testing.assert_close(users[1], towers.no_history)


def test_attributes_begin_as_nothing_and_unknown_ones_stay_so() -> None:
    config = UserModelConfig(heads=2, dropout=0.0)
    towers = TwoTower(
        text_vectors(), SEEN, ItemTowerConfig(width=WIDTH), config, HeadConfig(), n_profile_values=3
    ).eval()
    item_vec = towers.item_tower(torch.from_numpy(text_vectors()))
    history, mask = torch.tensor([[0, 1], [2, 0]]), torch.tensor([[True, True], [True, False]])
    profile = torch.tensor([[1, 3], [0, 0]])
    plain = towers.user_states(item_vec, history, mask)
    torch.testing.assert_close(towers.user_states(item_vec, history, mask, profile), plain)
    assert towers.profile is not None
    torch.nn.init.normal_(towers.profile.weight)
    known = towers.user_states(item_vec, history, mask, profile)
    added = towers.profile.weight[1] + towers.profile.weight[3]
    torch.testing.assert_close(known[0], plain[0] + added)
    torch.testing.assert_close(known[1], plain[1])
    final = towers.final_state(item_vec, history, mask, profile)
    torch.testing.assert_close(final[0], known[0, 2], atol=1e-5, rtol=1e-5)
