"""What a ranking is worth: pure functions from ranks to one number a case, and from shown lists to one number a system.

Every ranking metric reads `Ranks`: where, in the full ranking of all candidate items, the relevant items of each case
stand. Nothing is sampled. Each function returns (B,) float64, one value a case; the mean over cases is the usual
figure. Values agree with `ir-measures` (see tests/unit/evaluation/test_metrics.py); where a definition has more than
one reading, the docstring says which one this is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from lmrec.errors import InputError
from lmrec.fields import BoolArray, FloatArray, IntArray, Ragged


@dataclass(frozen=True)
class Ranks:
    """Where the relevant items stand: 1 is the top of the list, ties are counted against the system.

    ranks: for every case the ranks of its relevant items, ascending and all different.
    n_candidates: (B,) how many items were ranked (the catalog less what was excluded).
    n_relevant: (B,) how many of them are relevant, at least one.
    """

    ranks: Ragged
    n_candidates: IntArray
    n_relevant: IntArray

    def __len__(self) -> int:
        return len(self.ranks)

    @classmethod
    def from_rows(cls, rows: list[list[int]], n_candidates: int) -> "Ranks":
        """Ranks written by hand, for examples and tests.

        >>> len(Ranks.from_rows([[1, 4], [2]], n_candidates=5))
        2
        """
        ranks = Ragged.from_rows([sorted(row) for row in rows])
        return cls(ranks, np.full(len(rows), n_candidates), ranks.lengths)

    @classmethod
    def join(cls, parts: "Sequence[Ranks]") -> "Ranks":
        """The cases of all parts, in order.

        >>> Ranks.join([Ranks.from_rows([[2]], 5), Ranks.from_rows([[1, 3]], 5)]).ranks[1].tolist()
        [1, 3]
        """
        values = np.concatenate([part.ranks.values for part in parts])
        n_relevant = np.concatenate([part.n_relevant for part in parts])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(n_relevant)])
        return cls(Ragged(values, offsets), np.concatenate([part.n_candidates for part in parts]), n_relevant)


def ndcg_at(ranks: Ranks, k: int) -> FloatArray:
    """Normalised discounted cumulative gain with binary gains (Jarvelin & Kekalainen 2002).

    DCG@k = sum over relevant items with rank r <= k of 1 / log2(r + 1); divided by the best possible DCG@k, which has
    min(k, n_relevant) items at the top.

    >>> ndcg_at(Ranks.from_rows([[1], [2], [1, 3]], n_candidates=5), 2).round(4).tolist()
    [1.0, 0.6309, 0.6131]
    """
    best = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, _checked(k) + 2)))])
    gains = _sum_per_case(ranks, np.where(ranks.ranks.values <= k, 1.0 / np.log2(ranks.ranks.values + 1.0), 0.0))
    return np.asarray(gains / best[np.minimum(ranks.n_relevant, k)])


def recall_at(ranks: Ranks, k: int) -> FloatArray:
    """The share of the relevant items that stand in the top k: hits / n_relevant.

    >>> recall_at(Ranks.from_rows([[1, 3], [4]], n_candidates=5), 3).tolist()
    [1.0, 0.0]
    """
    return _hits(ranks, k) / ranks.n_relevant


def hit_at(ranks: Ranks, k: int) -> FloatArray:
    """1 where at least one relevant item stands in the top k, else 0 (ir-measures: Success@k).

    >>> hit_at(Ranks.from_rows([[2, 9], [4]], n_candidates=10), 3).tolist()
    [1.0, 0.0]
    """
    return (_hits(ranks, k) > 0).astype(np.float64)


def precision_at(ranks: Ranks, k: int) -> FloatArray:
    """The share of the top k that is relevant: hits / k, also where fewer than k items could be ranked.

    >>> precision_at(Ranks.from_rows([[1, 3], [4]], n_candidates=5), 4).tolist()
    [0.5, 0.25]
    """
    return _hits(ranks, k) / k


def f1_at(ranks: Ranks, k: int) -> FloatArray:
    """The harmonic mean of precision and recall, 2PR / (P + R) = 2 hits / (k + n_relevant), case by case.

    >>> f1_at(Ranks.from_rows([[1, 3], [4]], n_candidates=5), 2).tolist()
    [0.5, 0.0]
    """
    return 2.0 * _hits(ranks, k) / (k + ranks.n_relevant)


def mrr_at(ranks: Ranks, k: int) -> FloatArray:
    """The reciprocal rank of the best relevant item, 1 / r, and 0 where r > k. Its mean is the mean reciprocal rank.

    >>> mrr_at(Ranks.from_rows([[2, 3], [4]], n_candidates=5), 3).tolist()
    [0.5, 0.0]
    """
    first = ranks.ranks.values[ranks.ranks.offsets[:-1]]
    return np.where(first <= _checked(k), 1.0 / first, 0.0)


def map_at(ranks: Ranks, k: int) -> FloatArray:
    """Average precision at k: the sum of precision@r over relevant items with rank r <= k, over min(k, n_relevant).

    With this divisor a perfect top k scores 1. trec_eval, and so ir-measures' AP@k, divides by n_relevant instead: the
    two differ only where a case has more than k relevant items.

    >>> map_at(Ranks.from_rows([[1, 3], [2, 3, 4]], n_candidates=5), 2).tolist()
    [0.5, 0.25]
    """
    position = np.arange(len(ranks.ranks.values)) - np.repeat(ranks.ranks.offsets[:-1], ranks.ranks.lengths) + 1
    precision = np.where(ranks.ranks.values <= _checked(k), position / ranks.ranks.values, 0.0)
    return _sum_per_case(ranks, precision) / np.minimum(ranks.n_relevant, k)


def auc(ranks: Ranks) -> FloatArray:
    """The chance that a relevant item stands above an irrelevant one (ties lose), over the whole ranking.

    The j-th best relevant item, at rank r, has r - j irrelevant items above it; AUC = 1 - mean(r - j) / n_irrelevant.
    Where every candidate is relevant there is no pair to get wrong, and the value is 1.

    >>> auc(Ranks.from_rows([[1], [2, 5], [5]], n_candidates=5)).round(4).tolist()
    [1.0, 0.3333, 0.0]
    """
    n_relevant = ranks.n_relevant.astype(np.float64)
    n_irrelevant = ranks.n_candidates - n_relevant
    wrong_pairs = _sum_per_case(ranks, ranks.ranks.values) - n_relevant * (n_relevant + 1) / 2
    return 1.0 - wrong_pairs / np.maximum(n_relevant * n_irrelevant, 1.0)


def coverage(top: IntArray, n_items: int) -> float:
    """The share of the catalog that is shown to at least one case. `top`: (B, k) items, -1 where a place stayed empty.

    >>> coverage(np.array([[0, 1], [0, 2]]), n_items=4)
    0.75
    """
    return float(np.count_nonzero(_times_shown(top, n_items)) / n_items)


def gini(top: IntArray, n_items: int) -> float:
    """How unequally the places are shared out among all items: 0 all alike, towards 1 where a few items take all.

    With c_1 <= ... <= c_N the times each item is shown: G = sum_i (2i - N - 1) c_i / (N sum_i c_i). An empty set of
    lists has 0.

    >>> gini(np.array([[0, 1], [2, 3]]), n_items=4), gini(np.array([[0], [0]]), n_items=4)
    (0.0, 0.75)
    """
    shown = np.sort(_times_shown(top, n_items)).astype(np.float64)
    total = shown.sum()
    if total == 0:
        return 0.0
    return float(np.sum((2 * np.arange(1, n_items + 1) - n_items - 1) * shown) / (n_items * total))


def novelty(top: IntArray, item_counts: IntArray) -> float:
    """How unexpected the shown items are, in bits: mean of -log2 p(item) over all shown places (Zhou et al. 2010).

    p(item) = (events of the item + 1) / (all events + N): one is added to each count so that an item without events
    is very novel but not infinitely so. `item_counts`: (N,) events of each item in training and validation.

    >>> round(novelty(np.array([[0], [1]]), np.array([6, 0])), 3)
    1.596
    """
    bits = -np.log2((item_counts + 1.0) / (item_counts.sum() + len(item_counts)))
    shown = top[top >= 0]
    return float(bits[shown].mean()) if len(shown) else 0.0


METRICS_AT_K: Final[dict[str, Callable[[Ranks, int], FloatArray]]] = {
    "ndcg": ndcg_at,
    "recall": recall_at,
    "hit": hit_at,
    "precision": precision_at,
    "f1": f1_at,
    "mrr": mrr_at,
    "map": map_at,
}


def metric_names(ks: tuple[int, ...]) -> tuple[str, ...]:
    """The names of everything that `measure_ranks` returns.

    >>> metric_names((5,))
    ('ndcg@5', 'recall@5', 'hit@5', 'precision@5', 'f1@5', 'mrr@5', 'map@5', 'auc')
    """
    return (*(f"{name}@{k}" for k in ks for name in METRICS_AT_K), "auc")


def measure_ranks(ranks: Ranks, ks: tuple[int, ...]) -> dict[str, FloatArray]:
    """Every metric of every case, keyed by name: `ndcg@10` -> (B,)."""
    at_k = {f"{name}@{k}": metric(ranks, k) for k in ks for name, metric in METRICS_AT_K.items()}
    return {**at_k, "auc": auc(ranks)}


def _hits(ranks: Ranks, k: int) -> FloatArray:
    return _sum_per_case(ranks, ranks.ranks.values <= _checked(k))


def _sum_per_case(ranks: Ranks, values: FloatArray | IntArray | BoolArray) -> FloatArray:
    sums = np.bincount(ranks.ranks.row_of_value, weights=np.asarray(values, np.float64), minlength=len(ranks))
    return sums.astype(np.float64)  # where there is no case, bincount answers in whole numbers


def _times_shown(top: IntArray, n_items: int) -> IntArray:
    return np.bincount(top[top >= 0], minlength=n_items)


def _checked(k: int) -> int:
    if k < 1:
        raise InputError(f"k is {k}; a list has at least one place. Use k >= 1.")
    return k
