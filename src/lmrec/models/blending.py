"""Rankings made one without a common scale: reciprocal ranks, or scores at unit spread. No torch."""

import numpy as np
import numpy.typing as npt

from lmrec.fields import FloatArray

CONSTANT = 60.0  # of the paper; a larger one makes the top of each list count less
_STEP = 2.0**-18  # of the largest of a row: nearer than that, which of two is greater is the rounding of sums


def reciprocal_ranks(scores: FloatArray, constant: float = CONSTANT) -> npt.NDArray[np.float32]:
    """(B, N) scores -> (B, N) 1 / (constant + rank), the best of a row having rank 1, equals sharing their mean rank.

    Equal are those that only rounding tells apart (4e-6 of the row's largest): a part that gives half the catalog next to
    nothing would else rank that half by how its sums happened to be added up.
    Summed over systems this is reciprocal rank fusion. Source: Cormack, Clarke & Buettcher 2009,
    https://doi.org/10.1145/1571941.1572114.

    >>> (1 / reciprocal_ranks(np.array([[0.5, 0.9, 0.5]]))).round(1).tolist()
    [[62.5, 61.0, 62.5]]
    >>> (1 / reciprocal_ranks(np.array([[0.5, 1e-12, -1e-12]]))).round(1).tolist()
    [[61.0, 62.5, 62.5]]
    """
    largest = np.abs(scores).max(axis=1, keepdims=True, initial=0.0)
    scores = np.rint(scores / np.where(largest > 0, _STEP * largest, 1.0))
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, axis=1)
    n_rows, n_items = scores.shape
    starts = np.ones((n_rows, n_items), np.bool_)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    group = np.cumsum(starts.ravel()) - 1  # a new group with every row, for its first place always starts one
    place = np.tile(np.arange(1, n_items + 1), n_rows)
    mean_rank = np.bincount(group, weights=place) / np.bincount(group)
    ranks = np.empty((n_rows, n_items), np.float64)
    np.put_along_axis(ranks, order, mean_rank[group].reshape(n_rows, n_items), axis=1)
    return np.asarray(1.0 / (constant + ranks), np.float32)


def blend_standardized(first: FloatArray, second: FloatArray, share: float) -> FloatArray:
    """(K,) (1 - share) * first + share * second of one list, each less its mean and over its deviation in the list.

    >>> blend_standardized(np.array([3.0, 1.0]), np.array([10.0, 30.0]), 0.25).tolist()
    [0.5, -0.5]
    """
    return (1.0 - share) * _standardized(first) + share * _standardized(second)


def _standardized(values: FloatArray) -> FloatArray:
    spread = float(values.std())
    return np.asarray((values - values.mean()) / (spread if spread > 1e-12 else 1.0))
