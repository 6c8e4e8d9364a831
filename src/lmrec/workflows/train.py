"""Fit: from two tables to a run folder that recommends."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lmrec.artifacts.checkpoint import ModelConfigs, compute_item_vectors, save_checkpoint, save_vectors
from lmrec.artifacts.encoder_files import fingerprint_encoder
from lmrec.artifacts.pretrained import locate_pretrained
from lmrec.artifacts.run import RunFolder, create_run, describe_environment, instant
from lmrec.artifacts.snapshots import save_snapshot
from lmrec.artifacts.training_state import read_counters
from lmrec.data.history import Cases, HistoryIndex
from lmrec.data.impressions import Impressions, shown_beside
from lmrec.data.interactions import Interactions
from lmrec.data.split import Split
from lmrec.data.users import ProfileVocabulary, UserTable
from lmrec.errors import InputError, Interrupted, RecipeError, RunFolderError, TrainingError
from lmrec.evaluation.evaluator import evaluate
from lmrec.evaluation.pairs import Calibration, judge_pairs
from lmrec.fields import IntArray, Ragged
from lmrec.idle import idle_notes
from lmrec.laps import Laps
from lmrec.models.encoder import TextEncoder
from lmrec.models.fusion import Fusion, FusionWeights
from lmrec.models.live_stack import OWN, TOWERS
from lmrec.models.two_tower import TwoTower
from lmrec.recipe import Recipe, load_recipe, recipe_toml
from lmrec.retrieval.ensemble import AnyScorer, answering
from lmrec.retrieval.scorer import Scorer, build_bank
from lmrec.text.template import Template, build_template
from lmrec.text.tokens import tokenize_texts
from lmrec.text.users import UserTemplate
from lmrec.training.auxiliary import Categories, WithCategory, read_categories
from lmrec.training.batches import TrainBatch, epoch_batches
from lmrec.training.interrupt import stop_on_interrupt
from lmrec.training.learner import HistoryTokens, Learner, encode_histories
from lmrec.training.losses import Objective, build_objective
from lmrec.training.trainer import Stage, Trainer, TrainingReport, Weights, plan_stages
from lmrec.training.trend import FIRST_WEIGHT, PastPopularity, WithTrend, check_times, trend_of
from lmrec.training.variants import TextVariants
from lmrec.training.views import view_batch
from lmrec.workflows.augment import describe_augmentation, tuned_variants, untuned_variants, vary_texts
from lmrec.workflows.counting import fit_fusion
from lmrec.workflows.encode import PretrainedText, begin_tuning, read_texts
from lmrec.workflows.fuse import weights_by_recipe
from lmrec.workflows.index import save_index
from lmrec.workflows.list_stack import keep_list_stack
from lmrec.workflows.prepare import Prepared, made_split, prepare, save_dataset
from lmrec.workflows.tracking import check_tracking, epoch_recorder

Watch: TypeAlias = Callable[[dict[str, Any]], None]
TREND_WEIGHT = "trend_weight"  # in run.json
# Parts of a recipe that change no weight of a fit: they follow it, watch it, or are other commands'.
_CHANGE_NOTHING = ("baselines", "reranker", "distil", "compress", "tracking", "index", "update", "pretrain", "tune")
_VIEWS = 2**31  # the stream of random numbers that changes histories: batches are the same with it and without


@dataclass(frozen=True)
class FitResult:
    run: RunFolder
    prepared: Prepared
    training: TrainingReport
    notes: tuple[str, ...]


def fit_run(
    items: object,
    interactions: object,
    users: object | None = None,
    *,
    out: Path | str,
    recipe: Recipe | Path | str | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    show: bool = True,
    prepared: Prepared | None = None,
    watch: Watch | None = None,
) -> FitResult:
    """Read, split, train and save. Tables are paths or data frames; `prepared` skips reading where that is done.

    watch: told each epoch's row after it is recorded; what it raises ends the fit.

    Ctrl-C saves and raises Interrupted; the same call with `resume` goes on and ends with the same weights as if it had
    never stopped. Raises DataError, RecipeError, RunFolderError for what cannot be used.
    """
    if overrides or not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides, command="lmrec fit")
    prepared = prepared or prepare(items, interactions, users, recipe)
    recipe = recipe.model_copy(update={"split": made_split(prepared, recipe)})
    recipe.fusion.check_fits(prepared.dataset.catalog.n_items)
    if recipe.trains:
        check_times(prepared.split.train, recipe.objective.trend_half_life_days)
    idle = [*idle_notes(recipe.idle), *_undrawn(recipe, prepared)]
    untracked = check_tracking(recipe.tracking)
    run = _open(out, resume)
    resume = resume and (run.training_state / "state.json").exists()
    if resume:
        read_counters(run.training_state, training_fingerprint(recipe, prepared))  # refused before a file is changed
    started = time.monotonic()
    run.update_record(  # first of all: from now on the folder is a run that can be resumed
        status="training",
        created=instant(),
        seed=recipe.training.seed,
        source=prepared.dataset.source,
        data_fingerprint=prepared.dataset.fingerprint,
        summary=prepared.summary.model_dump(mode="json"),
        proof=prepared.split.proof.as_dict(),
        notes=[*prepared.notes, *idle],
        **describe_environment(),
    )
    save_dataset(prepared.dataset, run.data)
    run.recipe_file.write_text(recipe_toml(recipe), encoding="utf-8")
    notes = [*prepared.notes, *idle, *untracked]
    try:
        report = _train(run, recipe, prepared, resume, show, notes, watch)
    except (InputError, TrainingError):
        # Nothing was learnt, and the same --out must take the corrected command. `_open` found the folder empty.
        if not run.training_state.exists():
            shutil.rmtree(run.path)
        raise
    run.update_record(
        status="trained",
        training={
            **_training_record(recipe, prepared, report),
            "seconds": round(time.monotonic() - started, 1),
            "costs": {regime: cost.as_dict() for regime, cost in report.costs.items()},
        },
    )
    return FitResult(run, prepared, report, tuple(notes))


def _undrawn(recipe: Recipe, prepared: Prepared) -> list[str]:
    """A note on a sampler that was chosen and draws nothing, for objective.kind 'auto' finds the catalog small."""
    config, train = recipe.objective, prepared.split.train
    n_items = len(np.unique(train.item_idx)) if config.candidates == "chosen" else prepared.dataset.catalog.n_items
    if config.kind != "auto" or config.samples(n_items):
        return []
    full = recipe.model_copy(update={"objective": config.model_copy(update={"kind": "full"})})
    keys = [one.key for one in full.idle if one.key.startswith("objective.sampler.")]
    if not keys:
        return []
    return [
        f"{', '.join(keys)}: no negatives are drawn, for objective.kind 'auto' takes the full softmax up to "
        f"{config.max_full_items:,} items (objective.max_full_items), and here are {n_items:,}"
    ]


def _training_record(recipe: Recipe, prepared: Prepared, report: TrainingReport) -> dict[str, Any]:
    return {
        "best_metric": report.best_metric,
        "best_stage": report.best_stage,
        "best_epoch": report.best_epoch,
        "frozen_metric": report.frozen_metric,
        "refit_epochs": refit_epochs(recipe, prepared.split, report),
        "metric": recipe.evaluation.metric,
    }


def _open(out: Path | str, resume: bool) -> RunFolder:
    run = create_run(out, resume=resume)
    if resume and run.read_record().get("status") == "trained":
        raise RunFolderError(
            f"the training in '{out}' is finished; there is nothing to resume. Use it, or another --out"
        )
    return run


def _train(
    run: RunFolder,
    recipe: Recipe,
    prepared: Prepared,
    resume: bool,
    show: bool,
    notes: list[str],
    watch: Watch | None = None,
) -> TrainingReport:
    laps = Laps()
    catalog, split = prepared.dataset.catalog, prepared.split
    begun = begin_learning(recipe, prepared, show)
    learner, encoder, template, source = begun.learner, begun.words.encoder, begun.words.template, begun.words.source
    run.update_record(encoder_fingerprint=source.fingerprint)
    variants, categories = begun.variants, begun.categories
    if source.tokens.n_cut:
        notes.append(
            f"{source.tokens.n_cut:,} of {catalog.n_items:,} item texts are longer than {recipe.encoder.max_tokens} tokens "
            "and were cut (encoder.max_tokens)"
        )
    can_tune = any(p.requires_grad for p in encoder.parameters()) and recipe.item.source != "id"
    notes += describe_augmentation(recipe.augment, source, begun.varied)
    if recipe.training.snapshots and can_tune and recipe.training.tuned_epochs and not len(split.validation):
        raise RecipeError(
            "training.snapshots are of towers on fixed text vectors, and without a validation part what is served comes from "
            "the second stage. Set training.tuned_epochs to 0, or split so that something is left to validate on"
        )
    laps.end("encode texts")
    profiles = split.train.profiles
    vocabulary = ProfileVocabulary() if profiles is None else profiles.vocabulary
    configs = ModelConfigs(recipe.encoder, recipe.item, recipe.user_model, recipe.head, vocabulary)
    trend = trend_of(learner.objective)
    if trend is not None and trend.past.note is not None:
        notes.append(trend.past.note)
    fingerprint = training_fingerprint(recipe, prepared)
    if not resume:
        run.curves.clear()  # what a killed call told before it kept anything
    following = epoch_recorder(run.curves, recipe.tracking, recipe_toml(recipe), run.curves.read())
    with following as write, stop_on_interrupt() as should_stop:

        def record(row: dict[str, Any]) -> None:
            write(row)
            if watch is not None:
                watch(row)

        trainer = Trainer(
            learner,
            recipe.training,
            batches=batch_source(recipe, split.train, prepared.dataset.impressions),
            validate=build_validator(learner, recipe, split.validation),
            record=record,
            state_folder=run.training_state,
            fingerprint=fingerprint,
            should_stop=should_stop,
            show=show,
        )
        report = trainer.run(plan_stages(recipe.training, can_tune), resume=resume)
        learner.to("cpu")
        laps.end("train")
        if categories is not None:
            run.update_record(auxiliary=judge_categories(learner, recipe, split.validation, categories))
        n_again = refit_epochs(recipe, split, report)
        final, again = learner, report
        if n_again:
            trainer_of = partial(
                Trainer,
                record=lambda row: record({**row, "stage": "refit"}),
                state_folder=run.refit_state,
                fingerprint=fingerprint,
                should_stop=should_stop,
                show=show,
            )
            goes_on = resume and (run.refit_state / "state.json").exists()
            batches = batch_source(recipe, split.train_and_validation, prepared.dataset.impressions)
            if variants is not None and report.best_stage == "tuned":
                variants = tuned_variants(variants, encoder, recipe.encoder.batch_tokens, show)
            whole = split.train_and_validation
            fresh = build_learner(recipe, learner.text_vec, whole, variants=variants, categories=categories)
            # By the un-tuned vectors, as the towers that were validated: those of a tuned model have other directions, run by
            # run, and a soup's mean of them would be of nothing.
            fresh.towers.item_tower.whiten_as(learner.towers.item_tower)
            final, again = learn_again(fresh, batches, n_again, recipe, trainer_of, goes_on)
            laps.end("train again with validation")
        if should_stop():  # since the last step
            raise Interrupted("stopped after training; nothing is lost. Continue with the same command and --resume")
    weights, fused_metric = weights_by_recipe(trained_scorer("validation", learner, recipe), split, recipe, show)
    laps.end("weigh what is fused")
    if prepared.dataset.impressions is not None:
        before = learner_scorer("before", learner, recipe).fused(fit_fusion(weights, split.train, catalog.n_items))
        _keep_list_stack(run, before, prepared.dataset.impressions, prepared)
        laps.end("weigh what is live")
    run.update_record(fusion={**weights.model_dump(mode="json"), "validation": fused_metric})
    # The judge shows both stages, as far as what is served is not one of them. A history read as text would need the
    # language model too: that one is told in words.
    frozen = report.frozen_best if n_again or can_tune else None
    unserved = n_again or report.best_stage == "frozen"
    tuned = report.tuned_best if unserved and recipe.user_model.kind != "text" else None
    # What is served knows the whole log; the judge learns transitions anew from what came before the test.
    fusion = fit_fusion(weights, prepared.dataset.interactions, catalog.n_items)
    served = learner_scorer("index", final, recipe).fused(fusion)
    checkpoint = save_checkpoint(
        run.checkpoint,
        final.towers,
        encoder,
        source.tokenizer,
        template,
        configs,
        _bare(frozen) if frozen else None,
        _bare(tuned) if tuned else None,
        served.fusion,
    )
    run.update_record(**trend_record(final))
    vectors = compute_item_vectors(final.towers, final.text_vec)
    save_vectors(run.vectors_file, vectors, checkpoint, catalog.fingerprint)
    save_index(run, served, prepared.dataset.interactions, recipe.index, checkpoint.fingerprint)
    kept = {**run.read_record(), "status": "trained", "training": _training_record(recipe, prepared, report)}
    kept["training"]["best_stage"] = "frozen"
    for number, then in enumerate(again.snapshots):
        final.load_state_dict(_towers_of(then), strict=False)
        validated = _bare(_towers_of(report.snapshots[number])) if n_again else None
        save_snapshot(run, number + 1, final.towers, validated, final.text_vec, catalog.fingerprint, kept)
    remove_training_state(run)
    laps.end("vectors, index and files")
    run.update_record(laps=laps.seconds)
    return report


def _keep_list_stack(run: RunFolder, before: Scorer, impressions: Impressions, prepared: Prepared) -> None:
    """What orders candidates, where lists that were shown tell; before: the model as it was before validation."""
    interactions, ids = prepared.dataset.interactions, prepared.dataset.catalog.ids
    own: dict[str, AnyScorer] = {OWN: answering(before)}
    if before.fusion.weights.any and before.fusion.weights.towers:
        own[TOWERS] = before.fused(Fusion())
    keep_list_stack(run.list_stack, own, impressions, interactions, prepared.split, ids)


def refit_epochs(recipe: Recipe, split: Split, report: TrainingReport) -> int:
    """For how many epochs fresh towers learn from training and validation; 0 where the validated ones are kept.

    As many as were best on validation; with snapshots all, for each cycle's end is to be had.
    """
    if not (recipe.refits and len(split.validation)):
        return 0
    return recipe.training.frozen_epochs if recipe.training.snapshots else report.frozen_epoch


def learn_again(
    fresh: Learner,
    batches: Callable[[int, int], list[TrainBatch]],
    n_epochs: int,
    recipe: Recipe,
    trainer_of: Callable[..., Trainer],
    resume: bool = False,
) -> tuple[Learner, TrainingReport]:
    """The learner, whose fresh towers have learnt from these batches on fixed text vectors, on the CPU; and how it went.

    trainer_of: a Trainer that lacks what is to be learnt and from what.
    """
    trainer = trainer_of(fresh, recipe.training, batches=batches, validate=None, label="train, with validation")
    config = recipe.training
    report = trainer.run([Stage("frozen", n_epochs, config.learning_rate, 0.0, config.snapshots)], resume=resume)
    return fresh.to("cpu"), report


@dataclass(frozen=True, eq=False)
class Words:
    """The language model and what it reads, for learners that use words."""

    encoder: TextEncoder
    source: PretrainedText
    template: Template


@dataclass(frozen=True, eq=False)
class Begun:
    """A learner before its first step, and what it was made of. varied: other wordings of the items, as they were drawn;
    variants: the same as the learner reads them."""

    learner: Learner
    words: Words
    varied: PretrainedText | None
    variants: TextVariants | None
    categories: Categories | None


def begin_learning(recipe: Recipe, prepared: Prepared, show: bool) -> Begun:
    """All that a fit learns with, on the training part. Raises RecipeError for what this data or language model cannot do."""
    catalog, split = prepared.dataset.catalog, prepared.split
    template = build_template(recipe.template, catalog)
    source = read_texts(catalog, template, recipe.encoder)
    check_user_words(source, template.of_users, prepared.dataset.users)
    encoder, text_vec = begin_tuning(source, recipe.training.seed, show, recipe.training.layer_decay)
    varied = vary_texts(source, recipe.augment.words, recipe.training.seed, show)
    variants = untuned_variants(varied, catalog.n_items, encoder, show) if varied is not None else None
    categories = read_categories(catalog, recipe.objective.auxiliary)
    words = Words(encoder, source, template)
    learner = build_learner(recipe, text_vec, split.train, words, variants, categories)
    return Begun(learner, words, varied, variants, categories)


def build_learner(
    recipe: Recipe,
    text_vec: Tensor,
    train: Interactions,
    words: Words | None = None,
    variants: TextVariants | None = None,
    categories: Categories | None = None,
) -> Learner:
    """Towers with fresh weights (drawn from the seed), the language model if any, and the cache of its vectors."""
    config = recipe.training
    torch.manual_seed(config.seed if config.start_seed is None else config.start_seed)
    counts = np.bincount(train.item_idx, minlength=len(text_vec))
    n_values = 0 if train.profiles is None else train.profiles.n_values
    # Before all else that is drawn: one seed begins with the same towers, whatever else learns beside them.
    towers = TwoTower(text_vec.numpy(), counts > 0, recipe.item, recipe.user_model, recipe.head, n_values)
    objective = objective_over(train, len(text_vec), recipe)
    if categories is not None:
        width = recipe.head.width or recipe.item.width  # of a user vector as the head looks at it
        objective = WithCategory(objective, categories, width, recipe.objective.auxiliary.weight)
    return Learner(
        towers,
        words.encoder if words else None,
        words.source.tokens.ids if words else None,
        text_vec.clone(),
        recipe.encoder,
        config.max_encoded_items,
        history_tokens(words.source, words.template) if words else None,
        recipe.masks_seen,
        objective=objective,
        variants=variants,
        regularisers=recipe.regularisers,
        adversarial=recipe.adversarial,
    )


def objective_over(log: Interactions, n_items: int, recipe: Recipe) -> Objective:
    """What is learnt from this log, as the recipe asks; where it does, with the popularity of then beside the scores."""
    objective = build_objective(recipe.objective, np.bincount(log.item_idx, minlength=n_items))
    half_life_days = recipe.objective.trend_half_life_days
    if not half_life_days:
        return objective
    return WithTrend(objective, PastPopularity.of(log, n_items, half_life_days))


def history_tokens(source: PretrainedText, template: Template) -> HistoryTokens:
    """Histories as rows of items -> token ids of the histories written as text."""

    def tokens_of(histories: list[IntArray], words: Sequence[str] | None) -> Ragged:
        texts = template.render_histories(source.texts, histories, words)
        return tokenize_texts(source.tokenizer, texts, source.config.max_tokens).ids

    return tokens_of


def check_user_words(source: PretrainedText, template: UserTemplate, users: UserTable | None) -> None:
    """Raises RecipeError where words of users are longer than what is read: they are never cut."""
    words = template.words_of(users, list(users.rows)) if users is not None else None
    if words is None:
        return
    n_cut = tokenize_texts(source.tokenizer, list(words), source.config.max_tokens).n_cut
    if n_cut:
        raise RecipeError(
            f"template.user makes words of {n_cut:,} users that are longer than {source.config.max_tokens} tokens "
            "(encoder.max_tokens), and they are never cut. Raise it, or shorten the template"
        )


def build_validator(learner: Learner, recipe: Recipe, cases: Cases) -> Any:
    """A function that measures the recipe's main metric on a fixed draw of validation cases; None without cases."""
    if not len(cases):
        return None
    asked = cases.sample(recipe.training.validation_cases, recipe.training.seed)

    def validate() -> float:
        scorer = trained_scorer("validation", learner, recipe)
        return evaluate(scorer, asked, scorer.bank.n_items, recipe.evaluation).aggregate[recipe.evaluation.metric]

    return validate


