"""Tuning the language model: the second stage of a fit against plain fp32 fine-tuning of all layers, quality against seconds.

MovieLens-100K, items made of words alone (no ids). Both arms begin with the same towers, which have learnt nothing, and the
un-tuned language model, and learn both from the same events at the same rates. *Ours* is the trainer as a fit runs its
second stage: the top two layers over kept states of the lower ones, unique texts in batches of like length, one step of
the language model for five of the towers, in bf16 where the processor has it. *Plain* encodes the text of every event of a
batch in fp32 through all layers, each as often as it stands there, padded to the longest, and takes the softmax over the
batch's items, corrected for how often each comes (logQ). Seconds are of the processor, with validation left out; everything
else that an arm needs, lower layers and the rebuilt vectors of the catalog included, counts. Plain gets several times the
seconds that ours took.

Texts a second are of the language model alone: forward, backward and step over the same texts.
"""

import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.cells import DATA
from benchmarks.speed.courses import Course, trainer_of
from benchmarks.speed.figure import Figure
from benchmarks.speed.pictures import draw_course
from benchmarks.speed.run import ROOT, results_folder
from lmrec.fields import Ragged
from lmrec.models.encoder import EncoderConfig, TextEncoder, choose_trainable, encode_tokens, pad_tokens
from lmrec.models.precision import autocast
from lmrec.models.reading import Way, build_reader
from lmrec.recipe import Recipe, load_recipe
from lmrec.text.template import build_template
from lmrec.training.batches import TrainBatch
from lmrec.training.learner import Learner, seen_before
from lmrec.training.objectives import Asked, DrawnNegatives, sampled_softmax
from lmrec.training.optimizer import build_optimizer, parameter_groups
from lmrec.training.trainer import Stage, trains_in_bf16
from lmrec.workflows.encode import PretrainedText, begin_tuning, read_texts
from lmrec.workflows.prepare import Prepared
from lmrec.workflows.train import Words, batch_source, build_learner, build_validator

_SEED = 0
_PLAIN_EVENTS = 64  # texts in a step of the plain arm: what a batch of sentences commonly is
_METRIC = "validation NDCG@10"
_PLAIN = "plain fp32, all layers"


def main(small: bool) -> list[Figure]:
    torch.set_num_threads(1)
    n_epochs, longer, n_looks = (1, 1.0, 1) if small else (3, 6.0, 6)
    recipe = the_recipe(n_epochs)
    prepared = DATA["movielens-100k"].prepare(recipe)
    source = read_texts(
        prepared.dataset.catalog, build_template(recipe.template, prepared.dataset.catalog), recipe.encoder
    )
    encoder, text_vec = begin_tuning(source, _SEED, show=False)
    words = Words(encoder, source, build_template(recipe.template, prepared.dataset.catalog))
    learner = build_learner(recipe, text_vec, prepared.split.train, words)
    begin = build_validator(learner, recipe, prepared.split.validation)()
    bare = copy.deepcopy(learner)
    own = own_course(learner, recipe, prepared, n_epochs)
    plain = plain_course(bare, recipe, prepared, source, longer * max(own) / n_looks, n_looks)
    courses = {"ours": {0.0: begin} | own, _PLAIN: {0.0: begin} | plain}
    folder = results_folder(small)
    size = f"MovieLens-100K, {prepared.dataset.catalog.n_items:,} items, words alone"
    (folder / "tuning_courses.json").write_text(json.dumps(courses, indent=1) + "\n", encoding="utf-8")
    draw_course(
        folder / "tuning.png", courses, "seconds of one processor", _METRIC, f"Tuning the language model: {size}"
    )
    return [rates(recipe, source, small), *at_equal_quality(courses, size)]


def the_recipe(n_epochs: int) -> Recipe:
    asked = (
        "item.source=text",
        "training.frozen_epochs=0",
        f"training.tuned_epochs={n_epochs}",
        "training.refit=false",
        "training.tuned_learning_rate=0.003",  # the towers know nothing yet
    )
    return load_recipe(ROOT / "recipes" / "movielens-100k.toml", asked)


