"""What is kept of a fit, in the repository: benchmarks/tuning/results/DATASET/ROW-SEED.npz, a few kilobytes each.

Intervals redraw users, so a metric's sums over each user's cases are all that they need: with them every interval of the
table, also of a difference, comes out as from the single cases. Beside them stand the facts: overrides, data fingerprint,
commit, machine, seconds, and what the second stage cost. A file of other overrides or other data answers another question
and is not used.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.tuning.rows import slug
from lmrec.evaluation.evaluator import Evaluation
from lmrec.fields import FloatArray, IntArray

METRICS = ("ndcg@10", "recall@10", "auc")
_DECIMALS = 5  # of a user's mean: far below what an interval can see, and it halves a file


@dataclass(frozen=True)
class Question:
    """What a result is an answer to. overrides: of the recipe, with those of the language model's pretraining."""

    row: str
    seed: int
    overrides: tuple[str, ...]
    data: str

    def file(self, folder: Path) -> Path:
        return folder / f"{slug(self.row)}-{self.seed}.npz"

    def as_dict(self) -> dict[str, Any]:
        return {"row": self.row, "seed": self.seed, "overrides": list(self.overrides), "data": self.data}


@dataclass(frozen=True)
class Answers:
    """users, n_cases: (U,) whose cases, and how many. means: metric -> (U,) the mean of a user's cases. facts: plain values."""

    users: IntArray
    n_cases: IntArray
    means: dict[str, FloatArray]
    facts: dict[str, Any]

    @classmethod
    def of(cls, found: Evaluation, facts: dict[str, Any]) -> Self:
        users, member, n_cases = np.unique(found.groups, return_inverse=True, return_counts=True)
        means = {name: np.bincount(member, found.metrics[name]) / n_cases for name in METRICS}
        return cls(users, n_cases, {name: np.round(values, _DECIMALS) for name, values in means.items()}, facts)

    def save(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        small = {name: values.astype(np.float32) for name, values in self.means.items()}
        fresh = file.with_suffix(".new.npz")  # whole, or not at all
        np.savez_compressed(
            fresh,
            allow_pickle=False,
            users=self.users.astype(np.int32),
            n_cases=self.n_cases.astype(np.int32),
            facts=json.dumps(self.facts),
            **small,
        )
        fresh.replace(file)

    @classmethod
    def load(cls, file: Path) -> Self:
        with np.load(file, allow_pickle=False) as held:
            means = {name: held[name].astype(np.float64) for name in METRICS}
            return cls(held["users"], held["n_cases"], means, json.loads(str(held["facts"])))

    def by_case(self, metric: str) -> FloatArray:
        """(B,) values whose sums over each user are those of the cases."""
        return np.repeat(self.means[metric], self.n_cases)

    @property
    def groups(self) -> IntArray:
        """(B,) the user of each value of `by_case`."""
        return np.repeat(self.users, self.n_cases)

    def mean(self, metric: str) -> float:
        return float(self.by_case(metric).mean())


def read_answer(folder: Path, question: Question) -> tuple[Answers | None, str]:
    """(what was kept of it or None, why a file that is there is not used)."""
    file = question.file(folder)
    if not file.exists():
        return None, ""
    found = Answers.load(file)
    why = unfit(file, found.facts, question)
    return (None, why) if why else (found, "")


def unfit(file: Path, facts: Mapping[str, Any], question: Question) -> str:
    """Why what is kept in a file, by these facts, is no answer to the question; empty where it is one."""
    asked = question.as_dict()
    other = [name for name in ("overrides", "data") if facts.get(name) != asked[name]]
    return f"{file.name} is not used: it is of other {' and of other '.join(other)}" if other else ""


def average(seeds: Sequence[Answers], metric: str) -> FloatArray:
    """(B,) the mean over seeds, case by case."""
    return np.asarray(np.mean([one.by_case(metric) for one in seeds], axis=0))
