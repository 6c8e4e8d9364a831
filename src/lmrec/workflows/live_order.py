"""How a run that was made of others orders candidates: learnt from the lists that were shown, as a fit learns it."""

from lmrec.artifacts.run import RunFolder
from lmrec.data.impressions import Impressions
from lmrec.models.live_stack import OWN, TOWERS
from lmrec.recipe import load_fitted
from lmrec.retrieval.ensemble import AnyScorer
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.judge import training_scorer, training_towers
from lmrec.workflows.list_stack import keep_list_stack
from lmrec.workflows.prepare import split_log


def learn_live_order(run: RunFolder) -> None:
    """Keep a stack with an ensemble, a soup, a compressed or a distilled run that is whole but for it; nothing where its data
    do not say what was shown. Members of an ensemble know their own order, not that of their sum."""
    file = run.data / "impressions.parquet"
    if not file.exists():
        return
    recommender = Recommender.load(run.path)
    catalog, weights = recommender.catalog, recommender.fusion.weights
    split = split_log(recommender.interactions, catalog.n_items, load_fitted(run.recipe_file))
    own: dict[str, AnyScorer] = {OWN: training_scorer(recommender, split)}
    if recommender.ensemble is None and weights.any and weights.towers:
        own[TOWERS] = training_towers(recommender)
    impressions = Impressions.from_parquet(file)
    keep_list_stack(run.list_stack, own, impressions, recommender.interactions, split, catalog.ids)
