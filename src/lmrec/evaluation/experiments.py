"""The read-out of an experiment: of the lists that each arm showed, how many led to something, and is that chance?

A list succeeds when a positive event names its request id and an item of it (lmrec.feedback.outcomes). Lists of one user
are not independent, so users, not lists, are redrawn (the cluster bootstrap, as in lmrec.evaluation.compare), each arm by
itself. Where redraws do not vary, as with one user or without a success, intervals are Wilson's and Newcombe's.

Looking again and again until it is significant finds something in most experiments without an effect. So there is a
second p value that holds however often one looks and whenever one stops (the mixture sequential probability ratio test;
Johari et al. 2017, https://doi.org/10.1145/3097983.3097992), and the lists needed are said beforehand.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, exp, hypot, lgamma, log, sqrt
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lmrec.errors import InputError
from lmrec.evaluation.compare import (
    Difference,
    bootstrap_means,
    interval_at,
    narrowed_p,
    redraws_p,
    share_interval,
    varies,
    widened_p,
)
from lmrec.fields import FloatArray

_MISMATCH_P: Final = 0.001
_SPREAD: Final = (
    0.5  # differences are thought to be up to about half of the common rate: too large costs little, too small much
)


@dataclass(frozen=True)
class ShownOutcome:
    """A list, and whether something came of it. `user`: what its randomness hangs on; a list without a user is alone."""

    arm: str
    user: str
    succeeded: bool
    time_ts: float


@dataclass(frozen=True)
class ArmResult:
    """`rate`: successful lists of all lists, with its interval."""

    arm: str
    lists: int
    users: int
    successes: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class ArmDifference:
    """How much `arm` is above `against`. p: two-sided, for who looks once. p_always: for who looks as often as they like.

    lists_needed: lists of each arm with which a gain of `effect` (relative to `against`) would be found in 4 of 5 tries.
    """

    arm: str
    against: str
    mean: float
    low: float
    high: float
    p: float
    p_always: float
    effect: float
    lists_needed: int | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out zero, however often it was looked at."""
        return (self.low > 0.0 or self.high < 0.0) and self.p_always < 0.05


@dataclass(frozen=True)
class ReadOut:
    """The first arm is the one that the others are compared with. `warnings` are sentences for a person."""

    arms: tuple[ArmResult, ...]
    differences: tuple[ArmDifference, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "arms": [asdict(arm) for arm in self.arms],
            "differences": [{**asdict(found), "is_clear": found.is_clear} for found in self.differences],
            "warnings": list(self.warnings),
        }


def who_saw(user_id: str | None, request_id: str) -> str:
    """The user of a list, by whom it hangs together with others; a list without a user is alone."""
    return f"user {user_id}" if user_id is not None else f"list {request_id}"


def read_out(
    outcomes: Sequence[ShownOutcome],
    *,
    against: str | None = None,
    effect: float = 0.05,
    shares: Mapping[str, float] | None = None,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ReadOut:
    """What the lists say. against: the arm to compare with (default: the first by name). effect: the relative gain that
    would matter. shares: the users that each arm was meant to get. Raises InputError for an unknown `against`."""
    by_arm: dict[str, list[ShownOutcome]] = defaultdict(list)
    for outcome in outcomes:
        by_arm[outcome.arm].append(outcome)
    names = sorted(by_arm)
    if against is not None:
        if against not in names:
            raise InputError(f"no list was shown by the arm '{against}'. Arms with lists: {', '.join(names) or 'none'}")
        names = [against, *(name for name in names if name != against)]
    samples = {name: _sample(by_arm[name], n_bootstrap, seed + place) for place, name in enumerate(names)}
    arms = tuple(_arm_result(name, by_arm[name], samples[name], confidence) for name in names)
    differences = tuple(
        _difference(arms[0], arm, samples[arms[0].arm], samples[arm.arm], effect, confidence) for arm in arms[1:]
    )
    return ReadOut(arms, differences, tuple(_warnings(by_arm, arms, differences, shares)))


def lists_needed(
    rate: float, effect: float, inflation: float = 1.0, power: float = 0.8, alpha: float = 0.05
) -> int | None:
    """Lists of each arm to find a relative gain of `effect` over `rate` with this power; None where the rate is 0 or the
    gain leads above 1. inflation: how much more a rate varies than with independent lists.

    >>> lists_needed(0.1, 0.1)  # from 10 % to 11 %
    14749
    """
    better = rate * (1 + effect)
    if not 0.0 < rate < better <= 1.0:
        return None
    z = NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)
    variance = rate * (1 - rate) + better * (1 - better)
    return ceil(inflation * z * z * variance / (better - rate) ** 2)


