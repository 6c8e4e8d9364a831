"""Item neighbours: a sparse table of what each item says of others, as several ways of counting a log make it. No torch.

Transitions, EASE and kNN differ in how the table is fitted; asked, saved, explained and served they are one thing.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from lmrec.fields import BoolArray, IntArray, Ragged

WHOLE_HISTORY: Final = 1_000  # what "all of a history" means to something that is served


@dataclass(frozen=True, eq=False)
class ItemNeighbours:
    """score(j) = sum over the `n_last` newest items i of a history of worth(i) * matrix(i, j).

    matrix: (N, N) float32, never negative: an index finds the best of all by that. decay: worth(i) = decay^age(i), each
    time that i is there; None: 1 for each different item.
    """

    matrix: sp.csr_matrix
    n_last: int
    decay: float | None = None

    @property
    def n_items(self) -> int:
        return int(self.matrix.shape[0])

    def asked(self, history: Ragged) -> sp.csr_matrix:
        """(B, N) how much each item of the fit is asked by each history."""
        newest = history.last(self.n_last)
        known = newest.values < self.n_items
        worth = np.ones(len(newest.values)) if self.decay is None else self.decay**newest.ages
        cells = worth[known].astype(np.float32), (newest.row_of_value[known], newest.values[known])
        found = sp.csr_matrix(cells, shape=(len(history), self.n_items))
        if self.decay is None:
            found.sum_duplicates()
            found.data[:] = 1.0
        return found

    def sparse_scores(self, history: Ragged, n_items: int) -> sp.csr_matrix:
        """(B, n_items). Items that came after the fit neither ask nor are answered."""
        found = (self.asked(history) @ self.matrix).tocsr()
        found.resize((len(history), n_items))
        return found

    def scores_of(self, history: Ragged, item: int) -> npt.NDArray[np.float32]:
        """(B,) the scores of one item."""
        if item >= self.n_items:
            return np.zeros(len(history), np.float32)
        return np.asarray((self.asked(history) @ self.matrix[:, [item]]).toarray()[:, 0], np.float32)

    def followers(self, history: IntArray) -> tuple[IntArray, npt.NDArray[np.float32]]:
        """What one history, oldest first, speaks for: items, each as often as one of the history names it, and what each time
        is worth. Their sums are the row of `sparse_scores`, made without a matrix of its own."""
        newest = np.asarray(history, np.int64)[-self.n_last :]
        if self.decay is None:
            newest = np.unique(newest)
            worth = np.ones(len(newest), np.float32)
        else:
            worth = (self.decay ** np.arange(len(newest) - 1, -1, -1)).astype(np.float32)
        known = newest < self.n_items
        newest, worth = newest[known], worth[known]
        parts = [
            (self.matrix.indices[start:stop], self.matrix.data[start:stop] * one)
            for start, stop, one in zip(self.matrix.indptr[newest], self.matrix.indptr[newest + 1], worth, strict=True)
        ]
        if not parts:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        return np.concatenate([items for items, _ in parts]), np.concatenate([worths for _, worths in parts])

    def among(self, known: BoolArray) -> "ItemNeighbours":
        """As if the other items had no events: they neither ask nor are answered. known: (N,)."""
        kept = sp.diags_array(known.astype(np.float32))
        matrix = sp.csr_matrix(kept @ self.matrix @ kept)
        matrix.eliminate_zeros()
        return ItemNeighbours(matrix, self.n_last, self.decay)

    def moved(self, old_rows: IntArray) -> "ItemNeighbours":
        """Over other items. old_rows: (n,) the row here of each of them, -1 of one that is new."""
        matrix = self.matrix.tocoo()
        new_row = np.full(self.n_items, -1, np.int64)
        new_row[old_rows[old_rows >= 0]] = np.flatnonzero(old_rows >= 0)
        rows, columns = new_row[matrix.row], new_row[matrix.col]
        kept = (rows >= 0) & (columns >= 0)
        shape = (len(old_rows), len(old_rows))
        fresh = sp.csr_matrix((matrix.data[kept], (rows[kept], columns[kept])), shape=shape)
        return ItemNeighbours(fresh, self.n_last, self.decay)


def largest_of_rows(matrix: sp.csr_matrix, n_kept: int) -> sp.csr_matrix:
    """The largest `n_kept` of each row; among equals the lower item number, so that a fit is repeatable."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    place = np.arange(len(rows)) - matrix.indptr[rows]
    kept = order[place < n_kept]
    return sp.csr_matrix((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape)
