"""The exponential moving average of weights: steadier than the last step's, at the price of a copy of what trains.

    average <- d_n average + (1 - d_n) weights,    d_n = min(decay, (1 + n) / (10 + n)) after the n-th step

The early decays are lower, so that the average leaves the first weights behind (as in TensorFlow's
ExponentialMovingAverage). Source: Polyak & Juditsky 1992, https://doi.org/10.1137/0330046; for what it does to networks
Izmailov et al. 2018, https://arxiv.org/abs/1803.05407.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


def average_decay(decay: float, n_steps: int) -> float:
    """The share of the average that stays at step `n_steps` (from 1).

    >>> [round(average_decay(0.99, n), 3) for n in (1, 10, 10_000)]
    [0.182, 0.55, 0.99]
    """
    return min(decay, (1 + n_steps) / (10 + n_steps))


@torch.no_grad()
def average_in(average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float) -> None:
    """Move each of the averages towards the weight of its name, in place."""
    kept = list(average.values())
    torch._foreach_lerp_(kept, [weights[name].detach() for name in average], 1.0 - decay)
