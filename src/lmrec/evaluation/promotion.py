"""May a candidate take the place of what is served? A rule over paired differences on the newest events.

Promoted is a candidate whose metric over all cases is higher than the served model's, with an interval (users redrawn)
whose lower end lies above `-tolerance` times the served metric; by the default of 0 the gain is clear of chance. And it
must harm nobody: no slice of at least `min_slice_users` users may have an interval that lies wholly below zero. Slices
with fewer users are shown but decide nothing, since an interval of a handful of users is narrower than the truth; and of
fewer than six users nothing is promoted.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from lmrec.evaluation.compare import LEAST_USERS, Difference, paired_difference
from lmrec.evaluation.evaluator import Evaluation, EvaluationConfig
from lmrec.evaluation.slices import ALL
from lmrec.fields import BoolArray

WATCHED: Final = ("cold items", "cold users", "head", "tail")


@dataclass(frozen=True)
class SliceResult:
    """The metric's mean of both models on one slice, and the candidate's paired difference. `decides`: enough users."""

    name: str
    n_cases: int
    n_users: int
    serving: float
    candidate: float
    difference: Difference
    decides: bool

    @property
    def is_harmed(self) -> bool:
        return self.decides and self.difference.high < 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "slice": self.name,
            "cases": self.n_cases,
            "users": self.n_users,
            "serving": self.serving,
            "candidate": self.candidate,
            "difference": self.difference.mean,
            "low": self.difference.low,
            "high": self.difference.high,
            "p": self.difference.p,
            "decides": self.decides,
            "harmed": self.is_harmed,
        }


@dataclass(frozen=True)
class Decision:
    """`reason` is a sentence for a person. The first slice is the whole."""

    promote: bool
    reason: str
    metric: str
    slices: tuple[SliceResult, ...]

    def as_dict(self) -> dict[str, Any]:
        return {
            "promote": self.promote,
            "reason": self.reason,
            "metric": self.metric,
            "slices": [result.as_dict() for result in self.slices],
        }


def decide(
    serving: Evaluation,
    candidate: Evaluation,
    slices: dict[str, BoolArray],
    config: EvaluationConfig,
    tolerance: float = 0.0,
    min_slice_users: int = 10,
) -> Decision:
    """Compare two evaluations of the same cases. slices: masks over those cases, as `slice_cases` makes them."""
    whole = np.ones(len(serving.cases), np.bool_)
    results = [_measure(ALL, whole, serving, candidate, config, 1)]
    for name in WATCHED:
        if slices[name].any():
            results.append(_measure(name, slices[name], serving, candidate, config, min_slice_users))
    promote, reason = _judge(results, config.metric, config.confidence, tolerance)
    return Decision(promote, reason, config.metric, tuple(results))


def _measure(
    name: str, mask: BoolArray, serving: Evaluation, candidate: Evaluation, config: EvaluationConfig, min_users: int
) -> SliceResult:
    old, new = serving.metrics[config.metric][mask], candidate.metrics[config.metric][mask]
    groups = serving.groups[mask]
    n_users = len(np.unique(groups))
    difference = paired_difference(new, old, groups, config.n_bootstrap, config.confidence, config.seed)
    return SliceResult(
        name, int(mask.sum()), n_users, float(old.mean()), float(new.mean()), difference, n_users >= min_users
    )


def _judge(results: list[SliceResult], metric: str, confidence: float, tolerance: float) -> tuple[bool, str]:
    whole, *parts = results
    gap = whole.difference
    found = (
        f"{metric} on the newest {whole.n_cases:,} cases is {whole.candidate:.4f} against {whole.serving:.4f} of what is "
        f"served: {gap.mean:+.4f}, {confidence:.0%} interval {gap.low:+.4f} to {gap.high:+.4f}"
    )
    if gap.mean <= 0.0:
        return False, f"{found}. The candidate is not better"
    if whole.n_users < LEAST_USERS:
        return (
            False,
            f"{found}. These are of {whole.n_users} users, of whom chance can tell as much; {LEAST_USERS} are needed",
        )
    floor = -tolerance * whole.serving
    if gap.low <= floor:
        return False, f"{found}. The gain is not clear: the interval must lie above {floor:+.4f}"
    harmed = [part for part in parts if part.is_harmed]
    if harmed:
        words = "; ".join(
            f"'{part.name}' ({part.n_users:,} users) {part.difference.mean:+.4f}, at best {part.difference.high:+.4f}"
            for part in harmed
        )
        return False, f"{found}. Better as a whole, but it harms {words}"
    return True, f"{found}. Better, and no slice is harmed"