def always_valid_p(mean: float, variance: float, spread: float) -> float:
    """The p value of a difference that holds whenever one looks: under no effect it falls below 0.05, at any time from now
    until for ever, in at most 1 of 20 experiments. variance: of `mean`. spread: how large differences are thought to be
    (the standard deviation of a normal distribution around 0); the nearer, the sooner a true one is found.

    >>> round(always_valid_p(0.03, 0.01**2, 0.02), 3), always_valid_p(0.0, 0.01**2, 0.02)
    (0.061, 1.0)
    """
    if variance <= 0 or spread <= 0:
        return 1.0
    total = variance + spread**2
    log_ratio = 0.5 * log(variance / total) + spread**2 * mean**2 / (2 * variance * total)
    return exp(-max(0.0, log_ratio))


def _sample(outcomes: Sequence[ShownOutcome], n: int, seed: int) -> FloatArray:
    """(n,) the rate in each redraw of the arm's users."""
    values = np.array([outcome.succeeded for outcome in outcomes], np.float64)
    return bootstrap_means(values[:, None], _user_numbers(outcomes), n, seed)[:, 0]


def _user_numbers(outcomes: Sequence[ShownOutcome]) -> npt.NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(outcome.user, len(numbers)) for outcome in outcomes], np.int64)


def _arm_result(name: str, outcomes: Sequence[ShownOutcome], sample: FloatArray, confidence: float) -> ArmResult:
    successes = sum(outcome.succeeded for outcome in outcomes)
    n_users = len({outcome.user for outcome in outcomes})
    rate = successes / len(outcomes)
    return ArmResult(name, len(outcomes), n_users, successes, rate, *share_interval(sample, rate, n_users, confidence))


def _difference(
    base: ArmResult,
    arm: ArmResult,
    base_sample: FloatArray,
    sample: FloatArray,
    effect: float,
    confidence: float,
) -> ArmDifference:
    variance = _variance(base, base_sample) + _variance(arm, sample)
    if varies(base_sample) and varies(sample):
        gaps, spreads = sample - base_sample, ((float(base_sample.var()), base.users), (float(sample.var()), arm.users))
        found = _of_two_arms(arm.rate - base.rate, gaps, spreads, confidence)
    else:
        found = _without_redraws(base, arm, variance)
    independent = base.rate * (1 - base.rate) / base.lists
    inflation = max(1.0, float(base_sample.var()) / independent) if independent else 1.0
    return ArmDifference(
        arm=arm.arm,
        against=base.arm,
        mean=found.mean,
        low=found.low,
        high=found.high,
        p=float(found.p),
        p_always=always_valid_p(found.mean, variance, _SPREAD * _common_rate(base, arm)),
        effect=effect,
        lists_needed=lists_needed(base.rate, effect, inflation),
    )


def _of_two_arms(
    mean: float, gaps: FloatArray, spreads: tuple[tuple[float, int], tuple[float, int]], confidence: float
) -> Difference:
    """gaps: of redraws of each arm's users; spreads: the variance of the arm's rate by them and how many users it has. Redraws
    of n users vary (n - 1) / n too little; degrees of freedom by Welch 1947; p never below that of all users of one arm being
    above all of the other."""
    (_, first), (_, second) = spreads
    if min(first, second) < 2:
        low, high = interval_at(gaps, 0.0)
        return Difference(mean, low, high, 1.0, confidence)
    wider = [variance * n / (n - 1) for variance, n in spreads]
    freedom = sum(wider) ** 2 / sum(part**2 / (n - 1) for part, (_, n) in zip(wider, spreads, strict=True))
    shrink = sqrt(sum(variance for variance, _ in spreads) / sum(wider))
    orders = lgamma(first + second + 1) - lgamma(first + 1) - lgamma(second + 1)
    low, high = interval_at(gaps, narrowed_p(1 - confidence, shrink, freedom))
    return Difference(mean, low, high, widened_p(redraws_p(gaps), shrink, freedom, 2 * exp(-orders)), confidence)


