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


def all_gradients(learner: Learner, batch: TrainBatch) -> dict[str, Tensor]:
    """Of one step's losses, those that reach the cache on the side among them."""
    learner.zero_grad()
    learner.text_grad.zero_()
    torch.manual_seed(0)
    for loss in learner.losses(batch, rng()):
        torch.autograd.backward(loss)
    found = {name: p.grad.clone() for name, p in learner.named_parameters() if p.grad is not None}
    return {**found, "text_grad": learner.text_grad.clone()}


def text_learner(make_learner: Callable[..., Learner], kind: str, radius: float, **choices: float) -> Learner:
    """Of histories that are read as text, in the second stage."""
    learner = make_learner("text", train="all", max_encoded_items=32, **choices)
    learner.adversarial = AdversarialConfig.model_validate({"kind": kind, "radius": None if kind == "none" else radius})
    learner.regime = "tuned"
    return learner.train()


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_histories_are_shifted_too_and_next_to_no_shift_is_none(
    kind: str, make_learner: Callable[..., Learner], world_batches: Batches
) -> None:
    """Every part gets the gradient of one loss, with the same dropout in all passes; also where they take several."""
    batch = world_batches(0, 0)[0]
    plain = all_gradients(text_learner(make_learner, "none", 0.0), batch)
    for n_tokens in (4096, 300):
        found = {}
        for radius in (1e-9, 0.2):
            learner = text_learner(make_learner, kind, radius)
            learner.encoder_config = learner.encoder_config.model_copy(update={"batch_tokens": n_tokens})
            found[radius] = all_gradients(learner, batch)
        assert plain.keys() == found[1e-9].keys() == found[0.2].keys()
        name = "encoder.backbone.embeddings.word_embeddings.weight"
        assert plain[name].abs().sum() > 0
        assert not torch.allclose(found[0.2][name], plain[name], atol=1e-3, rtol=1e-2)
        if n_tokens == 4096:  # read in several passes, other words are dropped
            for part, expected in plain.items():
                torch.testing.assert_close(found[1e-9][part], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_shifts_of_histories_go_uphill_in_the_loss(
    kind: str, make_learner: Callable[..., Learner], world_batches: Batches
) -> None:
    batch, told = world_batches(0, 0)[0], dict[str, list[float]]()
    for chosen in ("none", kind):
        learner, told[chosen] = text_learner(make_learner, chosen, 0.3, dropout=0.0), []
        for loss in learner.losses(batch, rng()):
            torch.autograd.backward(loss)
            told[chosen].append(float(loss.detach()))
    (plain,) = told["none"]
    first, *later = told[kind]
    match kind:
        case "fgm":
            assert 2 * first == pytest.approx(plain, abs=1e-5)
            assert 2 * later[0] > plain + 0.1
        case "pgd":
            assert first > plain + 0.1
        case "freelb":
            assert first < later[0] < later[1]
            assert 3 * later[1] > plain + 0.1
        case _:
            assert first == pytest.approx(plain, abs=1e-5)
            assert later[0] > 0.1


def test_word_embeddings_learn_where_their_shifts_are_trained_on(
    make_learner: Callable[..., Learner], world_batches: Batches
) -> None:
    learner = make_learner(dropout=0.0, train="all")
    learner.adversarial, learner.regime = AdversarialConfig(kind="fgm"), "tuned"
    torch.autograd.backward(learner.train()(world_batches(0, 0)[0], rng()))
    for surrogate in learner.pass_on(rng()):
        torch.autograd.backward(surrogate)
    assert learner.encoder is not None
    learnt = learner.encoder.backbone.get_input_embeddings().weight.grad  # type: ignore[operator]
    assert learnt is not None
    assert learnt.abs().sum() > 0
