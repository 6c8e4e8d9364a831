"""The learning-rate range test: a short training whose rate grows at each step, and where its loss falls fastest.

    rates lr_t = low * (high / low)^(t / (n - 1));   suggestion: where the smoothed loss falls fastest per factor of the rate

Source: Smith 2017, https://arxiv.org/abs/1506.01186, section 3.3; the steepest point as the suggestion is fastai's habit.
The loss is asked of batches that are not stepped on, without dropout, so that a curve of few steps is smooth enough to read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lmrec.errors import InputError
from lmrec.fields import FloatArray

_BLOWN_UP: Final = 2.0  # times the first loss: nothing more is to be learnt from going on
_KEPT: Final = 0.7  # share of the running mean of losses that stays at each step
_FEWEST: Final = 5


@dataclass(frozen=True)
class RateSweep:
    """rates: ascending. losses: after the step of each rate, in nats a target. suggestion: None where none lowers the loss."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float | None

    @property
    def smoothed(self) -> tuple[float, ...]:
        return tuple(smooth_losses(self.losses).tolist())


def sweep_rates(step: Callable[[float], float], low: float, high: float, n_steps: int) -> RateSweep:
    """Take `n_steps` steps of rates from low to high; `step` takes one of a rate and returns the loss after it.

    It ends early where the loss is no number, or twice what it was at first. Raises InputError for a range that is none, and
    where the very first loss is no number.
    """
    check_sweep(low, high, n_steps)
    rates, losses = list[float](), list[float]()
    for rate in np.geomspace(low, high, n_steps).tolist():
        loss = step(rate)
        if not np.isfinite(loss):
            if not rates:
                raise InputError(f"the loss is {loss} after a step at the first rate, {rate:g}. Begin lower (--low)")
            break
        rates.append(rate)
        losses.append(loss)
        if loss > _BLOWN_UP * losses[0]:
            break
    return RateSweep(tuple(rates), tuple(losses), suggest_rate(rates, losses))


def check_sweep(low: float, high: float, n_steps: int) -> None:
    """Raises InputError for rates that cannot be swept."""
    if not 0 < low < high:
        raise InputError(f"rates go from {low:g} to {high:g}: the first must be above 0 and below the last")
    if n_steps < _FEWEST:
        raise InputError(f"{n_steps} steps make no curve: ask for at least {_FEWEST}")


def smooth_losses(losses: Sequence[float]) -> FloatArray:
    """The running mean, exponentially weighted, without the pull to zero of its start.

    >>> smooth_losses([2.0, 2.0, 2.0]).round(3).tolist()
    [2.0, 2.0, 2.0]
    """
    mean, smoothed = 0.0, np.zeros(len(losses))
    for place, loss in enumerate(losses):
        mean = _KEPT * mean + (1 - _KEPT) * loss
        smoothed[place] = mean / (1 - _KEPT ** (place + 1))
    return smoothed


def suggest_rate(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate where the smoothed loss falls fastest, before it is lowest; None where it never falls."""
    if len(rates) < _FEWEST:
        return None
    smoothed = smooth_losses(losses)
    lowest = int(smoothed.argmin())
    if lowest == 0:
        return None
    slope = np.gradient(smoothed, np.log(np.asarray(rates)))[: lowest + 1]
    return float(rates[int(slope.argmin())])