def learner_scorer(name: str, learner: Learner, recipe: Recipe) -> Scorer:
    """What the learner knows now, as a scorer."""
    bank = build_bank(learner.towers, learner.text_vec)

    def encode(histories: list[IntArray], words: Sequence[str]) -> Tensor:
        assert learner.encoder is not None and learner.history_tokens is not None
        tokens = learner.history_tokens(histories, words)
        return encode_histories(learner.encoder, tokens, bank.text_vec.device, recipe.encoder.batch_tokens)

    return Scorer(name, learner.towers, bank, recipe.user_model.max_history, encode)


def trained_scorer(name: str, learner: Learner, recipe: Recipe) -> Scorer:
    """What the learner knows now, with the popularity beside which its towers have learnt, as it was after the newest event."""
    towers, trend = learner_scorer(name, learner, recipe), trend_of(learner.objective)
    return towers if trend is None else beside_popularity(towers, float(trend.weight.detach()), trend.past)


def beside_popularity(towers: Scorer, weight: float, past: PastPopularity) -> Scorer:
    """Towers with a popularity beside them, as it was after its newest event; without where it weighs nothing."""
    if weight <= 0:
        return towers
    days = past.half_life_days
    weights = FusionWeights(popularity=weight, half_life_days=None if math.isinf(days) else days)
    return towers.fused(Fusion(weights, popularity=past.now))


