"""What is counted from a log to stand beside the towers: neighbours, factors, popularity."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import scipy.sparse as sp

from lmrec.data.interactions import Interactions
from lmrec.fields import BoolArray
from lmrec.models.collaborative import ALS, SECONDS_A_DAY, ALSConfig, LogArrays
from lmrec.models.factors import ItemFactors
from lmrec.models.fusion import (
    Collaborative,
    Fusion,
    FusionWeights,
    NeighbourKind,
    Settings,
    factors_as,
    fit_neighbours,
    neighbours_as,
)
from lmrec.models.neighbours import ItemNeighbours
from lmrec.retrieval.popularity import recent_popularity


def log_arrays(interactions: Interactions, n_items: int) -> LogArrays:
    return LogArrays(
        user_idx=interactions.user_idx,
        item_idx=interactions.item_idx,
        time_ts=interactions.time_ts,
        weight=interactions.weight,
        n_users=interactions.n_users,
        n_items=n_items,
    )


def fit_fusion(weights: FusionWeights, interactions: Interactions, n_items: int) -> Fusion:
    """The chosen weights with all that they weigh learnt from these events."""
    return Counted.of(interactions, n_items).weighed_by(weights).fusion(weights)


@dataclass(frozen=True, eq=False)
class Counted:
    """Counts of a log, whatever they will weigh; popularity is made as it is asked for. is_new: (N,) items taken as having no
    events. loans: by what says who lends (`_lenders`)."""

    log: Interactions
    is_new: BoolArray
    neighbours: Mapping[NeighbourKind, ItemNeighbours] = field(default_factory=dict)
    factors: ItemFactors | None = None
    loans: dict[tuple[object, ...], sp.csr_matrix] = field(default_factory=dict)

    @classmethod
    def of(cls, log: Interactions, n_items: int) -> Self:
        """Nothing but who has events."""
        return cls(log, np.bincount(log.item_idx, minlength=n_items) == 0)

    @property
    def n_items(self) -> int:
        return len(self.is_new)

    def weighed_by(self, weights: FusionWeights) -> "Counted":
        """With every kind that these weights ask for, counted as they say."""
        counted = self
        for kind in weights.collaborative:
            counted = counted.having(kind, weights.fit_of(kind))
        return counted

    def having(self, kind: Collaborative, settings: Settings) -> "Counted":
        """One kind more, or again, counted as the settings say."""
        log = log_arrays(self.log, self.n_items)
        if isinstance(settings, ALSConfig):
            return replace(self, factors=ALS(settings).fit(log).factors)
        assert kind != "als"
        return self._with_table(kind, fit_neighbours(settings, log))

    def asked_as(self, kind: Collaborative, settings: Settings) -> "Counted":
        """The same counts, asked as the settings say."""
        if isinstance(settings, ALSConfig):
            assert self.factors is not None
            return replace(self, factors=factors_as(settings, self.factors.vectors))
        assert kind != "als"
        return self._with_table(kind, neighbours_as(settings, self.neighbours[kind].matrix))

    def _with_table(self, kind: NeighbourKind, table: ItemNeighbours) -> "Counted":
        return replace(self, neighbours={**self.neighbours, kind: table}, loans={})

    def as_new(self, is_new: BoolArray) -> "Counted":
        """As if these items had no events."""
        return replace(
            self,
            is_new=is_new,
            neighbours={kind: table.among(~is_new) for kind, table in self.neighbours.items()},
            factors=self.factors and self.factors.among(~is_new),
            loans={},
        )

    def fusion(self, weights: FusionWeights) -> Fusion:
        """Of what counts by these weights."""
        popularity = None
        if weights.popularity:
            half_life_s = math.inf if weights.half_life_days is None else weights.half_life_days * SECONDS_A_DAY
            popularity = np.log1p(recent_popularity(self.log, self.n_items, half_life_s))
            popularity[self.is_new] = np.nan
        neighbours = {kind: table for kind, table in self.neighbours.items() if weights.amount(kind)}
        factors = self.factors if weights.als else None
        return Fusion(weights, neighbours, factors, popularity, self.loans.get(_lenders(neighbours, weights)))

    def remember(self, fusion: Fusion) -> None:
        """Who borrows of whom takes long to find, and depends on little."""
        if fusion.loans is not None:
            self.loans[_lenders(fusion.neighbours, fusion.weights)] = fusion.loans


def _lenders(neighbours: Mapping[NeighbourKind, ItemNeighbours], weights: FusionWeights) -> tuple[object, ...]:
    """What says who lends: the kinds of neighbours; where nothing is followed, what is most popular by the half-life."""
    if any(table.matrix.nnz for table in neighbours.values()):
        return tuple(neighbours)
    return (weights.half_life_days,)
