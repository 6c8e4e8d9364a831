"""From blocks of scores to lists: the judge and the recommender cut them alike."""

import numpy as np
import numpy.typing as npt

from lmrec.errors import InputError
from lmrec.fields import FloatArray, Ragged

_CACHED_BYTES = 1 << 20
_GROUP = 64


def top_k(scores: FloatArray, k: int, excluded: Ragged | None = None) -> npt.NDArray[np.int32]:
    """(b, k) the items with the highest scores, best first; among equal scores the lower item number comes first.

    An item scored -inf, or named in its row of `excluded`, is no candidate; -1 fills the places that no candidate takes.
    NaN is refused.

    >>> top_k(np.array([[0.1, 0.9, 0.9, -np.inf]]), 4).tolist()
    [[1, 2, 0, -1]]
    """
    refuse_nan(scores)
    n_rows, n_items = scores.shape
    top = np.full((n_rows, k), -1, np.int32)
    width = min(k, n_items)
    if width == 0:
        return top
    size = max(1, _CACHED_BYTES // (scores.itemsize * n_items))  # rows that stay in the processor's cache
    for start in range(0, n_rows, size):
        part = scores[start : start + size]
        if excluded is not None:
            part = exclude_items(part, excluded.slice(start, start + len(part)))
        top[start : start + len(part)] = _top_of(part, width, k)
    return top


def _top_of(scores: FloatArray, width: int, k: int) -> npt.NDArray[np.int32]:
    n_rows, n_items = scores.shape
    top = np.full((n_rows, k), -1, np.int32)
    cells = np.flatnonzero(scores >= _bar(scores, width)[:, None])
    rows, items = np.divmod(cells, n_items)
    order = np.lexsort((-scores.ravel()[cells], rows))  # stable: equal scores stay in the order of items
    place = np.arange(len(cells)) - np.searchsorted(rows, rows)  # `rows` ascends, and so do the rows of `order`
    shown = place < width
    top[rows[shown], place[shown]] = items[order][shown]
    return top


def _bar(scores: FloatArray, width: int) -> FloatArray:
    """(b,) a score that at least `width` candidates of the row reach, and few others; all of them where they are fewer.

    The `width`-th best of the maxima of groups will do, and needs no ordering of the row.
    """
    n_items = scores.shape[1]
    group = min(_GROUP, n_items // (4 * width))
    if group > 1:
        whole = n_items - n_items % group
        grouped = scores[:, :whole].reshape(len(scores), group, -1).max(axis=1)
        scores = np.concatenate([grouped, scores[:, whole:]], axis=1)
    bar = np.partition(scores, scores.shape[1] - width, axis=1)[:, scores.shape[1] - width]
    return np.maximum(bar, np.finfo(bar.dtype).min)  # -inf is no candidate


def exclude_items(scores: FloatArray, excluded: Ragged) -> FloatArray:
    """A copy of the block with the named items of each row at -inf, so that `top_k` leaves them out.

    >>> exclude_items(np.array([[0.3, 0.2]]), Ragged.from_rows([[0]])).tolist()
    [[-inf, 0.2]]
    """
    remaining = np.array(scores, dtype=float_type(scores))
    remaining[excluded.row_of_value, excluded.values] = -np.inf
    return remaining


def float_type(scores: FloatArray) -> type[np.floating]:
    return np.float64 if scores.dtype == np.float64 else np.float32


def refuse_nan(scores: FloatArray) -> None:
    # The minimum of an array with NaN is NaN: one pass and no copy of the block.
    if scores.size and np.isnan(scores.min()):
        row, item = (int(at) for at in np.argwhere(np.isnan(scores))[0])
        raise InputError(
            f"The score of item {item} in row {row} of the block is NaN; a score is a number. "
            "Look for an overflow or an all-masked average in the model."
        )
