"""Find on validation how much item transitions and bare words count beside the towers."""

from lmrec.data.history import Cases
from lmrec.data.interactions import Interactions
from lmrec.evaluation.evaluator import EvaluationConfig, evaluate
from lmrec.models.collaborative import LogArrays
from lmrec.models.fusion import UNSEARCHED, Fusion, FusionConfig, FusionWeights
from lmrec.models.transitions import ItemTransitions
from lmrec.progress import progress_bar
from lmrec.retrieval.scorer import Scorer

_TRANSITIONS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
_CONTENT = (2.0, 4.0, 8.0, 16.0)


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

    The transitions asked here know the training part alone, as the towers do.
    """
    if not len(cases):
        return UNSEARCHED if config.transitions else FusionWeights(), None
    grids = {
        **({"transitions": _TRANSITIONS} if config.transitions else {}),
        **({"content": _CONTENT} if config.content else {}),
    }
    if not grids:
        return FusionWeights(), None
    asked = cases.sample(config.search_cases, seed)
    n_items = scorer.bank.n_items
    transitions = ItemTransitions().fit(log_arrays(train, n_items)) if config.transitions else None

    def measure(weights: FusionWeights) -> float:
        fused = scorer.fused(Fusion(weights, transitions if weights.transitions else None))
        return evaluate(fused, asked, n_items, judging).aggregate[judging.metric]

    n_steps = 1 + sum(map(len, grids.values()))
    with progress_bar("search fusion", show) as bar:
        best = FusionWeights()
        found, step = measure(best), 1
        for part, grid in grids.items():
            for weights in [best.model_copy(update={part: value}) for value in grid]:
                bar(step, n_steps)
                metric, step = measure(weights), step + 1
                if metric > found:
                    best, found = weights, metric
        bar(step, n_steps)
    return best, float(found)


def fit_fusion(weights: FusionWeights, interactions: Interactions, n_items: int) -> Fusion:
    """The chosen weights with transitions learnt from these events."""
    if not weights.transitions:
        return Fusion(weights)
    return Fusion(weights, ItemTransitions().fit(log_arrays(interactions, n_items)))
