"""Pretrain: a language model reads on in a catalog's own words and becomes a folder that any fit can start from.

The words of every item are read, also of items that a cold-item test holds back: what an item says is known on the day it
arrives. Of the log, objective "pairs" sees the training part of the recipe's split alone.
"""

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lmrec.artifacts.curves import Curves
from lmrec.artifacts.files import read_json, replaced_folder, write_json
from lmrec.artifacts.pretrained import locate_pretrained
from lmrec.artifacts.run import describe_environment
from lmrec.artifacts.training_state import TrainingState, load_training_state
from lmrec.data.catalog import Catalog
from lmrec.data.history import HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.errors import InputError, Interrupted, RecipeError, RunFolderError
from lmrec.fields import IntArray
from lmrec.models.encoder import TextEncoder, load_encoder
from lmrec.models.language import LanguageModel, grow_vocabulary, is_tied, load_language_model, quiet_loading
from lmrec.models.layers import set_dropout
from lmrec.models.precision import autocast
from lmrec.models.pruning import holds_pruned
from lmrec.models.reading import Way, checkpoint_layers
from lmrec.progress import progress_bar
from lmrec.recipe import Recipe, recipe_toml
from lmrec.text.template import build_template
from lmrec.text.tokens import load_tokenizer, tokenize_texts
from lmrec.text.vocabulary import NewWord, add_new_words, choose_new_words
from lmrec.training.interrupt import StopWish, stop_on_interrupt
from lmrec.training.pretrain import (
    Hiding,
    PairTask,
    Place,
    Reading,
    Task,
    WordTask,
    learn,
    near_pairs,
    part_rows,
    steps_an_epoch,
)
from lmrec.training.trainer import trains_in_bf16
from lmrec.workflows.tracking import check_tracking, epoch_recorder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECORD = "pretraining.json"
_STATE = "training_state"  # there while a pretraining can go on
_LEAST_PAIRS = 2  # one has no other to be told from


@dataclass(frozen=True)
class Pretraining:
    """What was done. before, after: the measure on held-out texts or pairs, lower being better."""

    folder: Path
    objective: str
    measure: str
    before: float
    after: float
    n_texts: int
    n_steps: int
    new_words: tuple[NewWord, ...]
    head_was_made: bool
    finished: bool
    seconds: float
    notes: tuple[str, ...] = ()


def heard_keys(recipe: Recipe, from_source: bool) -> tuple[str, ...]:
    """What `lmrec pretrain` hears of a recipe. from_source: the catalog comes with a whole data set of another format."""
    objective = recipe.pretrain.objective
    texts = "columns item_columns text_columns max_bad_share max_text_chars"
    return (
        "pretrain.*",
        "tracking.*",
        *(f"encoder.{name}" for name in ("name", "max_tokens", "checkpointing")),
        *(("encoder.pooling",) if objective in ("simcse", "pairs") else ()),
        "training.seed",
        "training.precision",
        *(f"template.{name}" for name in ("item", "max_chars", "max_words", "shorten")),
        *(("data.*",) if from_source or objective == "pairs" else (f"data.{name}" for name in texts.split())),
        *(("split.*",) if objective == "pairs" else ()),
    )


def pretrain_encoder(
    catalog: Catalog, recipe: Recipe, out: Path | str, train: Interactions | None = None, show: bool = True
) -> Pretraining:
    """Read on in the catalog's words and write the folder `out`, for `encoder.name` of a fit.

    train: the training part of the log, which objective "pairs" needs. Ctrl-C stops after the step, writes what has been
    learnt so far and raises Interrupted; the same call then goes on and ends with the same weights as if it had never
    stopped, also after a kill.
    Raises RecipeError, InputError, RunFolderError for what cannot be done.
    """
    folder, config, started = Path(out), recipe.pretrain, time.monotonic()
    begun = _check_out(folder, fingerprint := _fingerprint(catalog, recipe, train))
    if config.objective == "pairs" and train is None:
        raise InputError("pretrain.objective 'pairs' needs the log of what users did. Give --interactions")
    untracked = check_tracking(recipe.tracking)
    location = locate_pretrained(recipe.encoder.name)
    if holds_pruned(location):
        raise InputError(
            f"encoder.name '{recipe.encoder.name}' is pruned (lmrec compress): no head that guesses words goes on it. "
            "Pretrain the whole model, fit, and compress that run"
        )
    tokenizer = load_tokenizer(location)
    texts = build_template(recipe.template, catalog).render_items(catalog.frame)
    words: list[NewWord] = []
    if config.new_words:
        words = choose_new_words(tokenizer, texts, config.new_words, config.new_word_count, config.new_word_pieces)
    grow = partial(grow_vocabulary, new_ids=add_new_words(tokenizer, words), pieces=[new.pieces for new in words])
    texts = list(dict.fromkeys(texts)) if config.objective != "pairs" else texts  # what is said twice is learnt once
    reading = _reading(texts, tokenizer, recipe)
    if config.objective in ("mlm", "clm"):
        task, encoder = _word_task(location, tokenizer, reading, recipe, grow)
    else:
        task, encoder = _pair_task(location, reading, recipe, grow, train)
    curves = Curves(folder)
    if begun is None:
        curves.clear()  # what a killed call told belongs to nothing that is kept
        (folder / _STATE).mkdir(parents=True, exist_ok=True)  # the folder is ours from now on
    following = epoch_recorder(curves, recipe.tracking, recipe_toml(recipe), curves.read())
    with following as record, stop_on_interrupt() as should_stop:
        place = Place(begun or TrainingState(fingerprint), folder / _STATE)
        before, n_steps, finished = _learn(task, reading, recipe, place, record, should_stop, show)
    after = task.held_out()
    done = Pretraining(
        folder=folder,
        objective=config.objective,
        measure=task.measure,
        before=before,
        after=after,
        n_texts=len(texts),
        n_steps=n_steps,
        new_words=tuple(words),
        head_was_made=isinstance(task, WordTask) and task.language.head_is_new,
        finished=finished,
        seconds=round(time.monotonic() - started, 1),
        notes=tuple(untracked),
    )
    _save(done, encoder(), tokenizer, recipe, catalog)
    if not finished:
        raise Interrupted(
            f"stopped after {n_steps} steps; '{folder}' holds what was learnt so far and can be used. The same command goes on "
            "from there"
        )
    return done


