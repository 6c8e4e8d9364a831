"""Lists against a slow reading of their definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrec.errors import InputError
from lmrec.fields import Ragged
from lmrec.topk import exclude_items, top_k


@given(seed=st.integers(0, 10_000))
def test_top_k_is_a_stable_sort_cut_off(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_items, k = int(rng.integers(1, 15)), int(rng.integers(1, 18))
    scores = rng.integers(0, 4, (int(rng.integers(0, 5)), n_items)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    for row, top in zip(scores, top_k(scores, k), strict=True):
        ordered = [item for item in np.argsort(-row, kind="stable") if row[item] > -np.inf][:k]
        assert top.tolist() == [*ordered, *[-1] * (k - len(ordered))]


def test_excluded_items_are_not_shown_and_the_scores_of_the_caller_stay_as_they_were() -> None:
    scores = np.arange(6, dtype=np.float32).reshape(1, 6)
    assert top_k(exclude_items(scores, Ragged.from_rows([[5, 3]])), 3).tolist() == [[4, 2, 1]]
    assert scores.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_a_nan_score_is_refused_by_name_of_its_place() -> None:
    scores = np.zeros((2, 3), np.float32)
    scores[1, 2] = np.nan
    with pytest.raises(InputError, match="item 2 in row 1"):
        top_k(scores, 1)
