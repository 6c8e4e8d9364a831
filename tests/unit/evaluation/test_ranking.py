"""Ranks against a slow reading of their definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrec.errors import InputError
from lmrec.evaluation.ranking import rank_relevant
from lmrec.fields import FloatArray, Ragged

from .conftest import no_items

NONE = no_items(1)


def slow_ranks(row: FloatArray, history: list[int], relevant: list[int], exclude_seen: bool) -> list[int]:
    """The definition, word by word."""
    rivals = [i for i in range(len(row)) if i not in relevant and not (exclude_seen and i in history)]
    best_first = sorted(relevant, key=lambda item: -row[item])
    return [sum(row[r] >= row[item] for r in rivals) + place + 1 for place, item in enumerate(best_first)]


@given(seed=st.integers(0, 10_000), exclude_seen=st.booleans())
def test_ranks_follow_the_definition_also_with_ties(seed: int, exclude_seen: bool) -> None:
    rng = np.random.default_rng(seed)
    n_cases, n_items = int(rng.integers(1, 6)), int(rng.integers(4, 12))
    scores = rng.integers(-2, 3, (n_cases, n_items)).astype(np.float32)  # few values: many ties
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    shuffled = [rng.permutation(n_items).tolist() for _ in range(n_cases)]
    relevant = [order[: rng.integers(1, 3)] for order in shuffled]
    history = [order[2:4] * 2 if rng.random() < 0.7 else [] for order in shuffled]  # an item may come twice
    ranks = rank_relevant(scores, Ragged.from_rows(history), Ragged.from_rows(relevant), exclude_seen)
    for case in range(n_cases):
        assert ranks.ranks[case].tolist() == slow_ranks(scores[case], history[case], relevant[case], exclude_seen)
        assert ranks.n_candidates[case] == n_items - (len(set(history[case])) if exclude_seen else 0)
        assert ranks.n_relevant[case] == len(relevant[case])


def test_one_score_for_all_puts_the_relevant_item_last() -> None:
    ranks = rank_relevant(np.zeros((1, 100), np.float32), NONE, Ragged.from_rows([[0]]), exclude_seen=True)
    assert ranks.ranks[0].tolist() == [100]


def test_the_scores_of_the_caller_stay_as_they_were() -> None:
    scores = np.arange(6, dtype=np.float32).reshape(1, 6)
    history = Ragged.from_rows([[5]])
    rank_relevant(scores, history, Ragged.from_rows([[0]]), exclude_seen=True)
    assert scores.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_a_nan_score_is_refused_by_name_of_its_place() -> None:
    scores = np.zeros((2, 3), np.float32)
    scores[1, 2] = np.nan
    two = Ragged.from_rows([[0], [0]])
    with pytest.raises(InputError, match="item 2 in row 1"):
        rank_relevant(scores, no_items(2), two, exclude_seen=True)


def test_a_relevant_item_in_the_excluded_history_is_refused() -> None:
    one = Ragged.from_rows([[1]])
    with pytest.raises(InputError, match="Item 1 is relevant to case 0"):
        rank_relevant(np.zeros((1, 3), np.float32), one, one, exclude_seen=True)
    assert rank_relevant(np.zeros((1, 3), np.float32), one, one, exclude_seen=False).ranks[0].tolist() == [3]


def test_a_case_without_relevant_items_and_a_wrong_shape_are_refused() -> None:
    with pytest.raises(InputError, match="no relevant item"):
        rank_relevant(np.zeros((1, 3), np.float32), NONE, NONE, exclude_seen=True)
    with pytest.raises(InputError, match="2 sets of relevant"):
        rank_relevant(np.zeros((1, 3), np.float32), NONE, Ragged.from_rows([[1], [2]]), exclude_seen=True)