def _without_redraws(base: ArmResult, arm: ArmResult, variance: float) -> Difference:
    """A difference where an arm's redraws do not vary, and so would leave out its chance: from the arms' own intervals
    (Newcombe 1998, method 10, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C873::AID-SIM779%3E3.0.CO;2-I)."""
    mean = arm.rate - base.rate
    below = hypot(arm.rate - arm.low, base.high - base.rate)
    above = hypot(arm.high - arm.rate, base.rate - base.low)
    p = 2 * NormalDist().cdf(-abs(mean) / sqrt(variance))
    return Difference(mean, mean - below, mean + above, p)


def _variance(arm: ArmResult, sample: FloatArray) -> float:
    """Of the arm's rate. Where nothing or all succeeded so far, redraws do not vary; then it is as with half a success more,
    and each user as one try."""
    likely = (arm.successes + 0.5) / (arm.lists + 1)
    tries = arm.lists if varies(sample) else arm.users
    return max(float(sample.var()), likely * (1 - likely) / tries)


def _common_rate(*arms: ArmResult) -> float:
    return sum(arm.successes for arm in arms) / sum(arm.lists for arm in arms)


def _warnings(
    by_arm: Mapping[str, Sequence[ShownOutcome]],
    arms: Sequence[ArmResult],
    differences: Sequence[ArmDifference],
    shares: Mapping[str, float] | None,
) -> Iterable[str]:
    if len(arms) < 2:
        yield "only one arm has shown lists, so there is nothing to compare"
        return
    for found in differences:
        fewest = min(arm.lists for arm in arms if arm.arm in (found.arm, found.against))
        if found.lists_needed is not None and fewest < found.lists_needed:
            yield (
                f"'{found.arm}' against '{found.against}': {fewest:,} lists of the smaller arm, {found.lists_needed:,} are "
                f"needed to find a gain of {found.effect:.0%}"
            )
    users = {arm.arm: {outcome.user for outcome in by_arm[arm.arm]} for arm in arms}
    if _fell_apart(by_arm, users):
        yield (
            "the arms were not served at the same time: what changed between those times (weekday, season, catalog) cannot "
            "be told from what the arms do"
        )
    n_users = len(set().union(*users.values()))
    in_many = sum(map(len, users.values())) - n_users
    if in_many > 0.01 * n_users:
        yield f"{in_many:,} of {n_users:,} users saw more than one arm: the assignment was not kept, and arms look alike"
    if shares is not None:
        p = _mismatch_p([len(users[arm.arm]) for arm in arms], [shares.get(arm.arm, 0.0) for arm in arms])
        if p < _MISMATCH_P:
            yield (
                f"the arms have {', '.join(f'{len(users[arm.arm]):,}' for arm in arms)} users, which the shares that they "
                f"were meant to get do not explain (p {p:.1g}): somebody was lost on the way. Do not trust the comparison"
            )


def _fell_apart(by_arm: Mapping[str, Sequence[ShownOutcome]], users: Mapping[str, Collection[str]]) -> bool:
    """Whether one arm began only after another had ended, and users who come in any order would hardly do so: of those of
    two arms, 2 in C(n + m, n) orders have all of one arm first. A single list of each tells nothing."""
    spans = {name: _span(outcomes) for name, outcomes in by_arm.items()}
    late = max(spans, key=lambda name: spans[name][0])
    early = min(spans, key=lambda name: spans[name][1])
    if spans[late][0] <= spans[early][1]:
        return False
    n, m = len(users[late]), len(users[early])
    return log(2) + lgamma(n + 1) + lgamma(m + 1) - lgamma(n + m + 1) < log(_MISMATCH_P)


def _span(outcomes: Sequence[ShownOutcome]) -> tuple[float, float]:
    times = [outcome.time_ts for outcome in outcomes]
    return min(times), max(times)


def _mismatch_p(counts: Sequence[int], shares: Sequence[float]) -> float:
    """Chi-square test of a sample ratio mismatch (Fabijan et al. 2019); 0 where an arm has users and no share."""
    from scipy.stats import chisquare

    if any(share <= 0 for share in shares):
        return 0.0
    expected = np.array(shares) / sum(shares) * sum(counts)
    return float(chisquare(counts, expected).pvalue)
