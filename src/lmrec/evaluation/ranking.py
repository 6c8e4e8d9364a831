"""From a block of scores to the ranks of what is relevant, by counting; the block is read, never copied.

Ties are counted against the system: a relevant item stands below every irrelevant item with the same score, so a
model that gives all items one score earns nothing by luck of the order.
"""

import numpy as np

from lmrec.errors import InputError
from lmrec.evaluation.metrics import Ranks
from lmrec.fields import BoolArray, FloatArray, IntArray, Ragged
from lmrec.topk import float_type, refuse_nan


def rank_relevant(scores: FloatArray, history: Ragged, relevant: Ragged, exclude_seen: bool) -> Ranks:
    """The ranks of each case's relevant items among all candidates.

    scores: (b, N), higher is better; infinite values are ranked as they are, NaN is refused.
    history: the items of each case's past; they are no candidates where `exclude_seen` is true.
    relevant: what the case asks for, at least one item, none twice, none of them excluded.

    rank = number of irrelevant candidates with a score at least as high + place among the relevant ones.
    Raises InputError for a NaN score, a wrong shape or a relevant item that cannot be ranked.

    >>> one_case = Ragged.from_rows([[2]]), Ragged.from_rows([[1]])
    >>> rank_relevant(np.array([[0.5, 0.5, 0.9, 0.1]]), *one_case, exclude_seen=True).ranks[0].tolist()
    [2]
    """
    _check_block(scores, history, relevant)
    rows, items = relevant.row_of_value, relevant.values
    n_items = scores.shape[1]
    seen = _different_pairs(history, n_items) if exclude_seen else np.zeros(0, np.int64)
    _refuse_excluded(_stand_in(seen, rows * n_items + items), rows, items)
    n_seen = np.bincount(seen // n_items, minlength=len(history))
    values = np.asarray(scores[rows, items], dtype=float_type(scores))
    values = values[np.lexsort((-values, rows))]
    place = np.arange(len(values)) - np.repeat(relevant.offsets[:-1], relevant.lengths)
    own = Ragged(values, relevant.offsets)
    excluded = Ragged(np.asarray(scores[np.divmod(seen, n_items)], values.dtype), np.append(0, np.cumsum(n_seen)))
    # One pass over a row that is in the cache for each value; what is no rival is taken off again.
    at_or_above = np.fromiter(
        (np.count_nonzero(scores[row] >= value) for row, value in zip(rows, values, strict=True)), np.int64, len(values)
    )
    ranks = at_or_above - _count_from(own, own) - _count_from(excluded, own) + place + 1
    return Ranks(Ragged(ranks, relevant.offsets), n_items - n_seen, relevant.lengths)


def _count_from(scores: Ragged, bounds: Ragged) -> IntArray:
    """(V,) for each value of `bounds`: how many scores of the same row are at least as high."""
    counted = np.zeros(len(bounds.values), np.int64)
    for place in range(
        int(bounds.lengths.max(initial=0))
    ):  # the first bound of every row, then the second where there is one
        rows = np.flatnonzero(bounds.lengths > place)
        at, found = bounds.offsets[rows] + place, scores.take(rows)
        high = found.values >= np.repeat(bounds.values[at], found.lengths)
        counted[at] = np.bincount(found.row_of_value[high], minlength=len(rows))
    return counted


def _different_pairs(rows: Ragged, n_items: int) -> IntArray:
    """Pairs (row, item), each as one number, ascending and none twice. Sorting is quick; np.unique, which hashes, is not."""
    pairs = np.sort(rows.row_of_value * n_items + rows.values)
    once = np.ones(len(pairs), np.bool_)
    once[1:] = pairs[1:] != pairs[:-1]
    return pairs[once]


def _stand_in(ascending: IntArray, asked: IntArray) -> BoolArray:
    """Which of `asked` are among the ascending numbers."""
    if not len(ascending):
        return np.zeros(len(asked), np.bool_)
    nearest = ascending[np.minimum(np.searchsorted(ascending, asked), len(ascending) - 1)]
    return np.equal(nearest, asked)


def _check_block(scores: FloatArray, history: Ragged, relevant: Ragged) -> None:
    if scores.ndim != 2 or not len(scores) == len(history) == len(relevant):
        raise InputError(
            f"Scores of shape {scores.shape} came for {len(history)} histories and {len(relevant)} sets of relevant items; "
            "a scorer gives one row for each history and one column for each item of the catalog."
        )
    if len(relevant) and relevant.lengths.min() == 0:
        row = int(np.argmin(relevant.lengths))
        raise InputError(f"Case {row} of the block has no relevant item; nothing can be judged. Drop such cases first.")
    refuse_nan(scores)


def _refuse_excluded(excluded: BoolArray, rows: IntArray, items: IntArray) -> None:
    if excluded.any():
        at = int(np.argmax(excluded))
        raise InputError(
            f"Item {items[at]} is relevant to case {rows[at]} of the block but also in its history, and seen items are "
            "excluded. Remove it from the relevant items, or judge with exclude_seen=False."
        )
