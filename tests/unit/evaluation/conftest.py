"""A small world for the judge: cases with a known answer and scorers that know a part of it."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from lmrec.data.history import Cases
from lmrec.evaluation.evaluator import Evaluation, EvaluationConfig, evaluate
from lmrec.fields import FloatArray, IntArray, Ragged

N_ITEMS = 50
N_USERS = 12


def no_items(n_rows: int) -> Ragged:
    """So many empty rows."""
    return Ragged(np.zeros(0, np.int64), np.zeros(n_rows + 1, np.int64))


@dataclass
class PlannedScorer:
    """Gives the right item a bonus over noise. The first item of a history names the right one: (first + 1) % N."""

    name: str
    bonus: float
    n_items: int = N_ITEMS
    asked: list[int] = field(default_factory=list)

    def score(self, history: Ragged) -> FloatArray:
        self.asked.append(len(history))
        scores = np.zeros((len(history), self.n_items), np.float32)
        for case in range(len(history)):
            first = int(history[case][0])
            scores[case] = np.random.default_rng(first + len(self.name) * 100).standard_normal(self.n_items)
            scores[case, (first + 1) % N_ITEMS] += self.bonus
        return scores


@pytest.fixture
def cases() -> Cases:
    """Sixty questions of the first ten of twelve users."""
    rng = np.random.default_rng(5)
    first = rng.integers(0, N_ITEMS, 60)
    history = Ragged.from_rows([[int(item)] for item in first])
    relevant = Ragged.from_rows([[int((item + 1) % N_ITEMS)] for item in first])
    return Cases(rng.integers(0, 10, 60).astype(np.int32), np.sort(rng.random(60)), history, relevant)


@pytest.fixture
def item_counts() -> IntArray:
    """Items 0 to 9 are cold, the rest have 1, 2, 3, ... events."""
    return np.maximum(np.arange(N_ITEMS) - 9, 0)


@pytest.fixture
def config() -> EvaluationConfig:
    return EvaluationConfig(ks=(5, 10), n_bootstrap=200)


@pytest.fixture
def evaluations(cases: Cases, item_counts: IntArray, config: EvaluationConfig) -> list[Evaluation]:
    """A weak and a fair baseline, and a good system."""
    scorers = [PlannedScorer("weak", 0.0), PlannedScorer("fair", 1.5), PlannedScorer("our model", 4.0)]
    return [evaluate(scorer, cases, N_ITEMS, config, item_counts=item_counts) for scorer in scorers]
