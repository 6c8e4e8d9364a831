"""The learner: few items are encoded with gradient, and in expectation it is the gradient of all of them."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmrec.fields import FloatArray, Ragged
from lmrec.models.reading import Way, WholeReader
from lmrec.training.batches import TrainBatch
from lmrec.training.learner import (
    Alike,
    DrawnItems,
    Learner,
    draw_items,
    encode_histories,
    one_target_a_window,
    seen_before,
)
from lmrec.training.objectives import full_softmax_plain

Batches = Callable[[int, int], list[TrainBatch]]
CPU = torch.device("cpu")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def toy_batch() -> TrainBatch:
    """Two histories over three items."""
    return TrainBatch(
        history_idx=torch.tensor([[0, 1], [2, 0]]),
        history_mask=torch.tensor([[True, True], [True, False]]),
        target_row=torch.tensor([0, 0, 1]),
        target_state=torch.tensor([0, 1, 0]),
        target_idx=torch.tensor([0, 1, 2]),
        target_weight=torch.tensor([1.0, 2.0, 1.0]),
    )


importances = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e3)), min_size=1, max_size=30).map(np.array)


class Phase:
    """A random generator whose one answer is known."""

    def __init__(self, phase: float) -> None:
        self.phase = phase

    def uniform(self, low: float, high: float) -> float:
        return low + self.phase * (high - low)


def draw_at(importance: FloatArray, n_most: int, phase: float) -> DrawnItems:
    return draw_items(importance, n_most, cast(np.random.Generator, Phase(phase)))


@given(importance=importances, n_most=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_draw_keeps_its_budget_and_never_takes_what_does_not_matter(
    importance: FloatArray, n_most: int, seed: int
) -> None:
    drawn = draw_items(importance, n_most, np.random.default_rng(seed))
    assert len(drawn.item_idx) == len(set(drawn.item_idx.tolist())) == min(n_most, int((importance > 0).sum()))
    assert (importance[drawn.item_idx] > 0).all()
    assert (drawn.scale >= 1).all()
    if n_most >= (importance > 0).sum():
        assert (drawn.scale == 1).all()


@given(importance=importances, n_most=st.integers(1, 8))
@settings(max_examples=15)
def test_every_item_that_matters_is_expected_exactly_once(importance: FloatArray, n_most: int) -> None:
    """The mean of scale * drawn over all phases of the draw."""
    n_phases = 600
    count, scale = np.zeros(len(importance)), np.ones(len(importance))
    for phase in (np.arange(n_phases) + 0.5) / n_phases:
        drawn = draw_at(importance, n_most, phase)
        count[drawn.item_idx] += 1
        scale[drawn.item_idx] = drawn.scale
    found = count / n_phases  # within one phase of the probability
    assert (found[importance == 0] == 0).all()
    np.testing.assert_allclose(found[count > 0], 1 / scale[count > 0], atol=1.5 / n_phases)
    assert found.sum() == pytest.approx(min(n_most, (importance > 0).sum()), abs=1e-6)


def test_what_matters_twice_as_much_is_drawn_twice_as_often() -> None:
    """2 * importance / 4; the one that comes to 1 is certain."""
    expected, found = [0.5, 1.0, 0.25, 0.25], dict[int, float]()
    for phase in (0.1, 0.4, 0.6, 0.9):
        drawn = draw_at(np.array([1.0, 2.0, 0.5, 0.5]), 2, phase)
        found |= dict(zip(drawn.item_idx.tolist(), (1 / drawn.scale).tolist(), strict=True))
        assert 1 in drawn.item_idx
    assert found == pytest.approx(dict(enumerate(expected)))


def test_scales_follow_their_rows_into_another_order() -> None:
    drawn = DrawnItems(np.array([2, 5, 7]), np.array([0.2, 0.5, 0.7]))
    assert drawn.scale_of(np.array([7, 2, 5])).tolist() == [0.7, 0.2, 0.5]


def small_learner(make_learner: Callable[..., Learner], n_items: int = 6) -> Learner:
    """No dropout, all layers trained, and a catalog of the first few items only; its cache is exact."""
    whole = make_learner(dropout=0.0, train="all")
    assert whole.tokens is not None
    towers = whole.towers
    towers.item_tower.item_seen = towers.item_tower.item_seen[:n_items]
    residual = towers.item_tower.id_residual
    assert residual is not None
    residual.weight = torch.nn.Parameter(residual.weight[:n_items].detach())
    tokens = Ragged.from_rows([whole.tokens[row] for row in range(n_items)])
    small = Learner(towers, whole.encoder, tokens, whole.text_vec[:n_items].clone(), whole.encoder_config, n_items)
    small.regime = "tuned"
    return small


def encoder_gradients(learner: Learner) -> list[Tensor]:
    assert learner.encoder is not None
    return [p.grad.clone() for p in learner.encoder.parameters() if p.grad is not None]


def full_gradients(learner: Learner) -> list[Tensor]:
    """Of the plain full softmax, straight through the language model for every item of the catalog."""
    assert learner.encoder is not None
    assert learner.tokens is not None
    reader = WholeReader(learner.encoder, learner.tokens, Way(4096, CPU))
    ((rows, fresh),) = reader.encode_rows(np.arange(len(learner.tokens)))
    text_vec = fresh[torch.from_numpy(np.argsort(rows))]
    batch, towers = toy_batch(), learner.towers
    item_vec = towers.item_tower(text_vec)
    states = towers.user_states(item_vec, batch.history_idx, batch.history_mask)
    user_vec = states[batch.target_row, batch.target_state]
    learner.zero_grad()
    loss = full_softmax_plain(
        towers.head.prepare(user_vec),
        towers.head.prepare(item_vec),
        batch.target_idx,
        batch.target_weight,
        towers.head.scale,
        seen_before(batch),
    )
    torch.autograd.backward(loss)
    return encoder_gradients(learner)


def pass_on(learner: Learner, rng: np.random.Generator) -> None:
    for surrogate in learner.pass_on(rng):
        torch.autograd.backward(surrogate)


def passed_on_gradients(learner: Learner, rng: np.random.Generator) -> list[Tensor]:
    learner.train()
    learner.zero_grad()
    torch.autograd.backward(learner(toy_batch(), rng))
    assert encoder_gradients(learner) == []  # nothing has reached the language model yet
    pass_on(learner, rng)
    return encoder_gradients(learner)


def test_where_all_items_are_encoded_the_gradient_is_that_of_the_plain_full_softmax(
    make_learner: Callable[..., Learner],
) -> None:
    learner = small_learner(make_learner)
    expected = full_gradients(learner)
    found = passed_on_gradients(learner, rng())
    assert sum(float(gradient.abs().sum()) for gradient in expected) > 0.1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def test_where_few_are_encoded_it_is_so_in_expectation(make_learner: Callable[..., Learner]) -> None:
    """The mean over all phases of a draw of 2 of 6 items; phases that draw the same share one pass."""
    learner = small_learner(make_learner)
    expected = full_gradients(learner)
    learner.max_encoded_items = 2
    learner.train()
    torch.autograd.backward(learner(toy_batch(), rng()))
    text_grad = learner.text_grad.clone()
    n_phases = 1000
    phases: dict[tuple[int, ...], list[float]] = {}
    for phase in (np.arange(n_phases) + 0.5) / n_phases:
        drawn = draw_at(text_grad.norm(dim=1).double().numpy(), 2, phase)
        phases.setdefault(tuple(drawn.item_idx.tolist()), []).append(phase)
    assert len(phases) > 2
    mean = [torch.zeros_like(gradient) for gradient in expected]
    for drawn_items, at in phases.items():
        assert len(drawn_items) == 2
        learner.zero_grad()
        learner.text_grad.copy_(text_grad)
        pass_on(learner, cast(np.random.Generator, Phase(at[0])))
        for total, gradient in zip(mean, encoder_gradients(learner), strict=True):
            total += gradient * len(at) / n_phases
    error = torch.stack([(one - other).norm() for one, other in zip(mean, expected, strict=True)]).norm()
    assert error < 0.01 * torch.stack([gradient.norm() for gradient in expected]).norm()


def test_gradients_of_several_steps_are_gathered_and_passed_on_once(make_learner: Callable[..., Learner]) -> None:
    learner = small_learner(make_learner)
    once = passed_on_gradients(learner, rng())
    assert (learner.text_grad == 0).all()
    learner.zero_grad()
    for _ in range(2):
        torch.autograd.backward(learner(toy_batch(), rng()))
    pass_on(learner, rng())
    for one, two in zip(once, encoder_gradients(learner), strict=True):
        torch.testing.assert_close(two, 2 * one, atol=1e-5, rtol=1e-3)


def test_passing_on_keeps_what_it_computes_and_leaves_the_rest_of_the_cache(
    make_learner: Callable[..., Learner],
) -> None:
    learner = small_learner(make_learner)
    exact = learner.text_vec.clone()
    learner.text_vec += 1.0  # a cache gone stale
    learner.text_grad[[1, 4]] = 1.0
    pass_on(learner, rng())
    for row in range(6):
        expected = exact[row] if row in (1, 4) else exact[row] + 1.0
        torch.testing.assert_close(learner.text_vec[row], expected, atol=1e-5, rtol=1e-5)
    learner.refresh()
    torch.testing.assert_close(learner.text_vec, exact, atol=1e-5, rtol=1e-5)


def test_a_frozen_language_model_gathers_nothing_and_a_tuned_one_learns_in_its_trained_layers(
    make_learner: Callable[..., Learner], world_batches: Batches
) -> None:
    frozen = make_learner()
    torch.autograd.backward(frozen(world_batches(0, 0)[0], rng()))
    assert (frozen.text_grad == 0).all()
    tuned = make_learner()
    tuned.regime = "tuned"
    torch.autograd.backward(tuned(world_batches(0, 0)[0], rng()))
    assert (tuned.text_grad.abs().sum(1) > 0).all()  # the softmax pulls or pushes every item
    pass_on(tuned, rng())
    assert tuned.encoder is not None
    touched = {name for name, p in tuned.encoder.named_parameters() if p.grad is not None}
    assert touched
    assert all(".layer.2." in name for name in touched)  # the last of three
    for learner in (frozen, tuned):
        assert all(p.grad is not None for p in learner.towers.item_tower.parameters())


def test_judging_gathers_nothing(make_learner: Callable[..., Learner]) -> None:
    learner = small_learner(make_learner).eval()
    torch.autograd.backward(learner(toy_batch(), rng()))
    assert (learner.text_grad == 0).all()


@pytest.mark.parametrize("regime", ["frozen", "tuned"])
def test_a_user_model_that_reads_text_learns_from_one_target_a_window(
    make_learner: Callable[..., Learner], world_batches: Batches, regime: str
) -> None:
    learner = make_learner("text")
    learner.regime = "tuned" if regime == "tuned" else "frozen"
    loss = learner(world_batches(0, 0)[0], rng())
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    assert learner.towers.item_tower.projection is not None
    assert learner.towers.item_tower.projection.weight.grad is not None


def test_one_target_a_window_is_drawn_from_all_of_its_targets() -> None:
    batch, found = toy_batch(), set()
    for seed in range(30):
        chosen = one_target_a_window(batch, np.random.default_rng(seed))
        assert chosen.target_row.tolist() == [0, 1]
        known = zip(batch.target_row, batch.target_state, batch.target_idx, batch.target_weight, strict=True)
        known_rows = {tuple(float(value) for value in row) for row in known}
        rows = zip(chosen.target_row, chosen.target_state, chosen.target_idx, chosen.target_weight, strict=True)
        assert {tuple(float(value) for value in row) for row in rows} <= known_rows
        found.add(int(chosen.target_idx[0]))
    assert found == {0, 1}


def test_targets_without_weight_are_not_drawn() -> None:
    """A batch of these alone would have a loss of nothing over nothing."""
    batch = toy_batch()
    weight = batch.target_weight.clone()
    weight[0] = 0.0
    drawn = [
        one_target_a_window(replace(batch, target_weight=weight), np.random.default_rng(seed)) for seed in range(9)
    ]
    assert {int(one.target_idx[0]) for one in drawn} == {1}
    second = torch.where(batch.target_row == 1, 0.0, batch.target_weight)
    assert one_target_a_window(replace(batch, target_weight=second), np.random.default_rng(0)).target_row.tolist() == [
        0
    ]


def test_a_history_that_is_hidden_is_somebody_of_whom_nothing_is_known(
    make_learner: Callable[..., Learner], world_batches: Batches
) -> None:
    """As in validation and serving, and not what the language model makes of no words."""
    learner = make_learner("text", dropout=0.0).eval()
    batch = world_batches(0, 0)[0]
    asked: list[torch.Tensor] = []
    plain = learner.towers.user_from_text

    def watched(text_vec: torch.Tensor, known: torch.Tensor, profile: torch.Tensor | None = None) -> torch.Tensor:
        asked.append(known)
        return plain(text_vec, known, profile)

    learner.towers.user_from_text = watched  # type: ignore[method-assign, assignment]
    hidden = torch.zeros_like(batch.history_mask)
    hidden[:, 0] = True
    for mask in (None, hidden, torch.ones_like(hidden)):
        learner(replace(batch, hidden=mask), rng())
    whole, without_first, nothing = asked
    assert whole.any()
    assert not nothing.any()
    assert (without_first != whole).any()
    assert (without_first <= whole).all()


def test_seen_is_the_window_before_the_target() -> None:
    seen = seen_before(toy_batch())
    assert [seen.item_idx[row][seen.mask[row]].tolist() for row in range(3)] == [[], [0], []]


def test_masking_of_seen_items_can_be_turned_off(make_learner: Callable[..., Learner], world_batches: Batches) -> None:
    batch = world_batches(0, 0)[0]
    with_mask, without = (make_learner(dropout=0.0, mask_seen=mask)(batch, rng()) for mask in (True, False))
    assert with_mask < without  # fewer rivals


def test_histories_that_do_not_fit_one_pass_have_the_same_vectors_and_gradients(
    make_learner: Callable[..., Learner], world_tokens: Ragged
) -> None:
    encoder = make_learner(dropout=0.0).encoder
    assert encoder is not None
    encoder.train()
    tokens, device = world_tokens.take(np.array([3, 0, 5, 3, 1, 7, 2])), torch.device("cpu")
    found = {}
    for n_tokens in (4096, 12):
        encoder.zero_grad()
        vectors = encode_histories(encoder, tokens, device, n_tokens)
        (vectors * torch.arange(vectors.numel()).reshape(vectors.shape)).sum().backward()  # type: ignore[no-untyped-call]
        found[n_tokens] = vectors.detach(), [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
    torch.testing.assert_close(found[12][0], found[4096][0], rtol=1e-4, atol=1e-5)
    for few, whole in zip(found[12][1], found[4096][1], strict=True):
        torch.testing.assert_close(few, whole, rtol=1e-3, atol=1e-3)
    assert encode_histories(encoder, tokens.take(np.zeros(0, np.int64)), device, 12).shape == (0, encoder.width)


def test_nothing_of_a_pass_is_kept_where_histories_are_read_in_several(
    make_learner: Callable[..., Learner], world_tokens: Ragged
) -> None:
    encoder = make_learner(dropout=0.2).encoder
    assert encoder is not None
    encoder.train()
    kept = {}
    for n_tokens in (4096, 12):
        saved: list[int] = []

        def keep(tensor: Tensor, saved: list[int] = saved) -> Tensor:
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            encode_histories(encoder, world_tokens, torch.device("cpu"), n_tokens)
        kept[n_tokens] = sum(saved)
    assert kept[12] < kept[4096] / 10


def test_passes_alike_draw_the_same_and_the_next_ones_draw_what_comes_behind() -> None:
    """Not nearly the same, moved on by one: what is dropped of item i would be what was dropped of item i + 1."""
    torch.manual_seed(3)
    alike, drawn = Alike(np.random.default_rng(0)), list[list[float]]()
    for _ in range(3):
        for _ in range(2):
            with alike.again() as rng:
                drawn.append(torch.rand(50).tolist())
                assert rng.random() == np.random.default_rng(0).random()
        alike.move_on()
    assert [drawn[at] == drawn[at + 1] for at in (0, 2, 4)] == [True] * 3
    torch.manual_seed(3)
    assert drawn[0] + drawn[2] + drawn[4] == torch.rand(150).tolist()
