"""What every user model owes: training on all prefixes in one pass is honest only if exactly this holds."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lmrec.errors import RecipeError
from lmrec.models.user_model import Kind, UserModelConfig, build_user_model, last_state

B, H, D = 4, 6, 8
LENGTHS = torch.tensor([6, 0, 3, 1])
MASK = torch.arange(H) < LENGTHS.unsqueeze(1)
KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "text")


def build(kind: Kind, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    model = build_user_model(D, UserModelConfig(kind=kind, heads=2, layers=2, max_history=H, dropout=dropout))
    assert model is not None
    return model


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    found = build(request.param).eval()
    # Learnt biases begin at zero; give them values, so that what they do is tested too.
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return found


@pytest.fixture
def history() -> Tensor:
    return torch.randn(B, H, D, generator=torch.Generator().manual_seed(1)) * MASK.unsqueeze(-1)


def test_a_state_for_every_prefix(model: nn.Module, history: Tensor) -> None:
    states = model(history, MASK)
    assert states.shape == (B, H + 1, D)
    assert torch.isfinite(states).all()


def test_the_final_state_is_the_last_of_all_states(model: nn.Module, history: Tensor) -> None:
    expected = last_state(model(history, MASK), MASK)
    torch.testing.assert_close(model.final(history, MASK), expected)  # type: ignore[operator]


@given(place=st.integers(0, H), seed=st.integers(0, 20))
@settings(max_examples=15)
@pytest.mark.parametrize("kind", KINDS)
def test_the_future_does_not_change_the_past(kind: Kind, place: int, seed: int) -> None:
    """State p is the same whatever stands from place p on, real or padding."""
    model = build(kind).eval()
    generator = torch.Generator().manual_seed(seed)
    history, full = torch.randn(B, H, D, generator=generator), torch.ones(B, H, dtype=torch.bool)
    other, shorter = history.clone(), full.clone()
    other[:, place:] = 100.0 * torch.randn(B, H - place, D, generator=generator)
    shorter[:, place:] = False
    states = model(history, full)[:, : place + 1]
    torch.testing.assert_close(model(other, full)[:, : place + 1], states, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(other, shorter)[:, : place + 1], states, atol=1e-5, rtol=1e-5)


def test_the_state_after_an_item_does_depend_on_it(model: nn.Module, history: Tensor) -> None:
    other = history.clone()
    other[0, 2] = torch.randn(D, generator=torch.Generator().manual_seed(2))
    changed = (model(other, MASK)[0] - model(history, MASK)[0]).abs().amax(1) > 1e-4
    assert changed.tolist() == [False] * 3 + [True] * 4


def test_padding_does_not_matter(model: nn.Module, history: Tensor) -> None:
    """Neither what stands in padded places, nor how many there are, changes the last state."""
    expected = last_state(model(history, MASK), MASK)
    rubbish = torch.where(MASK.unsqueeze(-1), history, torch.full_like(history, 50.0))
    torch.testing.assert_close(last_state(model(rubbish, MASK), MASK), expected, atol=1e-5, rtol=1e-5)
    short = model(history[2:3, :3], MASK[2:3, :3])
    torch.testing.assert_close(last_state(short, MASK[2:3, :3]), expected[2:3], atol=1e-5, rtol=1e-5)


def test_an_empty_history_has_one_finite_state_for_all(model: nn.Module, history: Tensor) -> None:
    states = model(history, MASK)
    torch.testing.assert_close(states[:, 0], states[1:2, 0].expand(B, -1), atol=1e-5, rtol=1e-5)
    nothing = model(torch.zeros(2, 0, D), torch.zeros(2, 0, dtype=torch.bool))
    torch.testing.assert_close(nothing, states[1:2, :1].expand(2, -1, -1), atol=1e-5, rtol=1e-5)
    assert nothing.norm(dim=-1).min() > 1e-3  # a newcomer still has a direction to score by


def test_rows_of_a_batch_do_not_meet(model: nn.Module, history: Tensor) -> None:
    together = model(history, MASK)
    for row in range(B):
        alone = model(history[row : row + 1], MASK[row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1], atol=1e-5, rtol=1e-5)


def test_gradients_reach_every_parameter_and_every_item(model: nn.Module) -> None:
    history = torch.randn(B, H, D, requires_grad=True)
    states = model(history, torch.ones(B, H, dtype=torch.bool))
    torch.autograd.backward((states * torch.randn_like(states)).sum())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
    assert history.grad is not None
    assert (history.grad.abs().sum(-1) > 0).all()


def test_gradients_stay_finite_where_histories_are_empty_or_padded(model: nn.Module, history: Tensor) -> None:
    torch.autograd.backward(last_state(model(history, MASK), MASK).square().sum())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_extreme_vectors_give_finite_states(model: nn.Module) -> None:
    for size in (1e-6, 1e4):
        states = model(size * torch.randn(B, H, D), torch.ones(B, H, dtype=torch.bool))
        assert torch.isfinite(states).all()


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_at_work_in_training_only(kind: Kind, history: Tensor) -> None:
    model = build(kind, dropout=0.5)
    full = torch.ones(B, H, dtype=torch.bool)
    history = torch.randn(B, H, D)
    assert not torch.equal(model(history, full), model(history, full))
    model.eval()
    assert torch.equal(model(history, full), model(history, full))


def test_only_the_transformer_sees_the_order() -> None:
    history, full = torch.randn(1, H, D), torch.ones(1, H, dtype=torch.bool)
    flipped = history.flip(1)
    for kind in KINDS:
        model = build(kind).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("distance_bias"):
                    parameter.copy_(torch.randn_like(parameter))
        same = torch.allclose(model(history, full)[:, -1], model(flipped, full)[:, -1], atol=1e-4)
        assert same == (kind != "transformer"), kind


def test_the_means_formula() -> None:
    model = build("mean").eval()
    history = torch.randn(1, 3, D)
    state = model(history, torch.ones(1, 3, dtype=torch.bool))[0, 3]
    torch.testing.assert_close(state, model.output((model.start + history[0].sum(0)) / 4))  # type: ignore[operator]


def test_text_has_no_model_of_its_own() -> None:
    assert build_user_model(D, UserModelConfig(kind="text")) is None


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"user_model.heads is 3 and must divide item.width, which is 8"):
        build_user_model(D, UserModelConfig(kind="transformer", heads=3))
