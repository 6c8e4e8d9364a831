"""The report: one self-contained HTML page that says what was found, and on what grounds.

Nothing is fetched: styles and pictures are inside the file, so it can be mailed, archived and opened offline. Texts
from the data (titles, user ids) are escaped.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from lmrec.errors import MissingExtraError
from lmrec.evaluation.charts import Curve, draw_curve, draw_reliability, draw_slices, draw_systems
from lmrec.evaluation.pairs import RerankJudgement
from lmrec.evaluation.slices import DEFINITIONS
from lmrec.evaluation.table import JudgementTable, TableRow

_LABELS = {"ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "f1": "F1", "auc": "AUC", "gini": "Gini"}
_COLUMNS = ("recall", "hit", "mrr", "map", "coverage", "novelty")


@dataclass(frozen=True)
class ReportExample:
    """One user of the test part: what the model saw, what it said, what came.

    user: how the user is called. history: titles, oldest first. recommended: (title, score), best first.
    actual: titles of what the user really chose next.
    """

    user: str
    history: Sequence[str]
    recommended: Sequence[tuple[str, float]]
    actual: Sequence[str]


@dataclass(frozen=True)
class ReportData:
    """Everything the page shows, as plain values.

    title: the page's heading, such as the name of the data set or run.
    candidate: the row of `table` that the verdict is about: our tuned model.
    table: the judgement on the test part.
    summary: (label, value) rows of the data summary.
    proof: `LeakProof.as_dict()`: holds, facts (claim, holds, evidence), weaknesses, tie_share. Empty: not shown.
    curves: points of training with `step` and any of `loss`, `lr` and `metric` (the validation metric).
    curve_metric: the name of that validation metric.
    examples: a few users.
    recipe: the resolved recipe as TOML.
    facts: (label, value): versions, commit, seeds, fingerprints, times.
    notes: anything the reader should know, a sentence each.
    reranking: what reading the best of each list is worth, where the run has a reranker.
    """

    title: str
    candidate: str
    table: JudgementTable
    summary: Sequence[tuple[str, str]] = ()
    proof: Mapping[str, Any] = field(default_factory=dict)
    curves: Curve = ()
    curve_metric: str = ""
    examples: Sequence[ReportExample] = ()
    recipe: str = ""
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    reranking: RerankJudgement | None = None


@dataclass(frozen=True)
class Verdict:
    """The answer in one sentence, and the numbers behind it. `tone`: whether the answer is yes, open or no."""

    tone: Literal["above", "open", "below"]
    headline: str
    detail: str


def judge_candidate(table: JudgementTable, candidate: str) -> Verdict:
    """Whether the candidate is above the best baseline by the main metric: yes or no only if the interval leaves out 0."""
    row, metric = table.row(candidate), label_of(table.metric)
    own = row.metrics[table.metric].value
    difference = row.differences.get(table.metric)
    if difference is None or table.best_baseline is None:
        return Verdict(
            "open", f"{candidate}: {metric} {own:.4f}", "There is no other baseline in the table to compare with."
        )
    other = table.row(table.best_baseline).metrics[table.metric].value
    gain = f", {abs(difference.mean) / other:.0%} {'more' if difference.mean >= 0 else 'less'}" if other > 0 else ""
    detail = (
        f"{metric} is {own:.4f} against {other:.4f} for {table.best_baseline}, the best baseline: "
        f"{_signed(difference.mean)}{gain}. {table.confidence:.0%} interval of the difference, redrawing users: "
        f"{_signed(difference.low)} to {_signed(difference.high)}."
    )
    if difference.low > 0:
        return Verdict("above", f"{candidate} beats the best baseline", detail)
    if difference.high < 0:
        return Verdict("below", f"{candidate} is worse than the best baseline", detail)
    return Verdict("open", f"{candidate} is not clearly different from the best baseline", detail)


def render_report(data: ReportData) -> str:
    """The page as text. Raises MissingExtraError where jinja2 or matplotlib is not installed."""
    k = data.table.metric.partition("@")[2] or "10"
    return render_template(
        "report.html.jinja",
        _charts(data),
        data=data,
        table=data.table,
        verdict=judge_candidate(data.table, data.candidate),
        numbers=_headline_numbers(data),
        columns=[
            name for name in (f"{column}@{k}" for column in _COLUMNS) if _value(data.table.rows[0], name) is not None
        ],
        value=_value,
        signed=_signed,
        definitions=DEFINITIONS,
    )


def render_template(name: str, charts: Mapping[str, str], **values: Any) -> str:
    """A page of this room with its style and charts (name -> SVG of our own drawing) inside; all else is escaped."""
    try:
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup
    except ImportError as missing:
        raise MissingExtraError("The page", "jinja2", "report") from missing
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["label"] = label_of
    here = files("lmrec.evaluation")
    ours = {place: Markup(svg) for place, svg in charts.items()}  # noqa: S704 - matplotlib escapes their texts
    style = Markup(here.joinpath("page.css").read_text("utf-8"))  # noqa: S704 - our own file
    template = environment.from_string(here.joinpath(name).read_text("utf-8"))
    return template.render(style=style, charts=ours, **values)


def write_report(path: str | Path, data: ReportData) -> Path:
    """Writes the page and returns its path. A page that was there stays whole until the new one replaces it."""
    target = Path(path)
    page = render_report(data)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.tmp")
    unfinished.write_text(page, "utf-8")
    os.replace(unfinished, target)
    return target


def label_of(metric: str) -> str:
    """A metric's name as people write it.

    >>> label_of("ndcg@10"), label_of("recall@5"), label_of("auc")
    ('NDCG@10', 'Recall@5', 'AUC')
    """
    name, at, k = metric.partition("@")
    return _LABELS.get(name, name.capitalize()) + at + k


def _charts(data: ReportData) -> dict[str, str]:
    validation = f"Validation {label_of(data.curve_metric)}" if data.curve_metric else "Validation metric"
    pairs = data.reranking.pairs if data.reranking is not None else None
    drawn = {
        "systems": draw_systems(data.table, data.candidate),
        "slices": draw_slices(data.table, data.candidate) if data.table.slices else None,
        "loss": draw_curve(data.curves, "loss", "Training loss"),
        "metric": draw_curve(data.curves, "metric", validation, mark_best=True),
        "lr": draw_curve(data.curves, "lr", "Learning rate"),
        "reliability": draw_reliability(pairs.bins, pairs.raw_bins) if pairs is not None and pairs.bins else None,
    }
    return {name: svg for name, svg in drawn.items() if svg is not None}


def _headline_numbers(data: ReportData) -> list[tuple[str, str, str]]:
    """(value, label, remark) of the big numbers beside the verdict."""
    table, row = data.table, data.table.row(data.candidate)
    metric = label_of(table.metric)
    own = row.metrics[table.metric]
    numbers = [(f"{own.value:.4f}", f"{metric}, {row.name}", f"{own.low:.4f} to {own.high:.4f}")]
    difference = row.differences.get(table.metric)
    if difference is not None and table.best_baseline is not None:
        other = table.row(table.best_baseline).metrics[table.metric]
        numbers.append(
            (f"{other.value:.4f}", f"{metric}, {table.best_baseline}", f"{other.low:.4f} to {other.high:.4f}")
        )
        shown = (
            f"{difference.mean / other.value:+.0%}".replace("-", "−") if other.value > 0 else _signed(difference.mean)
        )
        numbers.append(
            (shown, "against the best baseline", f"{metric} {_signed(difference.low)} to {_signed(difference.high)}")
        )
    return numbers


def _value(row: TableRow, name: str) -> float | None:
    if name in row.metrics:
        return row.metrics[name].value
    return row.lists.get(name)


def _signed(value: float) -> str:
    """A number with its sign, the minus as wide as the plus."""
    return f"{value:+.4f}".replace("-", "−")