def trend_record(learner: Learner) -> dict[str, float]:
    """What a run's record says of the popularity beside which its towers have learnt; nothing where there is none."""
    trend = trend_of(learner.objective)
    return {} if trend is None else {TREND_WEIGHT: float(trend.weight.detach())}


def learnt_weight(run: RunFolder) -> float:
    """What the popularity counted beside which a run's towers have learnt; where nobody says, what it begins with."""
    return float(run.read_record().get(TREND_WEIGHT, FIRST_WEIGHT))


def judge_categories(learner: Learner, recipe: Recipe, cases: Cases, categories: Categories) -> dict[str, Any] | None:
    """How well users' vectors tell of which category the next item is, on validation; None without cases that have one.

    `most_common_accuracy` is what naming the commonest category of these cases each time would have.
    """
    asked = cases.sample(recipe.training.validation_cases, recipe.training.seed) if len(cases) else cases
    labels = categories.of_item[asked.relevant.values[asked.relevant.offsets[:-1]]] if len(asked) else np.zeros(0, int)
    if not (labels >= 0).any():
        return None
    assert isinstance(learner.objective, WithCategory)
    scorer = learner_scorer("validation", learner, recipe)
    with torch.no_grad():
        outputs = learner.objective.logits(scorer.query(asked.history) / learner.towers.head.scale)
    told, right = outputs[torch.from_numpy(labels >= 0)].cpu().numpy(), labels[labels >= 0]
    judged = judge_pairs("classes", told, right.astype(np.float32), Calibration(), "the category of the next item")
    commonest = float(np.bincount(right).max() / len(right))
    column = recipe.objective.auxiliary.column
    return {
        "column": column, "n_classes": len(categories.names), "n_cases": len(right), **judged.metrics,
        "most_common_accuracy": commonest,
    }  # fmt: skip


