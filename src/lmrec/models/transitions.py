"""Item transitions: what tends to follow what. The order of a log without words, and no torch.

Sparse neighbour methods that look at order are hard to beat for short histories (Ludewig & Jannach 2018,
https://arxiv.org/abs/1803.09587), and they know what a smooth model blurs: that this very item follows that one. So they
stand among the rivals, and their scores are fused with those of the two towers.
"""

from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field

from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.collaborative import LogArrays, popularity_tie_break
from lmrec.models.neighbours import ItemNeighbours, largest_of_rows


class ItemTransitionsConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int = Field(default=5, ge=1, description="How many events later an item still counts as following.")
    window_decay: float = Field(default=0.8, gt=0, le=1, description="Weight of a step further on in the window.")
    backward: float = Field(default=0.5, ge=0, le=1, description="What a pair counts in the other direction.")
    shrinkage: float = Field(default=8.0, ge=0, description="Added to how often an item occurs: distrusts rare ones.")
    n_neighbours: int = Field(default=200, ge=1, description="Followers that each item keeps.")
    n_last: int = Field(default=10, ge=1, description="How many of the newest items of a history are asked.")
    history_decay: float = Field(default=0.8, gt=0, le=1, description="Weight of an item relative to the next newer.")


class ItemTransitions:
    """score(j) = sum over the newest items i of history_decay^age(i) * T(i, j)

        T(i, j) = (F(i, j) + backward * F(j, i)) / sqrt((r_i + shrinkage) (c_j + shrinkage))

    F(i, j): over all users, how often j came d <= `window` events after i, each time window_decay^(d - 1); r and c are the
    numerator's sums over rows and columns. Each item keeps its `n_neighbours` largest. Weights of events count as the
    root of the pair's product.
    """

    name = "item transitions"

    def __init__(self, config: ItemTransitionsConfig | None = None) -> None:
        self.config = config or ItemTransitionsConfig()
        self.matrix: sp.csr_matrix = sp.csr_matrix((0, 0), dtype=np.float32)
        self._tie_break = np.zeros(0, np.float32)

    @classmethod
    def candidates(cls) -> "tuple[ItemTransitions, ...]":
        return tuple(
            cls(
                ItemTransitionsConfig(
                    window=window, window_decay=fades, shrinkage=shrinkage, n_last=n_last, history_decay=decay
                )
            )
            for window, fades in ((1, 0.8), (5, 0.8), (20, 0.9), (20, 0.95))
            for shrinkage in (2.0, 8.0)
            for n_last, decay in ((1, 1.0), (3, 0.6), (10, 0.8), (50, 0.9), (50, 0.95))
        )

    def fit(self, log: LogArrays) -> Self:
        self.matrix = largest_of_rows(
            _normalised(_pair_counts(log, self.config), self.config.shrinkage), self.config.n_neighbours
        )
        self._tie_break = popularity_tie_break(log)
        return self

    def score(self, history: Ragged) -> npt.NDArray[np.float32]:
        scores = self.neighbours.sparse_scores(history, len(self._tie_break)).toarray()
        return np.asarray(scores + self._tie_break, np.float32)

    @property
    def neighbours(self) -> ItemNeighbours:
        return ItemNeighbours(self.matrix, self.config.n_last, self.config.history_decay)


def _pair_counts(log: LogArrays, config: ItemTransitionsConfig) -> sp.csr_matrix:
    """(N, N) float32, the numerator of T."""
    order = np.argsort(log.user_idx, kind="stable")  # events are in time order, so each user's stay in it
    users, items = log.user_idx[order], log.item_idx[order]
    root = np.sqrt(np.asarray(log.weight, np.float64))[order]
    total = sp.csr_matrix((log.n_items, log.n_items), dtype=np.float32)
    for step in range(1, min(config.window, len(items) - 1) + 1):
        same = (users[step:] == users[:-step]) & (items[step:] != items[:-step])
        earlier, later = items[:-step][same], items[step:][same]
        worth = (config.window_decay ** (step - 1) * root[step:] * root[:-step])[same]
        total = total + _count(earlier, later, worth, log.n_items)
        if config.backward:
            total = total + _count(later, earlier, config.backward * worth, log.n_items)
    return total.tocsr()


def _count(rows: IntArray, columns: IntArray, worth: FloatArray, n_items: int) -> sp.csr_matrix:
    return sp.csr_matrix((worth.astype(np.float32), (rows, columns)), shape=(n_items, n_items))


def _normalised(counts: sp.csr_matrix, shrinkage: float) -> sp.csr_matrix:
    # Without shrinkage an item of no pair would divide by zero; it has no cell to divide, any divisor does.
    row_sum, column_sum = (
        np.maximum(np.asarray(counts.sum(axis)).ravel() + shrinkage, np.finfo(np.float32).tiny) for axis in (1, 0)
    )
    return (sp.diags_array(row_sum**-0.5) @ counts @ sp.diags_array(column_sum**-0.5)).tocsr().astype(np.float32)
