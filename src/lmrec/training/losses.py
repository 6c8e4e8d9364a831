"""The objective as a recipe chooses it: over the whole catalog or over drawn negatives, with what was shown or without."""

from dataclasses import replace
from typing import Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from lmrec.fields import BoolArray, IntArray
from lmrec.training.catalog_softmax import full_softmax
from lmrec.training.objectives import (
    Asked,
    full_divergence,
    sampled_logits,
    sampled_softmax,
    shown_softmax,
    smoothing_gap,
    symmetric_kl,
)
from lmrec.training.samplers import Sampler, SamplerConfig, ShownSampler, build_sampler


class AuxiliaryConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    column: str | None = Field(
        default=None,
        description="A column of the catalog whose value for the next item the user vector must also foretell, such as a "
        "category or genre; of several values between commas or bars the first that fewer than nine in ten items have.",
    )
    weight: float = Field(
        default=0.1, gt=0, description="What this second loss (nats a target) counts beside the first."
    )
    min_items: int = Field(default=5, ge=1, description="Values of fewer items are nobody's category.")


class ObjectiveConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["auto", "full", "sampled"] = Field(
        default="auto",
        description="full: softmax over the whole catalog; sampled: over drawn negatives, corrected for how they were "
        "drawn; auto: full up to objective.max_full_items items, sampled above.",
    )
    candidates: Literal["chosen", "all"] = Field(
        default="chosen",
        description="chosen: only items with a training event stand in the softmax, for whoever stands there without ever "
        "being right is learnt to be wrong, which buries new items; all: the whole catalog.",
    )
    max_full_items: int = Field(default=200_000, ge=1, description="auto: the largest catalog of the full softmax.")
    sampler: SamplerConfig = Field(
        default=SamplerConfig(), description="sampled: kind, n_negatives, exponent, uniform_share, n_queries."
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the right answer that is spread evenly over all candidates of the softmax.",
    )
    auxiliary: AuxiliaryConfig = AuxiliaryConfig()
    trend_half_life_days: float = Field(
        default=0.0,
        ge=0,
        description="Half-life of a popularity that stands beside every score while training, as it was at each event's time, "
        "with a weight that is learnt; the towers learn the rest (lmrec.training.trend). For logs whose fashions come and go; "
        "inf: popularity of all times, all that a log without times can say; 0: none. What is served needs fusion.popularity.",
    )
    shown: float = Field(
        default=0.0,
        ge=0,
        description="Weight of a second loss, for clicks in lists that were shown: the click against what was shown beside "
        "it. Needs impressions.",
    )
    shown_negatives: int | None = Field(
        default=None, ge=1, description="Draws from each such list; unset: all of it that was not clicked."
    )

    def samples(self, n_items: int) -> bool:
        """Whether negatives are drawn for a catalog of this size."""
        return self.kind == "sampled" or (self.kind == "auto" and n_items > self.max_full_items)


class Objective(Protocol):
    """From what was asked to a loss, in nats a target."""

    def __call__(self, asked: Asked, rng: np.random.Generator) -> Tensor: ...

    def divergence(self, one: Asked, other: Asked, rng: np.random.Generator) -> Tensor:
        """KL both ways between the softmaxes of two passes over the same questions, in nats a target."""
        ...


class FullSoftmax:
    """`catalog_softmax.full_softmax`: nothing is drawn."""

    def __call__(self, asked: Asked, rng: np.random.Generator) -> Tensor:
        vectors = asked.user_vec, asked.item_vec
        return full_softmax(*vectors, asked.target, asked.weight, asked.scale, asked.seen, trend=asked.trend)

    def divergence(self, one: Asked, other: Asked, rng: np.random.Generator) -> Tensor:
        return full_divergence(one, other)


class SampledSoftmax:
    """`objectives.sampled_softmax` over what a sampler draws for each batch."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def __call__(self, asked: Asked, rng: np.random.Generator) -> Tensor:
        return sampled_softmax(asked, self.sampler.draw(asked, rng))

    def divergence(self, one: Asked, other: Asked, rng: np.random.Generator) -> Tensor:
        drawn = self.sampler.draw(one, rng)
        return symmetric_kl(sampled_logits(one, drawn), sampled_logits(other, drawn), one.weight)


class Smoothed:
    """Another softmax with a share of the right answer spread over all candidates: `objectives.smoothing_gap`."""

    def __init__(self, rest: Objective, share: float) -> None:
        self.rest, self.share = rest, share

    def __call__(self, asked: Asked, rng: np.random.Generator) -> Tensor:
        return self.rest(asked, rng) + self.share * smoothing_gap(asked)

    def divergence(self, one: Asked, other: Asked, rng: np.random.Generator) -> Tensor:
        return self.rest.divergence(one, other, rng)


class AmongChosen:
    """Another objective in a catalog of only those items that are `chosen` (N,) at least once in training.

    An item without events is never a target, so as a candidate it would only ever be pushed away from every user, and with
    it the words that it stands for. Targets and histories must be chosen items.
    """

    def __init__(self, rest: Objective, chosen: BoolArray) -> None:
        self.rest = rest
        self.rows = torch.from_numpy(np.flatnonzero(chosen))
        self.place = torch.from_numpy(np.maximum(np.cumsum(chosen) - 1, 0))  # where not chosen: any, it is not asked

    def __call__(self, asked: Asked, rng: np.random.Generator) -> Tensor:
        return self.rest(self._among(asked), rng)

    def divergence(self, one: Asked, other: Asked, rng: np.random.Generator) -> Tensor:
        return self.rest.divergence(self._among(one), self._among(other), rng)

    def _among(self, asked: Asked) -> Asked:
        device = asked.item_vec.device
        place, rows = self.place.to(device), self.rows.to(device)
        seen = replace(asked.seen, item_idx=place[asked.seen.item_idx]) if asked.seen is not None else None
        return replace(
            asked,
            item_vec=asked.item_vec[rows],
            target=place[asked.target],
            seen=seen,
            shown=None,
            trend=None if asked.trend is None else asked.trend.among(rows),
        )


class WithShown:
    """Another objective plus `weight` times `objectives.shown_softmax`."""

    def __init__(self, rest: Objective, weight: float, n_negatives: int | None) -> None:
        self.rest, self.weight, self.sampler = rest, weight, ShownSampler(n_negatives)

    def __call__(self, asked: Asked, rng: np.random.Generator) -> Tensor:
        loss = self.rest(asked, rng)
        if asked.shown is None:
            return loss
        return loss + self.weight * shown_softmax(asked, *self.sampler.draw(asked.shown, rng))

    def divergence(self, one: Asked, other: Asked, rng: np.random.Generator) -> Tensor:
        return self.rest.divergence(one, other, rng)


def build_objective(config: ObjectiveConfig, item_counts: IntArray) -> Objective:
    """item_counts: (N,) training events of each item."""
    chosen = np.asarray(item_counts > 0)
    among = config.candidates == "chosen" and not chosen.all()
    counts = item_counts[chosen] if among else item_counts
    objective: Objective = FullSoftmax()
    if config.samples(len(counts)):
        objective = SampledSoftmax(build_sampler(config.sampler, counts))
    if config.label_smoothing:
        objective = Smoothed(objective, config.label_smoothing)
    if among:
        objective = AmongChosen(objective, chosen)
    return WithShown(objective, config.shown, config.shown_negatives) if config.shown else objective
