"""Slices: who belongs where, and that a mixed case belongs to neither side."""

import numpy as np
import pytest

from lmrec.data.history import Cases
from lmrec.errors import InputError
from lmrec.evaluation.slices import DEFINITIONS, head_items, slice_cases
from lmrec.fields import Ragged

from .conftest import no_items

COUNTS = np.array([0, 6, 3, 1, 0])  # 0 and 4 are cold; 1 alone is the head (6 of 10)
USER_COUNTS = np.array([5, 0])


def make_cases(relevant: list[list[int]], users: list[int]) -> Cases:
    return Cases(
        np.array(users, np.int32), np.zeros(len(relevant)), no_items(len(relevant)), Ragged.from_rows(relevant)
    )


def test_each_case_is_where_its_relevant_items_and_user_put_it() -> None:
    masks = slice_cases(make_cases([[0], [1], [2, 3], [0, 1]], [0, 1, 0, 1]), COUNTS, USER_COUNTS)
    assert {name: mask.tolist() for name, mask in masks.items()} == {
        "all": [True, True, True, True],
        "cold items": [True, False, False, False],
        "warm items": [False, True, True, False],
        "cold users": [False, True, False, True],
        "warm users": [True, False, True, False],
        "head": [False, True, False, False],
        "tail": [True, False, True, False],
    }
    assert masks.keys() == DEFINITIONS.keys()


def test_the_head_is_the_fewest_items_with_half_of_the_events() -> None:
    assert np.flatnonzero(head_items(np.array([2, 2, 2, 2]))).tolist() == [0, 1]
    assert np.flatnonzero(head_items(np.array([1, 9]))).tolist() == [1]
    assert not head_items(np.zeros(3, np.int64)).any()


def test_no_cases_have_empty_masks() -> None:
    assert all(len(mask) == 0 for mask in slice_cases(make_cases([], []), COUNTS, USER_COUNTS).values())


def test_a_user_that_nobody_counted_is_refused() -> None:
    with pytest.raises(InputError, match="User 2 has a case"):
        slice_cases(make_cases([[1]], [2]), COUNTS, USER_COUNTS)
