"""Negatives: which items stand against a target where the whole catalog is too many, each with its log-probability.

Draws are with replacement, so that the sum over the catalog is estimated without bias (`objectives.sampled_softmax`):

    E[ 1/M sum_m exp(s_{j_m}) / q_{j_m} ] = sum_{j: q_j > 0} exp(s_j)

| kind       | q                                             | good for                                              |
|------------|-----------------------------------------------|-------------------------------------------------------|
| uniform    | 1 / N                                         | the plainest; needs many draws                        |
| popularity | (events + 1)^a                                | popular items are the likely mistakes (word2vec: .75) |
| in_batch   | events: the batch's other targets             | costs no extra item; never asks items without events  |
| mixed      | a share of in_batch, the rest uniform         | in_batch, but rare items get their say (Yang 2020)    |
| hard       | what some users of the batch score highly now | fewest draws for the same accuracy; costs a few rows  |
| shown      | what was shown beside a click, not clicked    | impressions; a softmax over the list (`ShownSampler`) |

Items without events are drawn only where `objective.candidates` is "all"; else (`losses.AmongChosen`) none is asked.
"""

from typing import Annotated, Final, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from lmrec.fields import FloatArray, IntArray
from lmrec.training.objectives import Asked, DrawnNegatives, Shown

SamplerKind = Literal["uniform", "popularity", "in_batch", "mixed", "hard"]
_FLOOR: Final = 0.05  # share of uniform draws that keeps every item possible where scores decide


class SamplerConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: SamplerKind = Field(
        default="mixed", description="How negatives are drawn: the table in lmrec.training.samplers."
    )
    n_negatives: int = Field(
        default=512, ge=1, description="Draws, with replacement, shared by all targets of a batch."
    )
    exponent: float = Field(default=0.75, ge=0, description="popularity: the power of an item's number of events.")
    uniform_share: Annotated[
        float, Field(gt=0, lt=1, description="mixed: the share of draws that are uniform over the catalog.")
    ] = 0.5
    n_queries: int = Field(default=16, ge=1, description="hard: targets of the batch whose scores make the draws.")


class Sampler(Protocol):
    """Draws negatives for the targets of a batch; `log_q` of what it draws is exact."""

    def draw(self, asked: Asked, rng: np.random.Generator) -> DrawnNegatives: ...


class FixedSampler:
    """Items drawn by one distribution that never changes: uniform, or powers of popularity."""

    def __init__(self, weight: FloatArray, n_negatives: int) -> None:
        self.log_q, self.n_negatives = np.log(weight / weight.sum()), n_negatives
        self._edges = np.cumsum(weight / weight.sum())

    def draw_items(self, n: int, rng: np.random.Generator) -> IntArray:
        """(n,) items, with replacement."""
        return draw_from(self._edges, n, rng)

    def draw(self, asked: Asked, rng: np.random.Generator) -> DrawnNegatives:
        items = self.draw_items(self.n_negatives, rng)
        return collect(items, np.log(self.n_negatives) + self.log_q[items], asked)


class InBatchSampler:
    """The batch's own targets, which come as often as their events do: q = events of the item / all events.

    That is exact where targets of a batch are independent draws from the log; users' windows are so only nearly. A target
    never stands against itself, so of P targets P - 1 are draws. Source of the correction: Yi et al. 2019,
    https://doi.org/10.1145/3298689.3346996.
    """

    def __init__(self, item_counts: IntArray, n_negatives: int) -> None:
        with np.errstate(divide="ignore"):
            self.log_q = np.log(item_counts / max(1, item_counts.sum()))
        self.n_negatives = n_negatives

    def draw(self, asked: Asked, rng: np.random.Generator) -> DrawnNegatives:
        items, n_draws = self.take(asked, rng)
        return collect(items, np.log(n_draws) + self.log_q[items], asked)

    def take(self, asked: Asked, rng: np.random.Generator) -> tuple[IntArray, float]:
        """Items of the batch, at most n_negatives, and how many independent draws they are to each target."""
        targets = asked.target.cpu().numpy()
        n = min(len(targets), self.n_negatives)
        items = targets if n == len(targets) else rng.choice(targets, n, replace=False)
        return items, n * max(len(targets) - 1, 1) / len(targets)


