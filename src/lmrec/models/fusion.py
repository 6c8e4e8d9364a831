"""Fusion: the two towers' score plus what simpler models know, with weights found on validation. No torch.

    score = scale * u . v  +  transitions * T(history, item)  +  content * cos(newest texts, text)  +  popularity * p(item)

The towers blur what is rare and learn what words mean for this log; item transitions remember that this followed that;
bare words are all that is known of a new item; p(item) = log(1 + recent events) is what is in fashion, which towers that
learn from years of events do not know. The second term is sparse, the others are one product of longer vectors.

Where items of the history may be recommended again, a constant is taken from them: whoever had an item may want its like rather
than it. An item that nothing is known to follow has no T. It gets borrowed * what is expected of it: lmrec.models.lending.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field

from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.lending import Loans
from lmrec.models.transitions import ItemTransitions, ItemTransitionsConfig


class FusionConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    transitions: bool = Field(
        default=True,
        description="Add the scores of item transitions: what followed what, soon or later as validation finds.",
    )
    content: bool = Field(default=True, description="Add the cosine between the history's newest texts and the item's.")
    popularity: bool = Field(default=True, description="Add how popular an item has been of late.")
    new_items: bool = Field(
        default=True,
        description="Items without events borrow transitions of the items that they read like, and count as popular as items "
        "are on average; otherwise what is fused makes them sink.",
    )
    repeats: bool = Field(
        default=True,
        description="Take a constant from items of the history, where evaluation.exclude_seen leaves them in.",
    )
    search_cases: int = Field(default=4000, ge=1, description="Validation cases on which the weights are searched.")


class FusionWeights(BaseModel):
    """What each part counts beside the towers' score, in its units.

    towers: 1, or 0 where nothing was trained and the other parts answer alone. pairs: which events of a user count as a
    transition, and how much of a history is asked. Content: newest n_last texts, decay^age each. Popularity: an event
    half_life_days before the log's end counts half; None, where all count alike. borrowed: what a borrowed transition
    counts beside one of an item's own; 0: none is. repeated: what is taken from items of the history, below 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    towers: float = Field(default=1.0, ge=0)
    transitions: float = Field(default=0.0, ge=0)
    pairs: ItemTransitionsConfig = ItemTransitionsConfig()
    content: float = Field(default=0.0, ge=0)
    n_last: int = Field(default=3, ge=1)
    decay: float = Field(default=0.7, gt=0, le=1)
    popularity: float = Field(default=0.0, ge=0)
    half_life_days: float | None = Field(default=None, gt=0)
    borrowed: float = Field(default=0.0, ge=0)
    repeated: float = Field(default=0.0, le=0)

    @property
    def any(self) -> bool:
        """Whether anything is added to the towers' score."""
        return bool(self.transitions or self.content or self.popularity or self.repeated)


BORROWED = 2.0  # where validation cannot say; on Amazon Scientific it chose this (docs/LOG.md)

# Where nothing validates (--split none): moderate, below what validation chose on the data sets of docs/LOG.md.
UNSEARCHED_TRANSITIONS = 20.0


@dataclass(frozen=True, eq=False)
class Fusion:
    """`transitions` and `popularity` are None where they count nothing. popularity: (N,) the p of each item; newcomer: that of
    an item without events. loans: (n, N) the share that each of the first n items of a catalog borrows of the fit's N items."""

    weights: FusionWeights = field(default_factory=FusionWeights)
    transitions: ItemTransitions | None = None
    popularity: FloatArray | None = None
    newcomer: float = 0.0
    loans: sp.csr_matrix | None = None

    @property
    def borrows(self) -> bool:
        """Whether items that nothing is known to follow get anything instead."""
        return bool(self.weights.borrowed) and self.transitions is not None

    def sparse(self, history: Ragged, n_items: int) -> sp.csr_matrix | None:
        """(B, n_items) what transitions add, borrowed ones too, less what the history loses; None where nothing counts."""
        found = self._followed(history, n_items)
        if not self.weights.repeated:
            return found
        cells = np.full(len(history.values), self.weights.repeated, np.float32), (history.row_of_value, history.values)
        again = sp.csr_matrix(cells, shape=(len(history), n_items))
        again.sum_duplicates()
        again.data[:] = self.weights.repeated  # once, however often it is there
        return again if found is None else (found + again).tocsr()

    def _followed(self, history: Ragged, n_items: int) -> sp.csr_matrix | None:
        if self.transitions is None:
            return None
        n_known = self.transitions.matrix.shape[0]
        own = self.weights.transitions * self.transitions.sparse_scores(history, n_known)
        lent = self._lent
        found = own.copy() if lent is None else own @ lent
        found.resize((len(history), n_items))
        if lent is not None:
            own.resize((len(history), n_items))
            found = own + found
        return found.tocsr()

    def of_item(self, history: Ragged, item: int) -> npt.NDArray[np.float32]:
        """(B,) a column of `sparse`."""
        found = np.zeros(len(history), np.float32)
        if self.weights.repeated:
            found[history.row_of_value[history.values == item]] = self.weights.repeated
        if self.transitions is None:
            return found
        found += self.weights.transitions * self.transitions.scores_of(history, item)
        if self.borrows and self.loans is not None and item < self.loans.shape[0]:
            loan = self.loans[[item]]
            for lender, share in zip(loan.indices, loan.data, strict=True):
                worth = self.weights.borrowed * self.weights.transitions * share
                found += worth * self.transitions.scores_of(history, int(lender))
        return found

    def followers(self, history: IntArray) -> tuple[IntArray, npt.NDArray[np.float32]] | None:
        """One row of `sparse` as places and what each adds; a place may come more than once. Items that came after the fit may
        be named by numbers past its end."""
        found = self._followers(history)
        if not self.weights.repeated:
            return found
        again = np.unique(np.asarray(history, np.int64))
        worth = np.full(len(again), self.weights.repeated, np.float32)
        return (
            (again, worth) if found is None else (np.concatenate([found[0], again]), np.concatenate([found[1], worth]))
        )

    def _followers(self, history: IntArray) -> tuple[IntArray, npt.NDArray[np.float32]] | None:
        if self.transitions is None:
            return None
        items, worth = self.transitions.followers(history)
        worth = worth * np.float32(self.weights.transitions)
        lent = self._lent
        if lent is None or not len(items):
            return items, worth
        row = sp.csr_matrix((worth, (np.zeros(len(items), np.int64), items)), shape=(1, lent.shape[0])) @ lent
        return np.concatenate([items, row.indices]), np.concatenate([worth, row.data])

    def borrowed(self, history: IntArray, loans: Loans) -> npt.NDArray[np.float32]:
        """(n,) what is added for items that came after the fit and borrow so."""
        if not self.borrows or self.transitions is None:
            return np.zeros(len(loans), np.float32)
        items, worth = self.transitions.followers(history)
        known: FloatArray = np.bincount(items, weights=worth, minlength=self.transitions.matrix.shape[0]).astype(
            np.float64
        )
        return loans.worth(known) * np.float32(self.weights.borrowed * self.weights.transitions)

    @cached_property
    def _lent(self) -> sp.csr_matrix | None:
        """(N, n), times `borrowed`: from what the fit's items are worth to what borrowers are."""
        if self.loans is None or not self.borrows or not self.loans.nnz:
            return None
        return (self.weights.borrowed * self.loans.T).tocsr()