def _check_out(folder: Path, fingerprint: str) -> TrainingState | None:
    """None for a new or empty folder, or one that a pretraining was killed in before it kept anything; what it kept, for one
    by the same choices that stopped."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    kept = folder / _STATE / "state.json"
    if not kept.exists() and kept.parent.is_dir() and {*folder.iterdir()} <= {*Curves(folder).paths, kept.parent}:
        return None
    if not kept.exists():
        raise RunFolderError(f"'{folder}' exists and is not empty. Choose another --out, or remove it")
    if read_json(kept)["fingerprint"] != fingerprint:
        raise RunFolderError(
            f"'{folder}' holds a pretraining that was stopped, of other choices, texts or events. Type what it began with, "
            "choose another --out, or remove it"
        )
    return load_training_state(folder / _STATE, fingerprint)


def _fingerprint(catalog: Catalog, recipe: Recipe, train: Interactions | None) -> str:
    """Of all that decides the weights."""
    parts = [config.model_dump_json() for config in (recipe.pretrain, recipe.encoder, recipe.template)]
    parts += [str(recipe.training.seed), recipe.training.precision, catalog.fingerprint]
    parts += [train.fingerprint] if train is not None else []
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def _reading(texts: list[str], tokenizer: "PreTrainedTokenizerBase", recipe: Recipe) -> Reading:
    objective = recipe.pretrain.objective
    least = 1 if objective in ("mlm", "clm") else _LEAST_PAIRS
    if len(texts) < 2 * least:
        raise InputError(
            f"the catalog has {len(texts)} different texts, and pretrain.objective '{objective}' needs {2 * least} "
            "at least: to learn from, and to measure on"
        )
    tokens = tokenize_texts(tokenizer, texts, recipe.encoder.max_tokens).ids
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    learnt, measured = part_rows(len(texts), recipe.pretrain.held_out, recipe.training.seed, least)
    way = Way(recipe.encoder.batch_tokens, device, partial(autocast, device, trains_in_bf16(recipe.training)))
    return Reading(tokens, learnt, measured, recipe.pretrain, way, recipe.training.seed)


def _word_task(
    location: Path | str,
    tokenizer: "PreTrainedTokenizerBase",
    reading: Reading,
    recipe: Recipe,
    grow: Callable[[Any], None],
) -> tuple[Task, Callable[[], nn.Module]]:
    config = reading.config
    torch.manual_seed(reading.seed)  # a head that is made is drawn
    language = load_language_model(location, "mlm" if config.objective == "mlm" else "clm")
    grow(language.model)
    set_dropout(language.model, config.dropout, "pretrain.dropout", recipe.encoder.name)
    if recipe.encoder.checkpointing:
        checkpoint_layers(language.model)
    language.model.to(reading.way.device)
    hiding = None
    if config.objective == "mlm":
        if tokenizer.mask_token_id is None:
            raise RecipeError(
                "pretrain.objective 'mlm' hides words behind a mask token, and this tokenizer has none: choose 'simcse' or "
                "'pairs'"
            )
        n_ids = int(language.model.get_input_embeddings().num_embeddings)
        hiding = Hiding(int(tokenizer.mask_token_id), np.array(tokenizer.all_special_ids), n_ids, config.mask_share)
    return WordTask(language, reading, hiding), partial(
        _as_published, location, language, grow, config.objective == "clm"
    )


def _as_published(
    location: Path | str, language: LanguageModel, grow: Callable[[Any], None], writes: bool
) -> nn.Module:
    """The encoder as it was published, with what was learnt; parts that the guessing of words has no use for stay. Of what
    writes, the layer that guesses next words too, where it is another one than the embeddings: likelihoods are read by it."""
    from transformers import AutoModel, AutoModelForCausalLM

    with_head = writes and not is_tied(language.model)
    auto: Any = AutoModelForCausalLM if with_head else AutoModel
    with quiet_loading():
        whole: Any = auto.from_pretrained(str(location), trust_remote_code=False, use_safetensors=True)
    grow(whole)
    learnt = language.model if with_head else language.base
    unknown = whole.load_state_dict(learnt.state_dict(), strict=False).unexpected_keys
    assert not unknown, f"the encoder has no place for {unknown[:3]}"
    made: nn.Module = whole.float()
    return made


def _pair_task(
    location: Path | str, reading: Reading, recipe: Recipe, grow: Callable[[Any], None], train: Interactions | None
) -> tuple[Task, Callable[[], nn.Module]]:
    config = reading.config
    encoder = load_encoder(location, recipe.encoder)
    grow(encoder.backbone)
    set_dropout(encoder, config.dropout, "pretrain.dropout", recipe.encoder.name)
    if recipe.encoder.checkpointing:
        checkpoint_layers(encoder.backbone)
    encoder.to(reading.way.device)
    if config.objective == "simcse":
        if not config.dropout:
            raise RecipeError(
                "pretrain.objective 'simcse' tells two readings of one text apart by dropout, and there is none: set "
                "pretrain.dropout above 0, or choose 'pairs' where this model has no dropout at all"
            )
        same = np.stack([reading.learnt, reading.learnt], 1)
        held = np.stack([reading.measured, reading.measured], 1)
        return PairTask(encoder, reading, lambda rng: same, held), partial(_backbone, encoder)
    assert train is not None
    pairs = near_pairs(HistoryIndex.from_interactions(train), config.pair_distance)
    if len(pairs) < 2 * _LEAST_PAIRS:
        raise InputError(
            f"the training part of the log holds {len(pairs)} pairs of items near each other, too few to learn from. Give a "
            "longer log, or choose pretrain.objective 'simcse'"
        )
    learnt, measured = part_rows(len(pairs), config.held_out, reading.seed, _LEAST_PAIRS)

    def draw(rng: np.random.Generator) -> IntArray:
        drawn: IntArray = pairs[rng.permutation(learnt)[: config.max_pairs]]
        return drawn

    return PairTask(encoder, reading, draw, pairs[measured]), partial(_backbone, encoder)


def _backbone(encoder: TextEncoder) -> nn.Module:
    return encoder.backbone


def _learn(
    task: Task,
    reading: Reading,
    recipe: Recipe,
    place: Place,
    record: Callable[[dict[str, Any]], None],
    should_stop: StopWish,
    show: bool,
) -> tuple[float, int, bool]:
    """(the measure before, steps made, whether all of them were). A fresh head first learns alone, so that "before" is
    what the published model knows and not that its head is new."""
    config, state, seed = reading.config, place.state, recipe.training.seed
    per_epoch, finished = steps_an_epoch(task, seed), True
    n_head = config.head_epochs if isinstance(task, WordTask) and task.language.head_is_new else 0
    if n_head and state.stage < 1:
        assert isinstance(task, WordTask)
        state.stage = 0
        base = task.language.base.requires_grad_(False)
        with progress_bar("pretrain, head alone", show) as bar:
            part = [(task.module, 10 * config.learning_rate)]
            told = partial(_record_as, record, "pretrain, head alone")
            finished = learn(task, part, n_head, seed, should_stop, bar, place=place, record=told)
        base.requires_grad_(True)
    if state.stage < 1 and finished:
        state.start_stage(1)
        state.frozen_metric = task.held_out()  # what it knows while nothing but a head has learnt
        record({"stage": "pretrain", "epoch": 0, task.measure: state.frozen_metric})
    if state.stage == 1:
        with progress_bar(f"pretrain, {config.objective}", show) as bar:
            part = [(task.module, config.learning_rate)]
            told = partial(_record_as, record, "pretrain")
            finished = learn(task, part, config.epochs, seed, should_stop, bar, place=place, record=told)
    n_steps = (n_head if state.stage == 1 else 0) * per_epoch + state.epoch * per_epoch + state.step
    return state.frozen_metric if state.frozen_metric is not None else task.held_out(), n_steps, finished


def _record_as(record: Callable[[dict[str, Any]], None], stage: str, row: dict[str, Any]) -> None:
    record({"stage": stage, **row})


def _save(
    done: Pretraining, backbone: Any, tokenizer: "PreTrainedTokenizerBase", recipe: Recipe, catalog: Catalog
) -> None:
    with replaced_folder(done.folder) as fresh, quiet_loading():
        backbone.cpu().save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
        write_json(
            fresh / RECORD,
            {
                **{name: value for name, value in asdict(done).items() if name not in ("folder", "new_words")},
                "new_words": [{"word": new.word, "count": new.count} for new in done.new_words],
                "encoder": recipe.encoder.name,
                "template": build_template(recipe.template, catalog).pattern,
                "pretrain": recipe.pretrain.model_dump(mode="json"),
                "seed": recipe.training.seed,
                "catalog_fingerprint": catalog.fingerprint,
                **describe_environment(),
            },
        )
        Curves(done.folder).share(fresh)
        if not done.finished:
            shutil.copytree(done.folder / _STATE, fresh / _STATE)
