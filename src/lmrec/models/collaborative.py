"""Scorers that know items only by who chose them: a log of numbers in, scores out. No words, no torch.

They stand in every table as the baselines to beat, so each names a small grid (`candidates()`) that the workflow
searches on validation data, as hard as it searches for our own model. All of them answer any history, also one of a
user never seen: the user is what the history says.

Shared rule: popularity breaks ties. It is added to every score, scaled below what any real difference is worth, so an
empty history (or one of items without training events) is answered in the order of popularity.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from pydantic import BaseModel, ConfigDict, Field, model_validator
from threadpoolctl import threadpool_limits

from lmrec.errors import InputError, LmrecError, MissingExtraError
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.factors import ItemFactors
from lmrec.models.neighbours import WHOLE_HISTORY

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares

T = TypeVar("T")
Scores: TypeAlias = npt.NDArray[np.float32]

SECONDS_A_DAY: Final = 86_400.0
_TIE_BREAK: Final = 1e-6
_BLOCK_ITEMS: Final = 1024


@dataclass(frozen=True)
class LogArrays:
    """A training log as plain arrays, one entry an event, in time order.

    user_idx, item_idx: (E,) rows; time_ts: (E,) UTC seconds or positions; weight: (E,) at least 0, 1 where unknown.
    n_users, n_items: how many users and items exist, with or without events.
    """

    user_idx: IntArray
    item_idx: IntArray
    time_ts: FloatArray
    weight: FloatArray
    n_users: int
    n_items: int

    def __post_init__(self) -> None:
        lengths = {len(self.user_idx), len(self.item_idx), len(self.time_ts), len(self.weight)}
        if len(lengths) > 1:
            raise InputError(f"The arrays of a log have {sorted(lengths)} entries; each event needs one in each array.")

    @property
    def n_events(self) -> int:
        return len(self.item_idx)

    def matrix(self) -> sp.csr_matrix:
        """(n_users, n_items) float32, the summed weights of each user's events on each item."""
        cells = self.weight.astype(np.float32), (self.user_idx, self.item_idx)
        return sp.csr_matrix(cells, shape=(self.n_users, self.n_items), dtype=np.float32)

    def popularity(self, weight: FloatArray | None = None) -> FloatArray:
        """(N,) float64, the summed weights of each item's events; `weight` (E,) replaces the log's own."""
        weights = np.asarray(self.weight if weight is None else weight, np.float64)
        return np.bincount(self.item_idx, weights=weights, minlength=self.n_items).astype(np.float64)


class CollaborativeScorer(Protocol):
    """What the scorers of this module have in common; `score` makes each of them a Scorer for the judge."""

    @property
    def name(self) -> str: ...

    @classmethod
    def candidates(cls) -> "tuple[CollaborativeScorer, ...]":
        """Unfitted scorers, one for each setting worth trying on validation data."""
        ...

    def fit(self, log: LogArrays) -> Self:
        """Learns from the log and returns itself."""
        ...

    def score(self, history: Ragged) -> Scores:
        """(b, N) float32, higher is better. `history`: ItemIdx, oldest first."""
        ...


class PopularityConfig(BaseModel):
    """Popularity has nothing to set."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Popularity:
    """The same list for everybody: items by the summed weights of their training events."""

    name = "popularity"

    def __init__(self, config: PopularityConfig | None = None) -> None:
        self.config = config or PopularityConfig()
        self._scores: Scores | None = None

    @classmethod
    def candidates(cls) -> "tuple[Popularity, ...]":
        return (cls(),)

    def fit(self, log: LogArrays) -> Self:
        self._scores = log.popularity().astype(np.float32)
        return self

    def score(self, history: Ragged) -> Scores:
        return _same_for_all(_fitted(self._scores, self.name), history)


# Of an event, tried where how fast what is popular changes is found on validation: from half an hour (news) to a season.
HALF_LIVES_DAYS: Final = (1 / 48, 1 / 24, 0.125, 0.25, 1.0, 3.0, 7.0, 30.0, 90.0)


class RecentPopularityConfig(BaseModel):
    """How fast an event grows old. Exactly one of the two is set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    half_life_days: float | None = Field(
        default=None,
        gt=0.0,
        description="An event this many days before the end of training counts half. Needs timestamps.",
    )
    newest_share: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="Only this newest share of all events counts. Works for any kind of time.",
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.half_life_days is None) == (self.newest_share is None):
            raise ValueError("set exactly one of half_life_days and newest_share")
        return self


