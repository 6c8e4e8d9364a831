"""What a reranker learns from: an event's history beside the item that was chosen, beside items that were not, or its rating.

| task | label of a pair | other items | loss |
|---|---|---|---|
| binary | 1: the event's item, 0: a negative | drawn | cross-entropy of a log-odds |
| classes | which rating was given | none: nobody rated them | softmax over the ratings that occur |
| regression | the rating, less the mean, over the deviation | none | squared error |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from lmrec.data.history import HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.errors import InputError, RecipeError
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.cross_encoder import PairTask, ReaderForm
from lmrec.text.pairs import ITEM, split_prompt
from lmrec.text.pattern import check_pattern
from lmrec.training.samplers import FixedSampler, SamplerConfig, build_sampler

# (B, M) items to take negatives from, the first that may be used first, for each of B histories.
NegativeSource: TypeAlias = Callable[[Ragged, np.random.Generator], IntArray]
_MAX_CLASSES: Final = 20
_SPARE: Final = 20  # draws beyond those wanted, since some are the user's own items


class RerankerConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    task: PairTask = Field(
        default="binary",
        description="binary: chosen or not; classes: which rating (softmax); regression: the rating (squared error).",
    )
    form: ReaderForm = Field(
        default="classifier",
        description="classifier: a fresh head on any language model. Of GPT-type models also yes_no: the odds of that answer "
        "to a question; likelihood: of the item's words after the history, a token, nothing being trained.",
    )
    name: str = Field(
        default="",
        description="The language model that reads pairs, as encoder.name; empty: the run's own, as it was tuned.",
    )
    prompt: str = Field(
        default="",
        description="Words around {history} and {item}. Empty: special tokens (BERT type), or a plain question (GPT type).",
    )
    item: str = Field(
        default="",
        description="Words of an item in a pair, as template.item, such as '{title}' where descriptions are long. Empty: those "
        "of template.item.",
    )
    max_words: int = Field(
        default=0,
        ge=0,
        description="Words of one item's columns in a pair, as template.max_words, which 0 leaves as it is; what is kept of "
        "them is template.shorten's.",
    )
    user: str = Field(
        default="",
        description="Words of a user before the history, as template.user, where the run itself reads none: columns of its "
        "user table. Empty: none.",
    )
    max_tokens: int = Field(
        default=128,
        ge=8,
        le=8192,
        description="Token budget of a pair; the oldest of the history is cut, never the item.",
    )
    train: Literal["all", "last_layers", "lora"] = Field(
        default="all",
        description="What learns beside the head. lora: small updates, kept alone where `name` says on which model they stand; "
        "wants a rate of 5e-4.",
    )
    rank: int = Field(default=8, ge=1, description="lora: rank of the updates.")
    n_layers: int = Field(default=2, ge=1, description="How many top layers `last_layers` means.")
    n_events: int = Field(default=4000, ge=1, description="Training events drawn to make pairs of.")
    negatives: Literal["hard", "popularity", "uniform"] = Field(
        default="hard", description="binary: hard ones come from the retriever's own top_k for that history."
    )
    n_negatives: int = Field(default=3, ge=1, description="binary: negatives beside each chosen item.")
    epochs: int = Field(default=1, ge=1, description="Passes over the pairs; the best by validation log loss is kept.")
    batch_pairs: int = Field(default=32, ge=1, description="Pairs in a step.")
    learning_rate: float = Field(default=5e-5, gt=0, description="The language model.")
    head_learning_rate: float = Field(default=5e-4, gt=0, description="The fresh classification head.")
    weight_decay: float = Field(default=0.01, ge=0, description="Decay of matrices.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout while it learns.")
    top_k: int = Field(default=50, ge=2, description="How many of the retriever's best are read and put in order.")
    validation_events: int = Field(
        default=300,
        ge=1,
        description="Validation events whose pairs choose the epoch, the temperature and the threshold.",
    )
    search_cases: int = Field(
        default=300, ge=1, description="Validation cases on which the reranker's weight beside the retriever is chosen."
    )
    judge_cases: int = Field(
        default=500, ge=1, description="Test cases whose lists are put in order by the judge: top_k passes each."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, pattern in (("item", self.item), ("user", self.user)):
            if pattern:
                check_pattern(f"reranker.{name}", pattern)
        if self.form != "classifier" and self.task != "binary":
            raise ValueError(f"reranker.form '{self.form}' says chosen or not: set reranker.task to 'binary'")
        if self.prompt and (after := split_prompt(self.prompt)[2]) and self.form == "likelihood":
            raise ValueError(
                f"reranker.prompt '{self.prompt}' says {after!r} after {ITEM}, and reranker.form 'likelihood' asks how likely "
                f"the item's words are, which nothing behind them changes. End it with {ITEM}"
            )
        return self


@dataclass(frozen=True, eq=False)
class Pairs:
    """history: (G,) rows of items, oldest first; candidates: (G,) rows of items beside it; labels: one for each value of
    `candidates`, so P in all."""

    history: Ragged
    candidates: Ragged
    labels: FloatArray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Ratings:
    """How ratings become labels: the classes that occur, ascending, or a mean and a deviation."""

    values: tuple[float, ...] = ()
    center: float = 0.0
    spread: float = 1.0

    def labels(self, task: PairTask, ratings: FloatArray) -> FloatArray:
        """(P,) of these ratings; a rating between two classes counts as the lower."""
        if task == "classes":
            place = np.searchsorted(np.array(self.values), ratings, side="right") - 1
            return np.maximum(place, 0).astype(np.float32)
        return ((ratings - self.center) / self.spread).astype(np.float32)


def read_ratings(task: PairTask, train: Interactions) -> Ratings:
    """Raises InputError where the log has no ratings, only one, or too many to be classes."""
    if task == "binary":
        return Ratings()
    ratings = None if train.rating is None else train.rating[np.isfinite(train.rating)]  # views, say, have none
    if ratings is None or not len(ratings):
        raise InputError(
            f"reranker.task '{task}' learns ratings, and this log has none. Give a column rating, or set it to 'binary'"
        )
    values = tuple(float(value) for value in np.unique(ratings))
    if len(values) < 2:
        raise InputError(
            f"reranker.task '{task}' learns ratings, and all of them are {values[0]:g}. Set it to 'binary'"
        )
    if task == "classes" and len(values) > _MAX_CLASSES:
        raise InputError(
            f"the log has {len(values)} different ratings, too many for classes (at most {_MAX_CLASSES}). Set reranker.task "
            "to 'regression'"
        )
    return Ratings(values, float(ratings.mean()), float(ratings.std()))


def draw_pairs(
    config: RerankerConfig,
    part: Interactions,
    index: HistoryIndex,
    n_events: int,
    negatives: NegativeSource,
    ratings: Ratings,
    seed: tuple[int, ...],
) -> Pairs:
    """Pairs of at most `n_events` events of a part of the log, each with the history that `index` knows before it.

    Events of items that the history holds are left out, also where items may come again and are asked for: negatives are no
    items that the user has in the history or anywhere in this part, so a repeat would be told by its words alone.
    Raises InputError where no event of a new item has a history, or words of its user.
    """
    rng = np.random.default_rng(seed)
    history = index.before(part.user_idx, part.time_ts)
    known = history.lengths > 0
    if history.profile is not None and history.profile.words is not None:
        known = known | (history.profile.words != "")
    repeats = history.values == part.item_idx[history.row_of_value]
    is_new = np.bincount(history.row_of_value, weights=repeats, minlength=len(history)) == 0
    chosen = known & is_new & (part.weight > 0)
    if config.task != "binary":
        assert part.rating is not None
        chosen &= np.isfinite(part.rating)
    events = np.flatnonzero(chosen)
    if not len(events):
        told = "events" if config.task == "binary" else "rated events"
        raise InputError(
            f"a reranker learns from {told} of items that are new to somebody with a history, and this part of the log has none"
        )
    if n_events < len(events):
        events = np.sort(rng.choice(events, n_events, replace=False))
    histories, items = history.take(events), part.item_idx[events].astype(np.int64)
    if config.task != "binary":
        assert part.rating is not None
        own = Ragged(items, np.arange(len(items) + 1))
        return Pairs(histories, own, ratings.labels(config.task, part.rating[events]))
    whole = HistoryIndex.from_interactions(part).all(part.user_idx[events])
    offered = negatives(histories, rng)
    rows = []
    for at in range(len(events)):
        forbidden = {*histories[at].tolist(), *whole[at].tolist()}
        fine = [item for item in dict.fromkeys(offered[at].tolist()) if item >= 0 and item not in forbidden]
        rows.append(np.array([items[at], *fine[: config.n_negatives]], np.int64))
    candidates = Ragged.from_rows(rows)
    labels = np.zeros(len(candidates.values), np.float32)
    labels[candidates.offsets[:-1]] = 1.0
    return Pairs(histories, candidates, labels)


def drawn_source(config: RerankerConfig, item_counts: IntArray) -> NegativeSource:
    """Negatives by a sampler that knows nothing of the history. item_counts: (N,) training events of each item."""
    if config.negatives == "hard":
        raise RecipeError("hard negatives come from the retriever's lists, not from a sampler")
    sampler = build_sampler(SamplerConfig(kind=config.negatives), item_counts)
    assert isinstance(sampler, FixedSampler)
    n_draws = 2 * config.n_negatives + _SPARE

    def draw(history: Ragged, rng: np.random.Generator) -> IntArray:
        return sampler.draw_items(len(history) * n_draws, rng).reshape(len(history), n_draws)

    return draw


def pair_loss(task: PairTask, outputs: Tensor, labels: Tensor) -> Tensor:
    """() mean over pairs, of outputs (P, C) and labels (P,): nats, or squared deviations of the rating."""
    match task:
        case "binary":
            return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], labels)
        case "classes":
            return nn.functional.cross_entropy(outputs, labels.long())
        case "regression":
            return nn.functional.mse_loss(outputs[:, 0], labels)
