"""Paired comparison of systems that answered the same cases, corrected for how many comparisons are looked at.

All systems and metrics share one set of redraws of the users (`compare.bootstrap_means`), so every difference is paired.
The more differences one looks at, the more of them are "significant" by luck; Holm's procedure keeps the chance of even
one such mistake below the level, without assuming that the comparisons are independent (Holm 1979). Intervals are those
of each difference by itself, not corrected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import floor
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from lmrec.errors import InputError
from lmrec.evaluation.compare import (
    Difference,
    bootstrap_means,
    difference_of,
    few_users_p,
    share_of_redraws,
    sign_test_floor,
)
from lmrec.evaluation.metrics import METRICS_AT_K, Ranks, auc
from lmrec.evaluation.table import Estimate, TableForm
from lmrec.fields import FloatArray, IntArray

LEVELS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
MOST_DRAWS = 1_000_000
MEANING = "* p < .05, ** p < .01, *** p < .001 after Holm's correction"


@dataclass(frozen=True)
class ComparedPair:
    """How far `first` is above `second`. `adjusted_p` is Holm's, over all pairs and metrics of the comparison."""

    metric: str
    first: str
    second: str
    difference: Difference
    adjusted_p: float

    @property
    def marks(self) -> str:
        """Stars by the adjusted p-value; see `MEANING`.

        >>> ComparedPair("ndcg@10", "a", "b", Difference(0.1, 0.05, 0.2, 0.002), 0.004).marks
        '**'
        """
        return next((marks for level, marks in LEVELS if self.adjusted_p < level), "")


@dataclass(frozen=True)
class ShownForm:
    """What was asked of lists that were shown, in words."""

    sentence: str


@dataclass(frozen=True)
class Comparison:
    """estimates: metric -> system -> mean and interval. pairs: every difference that was asked for."""

    form: TableForm | ShownForm
    confidence: float
    n_bootstrap: int
    n_users: int
    systems: tuple[str, ...]
    metrics: tuple[str, ...]
    estimates: dict[str, dict[str, Estimate]]
    pairs: tuple[ComparedPair, ...]

    @property
    def out_of_reach(self) -> tuple[tuple[str, int | None], ...]:
        """Stars that no difference can have, for the smallest p-value that so many redraws of so many users can give is above
        their level once corrected, the fewest first; and from how many redraws on one can, None: with more users alone."""
        least = few_users_p(2.0 / (self.n_bootstrap + 1), self.n_users) * len(self.pairs)
        return tuple(
            (marks, draws_for(level, len(self.pairs), self.n_users)) for level, marks in LEVELS[::-1] if least >= level
        )

    @property
    def too_few(self) -> str | None:
        """Which stars cannot come and what to do, in words; None where all can."""
        if not self.out_of_reach:
            return None
        never = [marks for marks, draws in self.out_of_reach if draws is None]
        if never:
            return f"{self.n_users:,} users are too few for {_any_of(never)} among {len(self.pairs)} comparisons"
        which = _any_of([marks for marks, _ in self.out_of_reach])
        return (
            f"{self.n_bootstrap:,} redraws are too few for {which} among {len(self.pairs)} comparisons; all can come from "
            f"--draws {self.out_of_reach[-1][1]} on"
        )

    @property
    def legend(self) -> str:
        """What stars mean, and which of them cannot come."""
        return MEANING if self.too_few is None else f"{MEANING}; {self.too_few}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        values = asdict(self)
        values["pairs"] = [{**asdict(pair), "marks": pair.marks} for pair in self.pairs]
        return values

    def rich_systems(self) -> Table:
        """Each system's means, best first by the first metric, for a terminal."""
        table = Table(title="Systems", title_justify="left", caption=self.form.sentence, caption_justify="left")
        table.add_column("system")
        for metric in self.metrics:
            table.add_column(f"{metric} [{self.confidence:.0%}]", justify="right")
        for name in self.ranked:
            cells = [self.estimates[metric][name] for metric in self.metrics]
            table.add_row(Text(name), *(f"{cell.value:.4f} [{cell.low:.4f}, {cell.high:.4f}]" for cell in cells))
        return table

    def rich_pairs(self) -> Table:
        """Every difference with its interval and stars, for a terminal."""
        title = f"Paired differences, {len(self.pairs)} comparisons"
        caption = f"{self.legend}; {self.n_bootstrap:,} redraws of users"
        table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
        for column, justify in (("metric", "left"), ("first - second", "left"), ("difference", "right"), ("", "left")):
            table.add_column(column, justify=justify)  # type: ignore[arg-type]
        table.add_column("p", justify="right")
        table.add_column("p, corrected", justify="right")
        for pair in self.pairs:
            gap = pair.difference
            style = "" if not pair.marks else ("green" if gap.mean > 0 else "red")
            table.add_row(
                pair.metric,
                Text(f"{pair.first} - {pair.second}"),
                Text(f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]", style=style),
                pair.marks,
                f"{gap.p:.4f}",
                f"{pair.adjusted_p:.4f}",
            )
        return table

    @property
    def ranked(self) -> tuple[str, ...]:
        """Systems, best first by the first metric."""
        return tuple(sorted(self.systems, key=lambda name: -self.estimates[self.metrics[0]][name].value))


