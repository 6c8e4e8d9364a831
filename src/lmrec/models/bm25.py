"""Item neighbours under BM25 weights, by the package `implicit`: the item-to-item rival that is often hardest to beat."""

from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field

from lmrec.fields import Ragged
from lmrec.models.collaborative import LogArrays, check_implicit, popularity_tie_break
from lmrec.models.neighbours import WHOLE_HISTORY, ItemNeighbours


class BM25KNNConfig(BaseModel):
    """What an event weighs, and how much of the history is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_neighbours: int = Field(default=100, ge=1, description="How many nearest items each item keeps.")
    k1: float = Field(
        default=1.2, ge=0.0, description="How soon repeated events of one user on one item stop counting."
    )
    b: float = Field(
        default=0.75, ge=0.0, le=1.0, description="How much events of popular items count less; 0: not at all."
    )
    max_history: int | None = Field(
        default=None, ge=1, description="Only this many last items of a history are asked; unset: all."
    )


class BM25KNN:
    """score(j) = sum over the history's different items i of w_i . w_j, w the items' columns of users under BM25 weights.

    A user's weight falls with how many items that user has, an item's with how popular it is (Robertson & Zaragoza 2009, with
    users as words and items as documents). Each item keeps its `n_neighbours` nearest others.
    """

    name = "BM25 kNN"

    def __init__(self, config: BM25KNNConfig | None = None) -> None:
        self.config = config or BM25KNNConfig()
        self._similarity: sp.csr_matrix = sp.csr_matrix((0, 0), dtype=np.float32)
        self._tie_break = np.zeros(0, np.float32)

    @classmethod
    def candidates(cls) -> "tuple[BM25KNN, ...]":
        return tuple(
            cls(BM25KNNConfig(n_neighbours=n, b=b, max_history=last))
            for n in (50, 300)
            for b in (0.25, 0.75)
            for last in (3, 8, None)
        )

    def fit(self, log: LogArrays) -> Self:
        matrix = log.matrix()
        self._similarity = sp.csr_matrix((log.n_items, log.n_items), dtype=np.float32)
        if matrix.nnz:
            found = self._neighbours(matrix).tocoo()
            other = found.row != found.col
            cells = found.data[other], (found.row[other], found.col[other])
            self._similarity = sp.csr_matrix(cells, shape=found.shape, dtype=np.float32)
        self._tie_break = popularity_tie_break(log)
        return self

    def score(self, history: Ragged) -> npt.NDArray[np.float32]:
        scores = self.neighbours.sparse_scores(history, len(self._tie_break)).toarray()
        return np.asarray(scores + self._tie_break, np.float32)

    @property
    def neighbours(self) -> ItemNeighbours:
        return ItemNeighbours(self._similarity, self.config.max_history or WHOLE_HISTORY)

    def _neighbours(self, matrix: sp.csr_matrix) -> sp.csr_matrix:
        """(N, N) each item's nearest, itself among them."""
        check_implicit("BM25 kNN")
        from implicit.nearest_neighbours import ItemItemRecommender, bm25_weight

        weighted = bm25_weight(matrix.T, self.config.k1, self.config.b).T.tocsr()
        # One neighbour more, for each item is its own nearest. One thread: the same sums in the same order.
        model = ItemItemRecommender(K=self.config.n_neighbours + 1, num_threads=1)
        model.fit(weighted, show_progress=False)
        return model.similarity
