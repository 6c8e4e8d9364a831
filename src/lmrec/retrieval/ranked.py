"""Ranks that are summed over the rows of a running service: which columns and which sparse part each ranking rests on.

All rankings read one matrix and one query, laid side by side as a product's parts are, so items are put, deleted and
remembered as they are for a product. But a rank belongs to all other items too: every answer scores and sorts every living
row once a ranking, and no index or codes can help.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmrec.fields import IntArray
from lmrec.models.blending import reciprocal_ranks
from lmrec.models.lending import N_LENDERS, Loans
from lmrec.retrieval.ensemble import EnsembleScorer
from lmrec.retrieval.scorer import Scorer


@dataclass(frozen=True, eq=False)
class Ranking:
    """One of those whose reciprocal ranks are summed.

    columns: of the whole's rows and queries; lent: of its loans; scorer: whose sparse part is added to the product of these
    columns."""

    scorer: Scorer
    columns: slice
    lent: slice
    weight: float

    def query(self, whole: Tensor) -> Tensor:
        """(Q,) the whole's query, in these columns alone."""
        own = torch.zeros_like(whole)
        own[self.columns] = whole[self.columns]
        return own

    def followers(self, history: IntArray) -> tuple[IntArray, npt.NDArray[np.float32]] | None:
        return self.scorer.followers(history)

    def borrowed(self, history: IntArray, loans: Loans) -> npt.NDArray[np.float32]:
        return self.scorer.borrowed(history, Loans(loans.lenders[:, self.lent], loans.shares[:, self.lent]))


def rankings_of(whole: Scorer | EnsembleScorer) -> tuple[Ranking, ...]:
    """The parts of a fused scorer, or the members of an ensemble."""
    if isinstance(whole, Scorer):
        weights, columns = whole.fusion.weights, whole.columns
        return tuple(
            Ranking(whole.part(part), columns.get(part, slice(0)), slice(0, N_LENDERS), float(getattr(weights, part)))
            for part in weights.parts
        )
    ends = np.cumsum([member.bank.matrix.shape[1] for member in whole.members]).tolist()
    return tuple(
        Ranking(member, slice(start, end), slice(at * N_LENDERS, (at + 1) * N_LENDERS), weight)
        for at, (member, start, end, weight) in enumerate(
            zip(whole.members, [0, *ends[:-1]], ends, whole.weights, strict=True)
        )
    )


def sums_of_ranks(
    rankings: Sequence[Ranking], scores: npt.NDArray[np.float32], living: IntArray
) -> npt.NDArray[np.float32]:
    """(P, N) each ranking's scores -> (N,) the weighted sums of reciprocal ranks among the living rows; 0 for others."""
    ranks = reciprocal_ranks(scores[:, living])
    found = np.zeros(scores.shape[1], np.float32)
    for ranking, own in zip(rankings, ranks, strict=True):
        found[living] += np.float32(ranking.weight) * own
    return found
