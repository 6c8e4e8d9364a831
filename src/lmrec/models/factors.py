"""Item factors: vectors of items, and a user's vector solved from a history whenever it is asked for. No torch."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from lmrec.fields import BoolArray, FloatArray, IntArray, Ragged

_BATCH = 256  # equations solved together


@dataclass(frozen=True, eq=False)
class ItemFactors:
    """vectors: (N, F) float32 of items, zero where nothing is known. score(j) = x . y_j, where the user's x solves

        (Y'Y + regularization I + sum_i (c_i - 1) y_i y_i') x = sum_i c_i y_i,   c_i = alpha * how often i is in the history

    over the items i of the newest `n_last`. Source: Hu, Koren & Volinsky 2008, https://doi.org/10.1109/ICDM.2008.22,
    equation 4. Items of zero vectors change nothing, so histories may name items that came after the fit.
    """

    vectors: npt.NDArray[np.float32]
    regularization: float
    alpha: float
    n_last: int

    @property
    def width(self) -> int:
        return int(self.vectors.shape[1])

    @cached_property
    def _gram(self) -> FloatArray:
        """(F, F) Y'Y + regularization I."""
        wide = self.vectors.astype(np.float64)
        return wide.T @ wide + self.regularization * np.eye(self.width)

    def fold_in(self, history: Ragged, vectors: FloatArray | None = None) -> npt.NDArray[np.float32]:
        """(B, F) the users' vectors; zero for an empty history.

        vectors: (n, F) those that the history's numbers are rows of; unset: the fit's own.
        """
        of_items = self.vectors if vectors is None else vectors
        asked = history.last(self.n_last)
        users = np.zeros((len(asked), self.width), np.float32)
        for start in range(0, len(asked), _BATCH):
            block = range(start, min(start + _BATCH, len(asked)))
            left = np.tile(self._gram, (len(block), 1, 1))
            right = np.zeros((len(block), self.width))
            for place, row in enumerate(block):
                items, counts = np.unique(asked[row], return_counts=True)
                known = of_items[items].astype(np.float64)
                confidence = self.alpha * counts
                left[place] += (known.T * (confidence - 1.0)) @ known
                right[place] = confidence @ known
            some = right.any(axis=1)  # the others stay zero, also where a gram of no factors has no inverse
            if some.any():
                users[start : start + len(block)][some] = np.linalg.solve(left[some], right[some, :, None])[:, :, 0]
        return users

    def of_origin(self, origin: IntArray) -> npt.NDArray[np.float32]:
        """(n, F) of the fit's rows, zero for -1 and for rows after its end."""
        known = (origin >= 0) & (origin < len(self.vectors))
        found = np.zeros((len(origin), self.width), np.float32)
        found[known] = self.vectors[origin[known]]
        return found

    def among(self, known: BoolArray) -> "ItemFactors":
        """As if of the other items nothing were known. known: (N,)."""
        return ItemFactors(
            self.vectors * known[:, None].astype(np.float32), self.regularization, self.alpha, self.n_last
        )

    def moved(self, old_rows: IntArray) -> "ItemFactors":
        """Over other items. old_rows: (n,) the row here of each of them, -1 of one that is new."""
        return ItemFactors(self.of_origin(old_rows), self.regularization, self.alpha, self.n_last)
