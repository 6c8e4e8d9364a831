"""Teach a run a reranker: pairs from its training part, the weight beside the retriever from validation."""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lmrec.artifacts.base import Base
from lmrec.artifacts.curves import Curves
from lmrec.artifacts.encoder_files import fingerprint_encoder
from lmrec.artifacts.generation import FIRST, generation_path, read_serving
from lmrec.artifacts.lock import RERANKING, locked
from lmrec.artifacts.pretrained import locate_pretrained
from lmrec.artifacts.reranker import RerankerDescription, build_reader, save_reranker, share_reranker
from lmrec.artifacts.run import RunFolder, open_run
from lmrec.artifacts.training_state import n_epochs_kept
from lmrec.data.interactions import Interactions
from lmrec.data.split import Split, held_out
from lmrec.errors import InputError
from lmrec.evaluation.calibration import fit_odds
from lmrec.evaluation.evaluator import evaluate
from lmrec.evaluation.pairs import PairJudgement, calibrate, judge_pairs
from lmrec.fields import FloatArray
from lmrec.models.pair_adapter import fingerprint_base
from lmrec.models.pruning import holds_pruned
from lmrec.progress import progress_bar
from lmrec.recipe import Recipe, load_fitted, recipe_toml
from lmrec.retrieval.ensemble import AnyScorer
from lmrec.retrieval.recommender import Recommender, read_users
from lmrec.retrieval.reranker import RerankedScorer, Reranker
from lmrec.text.pairs import (
    DEFAULT_PROMPT,
    NEXT_PROMPT,
    answer_tokens,
    build_layout,
    check_room,
    join_pairs,
    tokenize_parts,
)
from lmrec.text.tokens import load_tokenizer
from lmrec.text.users import UserTemplate
from lmrec.training.interrupt import StopWish, stop_on_interrupt, stopping
from lmrec.training.pair_trainer import RERANKER_STAGE, LabelledPairs, PairTrainer
from lmrec.training.pairs import Pairs, read_ratings
from lmrec.training.trainer import trains_in_bf16
from lmrec.workflows.experiments import name_of_running
from lmrec.workflows.judge import training_scorer
from lmrec.workflows.prepare import split_log
from lmrec.workflows.reranked import negatives_in_words, outputs_of, pairs_of, ratings_of
from lmrec.workflows.tracking import check_tracking, epoch_recorder

