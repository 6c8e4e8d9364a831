"""Judge a reranker: its lists over the whole catalog beside the retriever's, and single pairs from their probabilities."""

import json
from dataclasses import replace

import numpy as np

from lmrec.artifacts.files import write_json
from lmrec.artifacts.reranker import RerankerDescription
from lmrec.artifacts.run import RunFolder
from lmrec.data.history import HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.data.split import Split, held_out
from lmrec.evaluation.evaluator import Evaluation, evaluate
from lmrec.evaluation.pairs import Calibration, PairJudgement, RerankJudgement, judge_pairs
from lmrec.evaluation.slices import slices_of
from lmrec.evaluation.table import TableForm, build_table
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.progress import Progress, progress_bar
from lmrec.recipe import Recipe
from lmrec.retrieval.ensemble import AnyScorer
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.reranker import RerankedScorer, Reranker
from lmrec.topk import exclude_items, top_k
from lmrec.training.pairs import NegativeSource, Pairs, Ratings, RerankerConfig, draw_pairs, drawn_source
from lmrec.workflows.list_times import time_lists, time_reading

RERANKED = "lmrec reranked"
ALONE = "reranker alone"
_BLOCK = 16  # cases read between two steps of a progress bar


def judge_reranking(
    run: RunFolder,
    recipe: Recipe,
    recommender: Recommender,
    split: Split,
    base: AnyScorer,
    base_name: str,
    form: TableForm,
    show: bool,
) -> RerankJudgement | None:
    """Written to reranking.json; None where the run has no reranker.

    base: the retriever for questions of the test part. form: of the judgement that stands beside this one.
    """
    if recommender.reranker is None:
        return None
    reranker, config = recommender.reranker, recipe.reranker
    n_items = recommender.catalog.n_items
    judging = recipe.evaluation.model_copy(update={"max_cases": config.judge_cases, "block_size": _BLOCK})
    known = split.train_and_validation
    counts = np.bincount(known.item_idx, minlength=n_items)
    described = reranker.description
    reranked = RerankedScorer(
        RERANKED, base, reranker, recommender.pair_texts, described.weight, described.top_k, judging.exclude_seen
    )
    found: list[Evaluation] = []
    for name, scorer in (
        (base_name, base),
        (RERANKED, reranked),
        (ALONE, reranked.weighted(1.0)),
    ):
        with progress_bar(f"judge {name}", show) as bar:
            found.append(replace(evaluate(scorer, split.test, n_items, judging, bar, counts), name=name))
    cases = found[0].cases
    table = build_table(
        found,
        {base_name},
        replace(form, n_cases=len(cases), n_users=len(np.unique(cases.user_idx))),
        judging,
        slices_of(cases, known, n_items),
        {
            RERANKED: f"the best {described.top_k} of {base_name}, in the order of {1 - described.weight:g} x its score + "
            f"{described.weight:g} x the reranker's, both at unit spread in the list; the weight is from validation",
            ALONE: "the same at weight 1",
        },
    )
    pairs = judge_test_pairs(recipe, recommender, split, base, reranker)
    reading, plain = time_reading(recommender), time_lists(recommender, rerank=False)
    judgement = RerankJudgement(table, pairs, described.top_k, reading, plain)
    write_json(run.reranking_file, judgement.as_dict())
    return judgement


def read_reranking(run: RunFolder) -> RerankJudgement | None:
    """The last judgement of the run's reranker, None where it has none."""
    if not run.reranking_file.exists():
        return None
    return RerankJudgement.from_dict(json.loads(run.reranking_file.read_text(encoding="utf-8")))


def judge_test_pairs(
    recipe: Recipe, recommender: Recommender, split: Split, base: AnyScorer, reranker: Reranker
) -> PairJudgement:
    """Pairs of the test part, drawn as those of the training were."""
    described, config = reranker.description, recipe.reranker
    _, test = held_out(recommender.interactions, recommender.catalog.n_items, recipe.split)
    pairs = pairs_of(
        config, recipe, recommender, split, test, config.judge_cases, base, ratings_of(described), part_number=2
    )
    outputs = outputs_of(reranker, recommender.pair_texts, pairs)
    calibration = Calibration(described.temperature, described.threshold)
    return judge_pairs(described.task, outputs, pairs.labels, calibration, negatives_in_words(config), described.spread)


def outputs_of(reranker: Reranker, texts: list[str], pairs: Pairs, progress: Progress | None = None) -> FloatArray:
    """(P, C)."""
    histories = [[texts[int(item)] for item in pairs.history[at]] for at in range(len(pairs.history))]
    candidates = [[texts[int(item)] for item in pairs.candidates[at]] for at in range(len(pairs.candidates))]
    return reranker.outputs(histories, candidates, pairs.history.words, progress)


def ratings_of(described: RerankerDescription) -> Ratings:
    return Ratings(described.values, described.center, described.spread)


def negatives_in_words(config: RerankerConfig) -> str:
    """What the wrong pairs are."""
    if config.task != "binary":
        return "each with the rating that was given"
    kind = f"the retriever's best {config.top_k}" if config.negatives == "hard" else f"a {config.negatives} draw"
    return f"each chosen item beside {config.n_negatives} others from {kind}"


def pairs_of(
    config: RerankerConfig,
    recipe: Recipe,
    recommender: Recommender,
    split: Split,
    part: Interactions,
    n_events: int,
    retriever: AnyScorer,
    ratings: Ratings,
    part_number: int,
) -> Pairs:
    """Pairs of a part of the log; retriever: one that has not learnt from the part, unless it is the training part."""
    counts = np.bincount(split.train.item_idx, minlength=recommender.catalog.n_items)
    knows = split.train if part_number == 0 or recipe.split.kind == "cold_items" else recommender.interactions
    source = hard_source(retriever, config.top_k) if config.negatives == "hard" else drawn_source(config, counts)
    return draw_pairs(
        config,
        part,
        HistoryIndex.from_interactions(knows),
        n_events,
        source,
        ratings,
        (recipe.training.seed, part_number),
    )


def hard_source(retriever: AnyScorer, k: int) -> NegativeSource:
    """Negatives from the retriever's best k for each history, items of the history left out, in random order."""

    def draw(history: Ragged, rng: np.random.Generator) -> IntArray:
        found = np.empty((len(history), k), np.int64)
        for start in range(0, len(history), 256):
            block = history.slice(start, min(start + 256, len(history)))
            found[start : start + len(block)] = top_k(exclude_items(retriever.score(block), block), k)
        return rng.permuted(found, axis=1)

    return draw
