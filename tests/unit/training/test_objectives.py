"""The fused softmax against its formula: the same value and the same gradients, chunk by chunk, seen items or not."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmrec.training.catalog_softmax import full_softmax
from lmrec.training.objectives import Seen, Trend, full_softmax_plain


@dataclass
class Problem:
    """P targets among N items of width D in double precision, with or without seen items."""

    user_vec: Tensor
    item_vec: Tensor
    target: Tensor
    weight: Tensor
    scale: Tensor
    seen: Seen | None


def make_problem(n_targets: int, n_items: int, width: int, with_seen: bool, seed: int) -> Problem:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    seen = None
    if with_seen:
        # Repeats, and at times the target itself, among what was seen: both must be harmless.
        seen = Seen(
            torch.randint(n_items, (n_targets, 4), generator=generator),
            torch.rand(n_targets, 4, generator=generator) < 0.6,
        )
    return Problem(
        normal(n_targets, width),
        normal(n_items, width),
        torch.randint(n_items, (n_targets,), generator=generator),
        torch.rand(n_targets, generator=generator, dtype=torch.float64) + 0.1,
        torch.tensor(2.5, dtype=torch.float64).requires_grad_(),
        seen,
    )


def value_and_gradients(objective: Callable[..., Tensor], problem: Problem, **more: int) -> list[Tensor]:
    leaves = (problem.user_vec, problem.item_vec, problem.scale)
    loss = objective(
        problem.user_vec, problem.item_vec, problem.target, problem.weight, problem.scale, problem.seen, **more
    )
    return [loss.detach(), *torch.autograd.grad(3.0 * loss, leaves)]


problems = st.builds(
    make_problem, st.integers(1, 7), st.integers(1, 9), st.integers(1, 5), st.booleans(), st.integers(0, 10_000)
)


@given(problem=problems, chunk=st.integers(0, 8), tile=st.integers(0, 10))
@settings(max_examples=100)
def test_the_fused_form_is_the_plain_form(problem: Problem, chunk: int, tile: int) -> None:
    plain = value_and_gradients(full_softmax_plain, problem)
    fused = value_and_gradients(full_softmax, problem, chunk=chunk, tile=tile)
    for found, expected in zip(fused, plain, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-11, rtol=1e-9)


@given(problem=problems, chunk=st.integers(0, 8), tile=st.integers(0, 10), n_stretches=st.integers(1, 3))
@settings(max_examples=60)
def test_the_fused_form_is_the_plain_form_beside_a_trend(
    problem: Problem, chunk: int, tile: int, n_stretches: int
) -> None:
    """Value and all gradients, that of the trend's weight too."""
    drawn = torch.Generator().manual_seed(len(problem.target))
    stretch = torch.randint(n_stretches, (len(problem.target),), generator=drawn)
    worth = torch.rand(n_stretches, len(problem.item_vec), generator=drawn, dtype=torch.float64) * 3
    trend = Trend(stretch, worth, torch.tensor(0.7, dtype=torch.float64, requires_grad=True))
    leaves = (problem.user_vec, problem.item_vec, problem.scale, trend.weight)
    asked = (problem.user_vec, problem.item_vec, problem.target, problem.weight, problem.scale, problem.seen)
    plain = full_softmax_plain(*asked, trend)
    fused = full_softmax(*asked, chunk, tile, trend)
    torch.testing.assert_close(fused, plain, atol=1e-11, rtol=1e-9)
    found, expected = (torch.autograd.grad(3.0 * loss, leaves) for loss in (fused, plain))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize(("chunk", "tile"), [(0, 0), (1, 0), (2, 0), (5, 0), (100, 0), (2, 4), (1, 1), (100, 100)])
@pytest.mark.parametrize("with_seen", [False, True])
def test_its_gradients_are_the_numerical_ones(chunk: int, tile: int, with_seen: bool) -> None:
    problem = make_problem(5, 6, 3, with_seen, seed=1)

    def loss(user_vec: Tensor, item_vec: Tensor, scale: Tensor) -> Tensor:
        return full_softmax(user_vec, item_vec, problem.target, problem.weight, scale, problem.seen, chunk, tile)

    assert torch.autograd.gradcheck(loss, (problem.user_vec, problem.item_vec, problem.scale))