def draws_for(level: float, n_pairs: int, n_users: int) -> int | None:
    """The fewest redraws of so many users by which one of so many comparisons can come below this level once corrected; None
    where none of up to `MOST_DRAWS` can.

    >>> draws_for(0.001, 6, 1_000_000), draws_for(0.001, 1, 8)
    (12000, None)
    """
    if n_users < 2 or sign_test_floor(n_users) * n_pairs >= level:
        return None
    needed = 2 / share_of_redraws(level / n_pairs, n_users)
    return floor(needed + 1e-6) if needed < MOST_DRAWS else None


def _any_of(marks: Sequence[str]) -> str:
    return "any star" if len(marks) == len(LEVELS) else " or ".join(marks)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given: the i-th smallest of m times (m - i + 1), never below a smaller one's.

    Source: Holm 1979, https://www.jstor.org/stable/4615733.

    >>> [round(value, 3) for value in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, np.float64)[order] * (len(p) - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in adjusted]


def measure_metric(ranks: Ranks, name: str) -> FloatArray:
    """(B,) a metric by its name, such as ndcg@10, at any k. Raises InputError for a name that nobody knows."""
    base, at, k = name.partition("@")
    if name == "auc":
        return auc(ranks)
    if base not in METRICS_AT_K or not at or not k.isdigit():
        known = ", ".join(f"{metric}@K" for metric in METRICS_AT_K)
        raise InputError(f"there is no metric '{name}'. Known: {known} and auc, such as ndcg@10")
    return METRICS_AT_K[base](ranks, int(k))


def compare_systems(
    ranks: Mapping[str, Ranks],
    user_idx: IntArray,
    form: TableForm,
    metrics: Sequence[str],
    against: str | None = None,
    n_bootstrap: int = 10_000,
) -> Comparison:
    """Compare systems that answered the same cases of the users user_idx (B,).

    against: compare this one with each other system (it comes first in each pair); None: all pairs, the better first.
    Raises InputError for fewer than two systems, and for names that are unknown.
    """
    values = {name: {metric: measure_metric(found, metric) for metric in metrics} for name, found in ranks.items()}
    return compare_values(values, user_idx, form, metrics, against, n_bootstrap)


def compare_values(
    measured: Mapping[str, Mapping[str, FloatArray]],
    user_idx: IntArray,
    form: TableForm | ShownForm,
    metrics: Sequence[str],
    against: str | None = None,
    n_bootstrap: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """As `compare_systems`, from what each system's answers were worth: name -> metric -> (B,)."""
    names = tuple(measured)
    if len(names) < 2:
        raise InputError(
            f"there is only '{names[0]}' to compare; a comparison needs two systems" if names else "nothing"
        )
    if against is not None and against not in measured:
        raise InputError(f"there is no row '{against}' to compare with. Rows: {', '.join(names)}")
    columns = [(metric, name) for metric in metrics for name in names]
    values = np.stack([measured[name][metric] for metric, name in columns], axis=1)  # (B, C)
    means, redrawn = values.mean(axis=0), bootstrap_means(values, user_idx, n_bootstrap, seed)
    place = {column: at for at, column in enumerate(columns)}
    n_users = len(np.unique(user_idx))
    estimates = {
        metric: {
            name: Estimate.of(float(means[place[metric, name]]), redrawn[:, place[metric, name]], n_users, confidence)
            for name in names
        }
        for metric in metrics
    }
    main = estimates[metrics[0]]
    chosen = _pairs(sorted(names, key=lambda name: -main[name].value), against)
    asked = [(metric, place[metric, a], place[metric, b]) for metric in metrics for a, b in chosen]
    n_users = len(np.unique(user_idx))
    gaps = [
        difference_of(float(means[a] - means[b]), redrawn[:, a] - redrawn[:, b], confidence, n_users)
        for _, a, b in asked
    ]
    pairs = tuple(
        ComparedPair(metric, columns[a][1], columns[b][1], gap, adjusted)
        for (metric, a, b), gap, adjusted in zip(asked, gaps, holm([gap.p for gap in gaps]), strict=True)
    )
    return Comparison(form, confidence, n_bootstrap, n_users, names, tuple(metrics), estimates, pairs)


def _pairs(ranked: Sequence[str], against: str | None) -> list[tuple[str, str]]:
    if against is not None:
        return [(against, name) for name in ranked if name != against]
    return [(first, second) for place, first in enumerate(ranked) for second in ranked[place + 1 :]]