def own_course(learner: Learner, recipe: Recipe, prepared: Prepared, n_epochs: int) -> Course:
    config = recipe.training
    course: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as state:
        trainer = trainer_of(learner, recipe, prepared, Path(state), course)
        trainer.run([Stage("tuned", n_epochs, config.tuned_learning_rate, config.encoder_learning_rate)], resume=False)
    return dict(course)


def plain_course(
    learner: Learner, recipe: Recipe, prepared: Prepared, source: PretrainedText, look_s: float, n_looks: int
) -> Course:
    """Fine-tuning as it is commonly written; validated every `look_s` seconds."""
    course: Course = {}
    encoder = learner.encoder
    assert encoder is not None
    choose_trainable(encoder, recipe.encoder.model_copy(update={"train": "all"}))
    optimizer = plain_optimizer(learner, recipe)
    measure = build_validator(learner, recipe, prepared.split.validation)
    spent = 0.0
    for batch in small_batches(recipe, prepared):
        busy = time.process_time()
        learner.train()
        loss = plain_loss(learner, batch, source.tokens.ids, prepared)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learner.parameters(), recipe.training.max_grad_norm)
        optimizer.step()
        spent += time.process_time() - busy
        if spent >= look_s * (len(course) + 1):
            learner.eval()
            # For the look alone, so it does not count: a user of this arm would have to encode the catalog to serve it.
            vectors = encode_tokens(encoder, source.tokens.ids, recipe.encoder.batch_tokens, torch.device("cpu"))
            learner.text_vec.copy_(torch.from_numpy(vectors))
            course[spent] = float(measure())
        if len(course) == n_looks:
            break
    return course


def plain_optimizer(learner: Learner, recipe: Recipe) -> torch.optim.Optimizer:
    config, encoder = recipe.training, learner.encoder
    assert encoder is not None
    parts = [
        (list(encoder.parameters()), config.encoder_learning_rate),
        (list(learner.towers.parameters()), config.tuned_learning_rate),
    ]
    return build_optimizer("adamw", parameter_groups(parts, config.weight_decay))


def small_batches(recipe: Recipe, prepared: Prepared) -> Iterator[TrainBatch]:
    """Batches of about `_PLAIN_EVENTS` events, epoch after epoch."""
    few = recipe.training.model_copy(update={"batch_events": _PLAIN_EVENTS, "tuned_batch_events": _PLAIN_EVENTS})
    source = batch_source(recipe.model_copy(update={"training": few}), prepared.split.train)
    epoch = 0
    while True:
        yield from source(0, epoch)
        epoch += 1


def plain_loss(learner: Learner, batch: TrainBatch, tokens: Ragged, prepared: Prepared) -> Tensor:
    """Every event of the batch read anew; the batch's items are the candidates."""
    encoder, towers = learner.encoder, learner.towers
    assert encoder is not None
    places = batch.history_mask.nonzero(as_tuple=True)
    events = batch.history_idx[places]
    ids, mask = pad_tokens(tokens.take(events.numpy()))
    event_vec = towers.item_tower.project(encoder(ids, mask))  # (E, D)
    number = torch.zeros_like(batch.history_idx)
    number[places] = torch.arange(len(events))
    states = towers.user_states(event_vec, number, batch.history_mask)
    items, of_event = torch.unique(events, return_inverse=True)
    first = torch.zeros(len(items), dtype=torch.int64).scatter_(0, of_event, torch.arange(len(events)))
    local = torch.zeros(prepared.dataset.catalog.n_items, dtype=torch.int64)
    local[items] = torch.arange(len(items))
    seen = seen_before(batch)
    head = towers.head
    asked = Asked(
        head.prepare(states[batch.target_row, batch.target_state]),
        head.prepare(event_vec[first]),
        local[batch.target_idx],
        batch.target_weight,
        head.scale.float(),
        replace(seen, item_idx=local[seen.item_idx]),
    )
    counts = torch.from_numpy(np.bincount(prepared.split.train.item_idx, minlength=len(local)))[items]
    expected = len(events) * counts / counts.new_tensor(len(prepared.split.train.item_idx))
    return sampled_softmax(asked, DrawnNegatives(torch.arange(len(items)), expected.float().log()))


