"""What was in fashion when: a popularity that stands beside the towers' score while they learn, so that they learn the rest.

Where fashions come and go, towers that must explain every choice spend themselves on explaining what was popular that week,
which is of no use a week later. So every item j gets, in the softmax of a target at time t, what the fusion gives it when it
is served,

    score_j(t) = towers_j + w * log(1 + sum over events of j before t of weight * 2^(-age / half_life)),

with w learnt beside the towers. A prior in the logits, after Menon et al. 2020, https://arxiv.org/abs/2007.07314, made to
move with time, after Zhang et al. 2021, https://arxiv.org/abs/2105.06067.
"""

import math
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor, nn

from lmrec.data.interactions import Interactions
from lmrec.errors import RecipeError
from lmrec.fields import TIMESTAMP, FloatArray
from lmrec.models.collaborative import SECONDS_A_DAY
from lmrec.training.losses import Objective
from lmrec.training.objectives import Asked, Trend

_MOST_CELLS: Final = 16_000_000  # stretches x items: 64 MB
_STRETCHES_A_HALF_LIFE: Final = 4
FIRST_WEIGHT: Final = 0.5


@dataclass(frozen=True, eq=False)
class PastPopularity:
    """worth: (M, N) log(1 + faded count) of each item as each of M stretches of time began, from `first_ts` on, each
    `length_s` long; the last row is what holds after the newest event. half_life_days: infinite where nothing fades."""

    worth: FloatArray
    first_ts: float
    length_s: float
    half_life_days: float

    @classmethod
    def of(cls, log: Interactions, n_items: int, half_life_days: float) -> Self:
        """Counts of this log. An item without events is worth the mean of the others: of what is new nothing is known.

        Raises RecipeError for a half-life where the log's times are places in an order.
        """
        if math.isinf(half_life_days):
            counts = np.bincount(log.item_idx, weights=log.weight, minlength=n_items)
            return cls(_worth(counts[np.newaxis].astype(np.float32), log), 0.0, math.inf, half_life_days)
        check_times(log, half_life_days)
        first, last = (float(log.time_ts[0]), float(log.time_ts[-1])) if log.n_events else (0.0, 0.0)
        half_life_s = half_life_days * SECONDS_A_DAY
        longest = max(1, _MOST_CELLS // max(1, n_items) - 1)
        length = max(half_life_s / _STRETCHES_A_HALF_LIFE, (last - first) / longest, 1.0)
        return cls(_worth(_faded(log, n_items, first, length, half_life_s), log), first, length, half_life_days)

    def stretch_of(self, times: Tensor | None, n: int) -> Tensor:
        """(P,) the row of `worth` for each time (P,), UTC seconds; the last where no times are given."""
        if times is None or len(self.worth) == 1:
            device = None if times is None else times.device
            return torch.full((n,), len(self.worth) - 1, dtype=torch.int64, device=device)
        return ((times - self.first_ts) / self.length_s).floor().long().clamp(0, len(self.worth) - 1)

    @property
    def note(self) -> str | None:
        """What to say of stretches that are longer than the half-life: by their ends they are out of date; None where not."""
        days = self.length_s / SECONDS_A_DAY
        if math.isinf(days) or days <= self.half_life_days:
            return None
        return (
            f"objective.trend_half_life_days is {self.half_life_days:g}, and so many items over so long a log allow for what "
            f"was popular each {days:.3g} days alone, which is out of date by then: take a longer half-life, or a shorter log"
        )

    @property
    def now(self) -> FloatArray:
        """(N,) after the newest event."""
        newest: FloatArray = self.worth[-1]
        return newest


def check_times(log: Interactions, half_life_days: float) -> None:
    """Raises RecipeError for a half-life where the log's times are places in an order."""
    if half_life_days and not math.isinf(half_life_days) and log.time_kind != TIMESTAMP:
        raise RecipeError(
            f"objective.trend_half_life_days is {half_life_days:g}, and this log has no times, only an order. Set it to "
            "inf (nothing fades), or to 0 (no trend)"
        )


def _faded(log: Interactions, n_items: int, first_ts: float, length_s: float, half_life_s: float) -> FloatArray:
    """(M, N) the faded counts as each stretch begins, and after the last event."""
    stretch = np.floor((log.time_ts - first_ts) / length_s).astype(np.int64)
    n_stretches = int(stretch.max(initial=0)) + 1
    ends = np.searchsorted(stretch, np.arange(n_stretches + 1))  # events come in time order
    last_ts = float(log.time_ts[-1]) if log.n_events else first_ts
    counts: FloatArray = np.zeros((n_stretches + 1, n_items), np.float32)
    now = np.zeros(n_items)
    for number in range(n_stretches):
        part = slice(ends[number], ends[number + 1])
        start_ts = first_ts + number * length_s
        end_ts = min(start_ts + length_s, last_ts)
        now *= 2.0 ** ((start_ts - end_ts) / half_life_s)
        weight = log.weight[part] * np.exp2((log.time_ts[part] - end_ts) / half_life_s)
        now += np.bincount(log.item_idx[part], weights=weight, minlength=n_items)
        counts[number + 1] = now
    return counts


def _worth(counts: FloatArray, log: Interactions) -> FloatArray:
    """(M, N) of counts (M, N)."""
    worth = np.log1p(counts).astype(np.float32)
    known = np.bincount(log.item_idx, minlength=counts.shape[1]) > 0  # not by what is left: old events fade to nothing
    if known.any() and not known.all():
        worth[:, ~known] = worth[:, known].mean(1, keepdims=True)
    return worth


class WithTrend(nn.Module):
    """Another objective whose scores have the popularity of then beside them, `weight` times."""

    def __init__(self, rest: Objective, past: PastPopularity, weight: float = FIRST_WEIGHT) -> None:
        super().__init__()
        self.rest, self.past = rest, past
        self.worth: Tensor
        self.register_buffer("worth", torch.from_numpy(past.worth), persistent=False)
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, asked: Asked, rng: np.random.Generator) -> Tensor:
        """() in nats a target."""
        loss: Tensor = self.rest(self._with(asked), rng)
        return loss

    def divergence(self, one: Asked, other: Asked, rng: np.random.Generator) -> Tensor:
        return self.rest.divergence(self._with(one), self._with(other), rng)

    def _with(self, asked: Asked) -> Asked:
        stretch = self.past.stretch_of(asked.times, len(asked.target)).to(self.worth.device)
        return replace(asked, trend=Trend(stretch, self.worth, self.weight))


def trend_of(objective: Objective) -> WithTrend | None:
    """The trend that an objective learns with, whatever is wrapped around it; None where there is none."""
    if not isinstance(objective, nn.Module):
        return None
    return next((part for part in objective.modules() if isinstance(part, WithTrend)), None)


def go_on_from(objective: Objective, weight: float) -> Objective:
    """The objective, whose popularity counts what it did when the towers learnt that are taught on; in place."""
    trend = trend_of(objective)
    if trend is not None:
        with torch.no_grad():
            trend.weight.fill_(weight)
    return objective
