"""Find a learning rate: the range test, for the towers or for the language model, with its picture."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from lmrec.errors import InputError
from lmrec.evaluation.rate_chart import draw_rates
from lmrec.progress import progress_bar
from lmrec.recipe import Recipe
from lmrec.training.batches import TrainBatch
from lmrec.training.learner import Learner
from lmrec.training.optimizer import build_optimizer, layer_rates, parameter_groups, set_learning_rate
from lmrec.training.rate_finder import RateSweep, check_sweep, sweep_rates
from lmrec.training.trainer import Stage, Trainer, beside_encoder
from lmrec.workflows.prepare import Prepared
from lmrec.workflows.train import batch_source, begin_learning

Part: TypeAlias = Literal["towers", "language-model"]

_KEYS: dict[Part, str] = {"towers": "training.learning_rate", "language-model": "training.encoder_learning_rate"}
_RANGES: dict[Part, tuple[float, float, int]] = {"towers": (1e-5, 1.0, 60), "language-model": (1e-7, 1e-2, 30)}
_FIRST_EPOCHS = 3  # that towers learn before the language model is asked
_PROBES = 4  # batches that the loss is asked of


@dataclass(frozen=True)
class RateFinding:
    """key: the recipe's key that the rate belongs to; current: what the recipe says now."""

    part: Part
    key: str
    current: float
    sweep: RateSweep
    picture: Path | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "key": self.key,
            "suggestion": self.sweep.suggestion,
            "current": self.current,
            "rates": list(self.sweep.rates),
            "losses": list(self.sweep.losses),
            "smoothed": list(self.sweep.smoothed),
            "picture": str(self.picture) if self.picture else None,
        }


def find_rate(
    prepared: Prepared,
    recipe: Recipe,
    part: Part = "towers",
    picture: Path | None = None,
    low: float | None = None,
    high: float | None = None,
    n_steps: int | None = None,
    show: bool = True,
) -> RateFinding:
    """Sweep the rate of one part on the training events; nothing that is learnt is kept.

    The towers start fresh, as a fit's do. The language model is asked after the towers have learnt for some epochs, and
    alone: each of its steps gathers the gradient of as many batches as in a fit. Raises InputError where there is nothing to
    sweep.
    """
    if picture is not None and picture.suffix != ".png":
        raise InputError(f"--out {picture}: the picture is a .png")
    if part == "language-model" and not recipe.tunes:
        raise InputError(
            "this recipe tunes no language model (training.tuned_epochs, encoder.train, item.source): there is no rate to find"
        )
    if part == "towers" and not recipe.training.frozen_epochs:
        raise InputError(
            "this recipe has no first stage (training.frozen_epochs is 0), and training.learning_rate is of no other: there is "
            "no rate to find. In the second stage towers learn at training.tuned_learning_rate"
        )
    first, last, n_usual = _RANGES[part]
    low, high = first if low is None else low, last if high is None else high
    n_steps = n_usual if n_steps is None else n_steps
    check_sweep(low, high, n_steps)
    learner = begin_learning(recipe, prepared, show).learner
    batches = batch_source(recipe, prepared.split.train, prepared.dataset.impressions)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            learner, recipe.training, batches, None, lambda row: None, Path(folder) / "state", "", show=show
        )
        n_first = min(_FIRST_EPOCHS, recipe.training.frozen_epochs) if part == "language-model" else 0
        if n_first:
            trainer.run([Stage("frozen", n_first, recipe.training.learning_rate, 0.0)], resume=False)
    make = tower_step if part == "towers" else encoder_step
    with progress_bar(f"find rate, {part}", show) as bar:
        steps = count(1)
        take = make(learner, recipe, batches)

        def step(rate: float) -> float:
            loss = take(rate)
            bar(next(steps), n_steps)
            return loss

        sweep = sweep_rates(step, low, high, n_steps)
    key = _KEYS[part]
    current: float = getattr(recipe.training, key.removeprefix("training."))
    if picture is not None:
        marks = {"now": current} | ({"suggested": sweep.suggestion} if sweep.suggestion is not None else {})
        curves = {
            "loss": list(zip(sweep.rates, sweep.losses, strict=True)),
            "smoothed": list(zip(sweep.rates, sweep.smoothed, strict=True)),
        }
        draw_rates(curves, picture, "loss, nats a target", marks)
    return RateFinding(part, key, current, sweep, picture)


def tower_step(
    learner: Learner, recipe: Recipe, batches: Callable[[int, int], list[TrainBatch]]
) -> Callable[[float], float]:
    """A step of the first stage at a given rate, and the loss after it."""
    config = recipe.training
    optimizer = build_optimizer(
        config.optimizer,
        parameter_groups([(beside_encoder(learner), 1.0)], config.weight_decay),
        config.momentum,
    )
    learnt, probes = stream(batches, 0), held_back(batches, 0)

    def step(rate: float) -> float:
        learner.train()
        set_learning_rate(optimizer.param_groups, rate)
        for number, batch in enumerate(islice(learnt, config.accumulate)):
            for loss in learner.losses(batch.to(learner.text_vec.device), np.random.default_rng(number)):
                torch.autograd.backward(loss / config.accumulate)
        torch.nn.utils.clip_grad_norm_(beside_encoder(learner), config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return probe_loss(learner, probes)

    return step


def encoder_step(
    learner: Learner, recipe: Recipe, batches: Callable[[int, int], list[TrainBatch]]
) -> Callable[[float], float]:
    """A step of the language model at a given rate, the towers left as they are, and the loss after it."""
    encoder, config = learner.encoder, recipe.training
    assert encoder is not None
    groups = parameter_groups(layer_rates(encoder, 1.0, config.layer_decay), config.weight_decay, encoder.vectors)
    optimizer = build_optimizer(config.optimizer, groups, config.momentum)
    stage = 1 if config.frozen_epochs else 0
    learnt, probes = stream(batches, stage), held_back(batches, stage)
    draws = count()
    # Of the towers' steps; a language model that histories are read with steps each time.
    interval = 1 if learner.towers.user_model is None else config.encoder_interval

    def step(rate: float) -> float:
        learner.train()
        learner.regime = "tuned"
        set_learning_rate(optimizer.param_groups, rate)
        for batch in islice(learnt, interval * config.accumulate):
            for loss in learner.losses(batch.to(learner.text_vec.device), np.random.default_rng(next(draws))):
                torch.autograd.backward(loss / config.accumulate)
        for surrogate in learner.pass_on(np.random.default_rng(next(draws))):
            torch.autograd.backward(surrogate)
        for penalty in learner.penalties():
            torch.autograd.backward(interval * penalty)
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), config.max_grad_norm)
        optimizer.step()
        learner.zero_grad(set_to_none=True)
        learner.refresh()
        return probe_loss(learner, probes)

    return step


def stream(batches: Callable[[int, int], list[TrainBatch]], stage: int) -> Iterator[TrainBatch]:
    """The batches of one epoch after the other, without end."""
    for epoch in count(1):
        yield from batches(stage, epoch)


def held_back(batches: Callable[[int, int], list[TrainBatch]], stage: int) -> list[TrainBatch]:
    """Some batches of an epoch that is never stepped through: its windows are cut and put together in another way."""
    return batches(stage, 0)[:_PROBES]


@torch.no_grad()
def probe_loss(learner: Learner, probes: list[TrainBatch]) -> float:
    """The mean loss without dropout, in nats a target."""
    learner.eval()
    device = learner.text_vec.device
    losses = [float(learner(batch.to(device), np.random.default_rng(number))) for number, batch in enumerate(probes)]
    return float(np.mean(losses))