def test_the_plain_form_is_its_formula() -> None:
    problem = make_problem(3, 4, 2, False, seed=2)
    total = torch.zeros((), dtype=torch.float64)
    for p in range(3):
        logits = torch.stack([problem.scale * problem.user_vec[p] @ problem.item_vec[j] for j in range(4)])
        total += problem.weight[p] * (logits.exp().sum().log() - logits[problem.target[p]])
    found = full_softmax_plain(problem.user_vec, problem.item_vec, problem.target, problem.weight, problem.scale, None)
    torch.testing.assert_close(found, total / problem.weight.sum())


@pytest.mark.parametrize("objective", [full_softmax, full_softmax_plain])
def test_seen_items_are_no_candidates_and_get_no_gradient(objective: Callable[..., Tensor]) -> None:
    """Leaving an item out through `seen` is the same as a catalog without it."""
    problem = make_problem(3, 5, 2, False, seed=3)
    target = torch.tensor([0, 1, 3])
    problem.seen = Seen(torch.full((3, 1), 4), torch.ones(3, 1, dtype=torch.bool))
    problem.target = target
    with_seen = value_and_gradients(objective, problem)
    assert (with_seen[2][4] == 0).all()
    smaller = Problem(problem.user_vec, problem.item_vec, target, problem.weight, problem.scale, None)
    smaller.item_vec = problem.item_vec[:4].detach().requires_grad_()
    torch.testing.assert_close(with_seen[0], value_and_gradients(objective, smaller)[0])


@pytest.mark.parametrize("objective", [full_softmax, full_softmax_plain])
def test_a_target_stays_a_candidate_though_it_was_seen(objective: Callable[..., Tensor]) -> None:
    problem = make_problem(1, 4, 2, False, seed=4)
    problem.seen = Seen(torch.tensor([[0, 1, 2, 3]]), torch.ones(1, 4, dtype=torch.bool))
    loss, *gradients = value_and_gradients(objective, problem)
    # The only candidate left is the right one.
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert all(torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-12) for gradient in gradients)


def test_masked_places_of_seen_do_not_count() -> None:
    problem = make_problem(3, 5, 2, False, seed=5)
    expected = value_and_gradients(full_softmax, problem)[0]
    problem.seen = Seen(torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 2, dtype=torch.bool))
    torch.testing.assert_close(value_and_gradients(full_softmax, problem)[0], expected)


def test_a_target_of_no_weight_changes_nothing() -> None:
    problem = make_problem(4, 5, 2, False, seed=6)
    problem.weight[3] = 0.0
    whole = value_and_gradients(full_softmax, problem)
    problem.target, problem.weight = problem.target[:3], problem.weight[:3]
    users = problem.user_vec
    problem.user_vec = users[:3].detach().requires_grad_()
    torch.testing.assert_close(value_and_gradients(full_softmax, problem)[0], whole[0])
    assert (whole[1][3] == 0).all()


@pytest.mark.parametrize("tile", [0, 2])
def test_large_logits_do_not_overflow_in_fp32(tile: int) -> None:
    user, items = torch.full((1, 4), 100.0), torch.randn(6, 4) * 100
    loss = full_softmax(user, items, torch.tensor([2]), torch.ones(1), torch.tensor(100.0), tile=tile)
    assert torch.isfinite(loss)


def test_a_catalog_too_large_for_rows_goes_by_tiles_and_agrees_to_1e_5_in_fp32() -> None:
    """70,000 items: 64 users' logits no longer fit what is kept."""
    problem = make_problem(600, 70_000, 16, True, seed=7)
    for name in ("user_vec", "item_vec", "scale"):
        setattr(problem, name, getattr(problem, name).detach().float().requires_grad_())
    problem.weight = problem.weight.float()
    plain = value_and_gradients(full_softmax_plain, problem)
    for found, expected in zip(value_and_gradients(full_softmax, problem), plain, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-5)