def rates(recipe: Recipe, source: PretrainedText, small: bool) -> Figure:
    """Texts a second through the language model, with gradient and step."""
    n_texts = 64 if small else 256
    config, tokens = recipe.encoder, source.tokens.ids
    rows = np.sort(np.random.default_rng(_SEED).choice(len(tokens), min(n_texts, len(tokens)), replace=False))
    ours, plain = (fresh_encoder(source, config.model_copy(update={"train": train})) for train in (config.train, "all"))
    began = time.process_time()
    bf16 = trains_in_bf16(recipe.training)
    way = Way(config.batch_tokens, torch.device("cpu"), partial(autocast, torch.device("cpu"), bf16))
    reader = build_reader(ours, tokens.take(rows), way, config.states_mb)
    lower_s = time.process_time() - began
    own_s = seconds_of_step(ours, lambda: (vectors for _, vectors in reader.encode_rows(np.arange(len(rows)))))
    plain_s = seconds_of_step(plain, lambda: plainly_encoded(plain, tokens.take(rows)))
    lower_ms = lower_s / len(rows) * 1e3
    note = (
        f"{len(rows)} texts of at most {config.max_tokens} tokens, mean {tokens.lengths[rows].mean():.0f}: forward, backward, "
        f"step, one thread, {'bf16' if bf16 else 'fp32'}; the kept lower layers took {lower_ms:.1f} ms a text, once"
    )
    return Figure("tuning, language model", len(rows) / own_s, len(rows) / plain_s, "texts/s", _PLAIN, note)


def fresh_encoder(source: PretrainedText, config: EncoderConfig) -> TextEncoder:
    encoder = source.load_encoder()
    choose_trainable(encoder, config)
    return encoder


def plainly_encoded(encoder: TextEncoder, tokens: Ragged) -> Iterator[Tensor]:
    for start in range(0, len(tokens), _PLAIN_EVENTS):
        rows = np.arange(start, min(start + _PLAIN_EVENTS, len(tokens)))
        yield encoder(*pad_tokens(tokens.take(rows)))


def seconds_of_step(encoder: TextEncoder, passes: Callable[[], Iterator[Tensor]]) -> float:
    """Processor seconds of the better of two: each pass forward and backward, then one step."""
    optimizer = build_optimizer(
        "adamw", parameter_groups([([p for p in encoder.parameters() if p.requires_grad], 1e-6)], 0.0)
    )
    found = []
    for _ in range(2):
        began = time.process_time()
        for vectors in passes():
            vectors.square().sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found.append(time.process_time() - began)
    return min(found)


def at_equal_quality(courses: dict[str, Course], size: str) -> list[Figure]:
    """Seconds until the best that the plain arm reached in its time. Where ours does not reach it, it is said and no figure."""
    own, plain = courses["ours"], courses[_PLAIN]
    begin, goal = plain[0.0], max(plain.values())
    reached = [seconds for seconds, value in own.items() if value >= goal]
    told = (
        f"{size}; from {begin:.4f} plain reached {goal:.4f} in {max(plain):.0f} s, ours {max(own.values()):.4f} in "
        f"{max(own):.0f} s"
    )
    if goal <= begin:
        return [
            Figure("tuning, gained in the time", max(own.values()) - begin, 0.0, "share", "plain gained nothing", told)
        ]
    if not reached:
        return [Figure("tuning, quality reached", max(own.values()), goal, "share", _PLAIN, told)]
    plain_s = min(seconds for seconds, value in plain.items() if value >= goal)
    return [Figure("tuning, to equal validation NDCG", min(reached), plain_s, "s", _PLAIN, told)]
