"""EASE: a linear item-to-item model in closed form; strong, and quadratic in the number of items. No torch."""

from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field
from scipy.linalg.lapack import spotrf, spotri

from lmrec.errors import InputError, TrainingError
from lmrec.fields import FloatArray, Ragged
from lmrec.models.collaborative import LogArrays, history_matrix, popularity_tie_break
from lmrec.models.neighbours import WHOLE_HISTORY, ItemNeighbours, largest_of_rows

MAX_ITEMS = 25_000  # a dense table of that many items is 2.5 GB
_BLOCK = 1024


class EASEConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    regularization: float = Field(default=200.0, gt=0, description="Added to the diagonal of the Gram matrix.")
    n_last: int | None = Field(default=None, ge=1, description="Only the newest items of a history; unset: all.")
    n_neighbours: int | None = Field(
        default=None,
        ge=1,
        description="Of each item's weights the largest that many above 0 are kept, to be saved and searched; unset: all.",
    )


class EASE:
    """score = x B, x the history as zeros and ones, B = I - P / diag(P), P = (X'X + regularization I)^-1, X (users, N).

    Source: Steck 2019, https://arxiv.org/abs/1905.03375, equation 8. Raises InputError above `MAX_ITEMS` items. With
    `n_neighbours` weights below 0 are lost too: on MovieLens-100K that took about 1 % of NDCG@10 (docs/LOG.md).
    """

    name = "EASE"

    def __init__(self, config: EASEConfig | None = None) -> None:
        self.config = config or EASEConfig()
        self._weights: FloatArray | sp.csr_matrix = np.zeros((0, 0), np.float32)
        self._tie_break = np.zeros(0, np.float32)

    @classmethod
    def candidates(cls) -> "tuple[EASE, ...]":
        return tuple(
            cls(EASEConfig(regularization=regularization, n_last=n_last))
            for regularization in (50.0, 200.0, 800.0)
            for n_last in (3, 8, None)
        )

    def fit(self, log: LogArrays) -> Self:
        check_n_items(log.n_items)
        rows = log.matrix()
        rows.data[:] = 1.0
        gram = (rows.T @ rows).toarray().astype(np.float32, copy=False)
        gram[np.diag_indices_from(gram)] += self.config.regularization
        weights = _inverse(gram)
        weights /= -np.diag(weights)
        weights[np.diag_indices_from(weights)] = 0.0
        if self.config.n_neighbours is not None:
            # Some rows at a time: a sparse copy of the whole table would be several times the table.
            parts = (np.maximum(weights[start : start + _BLOCK], 0.0) for start in range(0, len(weights), _BLOCK))
            weights = sp.vstack(
                [largest_of_rows(sp.csr_matrix(part), self.config.n_neighbours) for part in parts]
            ).tocsr()
        self._weights, self._tie_break = weights, popularity_tie_break(log)
        return self

    @property
    def neighbours(self) -> ItemNeighbours:
        """Only of a fit with `n_neighbours`: the whole table has weights below 0."""
        assert sp.issparse(self._weights)
        return ItemNeighbours(sp.csr_matrix(self._weights), self.config.n_last or WHOLE_HISTORY)

    def score(self, history: Ragged) -> npt.NDArray[np.float32]:
        asked = history if self.config.n_last is None else history.last(self.config.n_last)
        rows = history_matrix(asked, len(self._tie_break))
        rows.data[:] = 1.0
        return np.asarray(rows @ self._weights + self._tie_break, np.float32)


def _inverse(matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of a symmetric positive definite matrix (N, N), made in its place, by Cholesky's factors."""
    # A symmetric matrix read in Fortran's order is itself, and its lower triangle is what stands above the diagonal here.
    factor, failed = spotrf(matrix.T, lower=True, clean=False, overwrite_a=True)
    if not failed:
        inverse, failed = spotri(factor, lower=True, overwrite_c=True)
    if failed:
        raise TrainingError("EASE: the items' table cannot be inverted. Raise its regularization")
    for start in range(0, len(inverse), _BLOCK):
        stop = start + _BLOCK
        square = np.tril(inverse[start:stop, start:stop])
        inverse[start:stop, start:stop] = square + np.tril(square, -1).T
        inverse[start:stop, stop:] = inverse[stop:, start:stop].T
    symmetric: npt.NDArray[np.float32] = inverse.T  # whose rows lie together
    return symmetric


def check_n_items(n_items: int) -> None:
    """Raises InputError above `MAX_ITEMS`."""
    if n_items > MAX_ITEMS:
        raise InputError(
            f"EASE needs a dense table of {n_items:,} x {n_items:,} items; it takes {MAX_ITEMS:,}. Leave 'ease' out, or take "
            "item neighbours by BM25 ('bm25_knn') or ALS ('als'), which take any number"
        )
