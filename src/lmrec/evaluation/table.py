"""The judgement: one row a system, each number with its interval, and how far it is from the best baseline.

The table says under which form it was made (split, target, what was excluded, how many cases), because a number
without its form cannot be compared with anything. It goes to JSON and back without loss.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from rich.table import Table
from rich.text import Text

from lmrec.errors import InputError
from lmrec.evaluation.compare import Difference, bootstrap_means, difference_of, share_interval
from lmrec.evaluation.evaluator import Evaluation, EvaluationConfig
from lmrec.fields import BoolArray, FloatArray

SHOWN_METRICS = ("ndcg", "recall", "mrr", "coverage")


@dataclass(frozen=True)
class TableForm:
    """What was asked, and how: the words that stand under the table.

    split, target: as in the split's config. cuts: what parts the data, in words ("test from 1998-03-27").
    excluded: what was left out on the way, in words, with counts ("412 cases whose only items were seen").
    """

    split: str
    target: str
    n_cases: int
    n_users: int
    n_items: int
    exclude_seen: bool
    cuts: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        seen = (
            "items of the history are excluded"
            if self.exclude_seen
            else "items of the history may be recommended again"
        )
        parts = [
            f"{self.n_cases:,} cases of {self.n_users:,} users, split '{self.split}', target '{self.target}'",
            f"all {self.n_items:,} items ranked, {seen}, ties counted against the system",
            *self.cuts,
            *(f"left out: {what}" for what in self.excluded),
        ]
        return "; ".join(parts) + "."


@dataclass(frozen=True)
class Estimate:
    """A mean over cases and the interval of its redraws."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, mean: float, replicates: FloatArray, n_users: int, confidence: float) -> Self:
        """Of a mean of values from 0 to 1: `share_interval` of its redraws, in each of which so many users were redrawn."""
        return cls(mean, *share_interval(replicates, mean, n_users, confidence))


@dataclass(frozen=True)
class TableRow:
    """One system. `metrics`: with intervals. `lists`: coverage@k, gini@k, novelty@k of what it shows.

    `differences`: metric -> how far this row is above the best baseline, paired by case; empty for that baseline.
    `note`: how the system was set or chosen, in words.
    """

    name: str
    is_baseline: bool
    metrics: dict[str, Estimate]
    lists: dict[str, float]
    differences: dict[str, Difference]
    note: str = ""


@dataclass(frozen=True)
class SliceRow:
    """The main metric on a part of the cases, for every system. Where the part is empty, `values` is empty too."""

    name: str
    n_cases: int
    n_users: int
    values: dict[str, Estimate]


@dataclass(frozen=True)
class JudgementTable:
    """Everything the judge found. `metric` is the main one; `best_baseline` is the baseline that leads by it."""

    form: TableForm
    metric: str
    confidence: float
    n_bootstrap: int
    best_baseline: str | None
    rows: tuple[TableRow, ...]
    slices: tuple[SliceRow, ...] = field(default=())

    def row(self, name: str) -> TableRow:
        """The row of the named system. Raises InputError where there is none."""
        for row in self.rows:
            if row.name == name:
                return row
        raise InputError(f"The table has no row '{name}'. Its rows: {', '.join(row.name for row in self.rows)}.")

    @property
    def ranked(self) -> tuple[TableRow, ...]:
        """The rows, best first by the main metric."""
        return tuple(sorted(self.rows, key=lambda row: -row.metrics[self.metric].value))

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The table back from `as_dict`, also after a way through JSON."""
        form = dict(values["form"])
        form["cuts"], form["excluded"] = tuple(form["cuts"]), tuple(form["excluded"])
        return cls(
            form=TableForm(**form),
            metric=values["metric"],
            confidence=values["confidence"],
            n_bootstrap=values["n_bootstrap"],
            best_baseline=values["best_baseline"],
            rows=tuple(row_from_dict(row) for row in values["rows"]),
            slices=tuple(_slice_from_dict(part) for part in values["slices"]),
        )

    def rich(self) -> Table:
        """The table for a terminal: a few metrics at the main metric's k, best row first."""
        k = self.metric.partition("@")[2] or "10"
        return _rich_table(self, [name for name in (f"{metric}@{k}" for metric in SHOWN_METRICS) if _has(self, name)])

    def rich_slices(self) -> Table:
        """The main metric by slice, one column a system, for a terminal."""
        table = Table(title=f"{self.metric} by slice", title_justify="left")
        table.add_column("slice")
        table.add_column("cases", justify="right")
        for row in self.ranked:
            table.add_column(Text(row.name), justify="right")
        for part in self.slices:
            cells = [f"{part.values[row.name].value:.4f}" if part.values else "-" for row in self.ranked]
            table.add_row(part.name, f"{part.n_cases:,}", *cells)
        return table


def build_table(
    evaluations: Sequence[Evaluation],
    baselines: Collection[str],
    form: TableForm,
    config: EvaluationConfig,
    slices: Mapping[str, BoolArray] | None = None,
    notes: Mapping[str, str] | None = None,
) -> JudgementTable:
    """Puts evaluations of the same cases side by side.

    baselines: names of the rows that count as baselines. slices: name -> (B,) mask over the evaluations' cases.
    notes: name -> how that system was set. Raises InputError where the evaluations answered different cases.
    """
    _check_same_cases(evaluations, baselines)
    main, names = config.metric, tuple(evaluations[0].metrics)
    replicates = {evaluation.name: _redraw(evaluation, names, config) for evaluation in evaluations}
    ours = [evaluation for evaluation in evaluations if evaluation.name in baselines]
    best = max(ours, key=lambda evaluation: evaluation.aggregate[main], default=None)
    rows = tuple(
        TableRow(
            name=evaluation.name,
            is_baseline=evaluation.name in baselines,
            metrics=_estimates(evaluation, replicates[evaluation.name], config.confidence),
            lists={name: value for name, value in evaluation.aggregate.items() if name not in evaluation.metrics},
            differences=_differences(evaluation, best, replicates, config.confidence),
            note=(notes or {}).get(evaluation.name, ""),
        )
        for evaluation in evaluations
    )
    parts = tuple(_slice_row(name, mask, evaluations, config) for name, mask in (slices or {}).items())
    return JudgementTable(
        form, main, config.confidence, config.n_bootstrap, best.name if best is not None else None, rows, parts
    )


