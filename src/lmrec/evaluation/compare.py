"""How sure a number is: intervals by redrawing users, and paired differences on the same redraws.

Cases of one user are not independent, so users, not cases, are redrawn (the cluster bootstrap; Field & Welsh 2007). A
replicate draws as many users as there are, with replacement, and takes the mean over all their cases. The draws depend
only on the users and the seed: two systems measured on the same cases are redrawn alike, which is what makes their
difference a paired one.
"""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Final

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from lmrec.errors import InputError
from lmrec.fields import FloatArray, IntArray

LEAST_USERS: Final = 6
"""Of fewer users no difference is clear: that all of them differ in one direction has a chance of 1/16 or more."""
_CELLS_AT_ONCE: Final = 4_000_000  # replicates x users held at a time, 32 MB


@dataclass(frozen=True)
class Difference:
    """How much the first system is above the second: the mean, its interval (of that confidence), and a two-sided bootstrap
    p-value."""

    mean: float
    low: float
    high: float
    p: float
    confidence: float = 0.95

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero and p is small; both know how few users there are."""
        # They say the same, but for the last few redraws; of five users at .95 the least p is 1/16, to the last digit.
        return (self.low > 0.0 or self.high < 0.0) and self.p < 1.25 * (1 - self.confidence) - 1e-9


def bootstrap_interval(
    values: FloatArray, groups: IntArray, n: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The interval of the mean of `values` (B,), redrawing the users named in `groups` (B,): `interval_of`.

    >>> low, high = bootstrap_interval(np.array([0.0, 1.0] * 4), np.arange(8))
    >>> 0.0 <= low < 0.5 < high <= 1.0
    True
    """
    return interval_of(bootstrap_means(values[:, None], groups, n, seed)[:, 0], confidence, len(np.unique(groups)))


