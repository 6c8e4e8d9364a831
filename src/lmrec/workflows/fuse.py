"""Find on validation how much item transitions, recent popularity and bare words count beside the towers."""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from lmrec.data.history import Cases
from lmrec.data.interactions import Interactions
from lmrec.evaluation.evaluator import EvaluationConfig, evaluate
from lmrec.fields import TIMESTAMP
from lmrec.models.collaborative import SECONDS_A_DAY, LogArrays
from lmrec.models.fusion import UNSEARCHED, Fusion, FusionConfig, FusionWeights
from lmrec.models.transitions import ItemTransitions
from lmrec.progress import progress_bar
from lmrec.retrieval.popularity import recent_popularity
from lmrec.retrieval.scorer import Scorer

Change = Mapping[str, float | None]

_TRANSITIONS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_CONTENT = (2.0, 4.0, 8.0, 16.0)
_POPULARITY = (0.1, 0.2, 0.4, 0.8, 1.6)
_FIRST_POPULARITY = 0.4  # at which half-lives are compared
_HALF_LIVES = (3.0, 7.0, 30.0, 90.0)


def log_arrays(interactions: Interactions, n_items: int) -> LogArrays:
    return LogArrays(
        user_idx=interactions.user_idx,
        item_idx=interactions.item_idx,
        time_ts=interactions.time_ts,
        weight=interactions.weight,
        n_users=interactions.n_users,
        n_items=n_items,
    )


def search_weights(
    scorer: Scorer,
    train: Interactions,
    cases: Cases,
    config: FusionConfig,
    judging: EvaluationConfig,
    seed: int,
    show: bool,
) -> tuple[FusionWeights, float | None]:
    """The weights with the best validation metric, one after the other, and that metric; None where nothing validates.

    The counts asked here know the training part alone, as the towers do.
    """
    if not len(cases):
        return UNSEARCHED if config.transitions else FusionWeights(), None
    grids = list(_grids(config, train.time_kind == TIMESTAMP))
    if not grids:
        return FusionWeights(), None
    asked = cases.sample(config.search_cases, seed)
    n_items = scorer.bank.n_items
    transitions = ItemTransitions().fit(log_arrays(train, n_items)) if config.transitions else None

    def measure(weights: FusionWeights) -> float:
        fused = scorer.fused(_fusion(weights, train, n_items, transitions))
        return evaluate(fused, asked, n_items, judging).aggregate[judging.metric]

    n_steps = 1 + sum(map(len, grids))
    with progress_bar("search fusion", show) as bar:
        best = FusionWeights()
        found, step = measure(best), 1
        for grid in grids:
            for weights in [best.model_copy(update=change) for change in grid]:
                bar(step, n_steps)
                metric, step = measure(weights), step + 1
                if metric > found:
                    best, found = weights, metric
        bar(step, n_steps)
    return best, float(found)


def fit_fusion(weights: FusionWeights, interactions: Interactions, n_items: int) -> Fusion:
    """The chosen weights with transitions and popularity learnt from these events."""
    transitions = ItemTransitions().fit(log_arrays(interactions, n_items)) if weights.transitions else None
    return _fusion(weights, interactions, n_items, transitions)


def _fusion(
    weights: FusionWeights, interactions: Interactions, n_items: int, transitions: ItemTransitions | None
) -> Fusion:
    popularity = None
    if weights.popularity:
        half_life_s = math.inf if weights.half_life_days is None else weights.half_life_days * SECONDS_A_DAY
        popularity = np.log1p(recent_popularity(interactions, n_items, half_life_s))
    return Fusion(weights, transitions if weights.transitions else None, popularity)


def _grids(config: FusionConfig, has_times: bool) -> Iterator[list[Change]]:
    """What is tried, part by part: each entry is laid over the best weights so far."""
    if config.transitions:
        yield [{"transitions": weight} for weight in _TRANSITIONS]
    if config.popularity:
        half_lives = (None, *_HALF_LIVES) if has_times else (None,)
        yield [{"popularity": _FIRST_POPULARITY, "half_life_days": days} for days in half_lives]
        yield [{"popularity": weight} for weight in _POPULARITY if weight != _FIRST_POPULARITY]
    if config.content:
        yield [{"content": weight} for weight in _CONTENT]
