"""Variety: nothing changes at 0, the definition holds step by step, and more of it means less likeness."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrec.fields import FloatArray
from lmrec.retrieval.diversity import diversify


def by_definition(scores: FloatArray, vectors: FloatArray, k: int, diversity: float) -> list[int]:
    relevance = (scores - scores.min()) / (scores.max() - scores.min())
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen = [int(np.argmax(scores))]
    while len(chosen) < min(k, len(scores)):
        rest = [at for at in range(len(scores)) if at not in chosen]
        worth = [
            (1 - diversity) * relevance[at] - diversity * max(units[at] @ units[one] for one in chosen) for at in rest
        ]
        chosen.append(rest[int(np.argmax(worth))])
    return chosen


@given(seed=st.integers(0, 10_000), n=st.integers(2, 30), k=st.integers(1, 12), diversity=st.floats(0.01, 1.0))
def test_each_step_is_the_definition(seed: int, n: int, k: int, diversity: float) -> None:
    rng = np.random.default_rng(seed)
    scores, vectors = rng.normal(size=n), rng.normal(size=(n, 5))
    assert diversify(scores, vectors, k, diversity) == by_definition(scores, vectors, k, diversity)


def test_nothing_changes_at_zero() -> None:
    scores = np.array([0.1, 0.9, 0.9, 0.5])
    assert diversify(scores, np.zeros((4, 2)), 3, 0.0) == [1, 2, 3]


@pytest.mark.parametrize("diversity", [0.0, 0.5, 1.0])
def test_no_and_single_candidates_and_equal_scores(diversity: float) -> None:
    assert diversify(np.zeros(0), np.zeros((0, 2)), 3, diversity) == []
    assert diversify(np.ones(1), np.ones((1, 2)), 3, diversity) == [0]
    assert sorted(diversify(np.ones(3), np.zeros((3, 2)), 5, diversity)) == [0, 1, 2]