def _redraw(evaluation: Evaluation, names: tuple[str, ...], config: EvaluationConfig) -> FloatArray:
    """(n_bootstrap, M) redrawn means of every metric. The same users and seed redraw every system alike."""
    values = np.stack([evaluation.metrics[name] for name in names], axis=1)
    return bootstrap_means(values, evaluation.groups, config.n_bootstrap, config.seed)


def _estimates(evaluation: Evaluation, replicates: FloatArray, confidence: float) -> dict[str, Estimate]:
    n_users = len(np.unique(evaluation.groups))
    return {
        name: Estimate.of(evaluation.aggregate[name], replicates[:, column], n_users, confidence)
        for column, name in enumerate(evaluation.metrics)
    }


def _differences(
    evaluation: Evaluation, best: Evaluation | None, replicates: Mapping[str, FloatArray], confidence: float
) -> dict[str, Difference]:
    """The paired differences to the best baseline: both systems' redraws are the same draws, so they subtract."""
    if best is None or evaluation is best:
        return {}
    gaps = replicates[evaluation.name] - replicates[best.name]
    n_users = len(np.unique(evaluation.groups))
    return {
        name: difference_of(evaluation.aggregate[name] - best.aggregate[name], gaps[:, column], confidence, n_users)
        for column, name in enumerate(evaluation.metrics)
    }


def _slice_row(name: str, mask: BoolArray, evaluations: Sequence[Evaluation], config: EvaluationConfig) -> SliceRow:
    groups = evaluations[0].groups[mask]
    if len(groups) == 0:
        return SliceRow(name, 0, 0, {})
    values = np.stack([evaluation.metrics[config.metric][mask] for evaluation in evaluations], axis=1)
    replicates = bootstrap_means(values, groups, config.n_bootstrap, config.seed)
    n_users = len(np.unique(groups))
    estimates = {
        evaluation.name: Estimate.of(float(values[:, column].mean()), replicates[:, column], n_users, config.confidence)
        for column, evaluation in enumerate(evaluations)
    }
    return SliceRow(name, len(groups), n_users, estimates)


def _check_same_cases(evaluations: Sequence[Evaluation], baselines: Collection[str]) -> None:
    if not evaluations:
        raise InputError("A table of no evaluations; it needs at least one.")
    names = [evaluation.name for evaluation in evaluations]
    if len(set(names)) < len(names):
        raise InputError(f"Two rows of the table have one name: {names}. Give each system a name of its own.")
    unknown = set(baselines) - set(names)
    if unknown:
        raise InputError(f"Baselines without an evaluation: {sorted(unknown)}. Evaluated: {names}.")
    first = evaluations[0]
    for other in evaluations[1:]:
        same = np.array_equal(first.groups, other.groups) and np.array_equal(first.cases.instants, other.cases.instants)
        if not same or first.metrics.keys() != other.metrics.keys():
            raise InputError(
                f"'{first.name}' and '{other.name}' answered different cases or were measured differently; a paired "
                "difference needs the same. Evaluate both with the same cases and config."
            )


def row_from_dict(values: Mapping[str, Any]) -> TableRow:
    """A row back from `asdict`, also after a way through JSON."""
    return TableRow(
        name=values["name"],
        is_baseline=values["is_baseline"],
        metrics={name: Estimate(**estimate) for name, estimate in values["metrics"].items()},
        lists=dict(values["lists"]),
        differences={name: Difference(**difference) for name, difference in values["differences"].items()},
        note=values["note"],
    )


def _slice_from_dict(values: Mapping[str, Any]) -> SliceRow:
    estimates = {name: Estimate(**estimate) for name, estimate in values["values"].items()}
    return SliceRow(values["name"], values["n_cases"], values["n_users"], estimates)


def _has(table: JudgementTable, name: str) -> bool:
    return all(name in row.metrics or name in row.lists for row in table.rows)


def _rich_table(judgement: JudgementTable, names: Sequence[str]) -> Table:
    table = Table(title="Judgement", title_justify="left", caption=judgement.form.sentence, caption_justify="left")
    table.add_column("system")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column(f"{judgement.metric} above best baseline", justify="right")
    for row in judgement.ranked:
        label = Text(row.name, style="" if row.is_baseline else "bold")
        cells = [
            Text(f"{row.metrics[name].value:.4f} [{row.metrics[name].low:.4f}, {row.metrics[name].high:.4f}]")
            if name == judgement.metric
            else Text(f"{row.metrics[name].value if name in row.metrics else row.lists[name]:.4f}")
            for name in names
        ]
        is_best = row.name == judgement.best_baseline
        gap = Text("best baseline", style="dim") if is_best else difference_text(row.differences.get(judgement.metric))
        table.add_row(label, *cells, gap)
    return table


def difference_text(difference: Difference | None) -> Text:
    """For a terminal: green or red where it is clear."""
    if difference is None:
        return Text("-")
    style = "" if not difference.is_clear else ("green" if difference.low > 0 else "red")
    return Text(f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]", style=style)
