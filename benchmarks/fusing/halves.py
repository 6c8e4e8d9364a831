"""A fusion judged on users who had no say in its weights: one half of validation chooses, the other judges, and the reverse."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmrec.data.history import Cases
from lmrec.data.split import Split
from lmrec.evaluation.evaluator import EvaluationConfig, evaluate
from lmrec.fields import BoolArray, FloatArray
from lmrec.recipe import Recipe, load_fitted
from lmrec.retrieval.ensemble import answering
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.scorer import Scorer
from lmrec.training.trend import PastPopularity
from lmrec.workflows.counting import fit_fusion
from lmrec.workflows.fuse import search_weights
from lmrec.workflows.judge import training_towers
from lmrec.workflows.train import beside_popularity, learnt_weight

METRIC = "ndcg@10"


def learnt_towers(recommender: Recommender, split: Split) -> Scorer:
    """The towers as they were before they learnt from validation; with the popularity beside which they learnt, if they did."""
    towers, run = training_towers(recommender), recommender.run
    half_life_days = load_fitted(run.recipe_file).objective.trend_half_life_days
    if not half_life_days:
        return towers
    past = PastPopularity.of(split.train, towers.bank.n_items, half_life_days)
    return beside_popularity(towers, learnt_weight(run), past)


def answer_halves(
    towers: Scorer, split: Split, cases: Cases, recipe: Recipe, change: Mapping[str, Any]
) -> tuple[FloatArray, list[str]]:
    """(B,) the metric of each case under weights that it had no say in, and the weights of both halves in words.

    change: what is set of `fusion.*` beside the recipe.
    """
    is_first, values, found = halves(cases), np.zeros(len(cases)), []
    for half in (is_first, ~is_first):
        asked, judged = cases.take(np.flatnonzero(half)), cases.take(np.flatnonzero(~half))
        values[~half], words = answer_half(towers, split, asked, judged, recipe, change)
        found.append(words)
    return values, found


def halves(cases: Cases) -> BoolArray:
    """(B,) whether the case's user is of the first half; the same for every way and seed."""
    users = np.unique(cases.user_idx)
    first = np.random.default_rng(0).permutation(users)[: len(users) // 2]
    return np.isin(cases.user_idx, first)


def answer_half(
    towers: Scorer, split: Split, asked: Cases, judged: Cases, recipe: Recipe, change: Mapping[str, Any]
) -> tuple[FloatArray, str]:
    """(B,) the metric of each case that is judged, and the weights found on those that are asked."""
    config, judging = recipe.fusion.model_copy(update={"search_cases": len(asked), **change}), judging_of(recipe)
    n_items, seed = towers.bank.n_items, recipe.training.seed
    weights, _ = search_weights(towers, split.train, asked, config, judging, seed, False, recipe.trains)
    fused = answering(towers.fused(fit_fusion(weights, split.train, n_items)))
    words = f"{weights.words()}, {weights.towers:g} x towers, {weights.borrowed:g} borrowed"
    return evaluate(fused, judged, n_items, judging).metrics[METRIC], words


def judging_of(recipe: Recipe) -> EvaluationConfig:
    """NDCG@10, with the recipe's choice of who is a candidate."""
    return EvaluationConfig(ks=(10,), exclude_seen=recipe.evaluation.exclude_seen, metric=METRIC)
