"""Pretraining on a catalog's own words, before any user is looked at.

Gururangan et al. 2020, "Don't Stop Pretraining", https://arxiv.org/abs/2004.10964: a language model that reads on in the
texts of its domain serves that domain better. What is learnt is one of

| objective | what is guessed                              | paper                                                |
|-----------|----------------------------------------------|------------------------------------------------------|
| mlm       | hidden words from all others (BERT type)     | Devlin et al. 2019, https://arxiv.org/abs/1810.04805 |
| clm       | the next word (GPT type)                     | Radford et al. 2018                                  |
| simcse    | the same text, under another dropout         | Gao et al. 2021, https://arxiv.org/abs/2104.08821    |
| pairs     | an item near this one in somebody's history  | InfoNCE: https://arxiv.org/abs/1807.03748            |

The words of every item may be read, also of items that a cold-item test holds back: what an item says is known on the day
it arrives. Of events only those of the training part may be used.

Units: mlm and clm lose nats a guessed word (cross-entropy over V tokens; ln V for a model that knows nothing) and measure
perplexity, exp of that; simcse and pairs lose nats a pair (ln P among P pairs that it cannot tell apart) and measure that.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from lmrec.artifacts.training_state import TrainingState, save_training_state
from lmrec.data.history import HistoryIndex
from lmrec.errors import TrainingError
from lmrec.fields import IntArray, Ragged
from lmrec.models.encoder import TextEncoder, pad_tokens, unique_rows
from lmrec.models.language import LanguageModel
from lmrec.models.reading import Way
from lmrec.progress import Bar
from lmrec.training.generators import generators, set_generators
from lmrec.training.optimizer import (
    learning_rate_factor,
    moments_of,
    parameter_groups,
    restore_moments,
    set_learning_rate,
)

_WARMUP_SHARE = 0.06
_WEIGHT_DECAY = 0.01
_MAX_GRAD_NORM = 1.0
_SAVE_EVERY = 200  # steps: a kill loses no more
_HIDDEN_AS_MASK, _HIDDEN_AS_OTHER = 0.8, 0.1  # of the hidden words; the rest stay as they are, as BERT's were


class PretrainConfig(BaseModel):
    """How `lmrec pretrain` lets a language model read on in the catalog's own words, before `lmrec fit` tunes it.

    All of the model's parameters learn: `encoder.train` and `encoder.adapter` say what a fit tunes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Literal["mlm", "clm", "simcse", "pairs"] = Field(
        default="mlm",
        description="mlm: hidden words (BERT type); clm: next words (GPT type); simcse: the same text under another dropout; "
        "pairs: items near each other in training histories.",
    )
    epochs: int = Field(default=3, ge=1, description="Times that the texts, or as many pairs, are read.")
    head_epochs: int = Field(
        default=1,
        ge=0,
        description="mlm, clm: epochs in which a head that had to be made learns alone, before the model.",
    )
    batch_texts: int = Field(default=32, ge=2, description="Texts, or pairs, in a step; the others are the negatives.")
    learning_rate: float = Field(default=5e-5, gt=0, description="Peak of a linear course with warm-up.")
    mask_share: float = Field(default=0.15, gt=0, lt=1, description="mlm: share of the words that are hidden.")
    temperature: float = Field(default=0.05, gt=0, description="simcse, pairs: what cosines are divided by.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout inside the model; simcse lives on it.")
    pair_distance: int = Field(default=3, ge=1, description="pairs: so many events apart at most in one history.")
    max_pairs: int = Field(default=50_000, ge=1, description="pairs: at most so many are drawn for an epoch.")
    held_out: float = Field(
        default=0.05, gt=0, lt=0.5, description="Share of texts, or pairs, only measured on; at most 1,000 of them."
    )
    new_words: int = Field(default=0, ge=0, description="Words of the catalog to make tokens of their own, at most.")
    new_word_count: int = Field(default=5, ge=1, description="How often a new word must be said.")
    new_word_pieces: int = Field(default=3, ge=2, description="Into how many pieces a new word must fall until now.")


