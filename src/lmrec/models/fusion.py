"""Fusion: the two towers' score plus what simpler models know, with weights found on validation. No torch.

    score = scale * u . v  +  sum of weight * T(history, item)  +  content * cos(newest texts, text)
          + als * x(history) . y(item)  +  popularity * p(item)

The towers blur what is rare and learn what words mean for this log; tables of item neighbours remember that this followed, or
went with, that (item transitions; EASE and BM25 kNN where asked for); bare words are all that is known of a new item; ALS knows
who chooses alike; p(item) = log(1 + recent events) is what is in fashion, which towers that learn from years of events do not
know. The tables are sparse, the others are one product of longer vectors.

Where items of the history may be recommended again, a constant is taken from them: whoever had an item may want its like rather
than it. An item that nothing is known to follow has no T. It gets borrowed * what is expected of it, and, without events,
newcomer * the p that is expected: lmrec.models.lending. ALS gives such an item nothing: neither a gain nor a loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field

from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.bm25 import BM25KNN, BM25KNNConfig
from lmrec.models.collaborative import ALSConfig, LogArrays, check_implicit
from lmrec.models.ease import EASE, EASEConfig, check_n_items
from lmrec.models.factors import ItemFactors
from lmrec.models.lending import Loans
from lmrec.models.neighbours import WHOLE_HISTORY, ItemNeighbours
from lmrec.models.transitions import ItemTransitions, ItemTransitionsConfig

NeighbourKind: TypeAlias = Literal["transitions", "ease", "bm25_knn"]
Collaborative: TypeAlias = NeighbourKind | Literal["als"]
NEIGHBOUR_KINDS: Final[tuple[NeighbourKind, ...]] = get_args(NeighbourKind)
COLLABORATIVE: Final[tuple[Collaborative, ...]] = (*NEIGHBOUR_KINDS, "als")
Settings: TypeAlias = ItemTransitionsConfig | EASEConfig | BM25KNNConfig | ALSConfig

PARTS: Final = ("towers", *COLLABORATIVE, "content", "popularity", "repeated")

_N_NEIGHBOURS = 200  # that each item keeps of EASE's weights


class FusionConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["weighted", "learnt", "reciprocal_rank"] = Field(
        default="weighted",
        description="How parts are put together. weighted: weights tried on validation one after the other; learnt: those "
        "under which what was chosen in validation is most likely; reciprocal_rank: ranks by each part, those parts that "
        "validation wants, all alike (no index, no explanations, no updates).",
    )

    transitions: bool = Field(
        default=True,
        description="Add the scores of item transitions: what followed what, soon or later as validation finds.",
    )
    als: bool = Field(default=False, description="Add the scores of ALS, whose user vector is solved from the history.")
    ease: bool = Field(
        default=False,
        description="Add the scores of EASE, of whose weights each item keeps the 200 largest. Up to 25,000 items.",
    )
    bm25_knn: bool = Field(default=False, description="Add the scores of item neighbours under BM25 weights.")
    content: bool = Field(default=True, description="Add the cosine between the history's newest texts and the item's.")
    popularity: bool = Field(default=True, description="Add how popular an item has been of late.")
    new_items: bool = Field(
        default=True,
        description="Items without events borrow transitions of the items that they read like, and count as popular as "
        "validation finds best; otherwise what is fused makes them sink.",
    )
    repeats: bool = Field(
        default=True,
        description="Give items of the history a constant, or take one, where evaluation.exclude_seen leaves them in; "
        "not by ranks.",
    )
    search_cases: int = Field(default=4000, ge=1, description="Validation cases on which the weights are searched.")

    @property
    def collaborative(self) -> tuple[Collaborative, ...]:
        """What is counted from the log and asked by a history, as far as it is asked for."""
        return tuple(kind for kind in COLLABORATIVE if getattr(self, kind))

    @property
    def any(self) -> bool:
        """Whether something could answer without towers."""
        return bool(self.collaborative or self.content or self.popularity)

    def check_fits(self, n_items: int) -> None:
        """Raises InputError or MissingExtraError where something asked for cannot be counted for so many items."""
        if self.ease:
            check_n_items(n_items)
        for wanted, name in ((self.als, "ALS"), (self.bm25_knn, "BM25 kNN")):
            if wanted:
                check_implicit(name)


class FusionWeights(BaseModel):
    """What each part counts beside the towers' score, in its units.

    towers: 1, or 0 where nothing was trained and the other parts answer alone. pairs: which events of a user count as a
    transition, and how much of a history is asked; *_fit: how the others are counted and asked.
    Content: newest n_last texts, decay^age each. Popularity: an event half_life_days before the log's end counts half; None,
    where all count alike. borrowed: what a borrowed transition counts beside one of an item's own; 0: none is. newcomer: how
    popular an item without events counts, in what is expected of it. repeated: what items of the history get beside, below 0
    where they lose. ranks: weights are of reciprocal ranks by each part, not of its scores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    towers: float = Field(default=1.0, ge=0)
    transitions: float = Field(default=0.0, ge=0)
    pairs: ItemTransitionsConfig = ItemTransitionsConfig()
    ease: float = Field(default=0.0, ge=0)
    ease_fit: EASEConfig = EASEConfig(n_last=8, n_neighbours=_N_NEIGHBOURS)
    bm25_knn: float = Field(default=0.0, ge=0)
    bm25_knn_fit: BM25KNNConfig = BM25KNNConfig(n_neighbours=_N_NEIGHBOURS, max_history=8)
    als: float = Field(default=0.0, ge=0)
    als_fit: ALSConfig = ALSConfig(regularization=10.0, alpha=1.0, max_history=8)
    content: float = Field(default=0.0, ge=0)
    n_last: int = Field(default=3, ge=1)
    decay: float = Field(default=0.7, gt=0, le=1)
    popularity: float = Field(default=0.0, ge=0)
    half_life_days: float | None = Field(default=None, gt=0)
    borrowed: float = Field(default=0.0, ge=0)
    newcomer: float = Field(default=0.0, ge=0)
    repeated: float = 0.0
    ranks: bool = False

    def of_parts(self, amounts: Mapping[str, float]) -> "FusionWeights":
        """With these weights of parts (`PARTS`) and no others; how parts are counted stays."""
        return self.model_copy(update={**dict.fromkeys(PARTS, 0.0), **amounts})

    @property
    def parts(self) -> tuple[str, ...]:
        """Those that count."""
        return tuple(part for part in PARTS if getattr(self, part))

    @property
    def any(self) -> bool:
        """Whether anything is added to the towers' score."""
        return bool(self.collaborative or self.content or self.popularity or self.repeated)

    @property
    def collaborative(self) -> tuple[Collaborative, ...]:
        """What is counted from the log and asked by a history, as far as it counts."""
        return tuple(kind for kind in COLLABORATIVE if self.amount(kind))

    def amount(self, kind: Collaborative) -> float:
        return float(getattr(self, kind))

    def fit_of(self, kind: Collaborative) -> Settings:
        """How it is counted and asked."""
        found: Settings = getattr(self, fit_field(kind))
        return found

    def words(self) -> str:
        """For a person, what is added to the towers."""
        if self.ranks:
            return "reciprocal ranks by " + ", ".join(TITLES.get(part, part) for part in self.parts)
        counted = [f"{self.amount(kind):g} x {TITLES[kind]}" for kind in self.collaborative]
        return " + ".join(
            [
                *(counted or ["no item transitions"]),
                f"{self.content:g} x cosine of the newest texts",
                f"{self.popularity:g} x recent popularity",
            ]
        )


