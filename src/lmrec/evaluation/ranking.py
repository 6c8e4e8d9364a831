"""From a block of scores to the ranks of what is relevant. Numpy on whole blocks; the memory in use is a few times the block.

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
    # NaN is neither above nor below anything: in this copy it marks what no longer competes.
    rivals = np.array(scores, dtype=float_type(scores))
    rows, items = relevant.row_of_value, relevant.values
    n_candidates = np.full(len(scores), n_items)
    if exclude_seen:
        seen = np.unique(history.row_of_value * n_items + history.values)
        seen_rows, seen_items = np.divmod(seen, n_items)
        n_candidates -= np.bincount(seen_rows, minlength=len(scores))
        rivals[seen_rows, seen_items] = np.nan
        _refuse_excluded(np.isnan(rivals[rows, items]), rows, items)
    values = np.asarray(scores[rows, items], dtype=rivals.dtype)
    rivals[rows, items] = np.nan
    best_first = np.lexsort((-values, rows))
    place = np.arange(len(values)) - np.repeat(relevant.offsets[:-1], relevant.lengths)
    ranks = _count_at_or_above(rivals, rows, values[best_first], place) + place + 1
    return Ranks(Ragged(ranks, relevant.offsets), n_candidates, relevant.lengths)


def _count_at_or_above(rivals: FloatArray, rows: IntArray, values: FloatArray, place: IntArray) -> IntArray:
    """For each value, how many rivals of its row are at least as high. One pass over the block for each place."""
    counts = np.zeros(len(values), np.int64)
    for p in range(int(place.max(initial=-1)) + 1):
        at = np.flatnonzero(place == p)
        block = rivals if len(at) == len(rivals) else rivals[rows[at]]
        counts[at] = np.count_nonzero(block >= values[at, None], axis=1)
    return counts


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
