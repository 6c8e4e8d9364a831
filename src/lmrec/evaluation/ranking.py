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
    n_items = scores.shape[1]
    rows, items = relevant.row_of_value, relevant.values
    no_rivals = rows * n_items + items  # pairs (row, item), each as one number
    n_candidates = np.full(len(scores), n_items)
    if exclude_seen:
        seen = np.unique(history.row_of_value * n_items + history.values)
        n_candidates -= np.bincount(seen // n_items, minlength=len(scores))
        _refuse_excluded(np.isin(no_rivals, seen), rows, items)
        no_rivals = np.concatenate([no_rivals, seen])
    values = np.asarray(scores[rows, items], dtype=float_type(scores))
    best_first = np.lexsort((-values, rows))
    place = np.arange(len(values)) - np.repeat(relevant.offsets[:-1], relevant.lengths)
    values = values[best_first]
    # One pass over a row that is in the cache for each value; what is no rival is taken off again.
    at_or_above = np.fromiter(
        (np.count_nonzero(scores[row] >= value) for row, value in zip(rows, values, strict=True)), np.int64, len(values)
    )
    ranks = at_or_above - _count_pairs(scores, no_rivals, rows, values) + place + 1
    return Ranks(Ragged(ranks, relevant.offsets), n_candidates, relevant.lengths)


def _count_pairs(scores: FloatArray, pairs: IntArray, rows: IntArray, values: FloatArray) -> IntArray:
    """(V,) for each value, best first within its row (ascending): how many of the pairs (row, item), given as one number
    each, are in its row and score at least as high."""
    pair_rows, pair_items = np.divmod(pairs, scores.shape[1])
    every_row = np.concatenate([pair_rows, rows])
    every_score = np.concatenate([np.asarray(scores[pair_rows, pair_items], values.dtype), values])
    is_value = np.arange(len(every_row)) >= len(pairs)
    order = np.lexsort((is_value, -every_score, every_row))  # of equal scores the pairs come first
    before = np.cumsum(~is_value[order])
    in_earlier_rows = np.searchsorted(np.sort(pair_rows), rows)
    counted: IntArray = before[is_value[order]] - in_earlier_rows
    return counted


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
