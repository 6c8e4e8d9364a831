"""From blocks of scores to lists: the judge and the recommender cut them alike."""

import numpy as np
import numpy.typing as npt

from lmrec.errors import InputError
from lmrec.fields import BoolArray, FloatArray, Ragged


def top_k(scores: FloatArray, k: int) -> npt.NDArray[np.int32]:
    """(b, k) the items with the highest scores, best first; among equal scores the lower item number comes first.

    An item scored -inf is no candidate; -1 fills the places that no candidate takes. NaN is refused.

    >>> top_k(np.array([[0.1, 0.9, 0.9, -np.inf]]), 4).tolist()
    [[1, 2, 0, -1]]
    """
    refuse_nan(scores)
    n_rows, n_items = scores.shape
    top = np.full((n_rows, k), -1, np.int32)
    width = min(k, n_items)
    if n_rows == 0 or width == 0:
        return top
    # Only the k-th value is looked up: an argpartition would take twice the block in indices and break ties at random.
    threshold = np.partition(scores, n_items - width, axis=1)[:, n_items - width]
    chosen = scores >= threshold[:, None]
    counts = np.count_nonzero(chosen, axis=1)
    for row in np.flatnonzero(counts > width):
        chosen[row] = _first_of_ties(scores[row], threshold[row], width)
    # True cells come in row order, `width` of them in each row.
    items = np.nonzero(chosen)[1].reshape(n_rows, width)
    values = np.take_along_axis(scores, items, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    items = np.take_along_axis(items, order, axis=1)
    top[:, :width] = np.where(np.isneginf(np.take_along_axis(values, order, axis=1)), -1, items)
    return top


def exclude_items(scores: FloatArray, excluded: Ragged) -> FloatArray:
    """A copy of the block with the named items of each row at -inf, so that `top_k` leaves them out.

    >>> exclude_items(np.array([[0.3, 0.2]]), Ragged.from_rows([[0]])).tolist()
    [[-inf, 0.2]]
    """
    remaining = np.array(scores, dtype=float_type(scores))
    remaining[excluded.row_of_value, excluded.values] = -np.inf
    return remaining


def _first_of_ties(row: FloatArray, threshold: float, width: int) -> BoolArray:
    """The row's choice where too many items share the last value: all above it, then the lowest item numbers."""
    chosen = row > threshold
    tied = np.flatnonzero(row == threshold)
    chosen[tied[: width - np.count_nonzero(chosen)]] = True
    return np.asarray(chosen)


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