def batch_source(recipe: Recipe, train: Interactions, impressions: Impressions | None = None) -> Any:
    index, config = HistoryIndex.from_interactions(train), recipe.training
    shown = None
    if recipe.objective.shown:
        if impressions is None:
            raise RecipeError(
                f"objective.shown is {recipe.objective.shown:g}, but this data does not say what was shown. Give data with "
                "impressions (MIND), or leave it at 0"
            )
        shown = shown_beside(index, impressions)
    sizes = (config.batch_events, config.tuned_batch_events)[0 if config.frozen_epochs else 1 :]

    def batches(stage: int, epoch: int) -> Any:
        seed = (config.seed, stage, epoch)
        whole = epoch_batches(index, recipe.user_model.max_history, sizes[stage], seed, shown)
        views = np.random.default_rng((*seed, _VIEWS))
        return [view_batch(batch, recipe.augment.history, views) for batch in whole]

    return batches


def training_fingerprint(recipe: Recipe, prepared: Prepared) -> str:
    """Of all that a resumed fit must agree on: every choice that can change weights, the language model, and the data."""
    text = training_text(recipe) + prepared.dataset.fingerprint
    text += fingerprint_encoder(locate_pretrained(recipe.encoder.name), recipe.encoder.pooling)
    users = prepared.dataset.users
    if (recipe.user_model.profile or recipe.template.user) and users is not None:
        text += users.fingerprint
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def training_text(recipe: Recipe) -> str:
    """Every choice that can change the weights of a fit, as text to be hashed. What only judges or watches, or comes
    after a fit, may change between stop and resume, and its defaults from one lmrec to the next."""
    return json.dumps(recipe.model_dump(mode="json", exclude=set(_CHANGE_NOTHING)), sort_keys=True)


def _towers_of(weights: Weights) -> Weights:
    return {name: value for name, value in weights.items() if name.startswith("towers.")}


def _bare(weights: Weights) -> Weights:
    return {name.removeprefix("towers."): value for name, value in weights.items()}


def remove_training_state(run: RunFolder) -> None:
    for folder in (run.training_state, run.refit_state):
        shutil.rmtree(folder, ignore_errors=True)