class RecentPopularity:
    """The same list for everybody: items by their newest training events. "Now" is the latest training event.

    Items without recent events follow in the order of their popularity over all time.
    """

    name = "recent popularity"

    def __init__(self, config: RecentPopularityConfig | None = None) -> None:
        self.config = config or RecentPopularityConfig(half_life_days=30.0)
        self._scores: Scores | None = None

    @classmethod
    def candidates(cls) -> "tuple[RecentPopularity, ...]":
        by_age = [RecentPopularityConfig(half_life_days=days) for days in HALF_LIVES_DAYS]
        by_share = [RecentPopularityConfig(newest_share=share) for share in (0.02, 0.1, 0.3)]
        return tuple(cls(config) for config in (*by_age, *by_share))

    def fit(self, log: LogArrays) -> Self:
        recent = log.popularity(log.weight * self._freshness(log.time_ts))
        self._scores = recent.astype(np.float32) + popularity_tie_break(log)
        return self

    def score(self, history: Ragged) -> Scores:
        return _same_for_all(_fitted(self._scores, self.name), history)

    def _freshness(self, time_ts: FloatArray) -> FloatArray:
        """(E,) between 0 and 1, how much each event counts."""
        if len(time_ts) == 0:
            return np.zeros(0)
        if self.config.half_life_days is not None:
            age_days = (time_ts.max() - time_ts) / SECONDS_A_DAY
            return np.asarray(np.exp2(-age_days / self.config.half_life_days), np.float64)
        n_newest = max(1, round((self.config.newest_share or 1.0) * len(time_ts)))
        oldest_counted = np.partition(time_ts, len(time_ts) - n_newest)[len(time_ts) - n_newest]
        return np.asarray(time_ts >= oldest_counted, np.float64)


class ItemKNNConfig(BaseModel):
    """What counts as a neighbour, and how much of the history is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_neighbours: int = Field(default=100, ge=1, description="How many nearest items each item keeps.")
    shrinkage: float = Field(
        default=10.0, ge=0.0, description="Added to the cosine's divisor: distrusts items with few events."
    )
    max_history: int | None = Field(
        default=None, ge=1, description="Only this many last items of a history are asked; unset: all."
    )


class ItemKNN:
    """Items chosen by the same users as the items of the history (Sarwar et al. 2001; Deshpande & Karypis 2004).

    similarity(i, j) = x_i . x_j / (|x_i| |x_j| + shrinkage) over the users' columns x; each item keeps its
    `n_neighbours` most similar others; score(j) = sum over the history's different items i of similarity(i, j).
    """

    name = "item kNN"

    def __init__(self, config: ItemKNNConfig | None = None) -> None:
        self.config = config or ItemKNNConfig()
        self._similarity: sp.csr_matrix | None = None
        self._tie_break: Scores | None = None

    @classmethod
    def candidates(cls) -> "tuple[ItemKNN, ...]":
        return tuple(
            cls(ItemKNNConfig(n_neighbours=n, shrinkage=shrinkage, max_history=last))
            for n in (50, 300)
            for shrinkage in (5.0, 30.0)
            for last in (1, 3, 8, None)
        )

    def fit(self, log: LogArrays) -> Self:
        self._similarity = _nearest_items(log.matrix(), self.config)
        self._tie_break = popularity_tie_break(log)
        return self

    def score(self, history: Ragged) -> Scores:
        similarity, tie_break = _fitted(self._similarity, self.name), _fitted(self._tie_break, self.name)
        asked = history if self.config.max_history is None else history.last(self.config.max_history)
        rows = history_matrix(asked, len(tie_break))
        rows.data[:] = 1.0
        scores = (rows @ similarity).toarray()
        scores += tie_break
        return np.asarray(scores, dtype=np.float32)


class ALSConfig(BaseModel):
    """Size and fit of the factors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_factors: int = Field(default=64, ge=1, description="Width of the item and user vectors.")
    regularization: float = Field(default=0.01, ge=0.0, description="Pull of the factors towards zero.")
    alpha: float = Field(default=10.0, gt=0.0, description="Confidence of an event, against 1 for no event.")
    n_iterations: int = Field(default=15, ge=1, description="How often users and items are solved in turn.")
    max_history: int | None = Field(
        default=None, ge=1, description="Only this many last items of a history are asked; unset: all."
    )
    seed: int = Field(default=0, description="Seed of the first factors.")


