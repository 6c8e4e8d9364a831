"""Parts of the cases that get rows of their own: cold items, cold users, the head and the long tail.

A slice is a (B,) mask over cases. A case belongs to an item slice when all of its relevant items do; a case that
mixes both kinds (several relevant items) is in neither, so no row is a blend. "Cold" means: no event in all that answers may
rest on, which is training and validation: rivals, and the model as it is served, have learnt from both.
"""

from typing import Final

import numpy as np

from lmrec.data.history import Cases
from lmrec.data.interactions import Interactions
from lmrec.errors import InputError
from lmrec.fields import BoolArray, IntArray, Ragged

HEAD_SHARE: Final = 0.5
ALL: Final = "all"
COLD_ITEMS: Final = "cold items"

DEFINITIONS: Final[dict[str, str]] = {
    ALL: "every case",
    COLD_ITEMS: "what came next has no event in training or validation",
    "warm items": "what came next has events in training or validation",
    "cold users": "the user has no event in training or validation",
    "warm users": "the user has events in training or validation",
    "head": "what came next is among the most popular items that make up half of these events",
    "tail": "what came next is any other item, cold ones included",
}


def slices_of(cases: Cases, known: Interactions, n_items: int) -> dict[str, BoolArray]:
    """`slice_cases` by the events that all answers may rest on."""
    item_counts = np.bincount(known.item_idx, minlength=n_items)
    return slice_cases(cases, item_counts, np.bincount(known.user_idx, minlength=known.n_users))


def slice_cases(cases: Cases, item_counts: IntArray, user_counts: IntArray) -> dict[str, BoolArray]:
    """The masks (B,) of all slices, by name; see `DEFINITIONS`. A slice may be empty.

    item_counts: (N,) events of each item in training and validation. user_counts: (n_users,) those of each user.
    """
    if len(cases) and int(cases.user_idx.max()) >= len(user_counts):
        raise InputError(
            f"User {int(cases.user_idx.max())} has a case, but events are counted for {len(user_counts)} users only; "
            "count over all users, also those without events."
        )
    cold, head = item_counts == 0, head_items(item_counts)
    warm_user = user_counts[cases.user_idx] > 0
    return {
        ALL: np.ones(len(cases), np.bool_),
        COLD_ITEMS: _all_relevant(cases.relevant, cold),
        "warm items": _all_relevant(cases.relevant, ~cold),
        "cold users": ~warm_user,
        "warm users": warm_user,
        "head": _all_relevant(cases.relevant, head),
        "tail": _all_relevant(cases.relevant, ~head),
    }


def head_items(item_counts: IntArray) -> BoolArray:
    """(N,) the fewest, most popular items that make up at least half of all events; lower item numbers first in ties.

    >>> head_items(np.array([1, 5, 2, 2])).tolist()
    [False, True, False, False]
    """
    order = np.argsort(-item_counts, kind="stable")
    before = np.cumsum(item_counts[order]) - item_counts[order]
    head = np.zeros(len(item_counts), np.bool_)
    head[order] = (before < HEAD_SHARE * item_counts.sum()) & (item_counts[order] > 0)
    return head


def _all_relevant(relevant: Ragged, belongs: BoolArray) -> BoolArray:
    """(B,) whether every relevant item of the case belongs."""
    misses = np.bincount(relevant.row_of_value, weights=~belongs[relevant.values], minlength=len(relevant))
    return np.asarray(misses == 0)
