"""Judging a ranking of what was shown: lists of candidates, and which of them were clicked. News is judged this way.

Nothing is drawn: the candidates are those that people saw. In the lists a clicked item stands below every other with the
same score, as everywhere in this judge; AUC alone counts a tie as half, so that it is the figure of the literature.

Whether an item would be clicked (F1, accuracy) needs a threshold, and scores of different systems have different scales.
So a logistic curve from (score within its list, length of the list) to a chance of a click, and the threshold on it that
gives the best F1, are fitted on validation lists for every system alike (Platt 1999).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text
from scipy.optimize import minimize
from scipy.special import expit

from lmrec.errors import InputError
from lmrec.evaluation.compare import Difference, bootstrap_means, difference_of
from lmrec.evaluation.evaluator import EvaluationConfig, Scorer, block_size
from lmrec.evaluation.metrics import Ranks, auc, hit_at, ndcg_at
from lmrec.evaluation.table import Estimate, TableRow, difference_text, row_from_dict
from lmrec.fields import BoolArray, FloatArray, IntArray, Ragged
from lmrec.topk import refuse_nan

MAIN: Final = "auc"
METRICS: Final = ("auc", "mrr", "ndcg@5", "ndcg@10", "hit@1", "f1", "accuracy")


@dataclass(frozen=True, eq=False)
class ShownLists:
    """I questions: what was shown to whom and when, after which history; `clicked` lies beside `candidates.values`."""

    user_idx: npt.NDArray[np.int32]  # (I,)
    time_ts: npt.NDArray[np.float64]  # (I,)
    history: Ragged  # strictly before the instant, oldest first
    candidates: Ragged
    clicked: BoolArray

    def __len__(self) -> int:
        return len(self.user_idx)


class ListScorer(Protocol):
    """Anything that can order a list that was shown."""

    @property
    def name(self) -> str: ...

    def score_shown(self, history: Ragged, candidates: Ragged, time_ts: FloatArray) -> FloatArray:
        """(n_shown,) one score for each value of `candidates`, higher is better. time_ts: (I,) when it was shown."""
        ...


@dataclass(frozen=True)
class CatalogScorer:
    """A scorer of the whole catalog, asked for what was shown."""

    name: str
    scorer: Scorer
    n_items: int

    def score_shown(self, history: Ragged, candidates: Ragged, time_ts: FloatArray) -> FloatArray:
        step = block_size(self.n_items)
        found = []
        for start in range(0, len(history), step):
            stop = min(start + step, len(history))
            shown = candidates.slice(start, stop)
            found.append(self.scorer.score(history.slice(start, stop))[shown.row_of_value, shown.values])
        return np.concatenate(found) if found else np.zeros(0, np.float32)


@dataclass(frozen=True)
class ClickRule:
    """chance = 1 / (1 + exp(-(a z + b log(length) + c))), z the score less its list's mean, in its list's deviations;
    a click is foretold at `threshold` and above."""

    a: float
    b: float
    c: float
    threshold: float

    def chance(self, scores: FloatArray, candidates: Ragged) -> FloatArray:
        """(n_shown,)."""
        exponent = _curve_inputs(scores, candidates) @ np.array([self.a, self.b, self.c])
        return np.asarray(expit(exponent))


@dataclass(frozen=True, eq=False)
class ListEvaluation:
    """metrics: name -> (I,) one value a list. decisions: (I, 4) clicks foretold rightly, wrongly, missed, and rightly not
    foretold."""

    name: str
    metrics: dict[str, FloatArray]
    decisions: FloatArray
    groups: IntArray


@dataclass(frozen=True)
class ImpressionTable:
    """The judgement of what was shown. `sentence` says what was asked; `base_rate`: the share of candidates clicked."""

    sentence: str
    confidence: float
    base_rate: float
    best_baseline: str | None
    rows: tuple[TableRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{**values, "rows": tuple(row_from_dict(row) for row in values["rows"])})

    @property
    def ranked(self) -> tuple[TableRow, ...]:
        return tuple(sorted(self.rows, key=lambda row: -row.metrics[MAIN].value))

    def rich(self) -> Table:
        """For a terminal, best row first."""
        caption = f"{self.sentence} {self.base_rate:.1%} of all candidates were clicked."
        table = Table(title="Impressions", title_justify="left", caption=caption, caption_justify="left")
        table.add_column("system")
        for name in METRICS:
            table.add_column(name, justify="right")
        table.add_column(f"{MAIN} above best baseline", justify="right")
        for row in self.ranked:
            cells = [f"{row.metrics[name].value:.4f}" for name in METRICS]
            main = row.metrics[MAIN]
            cells[0] += f" [{main.low:.4f}, {main.high:.4f}]"
            difference = Text("best baseline", style="dim")
            if row.name != self.best_baseline:
                difference = difference_text(row.differences.get(MAIN))
            table.add_row(Text(row.name, style="" if row.is_baseline else "bold"), *cells, difference)
        return table


def rank_shown(scores: FloatArray, candidates: Ragged, clicked: BoolArray, ties_lose: bool = True) -> Ranks:
    """Where the clicked items of each list stand, 1 for the top.

    >>> rank_shown(np.array([0.2, 0.9, 0.2]), Ragged.from_rows([[5, 6, 7]]), np.array([True, False, False])).ranks[0]
    array([3])
    """
    rows = candidates.row_of_value
    order = np.lexsort((clicked if ties_lose else ~clicked, -scores, rows))  # the last key is the first to sort by
    place = np.arange(len(order)) - np.repeat(candidates.offsets[:-1], candidates.lengths) + 1
    chosen = clicked[order]
    n_clicked = np.bincount(rows, weights=clicked, minlength=len(candidates)).astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_clicked)])
    return Ranks(Ragged(place[chosen], offsets), candidates.lengths, n_clicked)


def auc_of_lists(scores: FloatArray, candidates: Ragged, clicked: BoolArray) -> FloatArray:
    """(I,) the chance that a clicked candidate has a higher score than another one, a tie counting half.

    >>> auc_of_lists(np.array([0.2, 0.9, 0.2]), Ragged.from_rows([[5, 6, 7]]), np.array([True, False, False])).tolist()
    [0.25]
    """
    # The mean of both ways to order ties is to count each as half.
    lost, won = (auc(rank_shown(scores, candidates, clicked, ties_lose=lose)) for lose in (True, False))
    return (lost + won) / 2.0


def mrr_of_clicks(ranks: Ranks) -> FloatArray:
    """(I,) the mean of 1 / rank over all clicked items of a list, as MIND's own script has it (Wu et al. 2020).

    >>> mrr_of_clicks(Ranks.from_rows([[1, 4]], n_candidates=5)).tolist()
    [0.625]
    """
    sums = np.bincount(ranks.ranks.row_of_value, weights=1.0 / ranks.ranks.values, minlength=len(ranks))
    return np.asarray(sums / ranks.n_relevant)


def fit_click_rule(scores: FloatArray, candidates: Ragged, clicked: BoolArray) -> ClickRule:
    """The curve of greatest likelihood, and the threshold of the best F1, on these (validation) lists."""
    inputs, labels = _curve_inputs(scores, candidates), clicked.astype(np.float64)

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        exponent = inputs @ weights
        chance = expit(exponent)
        value = np.mean(np.logaddexp(0.0, exponent) - labels * exponent) + 1e-6 * float(weights @ weights)
        return float(value), inputs.T @ (chance - labels) / len(labels) + 2e-6 * weights

    found = minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B").x
    rule = ClickRule(float(found[0]), float(found[1]), float(found[2]), threshold=0.5)
    return replace(rule, threshold=_best_threshold(rule.chance(scores, candidates), clicked))


def evaluate_lists(
    scorer: ListScorer, asked: ShownLists, validation: ShownLists, before: ListScorer | None = None
) -> ListEvaluation:
    """Measure a scorer on the lists asked; its click rule comes from the validation lists.

    before: the same system as it was before it learnt from validation, which makes the rule; unset: it never has.
    Every list needs a click and a candidate that was not clicked. Raises InputError where that fails or scores do not fit.
    """
    scores = _scores_of(scorer, asked)
    past = _scores_of(before or scorer, validation)
    rule = fit_click_rule(past, validation.candidates, validation.clicked)
    foretold, clicked = rule.chance(scores, asked.candidates) >= rule.threshold, asked.clicked
    cells = (foretold & clicked, foretold & ~clicked, ~foretold & clicked, ~foretold & ~clicked)
    rows = asked.candidates.row_of_value
    counts = [np.bincount(rows, weights=cell, minlength=len(asked)).astype(np.float64) for cell in cells]
    ranks = rank_shown(scores, asked.candidates, clicked)
    metrics = {
        "auc": auc_of_lists(scores, asked.candidates, clicked),
        "mrr": mrr_of_clicks(ranks),
        "ndcg@5": ndcg_at(ranks, 5),
        "ndcg@10": ndcg_at(ranks, 10),
        "hit@1": hit_at(ranks, 1),
    }
    return ListEvaluation(scorer.name, metrics, np.stack(counts, axis=1), asked.user_idx)


def mean_auc(scorer: ListScorer, asked: ShownLists) -> float:
    """What settings are chosen by, on validation lists."""
    return float(auc_of_lists(_scores_of(scorer, asked), asked.candidates, asked.clicked).mean())


def build_impression_table(
    evaluations: Sequence[ListEvaluation],
    baselines: Collection[str],
    sentence: str,
    base_rate: float,
    config: EvaluationConfig,
    notes: Mapping[str, str],
) -> ImpressionTable:
    """Rows with intervals over users, and paired differences to the best baseline by AUC."""
    redrawn = {found.name: _redraw(found, config) for found in evaluations}
    n_users = len(np.unique(evaluations[0].groups))
    means = {found.name: _ratios(_columns(found).mean(axis=0, keepdims=True))[0] for found in evaluations}
    ours = [found.name for found in evaluations if found.name in baselines]
    best = max(ours, key=lambda name: means[name][METRICS.index(MAIN)], default=None)

    def differences(name: str) -> dict[str, Difference]:
        if best is None or name == best:
            return {}
        gaps, gap = redrawn[name] - redrawn[best], means[name] - means[best]
        return {
            m: difference_of(float(gap[at]), gaps[:, at], config.confidence, n_users) for at, m in enumerate(METRICS)
        }

    rows = tuple(
        TableRow(
            name=found.name,
            is_baseline=found.name in baselines,
            metrics={
                m: Estimate.of(float(means[found.name][at]), redrawn[found.name][:, at], n_users, config.confidence)
                for at, m in enumerate(METRICS)
            },
            lists={},
            differences=differences(found.name),
            note=notes.get(found.name, ""),
        )
        for found in evaluations
    )
    return ImpressionTable(sentence, config.confidence, base_rate, best, rows)


def _scores_of(scorer: ListScorer, asked: ShownLists) -> FloatArray:
    scores = np.asarray(scorer.score_shown(asked.history, asked.candidates, asked.time_ts), np.float64)
    if scores.shape != asked.clicked.shape:
        raise InputError(
            f"'{scorer.name}' gave scores of shape {scores.shape} for {len(asked.clicked)} candidates; one each is needed"
        )
    refuse_nan(scores[None, :])
    return scores


def _curve_inputs(scores: FloatArray, candidates: Ragged) -> FloatArray:
    """(n_shown, 3): the score within its list, the log of the list's length, one."""
    rows, lengths = candidates.row_of_value, np.maximum(candidates.lengths, 1)
    mean = np.bincount(rows, weights=scores, minlength=len(candidates)) / lengths
    centred = scores - mean[rows]
    deviation = np.sqrt(np.bincount(rows, weights=centred**2, minlength=len(candidates)) / lengths)
    z = centred / np.where(deviation > 1e-12, deviation, 1.0)[rows]
    return np.stack([z, np.log(lengths[rows]), np.ones(len(rows))], axis=1)


