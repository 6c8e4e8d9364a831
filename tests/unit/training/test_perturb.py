"""Attacks on embeddings: inside their ball, uphill, and of use: trained against, they hurt less on held-out pairs."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from lmrec.models.encoder import pad_tokens
from lmrec.training.batches import TrainBatch
from lmrec.training.learner import Learner
from lmrec.training.perturb import AdversarialConfig, Ball, adversarial_losses, climb

Batches = Callable[[int, int], list[TrainBatch]]
KINDS = ("fgm", "pgd", "freelb", "smart")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_shifts_stay_inside_the_ball_in_units_of_each_embeddings_norm_and_off_the_padding() -> None:
    embedded = torch.randn(4, 3, 5) * torch.tensor([1.0, 10.0, 0.1, 3.0]).view(4, 1, 1)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0]]).unsqueeze(-1)
    ball = Ball.around(embedded, 0.2, mask)
    real = (embedded * mask).flatten(1).norm(dim=1)
    torch.testing.assert_close(ball.radius.flatten(), 0.2 * real)
    shift = ball.random(rng())
    for _ in range(5):
        shift = ball.uphill(shift, torch.randn(4, 3, 5), 0.7)
        assert (shift.flatten(1).norm(dim=1) <= 0.2001 * real).all()
        assert (shift * (1 - mask) == 0).all()


def test_the_climb_finds_the_top_of_a_slope() -> None:
    """On a plane the worst shift is the radius along the gradient, and one step of fgm is there."""
    slope = torch.tensor([[3.0, 4.0], [0.0, -2.0]])
    ball = Ball.around(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), 0.5)
    worst = torch.tensor([[0.3, 0.4], [0.0, -1.0]])

    def loss_at(shift: Tensor) -> Tensor:
        return (slope * shift).sum()

    torch.testing.assert_close(climb(ball, loss_at, ball.random(rng()), 8), worst, atol=0.1, rtol=0)
    torch.testing.assert_close(ball.uphill(torch.zeros(2, 2), slope, 1.0), worst)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_all_that_is_yielded_are_those_of_the_loss_at_the_shifts(kind: str) -> None:
    """With a quadratic loss and one weight; the shifts are recorded and the loss is written out beside them."""
    weight = torch.tensor(1.5, requires_grad=True)
    embedded, shifts = torch.tensor([[1.0, 2.0]]), list[Tensor]()

    def loss_at(shift: Tensor) -> Tensor:
        shifts.append(shift.detach().clone())
        return (weight * (embedded + shift)).square().sum()

    config = AdversarialConfig.model_validate({"kind": kind, "radius": 0.1})
    ball = Ball.around(embedded, config.ball_radius)
    n_yielded = 0
    for loss in adversarial_losses(config, ball, loss_at, lambda shift: (weight * shift).square().sum(), rng()):
        torch.autograd.backward(loss)
        n_yielded += 1
    used = {"fgm": shifts, "pgd": shifts[-1:], "freelb": shifts, "smart": shifts[:1]}[kind]
    plain = sum(float(2 * 1.5 * (embedded + shift).square().sum()) for shift in used) / len(used)
    assert weight.grad is not None
    extra = float(weight.grad) - plain
    if kind == "smart":
        assert extra == pytest.approx(
            2 * 1.5 * ball.radius.item() ** 2, rel=1e-3
        )  # the drift's climb ends on the surface
    else:
        assert extra == pytest.approx(0.0, abs=1e-5)
    assert n_yielded == {"fgm": 2, "pgd": 1, "freelb": 3, "smart": 2}[kind]
    assert max(float(shift.norm()) for shift in shifts) <= ball.radius.item() * 1.0001


def steps(learner: Learner, batches: Iterator[TrainBatch], rate: float) -> None:
    """Plain training of what the regime trains."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=rate, weight_decay=0.0)
    for number, batch in enumerate(batches):
        draw = np.random.default_rng(number)
        for loss in learner.losses(batch, draw):
            torch.autograd.backward(loss)
        if learner.regime == "tuned":
            for surrogate in learner.pass_on(draw):
                torch.autograd.backward(surrogate)
        optimizer.step()
        optimizer.zero_grad()
    learner.eval()


def held_out(batches: list[TrainBatch]) -> tuple[list[TrainBatch], list[TrainBatch]]:
    """A third of the batches, so of the users' windows, are never trained on."""
    return batches[: 2 * len(batches) // 3], batches[2 * len(batches) // 3 :]


CHANCE = float(np.log(32))  # the loss of a model that knows nothing is no defence


@pytest.mark.parametrize("kind", KINDS)
def test_training_under_attack_lowers_the_loss_under_attack_on_held_out_pairs(
    kind: str, make_learner: Callable[..., Learner], world_batches: Batches
) -> None:
    seen, unseen = held_out(world_batches(0, 0))
    attack, found = AdversarialConfig(kind="pgd", radius=0.05, steps=5), dict[str, float]()
    for chosen in ("none", kind):
        learner = make_learner(dropout=0.0)
        learner.adversarial = AdversarialConfig.model_validate({"kind": chosen})
        steps(learner, (batch for _ in range(10) for batch in seen), 1e-2)
        found[chosen] = float(np.mean([learner.attacked_loss(batch, rng(), attack) for batch in unseen]))
    assert found[kind] < found["none"] - 0.15, found
    assert found[kind] < CHANCE - 0.1, found


def loss_under_shifted_words(learner: Learner, batch: TrainBatch, radius: float) -> float:
    """The true loss where every item's words are shifted to where it is worst, through the whole language model."""
    encoder, tokens = learner.encoder, learner.tokens
    assert encoder is not None
    assert tokens is not None
    ids, mask = pad_tokens(tokens)
    words = encoder.embed_words(ids).detach()
    ball = Ball.around(words, radius, mask.unsqueeze(-1))

    def loss_at(shift: Tensor) -> Tensor:
        return learner._loss(batch, rng(), encoder(ids, mask, words + shift))

    return float(loss_at(climb(ball, loss_at, ball.random(rng()), 5)).detach())


@pytest.mark.parametrize("kind", KINDS)
def test_so_it_does_on_the_words_of_a_language_model_that_learns(
    kind: str, make_learner: Callable[..., Learner], world_batches: Batches
) -> None:
    seen, unseen = held_out(world_batches(0, 0))
    found = {}
    for chosen in ("none", kind):
        learner = make_learner(dropout=0.0, train="all", max_encoded_items=32)
        steps(learner, (batch for _ in range(5) for batch in seen), 1e-2)  # towers that know something
        radius = None if chosen == "none" else 0.03
        learner.adversarial = AdversarialConfig.model_validate({"kind": chosen, "radius": radius})
        learner.regime = "tuned"
        learner.train()
        steps(learner, (batch for _ in range(4) for batch in seen), 1e-3)
        learner.refresh()
        found[chosen] = float(np.mean([loss_under_shifted_words(learner, batch, 0.03) for batch in unseen]))
    assert found[kind] < found["none"] - 0.05, found
    assert found[kind] < CHANCE, found