_STOPPED = "stopped; nothing that was learnt is lost. The same command goes on from what is kept"
_CLEAR = 1.64  # standard errors of a gain
WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class RerankerFit:
    """by_weight: the validation metric at each weight that was tried; see `choose_weight` for the one that is kept.
    pairs: validation pairs, from probabilities. n_cut: training pairs whose history was cut."""

    description: RerankerDescription
    pairs: PairJudgement
    metric: str
    by_weight: dict[float, float]
    n_pairs: int
    n_cut: int
    epochs: list[dict[str, Any]]
    seconds: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {
            "description": asdict(self.description),
            "pairs": self.pairs.as_dict(),
            "metric": self.metric,
            "by_weight": {f"{weight:g}": value for weight, value in self.by_weight.items()},
            "n_pairs": self.n_pairs,
            "n_cut": self.n_cut,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


def fit_reranker(path: Path | str, overrides: Sequence[str] = (), show: bool = True) -> RerankerFit:
    """Teach a fitted run a reranker, in RUN/reranker/, in place of one that it has.

    overrides: `reranker.*` settings, and `tracking.*`. Ctrl-C saves and raises Interrupted; the same call then goes on. The
    reranker learns from the training part alone. Raises InputError where there is no validation part to choose its weight on,
    or no ratings where the task needs them.
    """
    run = open_run(path)
    recipe = load_fitted(run.recipe_file, overrides, ["reranker.*", "tracking.*"], "after training")
    notes = check_tracking(recipe.tracking) if recipe.reranker.form != "likelihood" else []
    with locked(run.path / RERANKING, "fit-reranker"), stop_on_interrupt() as should_stop:
        started = time.monotonic()
        served = read_serving(run.path)
        running = name_of_running(run.path) if served != FIRST else None
        recommender = _with_user_words(Recommender.load(path), recipe)
        split = split_log(recommender.interactions, recommender.catalog.n_items, recipe)
        if not len(split.validation):
            raise InputError(
                f"'{path}' was fitted without a validation part, on which a reranker's weight is chosen. Fit with "
                "split.validation above 0"
            )
        retriever = training_scorer(recommender, split)
        taught = _teach(run, recipe, recommender, split, retriever, should_stop, show)
        by_case = _search_weight(recipe, recommender, split, taught, retriever, should_stop, show)
        best = choose_weight(by_case)
        by_weight = {weight: float(values.mean()) for weight, values in by_case.items()}
        model, tokenizer = taught.reranker.loaded
        described = replace(taught.reranker.description, weight=best)
        saved = save_reranker(run.reranker, model, tokenizer, described, taught.learnt)
        fit = RerankerFit(
            saved,
            taught.pairs,
            recipe.evaluation.metric,
            by_weight,
            taught.n_pairs,
            taught.n_cut,
            taught.epochs,
            round(time.monotonic() - started, 1),
            tuple(notes),
        )
        _keep_told(run, recipe, fit)
        shutil.rmtree(run.reranker_state, ignore_errors=True)
        if served != FIRST:
            note = _give_to(served, running, run, recipe, fit)
            fit = replace(fit, notes=(*fit.notes, note))
    return fit


def _give_to(name: str, running: str | None, run: RunFolder, recipe: Recipe, fit: RerankerFit) -> str:
    """The run's new reranker to the generation of that name, unless an experiment compares it; what became of it, in words."""
    if running is not None:
        return (
            f"the experiment '{running}' is running, so generation {name}, which is served, keeps what it has. Type this again "
            "when it has ended"
        )
    served = RunFolder(generation_path(run.path, name))
    # It reads texts alone, and an update leaves their template as it is.
    share_reranker(run.reranker, served.reranker)
    _keep_told(served, load_fitted(served.recipe_file).model_copy(update={"reranker": recipe.reranker}), fit)
    return f"generation {name}, which is served, reads with it too; its weight was found beside generation {FIRST}"


def _keep_told(run: RunFolder, recipe: Recipe, fit: RerankerFit) -> None:
    """What the run is told of its new reranker, in place of what it knew of the one before."""
    run.reranking_file.unlink(missing_ok=True)
    run.recipe_file.write_text(recipe_toml(recipe), encoding="utf-8")
    run.update_record(reranker=fit.as_dict())


@dataclass(frozen=True, eq=False)
class _Taught:
    reranker: Reranker
    texts: list[str]
    pairs: PairJudgement
    learnt: dict[str, Tensor] | None
    n_pairs: int
    n_cut: int
    epochs: list[dict[str, Any]]


def _teach(
    run: RunFolder,
    recipe: Recipe,
    recommender: Recommender,
    split: Split,
    retriever: AnyScorer,
    should_stop: StopWish,
    show: bool,
) -> _Taught:
    config, untaught = recipe.reranker, _untaught(recipe, recommender, split)
    model, tokenizer = untaught.loaded
    description = untaught.description
    texts = untaught.template.render_items(recommender.catalog.frame, "reranker.item")
    item_tokens, said = tokenize_parts(tokenizer, texts), tokenize_parts(tokenizer, _said_of_all(recommender))
    check_room(description.layout, config.max_tokens, item_tokens, said)
    ratings = ratings_of(description)
    validation, _ = held_out(recommender.interactions, recommender.catalog.n_items, recipe.split)

    def draw(part: Interactions, n_events: int, number: int) -> Pairs:
        with progress_bar("draw pairs", show) as bar:
            found = pairs_of(config, recipe, recommender, split, part, n_events, retriever, ratings, number)
            stopping(bar, should_stop, _STOPPED)(1, 1)
        return found

    held = draw(validation, config.validation_events, 1)
    epochs: list[dict[str, Any]] = []
    n_pairs = n_cut = 0
    learnt: dict[str, Tensor] | None = None
    if config.form == "likelihood":
        with progress_bar("read pairs", show) as bar:
            likely = outputs_of(untaught, texts, held, stopping(bar, should_stop, _STOPPED))[:, 0]
        center, spread = fit_odds(likely, held.labels > 0)
        description = replace(description, center=center, spread=spread)
        outputs = (center + spread * likely)[:, None]
    else:

        def tokens_of(pairs: Pairs) -> LabelledPairs:
            people = tokenize_parts(tokenizer, pairs.history.words)
            rows = join_pairs(
                description.layout, item_tokens, pairs.history, pairs.candidates, config.max_tokens, people
            )
            return LabelledPairs(rows, pairs.labels)

        train, held_tokens = tokens_of(draw(split.train, config.n_events, 0)), tokens_of(held)
        fingerprint = _fingerprint(recipe, recommender)
        told = _last_told(run.curves) if n_epochs_kept(run.reranker_state, fingerprint) else []
        with epoch_recorder(run.curves, recipe.tracking, recipe_toml(recipe), told) as record:
            trainer = PairTrainer(
                model,
                config,
                recipe.training.seed,
                trains_in_bf16(recipe.training),
                run.reranker_state,
                fingerprint,
                record,
                should_stop,
                show,
            )
            trainer.run(train, held_tokens)
        epochs = _last_told(run.curves)
        outputs = trainer.outputs(held_tokens)
        n_pairs, n_cut, learnt = len(train), train.tokens.n_cut, trainer.learnt
    calibration = calibrate(config.task, outputs, held.labels)
    judged = judge_pairs(config.task, outputs, held.labels, calibration, negatives_in_words(config), description.spread)
    description = replace(description, temperature=calibration.temperature, threshold=calibration.threshold)
    return _Taught(replace(untaught, description=description), texts, judged, learnt, n_pairs, n_cut, epochs)


def _last_told(curves: Curves) -> list[dict[str, Any]]:
    """The epochs of the newest reranker that was taught here, as they were told; seconds are of one call alone."""
    rows = [row for row in curves.read() if row["stage"] == RERANKER_STAGE]
    first = max((at for at, row in enumerate(rows) if row["epoch"] == 1), default=0)
    return [{name: value for name, value in row.items() if name not in ("step", "seconds")} for row in rows[first:]]


def _with_user_words(recommender: Recommender, recipe: Recipe) -> Recommender:
    """Reading users as the recipe says, whatever a reranker before read. Raises RecipeError where there is no such column."""
    template = recommender.checkpoint.template.of_users
    if recipe.reranker.user:
        template = UserTemplate(recipe.reranker.user)
        template.check(read_users(recommender.run), "reranker.user")
    return recommender.reading(template)


def _said_of_all(recommender: Recommender) -> list[str]:
    """Words of everybody in the user table; none where users are not read in words."""
    users = recommender.users
    words = None if users is None else recommender.user_template.words_of(users, list(users.rows))
    return [] if words is None else list(words)


def _untaught(recipe: Recipe, recommender: Recommender, split: Split) -> Reranker:
    """The language model as it is before it has learnt, with a fresh head where the form has one."""
    config = recipe.reranker
    ratings = read_ratings(config.task, split.train)
    if not config.name and (kind := recommender.checkpoint.configs.encoder.adapter.kind) != "none":
        raise InputError(
            f"this run keeps its language model as an adapter ({kind}), which reads no pairs. Name one: --set "
            f"reranker.name={recommender.checkpoint.configs.encoder.name}"
        )
    location = locate_pretrained(config.name) if config.name else recommender.checkpoint.folder / "encoder"
    if holds_pruned(location):
        raise InputError(
            f"the language model in '{location}' is pruned (lmrec compress), and no head for pairs goes on it. Name "
            f"another: --set reranker.name={recommender.checkpoint.configs.encoder.name}"
        )
    tokenizer = load_tokenizer(location)
    template = recommender.checkpoint.template.of_pairs(config.item, config.max_words)
    prompt = config.prompt or (NEXT_PROMPT if config.form == "likelihood" else "")
    if config.form == "yes_no" and not prompt:
        prompt = DEFAULT_PROMPT
    description = RerankerDescription(
        task=config.task,
        form=config.form,
        layout=build_layout(tokenizer, template.history_separator, prompt),
        max_tokens=config.max_tokens,
        top_k=config.top_k,
        weight=1.0,
        answers=answer_tokens(tokenizer) if config.form == "yes_no" else (0, 0),
        values=ratings.values,
        center=ratings.center,
        spread=ratings.spread,
        template=template.fingerprint,
        item=config.item,
        max_words=config.max_words,
        user=recommender.user_template.pattern,
    )
    torch.manual_seed(recipe.training.seed)
    dropout = None if config.form == "likelihood" else config.dropout  # which learns nothing
    model = build_reader(location, description, int(tokenizer.pad_token_id or 0), config.name, dropout)
    # A base of its own name stays what it is; the run's own language model does not, with the next update.
    if config.name and (config.train == "lora" or config.form == "likelihood"):
        rank = config.rank if config.form != "likelihood" else 0
        description = replace(description, base=Base.of(config.name, fingerprint_base(model)), rank=rank)
    return Reranker(description, template, lambda: (model, tokenizer))


def _search_weight(
    recipe: Recipe,
    recommender: Recommender,
    split: Split,
    taught: _Taught,
    retriever: AnyScorer,
    should_stop: StopWish,
    show: bool,
) -> dict[float, FloatArray]:
    """Weight -> the validation metric of each case's list, over the whole catalog; each list is read once."""
    judging, config = recipe.evaluation, recipe.reranker
    asked = split.validation.sample(config.search_cases, recipe.training.seed)
    quick = judging.model_copy(update={"block_size": 16})
    n_items = recommender.catalog.n_items
    scorer = RerankedScorer(
        "validation", retriever, taught.reranker, taught.texts, 1.0, config.top_k, judging.exclude_seen
    )
    with progress_bar("search reranker's weight", show) as bar:
        # Reads every list; the weights below ask its memo.
        evaluate(scorer, asked, n_items, quick, stopping(bar, should_stop, _STOPPED))
    return {
        weight: evaluate(scorer.weighted(weight), asked, n_items, judging).metrics[judging.metric] for weight in WEIGHTS
    }


def choose_weight(by_case: Mapping[float, FloatArray]) -> float:
    """The weight of the best mean, the lowest of equals; 0 unless its gain over 0 is clear of chance.

    by_case: weight -> (B,) the metric of each case. Clear: more than 1.64 standard errors of the paired gain (one side, 95 %),
    since the best of several weights on few cases is mostly the luckiest.

    >>> choose_weight({0.0: np.array([0.2, 0.3, 0.1]), 0.5: np.array([0.4, 0.5, 0.4])})
    0.5
    >>> choose_weight({0.0: np.array([0.2, 0.3, 0.1]), 0.5: np.array([0.9, 0.1, 0.0])})
    0.0
    """
    best = max(by_case, key=lambda weight: float(by_case[weight].mean()))
    gain = by_case[best] - by_case[0.0]
    error = float(gain.std(ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else np.inf
    return best if gain.mean() > _CLEAR * error else 0.0


def _fingerprint(recipe: Recipe, recommender: Recommender) -> str:
    """Of all that decides the weights."""
    config = recipe.reranker.model_dump_json(exclude={"search_cases", "judge_cases"})
    text = f"{config} {recipe.training.seed} {recipe.training.precision} {recommender.checkpoint.fingerprint}"
    if recipe.reranker.name:
        text += f" {fingerprint_encoder(locate_pretrained(recipe.reranker.name), 'mean')}"
    if recommender.user_template.pattern and recommender.users is not None:
        text += f" {recommender.user_template.pattern} {recommender.users.fingerprint}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
