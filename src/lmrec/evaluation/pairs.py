"""Judging single pairs (would this history choose this item?) from probabilities: AUC, log loss, F1, calibration.

These figures depend on what the wrong pairs are; beside hard ones they are lower than beside random ones, so they compare
models on one set of pairs and nothing else. What a reranker does to lists is judged over the whole catalog.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from rich.table import Table

from lmrec.evaluation.calibration import (
    ReliabilityBin,
    calibration_error,
    fit_temperature,
    log_loss,
    probabilities,
    reliability,
)
from lmrec.evaluation.table import JudgementTable
from lmrec.fields import BoolArray, FloatArray, IntArray

Task: TypeAlias = Literal["binary", "classes", "regression"]


@dataclass(frozen=True)
class Calibration:
    """What validation pairs decide: the temperature, and for two classes the probability from which "yes" is said."""

    temperature: float = 1.0
    threshold: float = 0.5


@dataclass(frozen=True)
class PairJudgement:
    """metrics: name -> value. bins: reliability of the calibrated probabilities, raw_bins of those before."""

    task: Task
    n_pairs: int
    negatives: str
    calibration: Calibration
    metrics: dict[str, float]
    bins: tuple[ReliabilityBin, ...] = ()
    raw_bins: tuple[ReliabilityBin, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        bins, raw_bins = (tuple(ReliabilityBin(**one) for one in values[name]) for name in ("bins", "raw_bins"))
        return cls(
            **{**values, "calibration": Calibration(**values["calibration"]), "bins": bins, "raw_bins": raw_bins}
        )

    def rich(self, part: str = "test") -> Table:
        """For a terminal; part: of which the pairs are."""
        title = f"Pairs of the {part} part"
        table = Table(title=title, title_justify="left", caption=self.sentence, caption_justify="left")
        for name in self.metrics:
            table.add_column(name.replace("_", " "), justify="right")
        table.add_row(*(f"{value:.4f}" for value in self.metrics.values()))
        return table

    @property
    def sentence(self) -> str:
        """What was asked."""
        scaled = f"; probabilities at temperature {self.calibration.temperature:.2f}, fitted on validation"
        return f"{self.n_pairs:,} pairs, {self.negatives}{scaled if self.task != 'regression' else ''}"


def roc_auc(chance: FloatArray, is_right: BoolArray) -> float:
    """The chance that a right pair has a higher probability than a wrong one, ties counting half; 0.5 without both kinds.

    AUC = (sum of the right pairs' mean ranks - R (R + 1) / 2) / (R W) for R right and W wrong pairs.

    >>> roc_auc(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
    0.875
    """
    n_right, n_wrong = int(is_right.sum()), int((~is_right).sum())
    if not n_right or not n_wrong:
        return 0.5
    _, place, times = np.unique(chance, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(times) - (times - 1) / 2.0
    return float((mean_rank[place][is_right].sum() - n_right * (n_right + 1) / 2) / (n_right * n_wrong))


def f1_score(said: BoolArray, is_right: BoolArray) -> float:
    """2 hits / (said + right); 0 where nothing is said.

    >>> round(f1_score(np.array([True, True, False]), np.array([True, False, False])), 3)
    0.667
    """
    return float(2.0 * (said & is_right).sum() / max(1, said.sum() + is_right.sum()))


def best_threshold(chance: FloatArray, is_right: BoolArray) -> float:
    """The probability from which saying yes gives the best F1; the midpoint below the last one that is said.

    >>> round(best_threshold(np.array([0.9, 0.6, 0.3, 0.2]), np.array([True, True, False, False])), 3)
    0.45
    """
    order = np.argsort(-chance, kind="stable")
    ordered, hits = chance[order], np.cumsum(is_right[order])
    f1 = 2.0 * hits / (np.arange(1, len(order) + 1) + max(1, is_right.sum()))
    f1[:-1][ordered[:-1] == ordered[1:]] = -1.0  # equal probabilities are said together
    best = int(np.argmax(f1))
    below = ordered[best + 1] if best + 1 < len(ordered) else 0.0
    return float((ordered[best] + below) / 2.0)


def calibrate(task: Task, outputs: FloatArray, labels: FloatArray) -> Calibration:
    """From validation pairs: outputs (P, C), labels (P,)."""
    if task == "regression" or not len(labels):
        return Calibration()
    temperature = fit_temperature(outputs, labels.astype(np.int64))
    if task == "classes":
        return Calibration(temperature)
    return Calibration(temperature, best_threshold(probabilities(outputs, temperature)[:, 1], labels > 0))


def judge_pairs(
    task: Task, outputs: FloatArray, labels: FloatArray, calibration: Calibration, negatives: str, spread: float = 1.0
) -> PairJudgement:
    """outputs: (P, C) of the model. labels: (P,) 0/1, a class, or a value in the outputs' units. spread: how many ratings one
    of these units is, so that RMSE and MAE are in ratings (stars); R2 has no unit."""
    if task == "regression":
        error = spread * (outputs[:, 0] - labels)
        variance = float(np.mean((spread * (labels - labels.mean())) ** 2))
        metrics = {
            "rmse": float(np.sqrt(np.mean(error**2))),
            "mae": float(np.abs(error).mean()),
            "r2": float(1.0 - np.mean(error**2) / max(variance, 1e-12)),
        }
        return PairJudgement(task, len(labels), negatives, calibration, metrics)
    classes = labels.astype(np.int64)
    raw, chance = probabilities(outputs), probabilities(outputs, calibration.temperature)
    bins, raw_bins = (_bins(task, one, classes) for one in (chance, raw))
    metrics = {
        **(_binary(chance, classes, calibration) if task == "binary" else _classes(chance, classes)),
        "log_loss": log_loss(outputs, classes, calibration.temperature),
        "log_loss_before": log_loss(outputs, classes),
        "calibration_error": calibration_error(bins),
        "calibration_error_before": calibration_error(raw_bins),
    }
    return PairJudgement(task, len(labels), negatives, calibration, metrics, tuple(bins), tuple(raw_bins))


def _bins(task: Task, chance: FloatArray, labels: IntArray) -> list[ReliabilityBin]:
    """Of the probability of "yes", or of the likeliest class."""
    if task == "binary":
        return reliability(chance[:, 1], (labels == 1).astype(np.float64))
    return reliability(chance.max(axis=1), (chance.argmax(axis=1) == labels).astype(np.float64))


def _binary(chance: FloatArray, labels: IntArray, calibration: Calibration) -> dict[str, float]:
    is_right, yes = labels == 1, chance[:, 1]
    return {
        "auc": roc_auc(yes, is_right),
        "accuracy": float(((yes > 0.5) == is_right).mean()),
        "f1": f1_score(yes > calibration.threshold, is_right),
    }


def _classes(chance: FloatArray, labels: IntArray) -> dict[str, float]:
    """AUC and F1 are means over the classes that occur, each against all others (macro)."""
    present = np.unique(labels)
    said = chance.argmax(axis=1)
    return {
        "auc": float(np.mean([roc_auc(chance[:, one], labels == one) for one in present])),
        "accuracy": float((said == labels).mean()),
        "f1": float(np.mean([f1_score(said == one, labels == one) for one in present])),
    }


@dataclass(frozen=True)
class ListTimes:
    """Milliseconds of one user's list: by the clock at the middle and at the 95th percentile; and of the processor at the
    middle, which other work on the machine does not lengthen."""

    p50: float
    p95: float
    processor_p50: float

    @property
    def words(self) -> str:
        return f"{self.p50:.3g} ms (95th percentile {self.p95:.3g}, of the processor {self.processor_p50:.3g})"


@dataclass(frozen=True)
class RerankJudgement:
    """table: lists before and after, over the whole catalog. pairs: what single predictions are worth. reading, plain: what a
    list takes where the reranker reads its best `n_read`, whatever its weight is, and without."""

    table: JudgementTable
    pairs: PairJudgement
    n_read: int
    reading: ListTimes
    plain: ListTimes

    @property
    def cost(self) -> str:
        """One sentence."""
        return f"A list takes {self.reading.words} where the best {self.n_read} are read, {self.plain.words} without."

    def as_dict(self) -> dict[str, Any]:
        return {
            "table": self.table.as_dict(),
            "pairs": self.pairs.as_dict(),
            "n_read": self.n_read,
            "reading": asdict(self.reading),
            "plain": asdict(self.plain),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        times = (ListTimes(**values[name]) for name in ("reading", "plain"))
        return cls(
            JudgementTable.from_dict(values["table"]),
            PairJudgement.from_dict(values["pairs"]),
            values["n_read"],
            *times,
        )
