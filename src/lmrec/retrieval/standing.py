"""How one question ranks all rows: rough scores of everything, exact ones of those that can be among the best."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from lmrec.fields import BoolArray, IntArray
from lmrec.retrieval.codes import shortlist
from lmrec.retrieval.filters import Filter
from lmrec.retrieval.rules import SegmentRules
from lmrec.retrieval.snapshot import Snapshot


@dataclass(frozen=True, eq=False)
class Standing:
    """rough: (N,) float32, written over by `hide`. off: how far a rough score can be from the exact one, at most.
    exact: (M,) rows -> (M,) their exact scores, whether or not they may be shown. by_ranks: scores are sums of reciprocal ranks
    instead of logits."""

    rough: npt.NDArray[np.float32]
    off: float
    exact: Callable[[IntArray], npt.NDArray[np.float32]]
    by_ranks: bool = False

    @classmethod
    def of(cls, scores: npt.NDArray[np.float32], by_ranks: bool = False) -> "Standing":
        """Of scores that are exact already."""
        return cls(scores.copy(), 0.0, lambda rows: scores[rows], by_ranks)

    @classmethod
    def among(cls, n_rows: int, rows: IntArray, scores: npt.NDArray[np.float32], by_ranks: bool = False) -> "Standing":
        """Of some rows alone (M,), whose exact scores (M,) are known; no other may be shown."""
        whole = np.full(n_rows, -np.inf, np.float32)
        whole[rows] = scores
        return cls.of(whole, by_ranks)

    def lifted(self, adjustment: npt.NDArray[np.float32] | None) -> "Standing":
        """Boosted by (N,) logarithms of factors. Of logits a factor multiplies the odds, so it is added; of sums of ranks,
        which are above 0, it multiplies the sum itself."""
        if adjustment is None:
            return self
        if self.by_ranks:
            factor = np.exp(adjustment)
            self.rough[:] *= factor
            return replace(self, exact=lambda rows: self.exact(rows) * factor[rows])
        self.rough[:] += adjustment
        return replace(self, exact=lambda rows: self.exact(rows) + adjustment[rows])

    def hide(
        self, snapshot: Snapshot, rules: SegmentRules, item_filter: Filter | None, excluded: Collection[int]
    ) -> None:
        """-inf for all that may not be shown."""
        if item_filter is None and rules.few_hidden is not None:
            self.rough[rules.few_hidden] = -np.inf
        else:
            self.rough[:] += _curtain(
                rules.hidden if item_filter is None else rules.hidden | ~snapshot.mask(item_filter)
            )
        if excluded:
            self.rough[list(excluded)] = -np.inf

    def is_shown(self, row: int) -> bool:
        return float(self.rough[row]) > -math.inf

    def best(self, k: int, also: Sequence[int] = ()) -> tuple[list[int], dict[int, float]]:
        """The best k rows of those that may be shown, best first, equal scores by place; and exact scores by row, of `also`
        (rows that may be shown) too. What comes out does not depend on how rough the rough scores are."""
        rows = np.union1d(shortlist(self.rough, k, 2.0 * self.off), np.asarray(also, np.int64))
        scores = self.exact(rows)
        order = np.lexsort((rows, -scores))
        found = rows[order].tolist()
        score_of = dict(zip(found, scores[order].tolist(), strict=True))
        return found[:k], score_of


def _curtain(hidden: BoolArray) -> npt.NDArray[np.float32]:
    """(N,) -inf where hidden, else 0. By arithmetic, because a write under a mask takes fifteen times as long."""
    with np.errstate(over="ignore"):
        below: npt.NDArray[np.float32] = hidden.view(np.uint8) * np.float32(-3e38)
        below *= np.float32(10.0)
    return below
