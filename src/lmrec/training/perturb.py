"""Adversarial training: the loss also where the words' vectors are pushed, within a ball, to where it hurts most.

A shift d_i of each embedding e_i is kept within |d_i| <= radius * |e_i|: `radius` is in units of the embedding's own norm
(of a whole text, for the vectors of its words), so one number means the same for every model.

| kind   | trains on                                              | passes, forward + back | paper                 |
|--------|--------------------------------------------------------|------------------------|-----------------------|
| fgm    | half the loss at e, half at e + one step uphill        | 2 + 2                  | Miyato et al. 2017    |
| pgd    | the loss after `steps` steps uphill from a random start | steps + 1 each        | Madry et al. 2018     |
| freelb | the mean loss over `steps` points on the way uphill    | `steps` each           | Zhu et al. 2020       |
| smart  | the loss at e + weight * the most that answers can move | 2 steps + 3, steps + 2 | Jiang et al. 2020     |

fgm: https://arxiv.org/abs/1605.07725. pgd: https://arxiv.org/abs/1706.06083. freelb: https://arxiv.org/abs/1909.11764.
smart: https://arxiv.org/abs/1911.03437, its smoothness term; the pull to earlier weights that the paper adds stands by
itself, as `regularisers.l2_sp` and `training.ema`.

These are functions of a loss and of embeddings and know nothing of what is between them. In the first stage of a fit the
embeddings are the items' text vectors, in the second the word embeddings of the language model, of items and of histories that
are read as text (lmrec.training.learner).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

AttackKind = Literal["none", "fgm", "pgd", "freelb", "smart"]
LossAt = Callable[[Tensor], Tensor]  # a shift of the embeddings, of their shape -> a scalar

_DEFAULT_RADIUS: Final = 0.05
_DEFAULT_STEPS: Final = {"none": 0, "fgm": 1, "pgd": 3, "freelb": 3, "smart": 1}
_REACH: Final = 2.0  # all steps together, in radii: from any point of a ball to any other


class AdversarialConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: AttackKind = Field(
        default="none",
        description="What is trained on beside the plain embeddings: the table in lmrec.training.perturb. First stage: "
        "items' text vectors are shifted; second: the language model's word embeddings, of items and of histories that are "
        "read as text, which runs all its layers.",
    )
    radius: float | None = Field(
        default=None, gt=0, description="Largest shift, in units of an embedding's norm. Unset: 0.05."
    )
    steps: int | None = Field(default=None, ge=1, description="Steps uphill. Unset: 3 of pgd and freelb, 1 of smart.")
    weight: float | None = Field(default=None, gt=0, description="smart: weight of its term. Unset: 1.")

    @property
    def ball_radius(self) -> float:
        return _DEFAULT_RADIUS if self.radius is None else self.radius

    @property
    def n_steps(self) -> int:
        return _DEFAULT_STEPS[self.kind] if self.steps is None else self.steps

    @property
    def drift_weight(self) -> float:
        return 1.0 if self.weight is None else self.weight


@dataclass(frozen=True)
class Ball:
    """How far each of N embeddings may be shifted: radius (N, 1, ...). mask: 1 where a number of it is real, else 0."""

    radius: Tensor
    mask: Tensor

    @classmethod
    def around(cls, embedded: Tensor, radius: float, mask: Tensor | None = None) -> "Ball":
        """embedded: (N, ...); mask of a shape that spreads to it, None: all of it is real."""
        mask = torch.ones_like(embedded) if mask is None else mask.to(embedded.dtype).expand_as(embedded)
        return cls(radius * _norm(embedded * mask), mask)

    def random(self, rng: np.random.Generator) -> Tensor:
        """Shifts of random direction and of a random length up to the radius."""
        towards = torch.from_numpy(rng.standard_normal(self.mask.shape, np.float32)).to(self.mask) * self.mask
        length = torch.from_numpy(rng.random(len(towards), np.float32)).to(self.mask).view_as(self.radius)
        return self._long(towards, length)

    def uphill(self, shift: Tensor, gradient: Tensor | None, share: float) -> Tensor:
        """One step of `share` radii along each gradient, and back to the ball where it leads out."""
        if gradient is None:
            return shift.detach()
        moved = shift.detach() + self._long(gradient * self.mask, share)
        return moved * (self.radius / _norm(moved)).clamp(max=1.0)

    def _long(self, towards: Tensor, share: Tensor | float) -> Tensor:
        return towards / _norm(towards) * self.radius * share


def adversarial_losses(
    config: AdversarialConfig, ball: Ball, loss_at: LossAt, drift_at: LossAt, rng: np.random.Generator
) -> Iterator[Tensor]:
    """Scalars whose gradients add up to those of the adversarial loss. Call backward on each before the next is taken: a
    step uphill takes the gradient that this leaves at the shift, and is free.

    loss_at: the loss under a shift, the same function each time (so with the same dropout). drift_at: how far the answers
    move under it, which only smart asks.
    """
    n_steps = config.n_steps
    match config.kind:
        case "none":
            yield loss_at(torch.zeros_like(ball.mask))
        case "fgm":
            shift = _leaf(torch.zeros_like(ball.mask))
            yield loss_at(shift) / 2
            yield loss_at(ball.uphill(shift, shift.grad, 1.0)) / 2
        case "pgd":
            yield loss_at(climb(ball, loss_at, ball.random(rng), n_steps))
        case "freelb":
            shift = ball.random(rng)
            for _ in range(n_steps):
                shift = _leaf(shift)
                yield loss_at(shift) / n_steps
                shift = ball.uphill(shift, shift.grad, _REACH / n_steps)
        case "smart":
            yield loss_at(torch.zeros_like(ball.mask))
            start = 1e-2 * ball.random(rng)  # where nothing has moved there is no way uphill
            yield config.drift_weight * drift_at(climb(ball, drift_at, start, n_steps))


def climb(ball: Ball, loss_at: LossAt, start: Tensor, n_steps: int) -> Tensor:
    """The shift after `n_steps` steps uphill; weights get no gradient."""
    shift = start
    for _ in range(n_steps):
        shift = _leaf(shift)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss_at(shift), shift)
        shift = ball.uphill(shift, gradient, _REACH / n_steps)
    return shift.detach()


def _leaf(shift: Tensor) -> Tensor:
    return shift.detach().clone().requires_grad_(True)


def _norm(values: Tensor) -> Tensor:
    """(N, ...) -> (N, 1, ...) the length of each row, never zero."""
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1).clamp(min=1e-12)
    return norms.view(-1, *([1] * (values.dim() - 1)))
