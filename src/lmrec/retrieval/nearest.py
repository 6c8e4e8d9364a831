"""The best rows of a bank for a query: the index answers for the rows that it holds, a plain product for those after."""

from collections.abc import Collection

import numpy as np
from torch import Tensor

from lmrec.fields import FloatArray, IntArray
from lmrec.retrieval.bank import BankView
from lmrec.retrieval.exact import Float32, Rows, best_of
from lmrec.retrieval.index import ItemIndex, RowMask
from lmrec.retrieval.threads import bound_faiss


def nearest_rows(
    index: ItemIndex, bank: BankView, query: Tensor, k: int, mask: RowMask | None = None
) -> tuple[Rows, Float32]:
    """(B, Q) -> (B, k) rows, best first, equal scores by row, and (B, k) their scores; -1 and -inf where there are none.

    mask: over the bank's rows, who may be answered.
    """
    bound_faiss()
    rows, scores = index.search(query.numpy(), k, lambda at: bank.matrix_rows(at).numpy(), mask)
    n_later = bank.n_rows - index.n_rows
    if not n_later:
        return rows, scores
    later: Float32 = bank.scores(query, first=index.n_rows).numpy()
    if mask is not None:
        later[:, ~mask.shown[index.n_rows : bank.n_rows]] = -np.inf
    width = min(k, n_later)
    places = np.argpartition(-later, width - 1, axis=1)[:, :width]
    both = np.concatenate([rows, index.n_rows + places], axis=1)
    return best_of(both, np.concatenate([scores, np.take_along_axis(later, places, axis=1)], axis=1), k)


def merged(
    rows: IntArray, scores: FloatArray, named: IntArray, named_scores: FloatArray, excluded: Collection[int], k: int
) -> tuple[list[int], list[float]]:
    """The best k of rows that were found (F,; -1: none) and of rows whose scores are known better (M,), those excluded
    left out; best first, equal scores by row.

    >>> merged(np.array([4, 7, -1]), np.array([3.0, 2.0, -np.inf]), np.array([7, 9]), np.array([5.0, 1.0]), [4], k=2)
    ([7, 9], [5.0, 1.0])
    """
    known_better = np.isin(rows, np.asarray(named, np.int64)) if len(named) else np.zeros(len(rows), np.bool_)
    every_row = np.concatenate([rows[~known_better], named]).astype(np.int64)
    every_score = np.concatenate([scores[~known_better], named_scores])
    kept = every_row >= 0
    if excluded:
        kept &= ~np.isin(every_row, np.fromiter(excluded, np.int64, len(excluded)))
    every_row, every_score = every_row[kept], every_score[kept]
    order = np.lexsort((every_row, -every_score))[:k]
    return every_row[order].tolist(), every_score[order].tolist()