TITLES: Final[Mapping[str, str]] = {
    "transitions": "item transitions",
    "ease": "EASE",
    "bm25_knn": "BM25 kNN",
    "als": "ALS",
}


def fit_field(kind: Collaborative) -> str:
    """The field of `FusionWeights` that says how a kind is counted and asked."""
    return "pairs" if kind == "transitions" else f"{kind}_fit"


def fit_neighbours(settings: Settings, log: LogArrays) -> ItemNeighbours:
    """The table that a way of counting makes of the log."""
    if isinstance(settings, ItemTransitionsConfig):
        return ItemTransitions(settings).fit(log).neighbours
    if isinstance(settings, EASEConfig):
        return EASE(settings).fit(log).neighbours
    assert isinstance(settings, BM25KNNConfig), f"{type(settings).__name__} makes no table"
    return BM25KNN(settings).fit(log).neighbours


def asking_all(settings: Settings) -> Settings:
    """Counted alike, and asked with the whole of a history."""
    if isinstance(settings, ItemTransitionsConfig):
        return settings
    return settings.model_copy(update={"n_last" if isinstance(settings, EASEConfig) else "max_history": None})


def neighbours_as(settings: Settings, matrix: sp.csr_matrix) -> ItemNeighbours:
    """A table that is counted already, asked as the settings say."""
    if isinstance(settings, ItemTransitionsConfig):
        return ItemNeighbours(matrix, settings.n_last, settings.history_decay)
    n_last = settings.n_last if isinstance(settings, EASEConfig) else settings.max_history
    return ItemNeighbours(matrix, n_last or WHOLE_HISTORY)