def _best_threshold(chance: FloatArray, clicked: BoolArray) -> float:
    order = np.argsort(-chance, kind="stable")
    hits = np.cumsum(clicked[order])
    f1 = 2.0 * hits / (np.arange(1, len(order) + 1) + clicked.sum())
    last = np.append(chance[order][1:] < chance[order][:-1], True)  # a threshold takes all of one value or none
    return float(chance[order][np.argmax(np.where(last, f1, -1.0))])


def _columns(found: ListEvaluation) -> FloatArray:
    """(I, M) what is averaged: metrics a list, then the four counts."""
    return np.concatenate([np.stack(list(found.metrics.values()), axis=1), found.decisions], axis=1)


def _ratios(means: FloatArray) -> FloatArray:
    """(n, len(METRICS)) from means of `_columns`: F1 and accuracy are over all candidates together."""
    lists, (hit, wrong, missed, right) = means[:, :-4], means[:, -4:].T
    f1 = 2.0 * hit / np.maximum(2.0 * hit + wrong + missed, 1e-12)
    accuracy = (hit + right) / (hit + wrong + missed + right)
    return np.concatenate([lists, f1[:, None], accuracy[:, None]], axis=1)


def _redraw(found: ListEvaluation, config: EvaluationConfig) -> FloatArray:
    return _ratios(bootstrap_means(_columns(found), found.groups, config.n_bootstrap, config.seed))
