"""The rivals by name: how each is made from settings, and what its search may choose from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from benchmarks.peers import spaces
from benchmarks.peers.spaces import Settings, Space
from lmrec.errors import InputError
from lmrec.fields import FloatArray, Ragged
from lmrec.models.bm25 import BM25KNN, BM25KNNConfig
from lmrec.models.collaborative import (
    ALS,
    ALSConfig,
    ItemKNN,
    ItemKNNConfig,
    LogArrays,
    Popularity,
    RecentPopularity,
    RecentPopularityConfig,
)
from lmrec.models.content import ContentKNN, ContentKNNConfig
from lmrec.models.ease import EASE, EASEConfig
from lmrec.models.transitions import ItemTransitions, ItemTransitionsConfig
from lmrec.workflows.fuse import FITS, PAIRS


class Fittable(Protocol):
    """A rival of the product: fitted to a log, then asked."""

    config: Any

    @property
    def name(self) -> str: ...

    def fit(self, log: LogArrays) -> "Fittable": ...

    def score(self, history: Ragged) -> FloatArray: ...


@dataclass(frozen=True)
class Inside:
    """A rival that the product has. `asked`: settings that change only the question, so they need no new fit.

    `make`: settings, seed and the catalog's text vectors (N, Dt), or None, -> an unfitted rival. `judge`: what the product's
    own judge tries, and `fusion` what the product tries of it before it fuses it, where that may be more than the space.
    `protocols`: where it is asked; none named: everywhere.
    """

    title: str
    space: Space
    make: Callable[[Settings, int, FloatArray | None], Fittable]
    asked: tuple[str, ...] = ()
    is_seeded: bool = False
    needs_times: bool = False
    judge: Callable[[], Sequence[Fittable]] = tuple
    fusion: Sequence[Any] = ()
    protocols: tuple[str, ...] = ()

    @property
    def fits_of_product(self) -> list[Settings]:
        """Of what the product itself tries that which makes a fit, each once."""
        keys = [key for key in self.space if key not in self.asked]
        configs = [*(scorer.config for scorer in self.judge()), *self.fusion]
        every = [{key: getattr(config, key) for key in keys} for config in configs]
        return [fit for place, fit in enumerate(every) if fit not in every[:place]]

    def is_asked(self, protocol: str) -> bool:
        return not self.protocols or protocol in self.protocols


@dataclass(frozen=True)
class Outside:
    """A rival of RecTools: see rectools_peer.py. All of them are seeded."""

    title: str
    space: Space
    peer: str
    is_seeded: bool = True


class NewFirst(ContentKNN):
    """Content kNN that shows items without events before all others.

    Where the answers are new items alone, as in P4, whoever knows that has most of the question; beside this one it shows what
    else a model knows.
    """

    name = "PLM not tuned, new items first"

    def fit(self, log: LogArrays) -> Self:
        self.is_known = np.bincount(log.item_idx, minlength=log.n_items) > 0
        return super().fit(log)

    def score(self, history: Ragged) -> npt.NDArray[np.float32]:
        scores = super().score(history)
        scores[:, self.is_known] -= 1 + np.ptp(scores, axis=1, keepdims=True)  # the new ones stay exact
        return scores


def _new_first(settings: Settings, seed: int, text_vec: FloatArray | None) -> Fittable:
    return NewFirst(_content(settings, seed, text_vec).text_vec, ContentKNNConfig(**settings))


def _content(settings: Settings, seed: int, text_vec: FloatArray | None) -> ContentKNN:
    if text_vec is None:
        raise InputError("content kNN needs the catalog's text vectors, and this cell has none")
    return ContentKNN(text_vec, ContentKNNConfig(**settings))


INSIDE: dict[str, Inside] = {
    "popularity": Inside("popularity", spaces.POPULARITY, lambda settings, seed, text: Popularity()),
    "recent_popularity": Inside(
        "recent popularity",
        spaces.RECENT_POPULARITY_BY_TIME,
        lambda settings, seed, text: RecentPopularity(RecentPopularityConfig(**settings)),
        needs_times=True,
    ),
    "content": Inside("content kNN, MiniLM frozen (un-tuned PLM)", spaces.CONTENT, _content, ("n_last", "decay")),
    "content_new": Inside(
        "content kNN, MiniLM frozen, new items first",
        spaces.CONTENT,
        _new_first,
        ("n_last", "decay"),
        protocols=("P4",),
    ),
    "item_knn": Inside(
        "item kNN",
        spaces.ITEM_KNN,
        lambda settings, seed, text: ItemKNN(ItemKNNConfig(**settings)),
        ("max_history",),
        judge=ItemKNN.candidates,
    ),
    "bm25_knn": Inside(
        "BM25 item kNN (implicit)",
        spaces.BM25_KNN,
        lambda settings, seed, text: BM25KNN(BM25KNNConfig(**settings)),
        ("max_history",),
        judge=BM25KNN.candidates,
        fusion=FITS["bm25_knn"],
    ),
    "als": Inside(
        "ALS (implicit)",
        spaces.ALS,
        lambda settings, seed, text: ALS(ALSConfig(**settings, seed=seed)),
        ("max_history",),
        is_seeded=True,
        judge=ALS.candidates,
        fusion=FITS["als"],
    ),
    "ease": Inside(
        "EASE",
        spaces.EASE,
        lambda settings, seed, text: EASE(EASEConfig(**settings)),
        ("n_last",),
        judge=EASE.candidates,
        fusion=FITS["ease"],
    ),
    "transitions": Inside(
        "item transitions",
        spaces.TRANSITIONS,
        lambda settings, seed, text: ItemTransitions(ItemTransitionsConfig(**settings)),
        ("n_last", "history_decay"),
        judge=ItemTransitions.candidates,
        fusion=PAIRS,
    ),
}

OUTSIDE: dict[str, Outside] = {
    "sasrec": Outside("SASRec (RecTools 0.19, softmax)", spaces.SASREC, "sasrec"),
    "unisrec": Outside("UniSRec (RecTools 0.19, same MiniLM vectors)", spaces.UNISREC, "unisrec"),
}

TITLES = {
    **{name: inside.title for name, inside in INSIDE.items()},
    **{name: outside.title for name, outside in OUTSIDE.items()},
}