def factors_as(settings: ALSConfig, vectors: npt.NDArray[np.float32]) -> ItemFactors:
    """Vectors that are solved already, asked as the settings say."""
    return ItemFactors(vectors, settings.regularization, settings.alpha, settings.max_history or WHOLE_HISTORY)


BORROWED = 1.5  # where validation cannot say; on Amazon Scientific it chose this (docs/LOG.md)

# Where nothing validates (--split none): moderate, below what validation chose on the data sets of docs/LOG.md.
UNSEARCHED_TRANSITIONS = 20.0


@dataclass(frozen=True, eq=False)
class Fusion:
    """What counts beside the towers, and how much. neighbours: the tables, as far as they count. factors and popularity are
    None where they count nothing. popularity: (N,) the p of each item, NaN for one without events until its words say what is
    expected of it (`standing`). loans: (n, N) the share that each of the first n items of a catalog borrows of the fit's
    N items."""

    weights: FusionWeights = field(default_factory=FusionWeights)
    neighbours: Mapping[NeighbourKind, ItemNeighbours] = field(default_factory=dict)
    factors: ItemFactors | None = None
    popularity: FloatArray | None = None
    loans: sp.csr_matrix | None = None

    def of_part(self, part: str) -> "Fusion":
        """One part alone; who borrows of whom stays."""
        return Fusion(
            self.weights.of_parts({part: getattr(self.weights, part)}).model_copy(update={"ranks": False}),
            {kind: table for kind, table in self.neighbours.items() if kind == part},
            self.factors if part == "als" else None,
            self.popularity if part == "popularity" else None,
            self.loans if part in (*self.neighbours, "popularity") else None,
        )

    @property
    def borrows(self) -> bool:
        """Whether items that nothing is known to follow get anything instead."""
        return bool(self.weights.borrowed) and bool(self.neighbours)

    @property
    def expects(self) -> bool:
        """Whether items without events count as popular."""
        return bool(self.weights.newcomer) and self.popularity is not None

    def expected(self, loans: Loans) -> npt.NDArray[np.float32]:
        """(n,) the p of items without events that borrow so; none is above the most popular."""
        return self._as_newcomers(loans.worth(self._known))

    @cached_property
    def standing(self) -> npt.NDArray[np.float32]:
        """(N or more,) the p of each item of the fit, and of those after it that `loans` knows; where it is not known, what is
        expected by `loans`, or 0 where nobody lends."""
        assert self.popularity is not None
        if not self.expects or self.loans is None:
            return self._known
        standing = np.zeros(max(self.loans.shape[0], len(self._known)), np.float32)
        standing[: self.loans.shape[0]] = self._as_newcomers(self.loans @ self._known)
        is_known = np.flatnonzero(~np.isnan(self.popularity))
        standing[is_known] = self._known[is_known]
        return standing

    def _as_newcomers(self, lent: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return (self.weights.newcomer * lent).clip(max=self._known.max(initial=0.0)).astype(np.float32)

    @cached_property
    def _known(self) -> npt.NDArray[np.float32]:
        """(N,) the p of items with events, 0 for others."""
        assert self.popularity is not None
        return np.nan_to_num(self.popularity).astype(np.float32)

    @property
    def reach(self) -> int:
        """How many of the newest items of a history are looked at."""
        asked = [table.n_last for table in self.neighbours.values()]
        asked += [self.factors.n_last] if self.factors is not None else []
        return max([*asked, self.weights.n_last if self.weights.content else 0])

    @cached_property
    def support(self) -> FloatArray:
        """(N,) how much there is to lend: how many items each item of the fit follows, in all tables together; where no item
        follows any, 1 and how popular it is: whatever has had events lends, also what has gone out of fashion."""
        tables = self.neighbours.values()
        counts = [np.bincount(table.matrix.indices, minlength=table.n_items).astype(np.float64) for table in tables]
        followed: FloatArray = sum(counts[1:], counts[0]) if counts else np.zeros(0)
        return followed if followed.any() or self.popularity is None else np.nan_to_num(1.0 + self.popularity)

    def sparse(self, history: Ragged, n_items: int) -> sp.csr_matrix | None:
        """(B, n_items) what neighbours add, borrowed ones too, and what the history gets; None where nothing counts."""
        found = self._followed(history, n_items)
        if not self.weights.repeated:
            return found
        cells = np.full(len(history.values), self.weights.repeated, np.float32), (history.row_of_value, history.values)
        again = sp.csr_matrix(cells, shape=(len(history), n_items))
        again.sum_duplicates()
        again.data[:] = self.weights.repeated  # once, however often it is there
        return again if found is None else (found + again).tocsr()

    def _followed(self, history: Ragged, n_items: int) -> sp.csr_matrix | None:
        if not self._weighted:
            return None
        parts = [weight * table.sparse_scores(history, table.n_items) for table, weight in self._weighted]
        own = sum(parts[1:], parts[0])
        lent = self._lent
        found = own.copy() if lent is None else own @ lent
        found.resize((len(history), n_items))
        if lent is not None:
            own.resize((len(history), n_items))
            found = own + found
        return found.tocsr()

    def of_item(self, history: Ragged, item: int) -> npt.NDArray[np.float32]:
        """(B,) a column of `sparse`."""
        found = self._of_known(history, item)
        if self.weights.repeated:
            found[history.row_of_value[history.values == item]] += self.weights.repeated
        if self.borrows and self.loans is not None and item < self.loans.shape[0]:
            loan = self.loans[[item]]
            for lender, share in zip(loan.indices, loan.data, strict=True):
                found += np.float32(self.weights.borrowed * share) * self._of_known(history, int(lender))
        return found

    def _of_known(self, history: Ragged, item: int) -> npt.NDArray[np.float32]:
        """(B,) what the tables add to one item, without what it borrows."""
        found = np.zeros(len(history), np.float32)
        for table, weight in self._weighted:
            found += np.float32(weight) * table.scores_of(history, item)
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
        if not self._weighted:
            return None
        items, worth = self._own_followers(history)
        lent = self._lent
        if lent is None or not len(items):
            return items, worth
        row = sp.csr_matrix((worth, (np.zeros(len(items), np.int64), items)), shape=(1, lent.shape[0])) @ lent
        return np.concatenate([items, row.indices]), np.concatenate([worth, row.data])

    def _own_followers(self, history: IntArray) -> tuple[IntArray, npt.NDArray[np.float32]]:
        parts = [(table.followers(history), np.float32(weight)) for table, weight in self._weighted]
        return (
            np.concatenate([items for (items, _), _ in parts]),
            np.concatenate([worth * weight for (_, worth), weight in parts]),
        )

    def borrowed(self, history: IntArray, loans: Loans) -> npt.NDArray[np.float32]:
        """(n,) what is added for items that came after the fit and borrow so."""
        if not self.borrows:
            return np.zeros(len(loans), np.float32)
        items, worth = self._own_followers(history)
        known: FloatArray = np.bincount(items, weights=worth, minlength=len(self.support)).astype(np.float64)
        return loans.worth(known) * np.float32(self.weights.borrowed)

    @property
    def _weighted(self) -> list[tuple[ItemNeighbours, float]]:
        return [(table, self.weights.amount(kind)) for kind, table in self.neighbours.items()]

    @cached_property
    def _lent(self) -> sp.csr_matrix | None:
        """(N, n), times `borrowed`: from what the fit's items are worth to what borrowers are."""
        if self.loans is None or not self.borrows or not self.loans.nnz:
            return None
        return (self.weights.borrowed * self.loans.T).tocsr()