def paired_difference(
    a: FloatArray, b: FloatArray, groups: IntArray, n: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Difference:
    """How much `a` (B,) is above `b` (B,) on the same cases, redrawing users.

    >>> paired_difference(np.array([1.0, 1.0]), np.array([0.5, 0.5]), np.array([7, 8])).mean
    0.5
    """
    if len(a) != len(b):
        raise InputError(
            f"A paired difference of {len(a)} and {len(b)} cases; both systems must answer the same cases."
        )
    gaps = a - b
    replicates = bootstrap_means(gaps[:, None], groups, n, seed)[:, 0]
    return difference_of(float(gaps.mean()), replicates, confidence, len(np.unique(groups)))


def bootstrap_means(values: FloatArray, groups: IntArray, n: int, seed: int) -> FloatArray:
    """(n, M) the means of the columns of `values` (B, M) in each of `n` redraws of the users in `groups` (B,).

    The same groups, n and seed give the same redraws whatever the values are. Memory: about 32 MB and the sums by user.
    """
    if len(values) == 0 or len(values) != len(groups):
        raise InputError(
            f"{len(values)} values for {len(groups)} cases; an interval needs one for each, and at least one."
        )
    _, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member).astype(np.float64)
    n_groups = len(sizes)
    sums = np.stack([np.bincount(member, weights=column, minlength=n_groups) for column in values.T], axis=1)  # (G, M)
    rng = np.random.default_rng(seed)
    means = np.empty((n, values.shape[1]))
    step = max(1, _CELLS_AT_ONCE // n_groups)
    for start in range(0, n, step):
        stop = min(start + step, n)
        draws = rng.integers(0, n_groups, (stop - start, n_groups))
        draws += np.arange(stop - start)[:, None] * n_groups
        times = np.bincount(draws.ravel(), minlength=draws.size).reshape(draws.shape).astype(np.float64)
        means[start:stop] = (times @ sums) / (times @ sizes)[:, None]
    return means


def interval_of(replicates: FloatArray, confidence: float, n_users: int) -> tuple[float, float]:
    """The expanded percentile interval of what so many users were redrawn for: it reaches as much further than the middle
    `confidence` of the replicates as `few_users_p` is above their own p. Redraws of fewer than LEAST_USERS are too alike for
    that: Student's interval, from their deviation. Of one user nothing is known but what it was worth."""
    if n_users < 2:
        return interval_at(replicates, 0.0)
    if n_users < LEAST_USERS:
        middle, spread = float(replicates.mean()), float(replicates.std()) * sqrt(n_users / (n_users - 1))
        half = float(student.isf((1.0 - confidence) / 2, n_users - 1)) * spread
        return middle - half, middle + half
    return interval_at(replicates, share_of_redraws(1.0 - confidence, n_users))


def interval_at(replicates: FloatArray, share: float) -> tuple[float, float]:
    """The interval that leaves out this share of the replicates, half of it at each end."""
    low, high = np.quantile(replicates, [share / 2.0, 1.0 - share / 2.0])
    return float(low), float(high)


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a rate of `successes` in `n` independent tries (Wilson 1927), which keeps its level for few tries and
    for rates of 0 and 1 too, where redraws do not vary.

    >>> low, high = wilson_interval(5, 10)
    >>> round(low, 3), round(high, 3)
    (0.237, 0.763)
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate, z2 = successes / n, z * z
    middle = rate + z2 / (2 * n)
    half = z * sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    # At rates of 0 and 1 the bound is the rate itself; rounding must not put it on the wrong side.
    return max(0.0, min(rate, (middle - half) / (1 + z2 / n))), min(1.0, max(rate, (middle + half) / (1 + z2 / n)))


def share_interval(replicates: FloatArray, mean: float, n_users: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a mean of values from 0 to 1, from its redraws. Where those do not vary (one user, or all alike) they
    know nothing of chance; then it is Wilson's, with each user as one try.

    >>> share_interval(np.array([0.0, 0.0]), 0.0, 1)[1] > 0.7
    True
    """
    if not varies(replicates):
        return wilson_interval(mean * n_users, n_users, confidence)
    low, high = interval_of(replicates, confidence, n_users)
    return max(0.0, low), min(1.0, high)


def varies(replicates: FloatArray) -> bool:
    """Whether redraws differ by more than rounding."""
    return bool(np.ptp(replicates) > 1e-12)


def difference_of(mean: float, replicates: FloatArray, confidence: float, n_users: int) -> Difference:
    """A difference from its replicates, in each of which so many users were redrawn. p: `few_users_p` of what they say. Of
    fewer than LEAST_USERS the interval holds zero, for that all differ in one direction may be chance."""
    low, high = interval_of(replicates, confidence, n_users)
    if n_users < LEAST_USERS:
        low, high = min(low, 0.0), max(high, 0.0)
    return Difference(mean, low, high, few_users_p(redraws_p(replicates), n_users), confidence)


def redraws_p(replicates: FloatArray) -> float:
    """2 min(P(<= 0), P(>= 0)), each counted with one more so that it is never 0; redraws of few users vary too little."""
    below, above = np.count_nonzero(replicates <= 0.0), np.count_nonzero(replicates >= 0.0)
    return float(min(1.0, 2.0 * (min(below, above) + 1) / (len(replicates) + 1)))


def few_users_p(p: float, n_users: int) -> float:
    """The two-sided p-value that redraws of so many users stand for: sqrt(n / (n - 1)) too narrow, and with tails of the
    normal where Student's are due (the expanded percentile interval, Hesterberg 2015,
    https://doi.org/10.1080/00031305.2015.1089789). It is never below that of a sign test in which all agree, 2^(1 - n).

    >>> few_users_p(0.0002, 1), few_users_p(0.0002, 3), round(few_users_p(0.0002, 10_000), 5)
    (1.0, 0.25, 0.0002)
    """
    if n_users < 2:
        return 1.0
    return widened_p(p, sqrt((n_users - 1) / n_users), n_users - 1, sign_test_floor(n_users))


def widened_p(p: float, shrink: float, freedom: float, floor: float) -> float:
    """p of a difference that stands `shrink` times as many standard errors from zero as its redraws say, by Student's tails
    with so many degrees of freedom, and not below `floor`."""
    return float(max(2 * student.sf(norm.isf(p / 2) * shrink, freedom), floor))


def share_of_redraws(p: float, n_users: int) -> float:
    """Which share of redraws, twice, the p-value of a difference stands for: `few_users_p` the other way round, but for its
    floor."""
    return narrowed_p(p, sqrt((n_users - 1) / n_users), n_users - 1)


def narrowed_p(p: float, shrink: float, freedom: float) -> float:
    """What redraws say of a difference whose p is this: `widened_p` the other way round, but for its floor."""
    return float(2 * norm.sf(student.isf(p / 2, freedom) / shrink))


def sign_test_floor(n_users: int) -> float:
    """The two-sided chance that so many users all differ in one direction."""
    return 2.0 ** max(1 - n_users, -1000)
