"""The range test: on a loss whose best rate is known, and on curves that have none."""

import numpy as np
import pytest

from lmrec.errors import InputError
from lmrec.training.rate_finder import suggest_rate, sweep_rates


def descend(curvature: float, start: float = 10.0) -> list[float]:
    """The state of gradient descent on curvature * x^2 / 2; it falls for rates below 2 / curvature and then blows up."""
    return [start, curvature]


@pytest.mark.parametrize("curvature", [0.1, 1.0, 50.0])
def test_the_suggestion_is_below_where_descent_blows_up_and_not_far_below(curvature: float) -> None:
    state = descend(curvature)

    def step(rate: float) -> float:
        state[0] -= rate * curvature * state[0]
        return 1.0 + 0.5 * curvature * state[0] ** 2 / (50 * curvature)

    sweep = sweep_rates(step, 1e-4 / curvature, 1e2 / curvature, 80)
    assert sweep.suggestion is not None
    assert 0.005 < sweep.suggestion * curvature < 2.0
    assert sweep.rates[-1] * curvature < 1e2  # it ended where the loss blew up
    assert len(sweep.rates) == len(sweep.losses) == len(sweep.smoothed)


def test_where_the_loss_only_rises_there_is_no_suggestion() -> None:
    rates = np.geomspace(1e-5, 1, 20).tolist()
    assert suggest_rate(rates, np.linspace(1, 3, 20).tolist()) is None
    assert suggest_rate(rates[:3], [3.0, 2.0, 1.0]) is None


def test_a_loss_that_is_no_number_ends_the_sweep() -> None:
    losses = iter([3.0, 2.9, 2.5, 2.0, 1.5, 1.4, float("nan"), 1.0])
    sweep = sweep_rates(lambda rate: next(losses), 1e-5, 1.0, 8)
    assert sweep.losses == (3.0, 2.9, 2.5, 2.0, 1.5, 1.4)


@pytest.mark.parametrize(("low", "high", "n"), [(0.0, 1.0, 10), (1.0, 0.1, 10), (0.1, 1.0, 2)])
def test_a_range_that_is_none_is_refused(low: float, high: float, n: int) -> None:
    with pytest.raises(InputError):
        sweep_rates(lambda rate: 1.0, low, high, n)