class Task(Protocol):
    """Something to learn from numbered examples. `measure` is what `held_out` gives, lower being better."""

    @property
    def measure(self) -> str: ...

    @property
    def module(self) -> nn.Module: ...

    def batches(self, rng: np.random.Generator) -> list[IntArray]:
        """One epoch's examples, in random order."""
        ...

    def loss(self, rows: IntArray, rng: np.random.Generator) -> Tensor:
        """A scalar with gradient: nats a guessed word, or a pair."""
        ...

    def held_out(self) -> float: ...


@dataclass(frozen=True, eq=False)
class Reading:
    """What all tasks share: the texts' tokens, which rows are learnt from and which only measured, and how it runs."""

    tokens: Ragged
    learnt: IntArray
    measured: IntArray
    config: PretrainConfig
    way: Way
    seed: int


def part_rows(n: int, share: float, seed: int, least: int = 1) -> tuple[IntArray, IntArray]:
    """(learnt, measured) rows of `n`; at least so many are measured, and at most a thousand.

    >>> [part.tolist() for part in part_rows(4, 0.25, 0)]
    [[0, 1, 3], [2]]
    """
    order = np.random.default_rng(seed).permutation(n)
    n_measured = min(max(least, round(share * n)), 1000)
    return np.sort(order[n_measured:]), np.sort(order[:n_measured])


def length_batches(tokens: Ragged, rows: IntArray, size: int, rng: np.random.Generator) -> list[IntArray]:
    """The rows in batches of so many texts of like length, in random order."""
    # Sorted by length with noise: little padding, and other neighbours in each epoch.
    order = rows[np.argsort(tokens.lengths[rows] * rng.uniform(0.8, 1.25, len(rows)), kind="stable")]
    batches = np.split(order, range(size, len(order), size))
    return [batches[place] for place in rng.permutation(len(batches))]


class WordTask:
    """mlm or clm. The loss is in nats a guessed word, the measure perplexity: exp of its mean over held-out texts."""

    measure = "perplexity"

    def __init__(self, language: LanguageModel, reading: Reading, hiding: "Hiding | None") -> None:
        self.language, self.reading, self.hiding = language, reading, hiding
        self.module: nn.Module = language.model

    def batches(self, rng: np.random.Generator) -> list[IntArray]:
        return length_batches(self.reading.tokens, self.reading.learnt, self.reading.config.batch_texts, rng)

    def loss(self, rows: IntArray, rng: np.random.Generator) -> Tensor:
        total, n = self._loss_sum(rows, rng)
        return total / max(1, n)

    @torch.no_grad()
    def held_out(self) -> float:
        self.module.eval()
        rows, size = self.reading.measured, self.reading.config.batch_texts
        total, n = 0.0, 0
        for start in range(0, len(rows), size):
            rng = np.random.default_rng((self.reading.seed, start))  # the same words are hidden each time
            loss, n_words = self._loss_sum(rows[start : start + size], rng)
            total, n = total + float(loss), n + n_words
        self.module.train()
        return float(np.exp(total / max(1, n)))

    def _loss_sum(self, rows: IntArray, rng: np.random.Generator) -> tuple[Tensor, int]:
        ids, mask = pad_tokens(self.reading.tokens.take(rows))
        if self.hiding is None:
            answer, chosen = next_words(ids, mask)
        else:
            answer, ids, chosen = hide_words(ids, mask, self.hiding, rng)
        device = self.reading.way.device
        with self.reading.way.run():
            logits = self.language.logits_at(ids.to(device), mask.to(device), chosen.to(device))
        loss = nn.functional.cross_entropy(logits.float(), answer.to(device), reduction="sum")
        return loss, len(answer)


@dataclass(frozen=True, eq=False)
class Hiding:
    """How words are hidden: the id that stands for them, ids that never are, how many ids there are, and which share."""

    mask_id: int
    special_ids: IntArray
    n_ids: int
    share: float


