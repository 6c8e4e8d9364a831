"""Evaluate: the run's model beside its rivals, on the part of the log that nobody has learnt from."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lmrec.artifacts.checkpoint import read_checkpoint
from lmrec.artifacts.ensemble import read_ensemble
from lmrec.artifacts.files import write_json
from lmrec.artifacts.run import RunFolder, open_run
from lmrec.data.history import Cases
from lmrec.data.interactions import Interactions
from lmrec.data.proof import show_time
from lmrec.data.split import Split, SplitConfig
from lmrec.errors import InputError, RunFolderError
from lmrec.evaluation.casefile import JudgedCases, fingerprint_questions
from lmrec.evaluation.evaluator import Evaluation, EvaluationConfig, evaluate
from lmrec.evaluation.impressions import ImpressionTable
from lmrec.evaluation.pairs import RerankJudgement
from lmrec.evaluation.slices import slices_of
from lmrec.evaluation.table import JudgementTable, TableForm, build_table
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.bm25 import BM25KNN
from lmrec.models.collaborative import ALS, ItemKNN, LogArrays, Popularity, RecentPopularity
from lmrec.models.content import ContentKNN
from lmrec.models.ease import EASE
from lmrec.models.fusion import FusionWeights
from lmrec.models.transitions import ItemTransitions
from lmrec.progress import progress_bar
from lmrec.recipe import BaselineName, Recipe, load_fitted
from lmrec.retrieval.ensemble import AnyScorer, answering
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.scorer import Scorer, build_bank
from lmrec.training.learner import encode_histories
from lmrec.workflows.counting import fit_fusion, log_arrays
from lmrec.workflows.encode import begin_tuning, read_texts, untuned_vectors
from lmrec.workflows.idonly import train_id_only
from lmrec.workflows.impressions import OwnModel, judge_impressions
from lmrec.workflows.prepare import split_log
from lmrec.workflows.reranked import judge_reranking
from lmrec.workflows.train import history_tokens

TUNED = "PLM tuned (second stage)"
FROZEN = "PLM frozen (first stage)"
REFIT = "lmrec"
FUSED = "lmrec fused"
ID_ONLY = "id-only sequence model"


class Rival(Protocol):
    """A baseline that can be fitted to a log and asked."""

    @property
    def name(self) -> str: ...

    @property
    def config(self) -> Any: ...

    def fit(self, log: LogArrays) -> "Rival": ...

    def score(self, history: Ragged) -> FloatArray: ...


# Of a recipe, what may be otherwise when a run is judged.
_CHANGEABLE = ("evaluation.*", "baselines.*", "split.target", "reranker.judge_cases")


@dataclass(frozen=True, eq=False)
class Judgement:
    """`evaluations` are by row name; `cases` are what was asked. `impressions`: where the data knows what was shown;
    `reranking`: where the run has a reranker, of which a part of the cases is asked."""

    table: JudgementTable
    evaluations: dict[str, Evaluation]
    cases: Cases
    impressions: ImpressionTable | None = None
    reranking: RerankJudgement | None = None


def judge_run(path: Path | str, overrides: Sequence[str] = (), show: bool = True) -> Judgement:
    """Judge a trained run on its test part and write evaluation.json, and cases.parquet for comparisons.

    overrides: `evaluation.*` and `baselines.*` settings, and `split.target`, which may differ from the run's recipe;
    nothing else may. Every baseline's settings are searched on validation, then it is fitted to training and validation;
    the served towers have learnt from both too (training.refit), the rows of the two stages from training alone.
    """
    run = open_run(path)
    recipe = load_fitted(run.recipe_file, overrides, _CHANGEABLE, "after training")
    recommender = Recommender.load(path)
    interactions, n_items = recommender.interactions, recommender.catalog.n_items
    if recommender.reranker is not None:
        _ = recommender.reranker.loaded  # where its language model is gone, this says so before anything is asked
    split = split_log(interactions, n_items, recipe)
    if not len(split.test):
        raise InputError(f"'{path}' was fitted with --split {recipe.split.kind}, which leaves nothing to judge on")
    known = split.train_and_validation
    counts = np.bincount(known.item_idx, minlength=n_items)
    notes: dict[str, str] = {}
    evaluations: dict[str, Evaluation] = {}

    def ask(scorer: Any, name: str) -> None:
        with progress_bar(f"judge {name}", show) as bar:
            found = evaluate(scorer, split.test, n_items, recipe.evaluation, bar, counts)
        evaluations[name] = replace(found, name=name)

    for baseline in recipe.baselines.names:
        if baseline == "id_sequence":
            scorer = train_id_only(recipe, recommender.catalog, split, show, ID_ONLY)
            notes[ID_ONLY] = "the same user model and training, item ids instead of words"
            ask(scorer, ID_ONLY)
            continue
        rivals = _rivals(baseline, recipe, recommender, show)
        rival, note = search_rival(rivals, split, n_items, recipe, show)
        notes[rival.name] = note
        ask(rival.fit(log_arrays(split.train_and_validation, n_items)), rival.name)
    baselines = set(evaluations)
    own = _own_scorers(run, recommender, split)
    if own_name(run) == FUSED:
        weights = recommender.checkpoint.fusion
        own.append((FUSED, fair_scorer(recommender, split)))
        towers = "the towers" if weights.towers in (0, 1) else f"{weights.towers:g} x the towers"
        taught = ", taught again with validation, + " if has_refit(run) else " + "
        notes[FUSED] = (
            f"{f'{towers}{taught}' if weights.towers else 'nothing trained: '}{weights.words()}; "
            f"items without events borrow {weights.borrowed:g} x neighbours, {weights.newcomer:g} x popularity, "
            f"{weights.repeated:+g} for items of the history; weights from validation, counts from training and validation"
        )
    for name, one in own:
        ask(one, name)
        if name == REFIT:
            notes[REFIT] = "the chosen stage's towers, taught again with validation"
        if name in (FROZEN, TUNED) and _has_trend(run):
            own_weights = _of_towers_and_popularity(recommender)
            counted = own_weights.words() if own_weights.ranks else f"towers, + {own_weights.popularity:g} x popularity"
            notes[name] = f"{counted}, beside which they learnt, as it stood when training ended"
    cases = next(iter(evaluations.values())).cases
    table = build_table(
        list(evaluations.values()),
        baselines,
        _form(split, cases, recipe.evaluation, interactions, n_items, _unserved_stage(run)),
        recipe.evaluation,
        slices_of(cases, known, n_items),
        notes,
    )
    write_json(run.evaluation_file, table.as_dict())
    questions = fingerprint_questions(cases, interactions.user_ids, recommender.catalog.ids)
    data = str(run.read_record()["data_fingerprint"])
    kept = JudgedCases.of(evaluations, table.form, recipe.evaluation.metric, data, questions, own_name(run))
    kept.save_parquet(run.cases_file)

    def own_models() -> dict[str, OwnModel]:
        return {name: OwnModel(one, _before_validation(name, one, recommender, split)) for name, one in own}

    def own_towers() -> OwnModel:
        return OwnModel(recommender.towers_scorer, training_towers(recommender))

    shown = judge_impressions(run, recipe, recommender, split, own_models, own_towers, own_name(run), show)
    served = dict(own)[own_name(run)]
    reranked = judge_reranking(run, recipe, recommender, split, served, own_name(run), table.form, show)
    return Judgement(table, evaluations, cases, shown, reranked)


def read_table_of(run: RunFolder) -> JudgementTable | None:
    """The table of the last judgement, None where the run was never judged."""
    if not run.evaluation_file.exists():
        return None
    return JudgementTable.from_dict(json.loads(run.evaluation_file.read_text(encoding="utf-8")))


def _rivals(name: BaselineName, recipe: Recipe, recommender: Recommender, show: bool) -> tuple[Rival, ...]:
    """All settings of a baseline that are tried on validation."""
    makers: dict[str, Callable[[], tuple[Rival, ...]]] = {
        "popularity": Popularity.candidates,
        "recent_popularity": RecentPopularity.candidates,
        "item_knn": ItemKNN.candidates,
        "als": ALS.candidates,
        "transitions": ItemTransitions.candidates,
        "ease": EASE.candidates,
        "bm25_knn": BM25KNN.candidates,
    }
    if name in makers:
        return makers[name]()
    source = read_texts(recommender.catalog, recommender.checkpoint.template, recipe.encoder)
    text_vec = untuned_vectors(source, source.load_encoder(), show)
    return ContentKNN.candidates(text_vec.numpy())


def search_rival(
    rivals: tuple[Rival, ...], split: Split, n_items: int, recipe: Recipe, show: bool
) -> tuple[Rival, str]:
    """The setting with the best metric on validation, and a note that says which one and out of how many. Without a validation
    part: on the newest part of training (a tenth; without times each user's last event)."""
    if len(rivals) == 1:
        return rivals[0], ""
    train, asked, where = split.train, split.validation, "validation, then fitted to training and validation"
    if not len(asked):
        newest = SplitConfig(kind="none", validation=0.1, target=split.target)
        inner = split_log(split.train, n_items, recipe, newest)
        train, asked = inner.train, inner.validation
        if not len(asked):
            told = f"the first of {len(rivals)} settings: there is no validation part, and training asks nothing"
            return rivals[0], told
        where = "the newest part of training, as there is no validation part, then fitted to all of training"
    log = log_arrays(train, n_items)
    # Not by the run's seed: a baseline that draws nothing would be another one in each of a benchmark's runs.
    asked = asked.sample(recipe.baselines.search_cases, 0)
    metric = recipe.evaluation.metric
    found: list[float] = []
    with progress_bar(f"search {rivals[0].name}", show) as bar:
        for rival in rivals:
            found.append(evaluate(rival.fit(log), asked, n_items, recipe.evaluation).aggregate[metric])
            bar(len(found), len(rivals))
    best = int(np.argmax(found))
    settings = ", ".join(
        f"{key} {value}" for key, value in rivals[best].config.model_dump().items() if value is not None
    )
    return rivals[best], f"{settings} (best of {len(rivals)} on {where})"


def _own_scorers(run: RunFolder, recommender: Recommender, split: Split) -> list[tuple[str, AnyScorer]]:
    """The run's stages as validation chose them, and the towers that it serves where they are none of these; an ensemble's
    members, and itself."""
    if recommender.ensemble is not None:
        names = read_ensemble(run).names
        members = zip(names, recommender.ensemble.members, strict=True)
        own = [(f"member {name}", fair_scorer(member, split)) for name, member in members]
        return [*own, (own_name(run), fair_scorer(recommender, split))]
    stages: dict[str, Scorer] = {}
    if not recommender.checkpoint.fusion.towers:
        return []
    if run.frozen_towers_file.exists():
        stages[FROZEN] = frozen_scorer(run, recommender)
    if run.tuned_stage_file.exists():
        stages[TUNED] = tuned_scorer(recommender)
    if not has_refit(run):
        stages[_stage_of(run)] = recommender.towers_scorer
    elif own_name(run) == REFIT:
        stages[REFIT] = recommender.towers_scorer
    order = (FROZEN, TUNED, REFIT)
    asked = [(name, stages[name]) for name in order if name in stages]
    if _has_trend(run):
        return [(name, _beside_popularity(name, towers, recommender, split)) for name, towers in asked]
    return [*asked]


def _has_trend(run: RunFolder) -> bool:
    """Whether its towers have learnt beside a popularity."""
    return bool(load_fitted(run.recipe_file).objective.trend_half_life_days)


def _beside_popularity(name: str, towers: Scorer, recommender: Recommender, split: Split) -> AnyScorer:
    """Towers that have learnt beside a popularity, with as much of it as the run serves, as it was after the events that they
    learnt from."""
    log = split.train_and_validation if name == REFIT else split.train
    return answering(towers.fused(fit_fusion(_of_towers_and_popularity(recommender), log, recommender.catalog.n_items)))


def _of_towers_and_popularity(recommender: Recommender) -> FusionWeights:
    weights = recommender.checkpoint.fusion
    return weights.of_parts({part: getattr(weights, part) for part in ("towers", "popularity")})


def fair_scorer(recommender: Recommender, split: Split) -> AnyScorer:
    """The run's model for questions of the test part: the counts that it serves know the answers, so they are made again
    from what came before."""
    if recommender.ensemble is not None:
        return recommender.ensemble.scorer([fair_scorer(member, split) for member in recommender.ensemble.members])
    weights = recommender.checkpoint.fusion
    fusion = fit_fusion(weights, split.train_and_validation, recommender.catalog.n_items)
    return answering(recommender.towers_scorer.fused(fusion))


def own_name(run: RunFolder) -> str:
    """What the model that the run serves is called in tables."""
    if run.ensemble_file.exists():
        return f"ensemble by {read_ensemble(run).by}"
    if read_checkpoint(run.checkpoint).fusion.any:
        return FUSED
    return REFIT if has_refit(run) else _stage_of(run)


def has_refit(run: RunFolder) -> bool:
    """Whether the served towers learnt again, with the validation part."""
    return bool(run.read_record()["training"]["refit_epochs"])


def _before_validation(name: str, scorer: AnyScorer, recommender: Recommender, split: Split) -> AnyScorer:
    """What the row's model was before it learnt from the validation part."""
    if name in (FROZEN, TUNED):
        return scorer
    if recommender.ensemble is not None:
        names = read_ensemble(recommender.run).names
        for member_name, member in zip(names, recommender.ensemble.members, strict=True):
            if name == f"member {member_name}":
                return training_scorer(member, split)
    return training_scorer(recommender, split)


def training_scorer(recommender: Recommender, split: Split) -> AnyScorer:
    """The run's model for questions of the validation part: towers and counts that know training alone."""
    if recommender.ensemble is not None:
        return recommender.ensemble.scorer([training_scorer(member, split) for member in recommender.ensemble.members])
    fusion = fit_fusion(recommender.checkpoint.fusion, split.train, recommender.catalog.n_items)
    return answering(training_towers(recommender).fused(fusion))


def training_towers(recommender: Recommender) -> Scorer:
    """The towers alone, of the stage that validation chose, as they were before they learnt from validation too."""
    run = recommender.run
    if not has_refit(run):
        return recommender.towers_scorer
    return tuned_scorer(recommender) if _stage_of(run) == TUNED else frozen_scorer(run, recommender)


def _stage_of(run: RunFolder) -> str:
    """The stage that the towers' weights come from, the best by validation."""
    return TUNED if run.read_record()["training"]["best_stage"] == "tuned" else FROZEN


def frozen_scorer(run: RunFolder, recommender: Recommender) -> Scorer:
    """The first stage's towers on the language model as it came.

    Raises RunFolderError where the run serves the second stage, and what its encoder.name leads to by now is another model.
    """
    import torch

    towers = recommender.checkpoint.load_towers(frozen_stage=True)
    if _stage_of(run) == FROZEN:  # then these texts' vectors are the served ones, wherever the name leads by now
        served = recommender.towers_scorer
        bank = build_bank(towers, recommender.vectors.text_vec)
        return Scorer(FROZEN, towers, bank, served.max_history, served.encode_histories)
    recipe = load_fitted(run.recipe_file)
    source = read_texts(recommender.catalog, recommender.checkpoint.template, recipe.encoder)
    began_with, has = run.read_record().get("encoder_fingerprint"), source.fingerprint
    if began_with is None:
        raise RunFolderError(f"'{run.path}' does not say which language model it began with. Fit the run again")
    if has != began_with:
        raise RunFolderError(
            f"'{run.path}' began with a language model with the fingerprint {began_with}, and '{recipe.encoder.name}' now has "
            f"{has}. Put the model back that it was fitted with, or fit the run again"
        )
    encoder, text_vec = begin_tuning(source, recipe.training.seed, False)
    encoder.eval()
    tokens_of = history_tokens(source, recommender.checkpoint.template)

    def encode(histories: list[IntArray], words: Sequence[str]) -> torch.Tensor:
        return encode_histories(encoder, tokens_of(histories, words), text_vec.device, recipe.encoder.batch_tokens)

    return Scorer(FROZEN, towers, build_bank(towers, text_vec), recipe.user_model.max_history, encode)


def tuned_scorer(recommender: Recommender) -> Scorer:
    towers, text_vec = recommender.checkpoint.load_tuned_stage()
    return Scorer(TUNED, towers, build_bank(towers, text_vec), recommender.checkpoint.configs.user_model.max_history)


def _unserved_stage(run: RunFolder) -> tuple[str, ...]:
    """What to say of a second stage that validation did not choose."""
    tuned = [row["validation"] for row in run.curves.read() if row["stage"] == "tuned" and "validation" in row]
    training = run.read_record()["training"]
    if training["best_stage"] == "tuned" or not tuned:
        return ()
    return (
        f"this run serves the first stage, whose best validation {training['metric']} is {training['frozen_metric']:.4f} "
        f"against {max(tuned):.4f} of the tuned one",
    )


def _form(
    split: Split,
    asked: Cases,
    config: EvaluationConfig,
    interactions: Interactions,
    n_items: int,
    remarks: tuple[str, ...],
) -> TableForm:
    cuts: tuple[str, ...] = ()
    if split.cut_ts is not None:
        validation, test = (show_time(ts, interactions.time_kind) for ts in split.cut_ts)
        cuts = (f"training before {validation}, validation before {test}, test from then on",)
    excluded = (f"{split.n_dropped[1]:,} cases whose only items the user had met before",) if split.n_dropped[1] else ()
    return TableForm(
        split=split.kind,
        target=split.target,
        n_cases=len(asked),
        n_users=len(np.unique(asked.user_idx)),
        n_items=n_items,
        exclude_seen=config.exclude_seen,
        cuts=(*cuts, *remarks),
        excluded=excluded,
    )