class ALS:
    """Matrix factorisation for implicit feedback (Hu, Koren & Volinsky 2008), by the package `implicit`.

    The user's vector is solved anew from the history at question time, so users never seen are answered alike:
    `lmrec.models.factors`. Items without events have vectors of zeros.
    """

    name = "ALS"

    def __init__(self, config: ALSConfig | None = None) -> None:
        self.config = config or ALSConfig()
        self._factors: ItemFactors | None = None
        self._tie_break: Scores | None = None

    @classmethod
    def candidates(cls) -> "tuple[ALS, ...]":
        return tuple(
            cls(ALSConfig(n_factors=n, regularization=regularization, alpha=alpha, max_history=last))
            for n, regularization in ((16, 0.1), (16, 10.0), (64, 10.0))
            for alpha in (1.0, 10.0)
            for last in (8, None)
        )

    def fit(self, log: LogArrays) -> Self:
        # implicit runs its own threads over users; BLAS threads inside each of them make it many times slower.
        factorisation = _als_class()  # loads its BLAS, so it comes before the limit
        with threadpool_limits(1, "blas"):
            model = factorisation(
                factors=self.config.n_factors,
                regularization=self.config.regularization,
                alpha=self.config.alpha,
                iterations=self.config.n_iterations,
                random_state=self.config.seed,
            )
            model.fit(log.matrix(), show_progress=False)
        if not np.isfinite(model.item_factors).all():
            raise LmrecError(f"ALS ended with factors that are not finite ({self.config}). Raise its regularization.")
        vectors = np.array(model.item_factors, np.float32)
        # Of items without events nothing is known, whatever was drawn for them.
        vectors[np.bincount(log.item_idx, minlength=log.n_items) == 0] = 0.0
        config = self.config
        self._factors = ItemFactors(vectors, config.regularization, config.alpha, config.max_history or WHOLE_HISTORY)
        self._tie_break = popularity_tie_break(log)
        return self

    @property
    def factors(self) -> ItemFactors:
        """What was learnt, asked as the config says now: how much of a history is asked needs no new fit."""
        found, n_last = _fitted(self._factors, self.name), self.config.max_history or WHOLE_HISTORY
        if found.n_last != n_last:
            found = self._factors = replace(found, n_last=n_last)
        return found

    def score(self, history: Ragged) -> Scores:
        tie_break = _fitted(self._tie_break, self.name)
        scores = self.factors.fold_in(history) @ self.factors.vectors.T
        scores += tie_break
        return np.asarray(scores, dtype=np.float32)


BASELINES: Final[tuple[type[CollaborativeScorer], ...]] = (Popularity, RecentPopularity, ItemKNN, ALS)


def _fitted(value: T | None, name: str) -> T:
    if value is None:
        raise LmrecError(f"'{name}' was asked before it was fitted. Call fit(log) first.")
    return value


def _same_for_all(scores: Scores, history: Ragged) -> Scores:
    return np.tile(scores, (len(history), 1))


def popularity_tie_break(log: LogArrays) -> Scores:
    """(N,) popularity, scaled to at most one millionth."""
    popularity = log.popularity()
    return np.asarray(_TIE_BREAK * popularity / max(float(popularity.max(initial=0.0)), 1.0), dtype=np.float32)


def history_matrix(history: Ragged, n_items: int) -> sp.csr_matrix:
    """(b, N) float32, how often each item stands in each history."""
    ones = np.ones(len(history.values), np.float32)
    rows = sp.csr_matrix((ones, history.values, history.offsets), shape=(len(history), n_items), copy=True)
    rows.sum_duplicates()
    return rows


def _nearest_items(matrix: sp.csr_matrix, config: ItemKNNConfig) -> sp.csr_matrix:
    """(N, N) float32: row i holds the similarities of item i's nearest other items."""
    by_item = matrix.T.tocsr()
    norms = np.sqrt(np.asarray(by_item.multiply(by_item).sum(axis=1)).ravel())
    blocks = list(_similar_blocks(by_item, matrix, norms, config))
    n_items = by_item.shape[0]
    return (
        sp.vstack(blocks, format="csr", dtype=np.float32)
        if blocks
        else sp.csr_matrix((n_items, n_items), dtype=np.float32)
    )


def _similar_blocks(
    by_item: sp.csr_matrix, matrix: sp.csr_matrix, norms: FloatArray, config: ItemKNNConfig
) -> Iterator[sp.csr_matrix]:
    """The similarities of some items at a time, so that the full item-by-item table never exists."""
    for start in range(0, by_item.shape[0], _BLOCK_ITEMS):
        block = (by_item[start : start + _BLOCK_ITEMS] @ matrix).tocoo()
        other = block.col != block.row + start
        rows, columns, dots = block.row[other], block.col[other], block.data[other]
        similarity = dots / (norms[rows + start] * norms[columns] + config.shrinkage)
        # Best first within each row; among equals the lower item number, so that a fit is repeatable.
        order = np.lexsort((columns, -similarity, rows))
        rows, columns, similarity = rows[order], columns[order], similarity[order]
        starts = np.searchsorted(rows, np.arange(block.shape[0]))
        kept = np.arange(len(rows)) - starts[rows] < config.n_neighbours
        yield sp.csr_matrix((similarity[kept], (rows[kept], columns[kept])), shape=block.shape, dtype=np.float32)


def check_implicit(wanted: str) -> None:
    """Raises MissingExtraError where the package `implicit` is not there for what is wanted."""
    try:
        import implicit  # noqa: F401
    except ImportError as missing:
        raise MissingExtraError(wanted, "implicit", "baselines") from missing


def _als_class() -> "type[AlternatingLeastSquares]":
    check_implicit("ALS")
    from implicit.cpu.als import AlternatingLeastSquares

    found: type[AlternatingLeastSquares] = AlternatingLeastSquares
    return found