def next_words(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(N, L) ids and mask -> (M,) the words that follow, and (N, L) the places that they follow."""
    chosen = torch.zeros_like(mask)
    chosen[:, :-1] = mask[:, 1:]
    answer = torch.zeros_like(ids)
    answer[:, :-1] = ids[:, 1:]
    return answer[chosen], chosen


def hide_words(ids: Tensor, mask: Tensor, hiding: Hiding, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """(M,) hidden words, (N, L) ids with them hidden, (N, L) where; at least one word of each text that has one."""
    able = mask.numpy() & ~np.isin(ids.numpy(), hiding.special_ids)
    draw = np.where(able, rng.random(able.shape), np.inf)
    chosen = draw < hiding.share
    lonely = np.flatnonzero(able.any(1) & ~chosen.any(1))
    chosen[lonely, draw[lonely].argmin(1)] = True
    how = rng.random(able.shape)
    seen = ids.numpy().copy()
    seen[chosen & (how < _HIDDEN_AS_MASK)] = hiding.mask_id
    other = chosen & (how >= _HIDDEN_AS_MASK) & (how < _HIDDEN_AS_MASK + _HIDDEN_AS_OTHER)
    seen[other] = rng.integers(0, hiding.n_ids, int(other.sum()))
    where = torch.from_numpy(chosen)
    return ids[where], torch.from_numpy(seen), where


class PairTask:
    """simcse or pairs: each example is two rows of texts; the other examples of a step are its wrong answers.

    The loss is in nats a pair, the measure that of held-out pairs among each other, without dropout. pairs: (P, 2).
    """

    measure = "contrastive loss"

    def __init__(
        self, encoder: TextEncoder, reading: Reading, pairs: Callable[[np.random.Generator], IntArray], held: IntArray
    ) -> None:
        self.module: nn.Module = encoder
        self.encoder, self.reading, self.pairs, self.held = encoder, reading, pairs, held
        _, self.text_of = unique_rows(reading.tokens)
        self._epoch: IntArray = held

    def batches(self, rng: np.random.Generator) -> list[IntArray]:
        self._epoch = self.pairs(rng)
        size = self.reading.config.batch_texts
        order = rng.permutation(len(self._epoch))
        return [rows for rows in np.split(order, range(size, len(order), size)) if len(rows) > 1]

    def loss(self, rows: IntArray, rng: np.random.Generator) -> Tensor:
        return self._loss_of(self._epoch[rows])

    @torch.no_grad()
    def held_out(self) -> float:
        self.module.eval()
        # Parts as equal as can be: of few pairs the right one is easier to find.
        parts = np.array_split(self.held, -(-len(self.held) // self.reading.config.batch_texts))
        total = sum(len(part) * float(self._loss_of(part)) for part in parts)
        self.module.train()
        return total / len(self.held)

    def _loss_of(self, pairs: IntArray) -> Tensor:
        left, right = (self._encode(pairs[:, side]) for side in (0, 1))
        texts = self.text_of[pairs]
        return contrastive_loss(left, right, torch.from_numpy(texts), self.reading.config.temperature)

    def _encode(self, rows: IntArray) -> Tensor:
        ids, mask = pad_tokens(self.reading.tokens.take(rows))
        with self.reading.way.run():
            vectors: Tensor = self.encoder(ids.to(self.reading.way.device), mask.to(self.reading.way.device))
        return vectors


def contrastive_loss(left: Tensor, right: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """(P, D) unit vectors of both sides, (P, 2) which text each is -> the mean InfoNCE loss of both directions, nats a pair.

    A wrong answer that is the very text of the right one, or of the question, is none.
    """
    logits = left @ right.T / temperature
    texts = texts.to(logits.device)
    same = texts[:, 1][None, :] == texts[:, 1][:, None]
    same |= texts[:, 1][None, :] == texts[:, 0][:, None]
    same |= texts[:, 0][None, :] == texts[:, 0][:, None]
    logits = logits.masked_fill(same.fill_diagonal_(False), float("-inf"))
    right_answer = torch.arange(len(logits), device=logits.device)
    there = nn.functional.cross_entropy(logits, right_answer)
    back = nn.functional.cross_entropy(logits.T, right_answer)
    return (there + back) / 2


def near_pairs(index: HistoryIndex, distance: int) -> IntArray:
    """(P, 2) each two different items at most `distance` events apart in one history, once, the smaller row first."""
    items, users = index.item_idx.astype(np.int64), index.user_idx
    found = []
    for step in range(1, min(distance, len(items) - 1) + 1):
        together = (users[step:] == users[:-step]) & (items[step:] != items[:-step])
        found.append(np.stack([items[:-step][together], items[step:][together]], 1))
    pairs = np.concatenate(found) if found else np.zeros((0, 2), np.int64)
    return np.unique(np.sort(pairs, axis=1), axis=0)


@dataclass(frozen=True, eq=False)
class Place:
    """Where a pretraining stands, and how that is kept: stage 0 is a fresh head alone, stage 1 the whole model."""

    state: TrainingState
    folder: Path | None

    def keep(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write all that the next step depends on, where there is a folder for it."""
        if self.folder is None:
            return
        weights = {name: value.detach() for name, value in module.state_dict().items()}
        rng, device_rng = generators()
        now = replace(self.state, weights=weights, moments=moments_of(optimizer), rng=rng, device_rng=device_rng)
        save_training_state(self.folder, now)

    def take_up(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Go on from what an earlier call kept of this stage, where there is such."""
        if self.state.rng is None:
            return
        module.load_state_dict(self.state.weights)
        restore_moments(optimizer, self.state.moments)
        set_generators((self.state.rng, self.state.device_rng))
        self.state.weights, self.state.moments, self.state.rng = {}, {}, None


def steps_an_epoch(task: Task, seed: int) -> int:
    return len(task.batches(np.random.default_rng((seed, 0))))


def learn(
    task: Task,
    parameters: list[tuple[nn.Module, float]],
    n_epochs: int,
    seed: int,
    should_stop: Callable[[], bool],
    bar: Bar,
    rate_key: str = "pretrain.learning_rate",
    place: Place | None = None,
    record: Callable[[dict[str, Any]], None] | None = None,
) -> bool:
    """Train in place for so many epochs; False where it was asked to stop before.

    rate_key: the choice that the rates come from. place: where to go on from, and where to keep (on a stop, after each epoch,
    every 200 steps) what is enough to end with the same weights as if nothing had happened; None: nothing is kept. record:
    told each epoch's row once that epoch is kept: its mean loss, and the measure on what is held out.
    Raises TrainingError where the loss is not finite.
    """
    place = place or Place(TrainingState(""), None)
    torch.manual_seed(seed)
    groups = [(module.parameters(), rate) for module, rate in parameters]
    optimizer = torch.optim.AdamW(parameter_groups(groups, _WEIGHT_DECAY), fused=True)
    place.take_up(task.module, optimizer)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    task.module.train()
    state, losses, per_epoch = place.state, _Mean(), steps_an_epoch(task, seed)
    n_steps = n_epochs * per_epoch
    while state.epoch < n_epochs:
        batches = task.batches(np.random.default_rng((seed, state.epoch)))
        for step in range(state.step, len(batches)):
            done = state.epoch * per_epoch + step
            factor = learning_rate_factor(min(done, n_steps - 1), n_steps, _WARMUP_SHARE, "linear")
            set_learning_rate(optimizer.param_groups, factor)
            loss = task.loss(batches[step], np.random.default_rng((seed, state.epoch, step)))
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss is {loss.item()} in step {done + 1}. Lower {rate_key}")
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(trained, _MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.step = step + 1
            state.loss_sum += float(loss.detach())
            bar(done + 1, n_steps)
            bar.say(f"loss {losses.add(float(loss.detach())):.3f}")
            if should_stop():
                place.keep(task.module, optimizer)
                return False
            if (done + 1) % _SAVE_EVERY == 0:
                place.keep(task.module, optimizer)
        told = {"loss": state.loss_sum / max(1, state.step), "learning_rate": float(optimizer.param_groups[-1]["lr"])}
        state.next_epoch()
        place.keep(task.module, optimizer)
        if record is not None:
            record({"epoch": state.epoch, **told, task.measure: task.held_out()})
    return True


class _Mean:
    """The running mean of what was added of late."""

    def __init__(self) -> None:
        self._value: float | None = None

    def add(self, value: float) -> float:
        self._value = value if self._value is None else 0.95 * self._value + 0.05 * value
        return self._value
