"""Questions about a large catalog answered through its index: the lists are those that scoring every row would give.

Rows with the same adjustment by the rules are in the model's own order, so each such part of the catalog is searched apart.
What the model adds to some rows' products is never negative but for rows of the history, so the best of all are among the best
by the product, as many more of them as the history is long, and the rows that something is added to.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lmrec.fields import IntArray
from lmrec.retrieval.exact import Float32, Rows
from lmrec.retrieval.filters import Filter
from lmrec.retrieval.index import ItemIndex, RowMask
from lmrec.retrieval.live_scorer import LiveScorer
from lmrec.retrieval.nearest import merged, nearest_rows
from lmrec.retrieval.rules import SegmentRules
from lmrec.retrieval.snapshot import Snapshot

_MAX_LEVELS = 8  # searches a question; with more adjustments than that every row is scored
_MAX_FETCH = 2_048  # candidates a search; who excludes more gets every row scored


@dataclass(frozen=True, eq=False)
class Ask:
    """history: rows, oldest first. excluded: rows never shown. n: how many rows are wanted."""

    history: list[int]
    rules: SegmentRules
    item_filter: Filter | None
    excluded: Collection[int]
    n: int


@dataclass(frozen=True, eq=False)
class Searched:
    """The best rows that may be shown and their exact scores. What a `Standing` is of all rows, of the first `n`."""

    rows: list[int]
    scores: list[float]
    may_show: Callable[[int], bool]
    exact: Callable[[IntArray], Float32]

    def is_shown(self, row: int) -> bool:
        return self.may_show(row)

    def best(self, k: int, also: Sequence[int] = ()) -> tuple[list[int], dict[int, float]]:
        """At most the first k rows, best first, equal scores by place; and scores by row, of `also` too."""
        score_of = dict(zip(self.rows, self.scores, strict=True))
        others = np.array([row for row in also if row not in score_of], np.int64)
        score_of.update(zip(others.tolist(), self.exact(others).tolist(), strict=True))
        return self.rows[:k], score_of


def can_search(snapshot: Snapshot, ask: Ask) -> bool:
    return (
        snapshot.index is not None
        and ask.n + len(ask.excluded) <= _MAX_FETCH
        and (ask.rules.adjustment is None or len(ask.rules.levels) <= _MAX_LEVELS)
    )


def search_index(scorer: LiveScorer, snapshot: Snapshot, query: Tensor, asks: Sequence[Ask]) -> list[Searched]:
    """(B, Q), one answer an ask; those with the same rules and filter are searched together."""
    assert snapshot.index is not None
    groups: dict[tuple[int, str | None], list[int]] = {}
    for at, ask in enumerate(asks):
        groups.setdefault((id(ask.rules), ask.item_filter.key if ask.item_filter else None), []).append(at)
    searched: dict[int, Searched] = {}
    for members in groups.values():
        rules, item_filter = asks[members[0]].rules, asks[members[0]].item_filter
        levels = rules.levels if item_filter is None else rules.levels_within(snapshot.mask(item_filter))
        lowered = max(len(asks[at].history) for at in members) if scorer.scorer.lowers else 0
        n = min(max(asks[at].n + len(asks[at].excluded) for at in members) + lowered, snapshot.n_rows)
        rows, scores = _search_levels(snapshot.index, snapshot, query[members], n, levels)
        for place, at in enumerate(members):
            searched[at] = _joined(scorer, snapshot, query[at], asks[at], rows[place], scores[place])
    return [searched[at] for at in range(len(asks))]


def _search_levels(
    index: ItemIndex, snapshot: Snapshot, query: Tensor, n: int, levels: Sequence[tuple[float, RowMask]]
) -> tuple[Rows, Float32]:
    """(B, levels x n) the rows found at every level and their scores, with the level added; -1 where there are none."""
    found = [nearest_rows(index, snapshot.bank, query, n, mask) for _, mask in levels]
    if not found:  # everything is hidden
        return np.zeros((len(query), 0), np.int64), np.zeros((len(query), 0), np.float32)
    scores = [own + np.float32(level) for (_, own), (level, _) in zip(found, levels, strict=True)]
    return np.concatenate([rows for rows, _ in found], axis=1), np.concatenate(scores, axis=1)


def _joined(scorer: LiveScorer, snapshot: Snapshot, query: Tensor, ask: Ask, rows: Rows, scores: Float32) -> Searched:
    """What was found and what something is added to, without what is excluded."""
    amounts = _amounts(scorer, snapshot, ask.history)
    excluded = set(ask.excluded)
    chosen = None if ask.item_filter is None else snapshot.mask(ask.item_filter)

    def may_show(row: int) -> bool:
        return not ask.rules.hidden[row] and row not in excluded and (chosen is None or bool(chosen[row]))

    def exact(at: IntArray) -> Float32:
        own: Float32 = (snapshot.bank.matrix_rows(at) @ query).numpy()
        own += np.array([amounts.get(row, 0.0) for row in at.tolist()], np.float32)
        return own if ask.rules.adjustment is None else own + ask.rules.adjustment[at]

    named = np.array([row for row in amounts if may_show(row)], np.int64)
    return Searched(*merged(rows, scores, named, exact(named), excluded, ask.n), may_show, exact)


def _amounts(scorer: LiveScorer, snapshot: Snapshot, history: Sequence[int]) -> Mapping[int, float]:
    """Row -> what is added to its product."""
    found = scorer.followers(snapshot, history)
    if found is None:
        return {}
    rows, place = np.unique(found[0], return_inverse=True)
    return dict(zip(rows.tolist(), np.bincount(place, weights=found[1]).tolist(), strict=True))
