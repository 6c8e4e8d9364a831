"""Distil a run's reranker into its retriever: a new run that answers at the retriever's speed with some of what was read."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lmrec.artifacts.checkpoint import compute_item_vectors, replace_towers, save_vectors
from lmrec.artifacts.files import share_file
from lmrec.artifacts.run import RunFolder, create_run, describe_made, open_run
from lmrec.data.history import HistoryIndex
from lmrec.data.split import Split
from lmrec.errors import InputError
from lmrec.evaluation.evaluator import evaluate
from lmrec.models.blending import blend_standardized
from lmrec.models.fusion import Fusion
from lmrec.models.two_tower import TwoTower
from lmrec.progress import progress_bar
from lmrec.recipe import Recipe, load_fitted, recipe_toml, with_choices
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.reranker import Reranker
from lmrec.retrieval.scorer import Scorer, build_bank
from lmrec.topk import exclude_items, top_k
from lmrec.training.distil import TaughtLists, distil
from lmrec.training.interrupt import StopWish, stop_on_interrupt
from lmrec.training.trend import go_on_from
from lmrec.workflows.counting import fit_fusion
from lmrec.workflows.index import save_index
from lmrec.workflows.judge import training_scorer
from lmrec.workflows.live_order import learn_live_order
from lmrec.workflows.prepare import split_log
from lmrec.workflows.teachable import require_teachable
from lmrec.workflows.tracking import check_tracking, epoch_recorder
from lmrec.workflows.train import learnt_weight, objective_over

_BLOCK = 16  # histories read between two steps of the bar


@dataclass(frozen=True)
class Distilled:
    """metrics: of the fused retriever on validation, before and after each epoch; `epoch` is kept, 0 where none was better."""

    run: RunFolder
    metric: str
    metrics: tuple[float, ...]
    epoch: int
    n_lists: int
    seconds: float
    notes: tuple[str, ...] = ()


def distil_run(path: Path | str, out: Path | str, overrides: Sequence[str] = (), show: bool = True) -> Distilled:
    """A new run at `out` whose towers have learnt from lists that the reranker of `path` has read.

    overrides: `distil.*` settings, and `tracking.*`. The towers start from those that have learnt the training part alone and
    stay so: they are not taught again with validation. Raises InputError where there is no reranker, or validation gave it no
    weight.
    """
    started = time.monotonic()
    source = open_run(path)
    recipe = load_fitted(source.recipe_file, overrides, ["distil.*", "tracking.*"])
    notes = check_tracking(recipe.tracking)
    recommender = Recommender.load(path)
    reranker = _checked(recommender, str(path))
    run = create_run(out, resume=False)
    try:
        metrics, epoch, n_lists = _teach(run, source, recipe, recommender, reranker, show)
        learn_live_order(run)
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)  # the folder was ours and empty
        raise
    seconds = round(time.monotonic() - started, 1)
    return Distilled(run, recipe.evaluation.metric, tuple(metrics), epoch, n_lists, seconds, tuple(notes))


def _teach(
    run: RunFolder, source: RunFolder, recipe: Recipe, recommender: Recommender, reranker: Reranker, show: bool
) -> tuple[list[float], int, int]:
    """Fill the folder `run`: (the metric before and after each epoch, the epoch kept, lists read)."""
    split = split_log(recommender.interactions, recommender.catalog.n_items, recipe)
    retriever = training_scorer(recommender, split)
    assert isinstance(retriever, Scorer)
    with stop_on_interrupt() as should_stop:
        lists = _read_lists(recipe, recommender, split, retriever, reranker, should_stop, show)
        towers = retriever.towers
        fusion = retriever.fusion
        asked = split.validation.sample(recipe.training.validation_cases, recipe.training.seed)

        def scorer_of(taught: TwoTower) -> Scorer:
            text_vec = recommender.vectors.text_vec
            return replace(retriever, towers=taught, bank=build_bank(taught, text_vec)).fused(fusion)

        def validate() -> float:
            judged = evaluate(scorer_of(towers), asked, recommender.catalog.n_items, recipe.evaluation)
            return judged.aggregate[recipe.evaluation.metric]

        objective = objective_over(split.train, recommender.catalog.n_items, recipe)
        following = epoch_recorder(run.curves, recipe.tracking, recipe_toml(recipe))
        with progress_bar("distil", show) as bar, following as record:
            metrics, epoch = distil(
                towers,
                recommender.vectors.text_vec,
                lists,
                go_on_from(objective, learnt_weight(source)),
                recipe.distil,
                recipe.training.seed,
                recipe.masks_seen,
                validate,
                record,
                bar,
                should_stop,
            )
    _save(run, source, recipe, recommender, towers, metrics, epoch)
    return metrics, epoch, len(lists)


def _checked(recommender: Recommender, path: str) -> Reranker:
    """The reranker. Raises InputError for a run that cannot be distilled."""
    require_teachable(
        recommender,
        path,
        "distil",
        "nothing that they were taught would be heard. Train it: training.frozen_epochs above 0",
    )
    if recommender.towers.user_model is None:
        raise InputError(
            f"'{path}' reads histories as text (user_model.kind 'text'): it has no towers to teach. Fit another user model"
        )
    if recommender.reranker is None:
        raise InputError(f"'{path}' has no reranker to learn from. Type: lmrec fit-reranker {path}")
    if not recommender.reranker.description.weight:
        raise InputError(
            f"validation gave the reranker of '{path}' no weight, so there is nothing to learn from it. Teach it otherwise: "
            "lmrec recipe lists reranker.*"
        )
    return recommender.reranker


def _read_lists(
    recipe: Recipe,
    recommender: Recommender,
    split: Split,
    retriever: Scorer,
    reranker: Reranker,
    should_stop: StopWish,
    show: bool,
) -> TaughtLists:
    """The retriever's best for histories of training events, as they are ordered when both are asked: the blend of both at
    unit spread, stretched to the spread of the retriever's scores, so that the student's units are kept. What the retriever
    has beside its towers comes with them: a reranker that agrees with it teaches nothing. Items of the history are left out
    where they are when lists are judged and served. Raises InputError where that leaves no two items to be put in order."""
    from lmrec.errors import Interrupted

    towers_alone, weight = retriever.fused(Fusion()), retriever.fusion.weights.towers
    described, train, texts = reranker.description, split.train, recommender.pair_texts
    history = HistoryIndex.from_interactions(train).before(train.user_idx, train.time_ts)
    rng = np.random.default_rng((recipe.training.seed, 3))
    usable = np.flatnonzero((history.lengths > 0) & (train.weight > 0))
    events = np.sort(rng.choice(usable, min(recipe.distil.n_events, len(usable)), replace=False))
    histories = history.take(events).last(retriever.reach)
    hides_seen = recipe.evaluation.exclude_seen
    n_hidden = max((len(np.unique(histories[at])) for at in range(len(histories))), default=0) if hides_seen else 0
    k = min(described.top_k, recommender.catalog.n_items - n_hidden)
    if k < 2:
        raise InputError(
            f"of {recommender.catalog.n_items} items somebody's history leaves {k}, and a list to learn from has two at least. "
            "This catalog is too small to be distilled"
        )
    items = np.zeros((len(events), k), np.int64)
    teacher, beside = np.zeros((len(events), k), np.float32), np.zeros((len(events), k), np.float32)
    with progress_bar("read lists", show) as bar:
        for start in range(0, len(events), _BLOCK):
            block = histories.slice(start, min(start + _BLOCK, len(events)))
            scores, own_scores = retriever.score(block), towers_alone.score(block)
            best = top_k(exclude_items(scores, block) if hides_seen else scores, k)
            read = reranker.score(
                [[texts[int(item)] for item in block[at]] for at in range(len(block))],
                [[texts[int(item)] for item in row] for row in best],
                block.words,
            )
            for at, own in enumerate(read):
                retrieved = scores[at, best[at]].astype(np.float64)
                items[start + at] = best[at]
                beside[start + at] = retrieved - weight * own_scores[at, best[at]]
                teacher[start + at] = retrieved.std() * blend_standardized(retrieved, own, described.weight)
            bar(start + len(block), len(events))
            if should_stop():
                raise Interrupted("stopped while lists were read; nothing is kept. Type it again")
    chosen = train.item_idx[events].astype(np.int64)
    asked = histories.last(retriever.max_history)
    return TaughtLists(asked, items, teacher, chosen, train.time_ts[events], beside, weight)


def _save(
    run: RunFolder,
    source: RunFolder,
    recipe: Recipe,
    recommender: Recommender,
    towers: TwoTower,
    metrics: list[float],
    epoch: int,
) -> None:
    shutil.rmtree(run.data)
    shutil.copytree(source.data, run.data, copy_function=share_file)
    kept = with_choices(recipe, {"training.refit": False, "training.snapshots": 0})
    run.recipe_file.write_text(recipe_toml(kept), encoding="utf-8")
    checkpoint = replace_towers(run.checkpoint, recommender.checkpoint, towers)
    vectors = compute_item_vectors(towers, recommender.vectors.text_vec)
    save_vectors(run.vectors_file, vectors, checkpoint, recommender.catalog.fingerprint)
    fusion = fit_fusion(checkpoint.fusion, recommender.interactions, recommender.catalog.n_items)
    served = replace(recommender.towers_scorer, towers=towers, bank=build_bank(towers, vectors.text_vec)).fused(fusion)
    save_index(run, served, recommender.interactions, recipe.index, checkpoint.fingerprint)
    note = f"the retriever of {source.path}, taught by its reranker (epoch {epoch} kept)"
    made = describe_made(source, note, without=("reranker", "auxiliary"))
    made["training"] = {**made["training"], "refit_epochs": 0, "best_metric": metrics[epoch]}
    run.update_record(**{**made, "distilled": {"metrics": metrics, "epoch": epoch}})