class MixedSampler:
    """Some from the batch, the others uniform, each weighed by how often both together draw it.

    Source: Yang et al. 2020, mixed negative sampling, https://doi.org/10.1145/3366424.3386195. Fixed shares weighed by the
    mixture are the balance heuristic of Veach & Guibas 1995: unbiased, and of less variance than a mixture drawn at random.
    """

    def __init__(self, item_counts: IntArray, n_negatives: int, uniform_share: float) -> None:
        self.n_uniform = max(1, round(n_negatives * uniform_share))
        self.in_batch = InBatchSampler(item_counts, max(1, n_negatives - self.n_uniform))

    def draw(self, asked: Asked, rng: np.random.Generator) -> DrawnNegatives:
        n_items = len(asked.item_vec)
        ours, n_draws = self.in_batch.take(asked, rng)
        items = np.concatenate([ours, rng.integers(0, n_items, self.n_uniform)])
        expected = np.logaddexp(np.log(n_draws) + self.in_batch.log_q[items], np.log(self.n_uniform / n_items))
        return collect(items, expected, asked)


class HardSampler:
    """Items that the model of this moment scores highly for some of the batch's users, with a floor for all others.

    q is the mean of the softmax of `n_queries` random targets over the whole catalog: near the distribution that needs the
    fewest draws, which is the softmax itself (Bengio & Senecal 2008, https://doi.org/10.1109/TNN.2007.912312).
    """

    def __init__(self, n_negatives: int, n_queries: int) -> None:
        self.n_negatives, self.n_queries = n_negatives, n_queries

    @torch.no_grad()
    def draw(self, asked: Asked, rng: np.random.Generator) -> DrawnNegatives:
        n_targets, n_items = len(asked.target), len(asked.item_vec)
        chosen = torch.from_numpy(rng.choice(n_targets, min(self.n_queries, n_targets), replace=False))
        chosen = chosen.to(asked.user_vec.device)
        logits = asked.scale * asked.user_vec[chosen] @ asked.item_vec.T
        if asked.trend is not None:
            logits = logits + asked.trend.weight * asked.trend.take(chosen).worths()
        scored = logits.softmax(1).mean(0).double().cpu().numpy()
        q = (1 - _FLOOR) * scored / scored.sum() + _FLOOR / n_items
        items = draw_from(np.cumsum(q), self.n_negatives, rng)
        return collect(items, np.log(self.n_negatives) + np.log(q[items]), asked)


class ShownSampler:
    """For each target that was clicked in a list, candidates of that list which were not: q = 1 / how many there were.

    The softmax is over the list, not the catalog. n_negatives: draws a target; None takes every candidate once.
    """

    def __init__(self, n_negatives: int | None) -> None:
        self.n_negatives = n_negatives

    def draw(self, shown: Shown, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """(T, K) items and (T, K) their log(expected times drawn), -inf where a target has no (more) of them."""
        n_shown = shown.mask.sum(1, keepdim=True)  # (T, 1)
        if self.n_negatives is None:
            return shown.item_idx, torch.zeros(shown.mask.shape, device=n_shown.device).masked_fill(
                ~shown.mask, -torch.inf
            )
        steps = torch.from_numpy(rng.random((len(n_shown), self.n_negatives))).to(n_shown.device)
        places = (steps * n_shown).long().clamp(max=shown.item_idx.shape[1] - 1)
        expected = np.log(self.n_negatives) - n_shown.clamp(min=1).log().float()
        log_times = expected.expand(-1, self.n_negatives).masked_fill(n_shown == 0, -torch.inf)
        return shown.item_idx.gather(1, places), log_times


def build_sampler(config: SamplerConfig, item_counts: IntArray) -> Sampler:
    """item_counts: (N,) training events of each item."""
    match config.kind:
        case "uniform":
            return FixedSampler(np.ones(len(item_counts)), config.n_negatives)
        case "popularity":
            return FixedSampler((item_counts + 1.0) ** config.exponent, config.n_negatives)
        case "in_batch":
            return InBatchSampler(item_counts, config.n_negatives)
        case "mixed":
            return MixedSampler(item_counts, config.n_negatives, config.uniform_share)
        case "hard":
            return HardSampler(config.n_negatives, config.n_queries)


def draw_from(edges: FloatArray, n: int, rng: np.random.Generator) -> IntArray:
    """(n,) rows drawn with replacement; `edges` (N,) are the running sums of their probabilities.

    >>> set(draw_from(np.array([0.0, 0.5, 0.5, 1.0]), 100, np.random.default_rng(0)).tolist())
    {1, 3}
    """
    rows: IntArray = np.searchsorted(edges, rng.random(n) * edges[-1], side="right")
    return np.minimum(rows, len(edges) - 1)


def collect(items: IntArray, log_expected: FloatArray, asked: Asked) -> DrawnNegatives:
    """Draws (M,) as different items, given the log of how often each was to be expected, on the targets' device."""
    rows, first, times = np.unique(items, return_index=True, return_counts=True)
    log_times = log_expected[first] - np.log(times)
    device = asked.target.device
    return DrawnNegatives(
        torch.from_numpy(rows.astype(np.int64)).to(device), torch.from_numpy(log_times).to(device, asked.user_vec.dtype)
    )
