"""What is trained: language model, two towers and the cache of text vectors between them, with one loss.

Two regimes. *Frozen*: text vectors are fixed and only the towers learn. *Tuned*: the towers learn on the cached vectors
of the whole catalog, and the exact gradient of the loss with respect to every item's text vector is added up on the
side. Every few steps the items that matter most by that gradient are encoded, each once, and it is passed on into the
language model; their fresh vectors go into the cache, which is rebuilt whole between epochs. Layers below those that
learn run once (lmrec.models.reading).

Which items are encoded matters. Those of the batch alone are nearly all positives: each step would push every fresh
vector towards the users, with nobody to push back, and validation falls (docs/LOG.md). Here an item is drawn with a
probability in proportion to its gradient's length and its gradient is divided by that probability: in expectation it is
the gradient of the plain full softmax, with the least variance that so many encodings can buy. Splitting the gradient at
the text vectors is Gao et al. 2021 (GradCache), https://arxiv.org/abs/2101.06983.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lmrec.artifacts.pretrained import cache_folder
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.encoder import EncoderConfig, TextEncoder, pad_tokens
from lmrec.models.reading import TextReader, Way, build_reader
from lmrec.models.two_tower import TwoTower
from lmrec.progress import Progress
from lmrec.training.batches import TrainBatch, take_targets
from lmrec.training.losses import FullSoftmax, Objective
from lmrec.training.objectives import Asked, Seen
from lmrec.training.variants import TextVariants

Regime = Literal["frozen", "tuned"]
HistoryTokens = Callable[[list[IntArray]], Ragged]  # histories as item rows -> their text's token ids
Pull = Callable[[TwoTower], Tensor]  # the towers as they are -> a penalty, a scalar


@dataclass(frozen=True)
class DrawnItems:
    """item_idx: (M,) rows, ascending. scale: (M,) 1 / the probability with which each was drawn."""

    item_idx: IntArray
    scale: FloatArray

    def scale_of(self, rows: IntArray) -> FloatArray:
        """The scales of the same rows in another order."""
        return self.scale[np.searchsorted(self.item_idx, rows)]


def draw_items(importance: FloatArray, n_most: int, rng: np.random.Generator) -> DrawnItems:
    """Draw at most `n_most` rows, each with a probability in proportion to its importance (N,) >= 0, at most 1.

    Systematic sampling: the probabilities are laid end to end and cut at a random phase, so that their sum is what is
    drawn. Where all rows of importance fit, all are drawn, at scale 1. Source: Madow 1949.
    """
    probability = np.zeros(len(importance))
    certain = np.zeros(len(importance), np.bool_)
    rest = importance > 0
    while rest.any():
        room = n_most - int(certain.sum())
        probability[rest] = room * importance[rest] / importance[rest].sum()
        over = rest & (probability >= 1.0)
        if not over.any():
            break
        certain |= over
        rest &= ~over
    probability[certain] = 1.0
    edges = np.floor(np.concatenate([[0.0], np.cumsum(probability)]) + rng.uniform(1e-9, 1.0))
    drawn = np.flatnonzero(certain | (np.diff(edges) > 0))
    return DrawnItems(drawn, (1.0 / probability[drawn]).astype(np.float32))


class Learner(nn.Module):
    """Called with a batch and the step's random generator, it returns the loss.

    history_tokens: renders and tokenises histories; needed where the user model reads text.
    mask_seen: items of a target's history are no candidates in its softmax, as they are none when judged and served.
    autocast: the precision that the language model runs in, a maker of contexts; who trains sets it.
    pull: a penalty that is added to the loss while training, such as the distance to earlier weights.
    objective: what is learnt; by default the softmax over the whole catalog.
    variants: other texts of each item, read in its own text's place while training.
    """

    text_vec: Tensor
    text_grad: Tensor

    def __init__(
        self,
        towers: TwoTower,
        encoder: TextEncoder | None,
        tokens: Ragged | None,
        text_vec: Tensor,
        encoder_config: EncoderConfig,
        max_encoded_items: int,
        history_tokens: HistoryTokens | None = None,
        mask_seen: bool = True,
        pull: Pull | None = None,
        objective: Objective | None = None,
        variants: TextVariants | None = None,
    ) -> None:
        super().__init__()
        self.towers = towers
        self.encoder = encoder
        self.tokens = tokens
        self.register_buffer("text_vec", text_vec)  # (N, Dt), the cache
        self.register_buffer("text_grad", torch.zeros_like(text_vec))  # (N, Dt), what has not reached the PLM yet
        self.encoder_config = encoder_config
        self.max_encoded_items = max_encoded_items
        self.history_tokens = history_tokens
        self.mask_seen = mask_seen
        self.pull = pull
        self.objective: Objective = objective or FullSoftmax()
        self.variants = variants
        self.regime: Regime = "frozen"
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._reader: TextReader | None = None
        self._variant_reader: TextReader | None = None

    def forward(self, batch: TrainBatch, rng: np.random.Generator) -> Tensor:
        text_vec = self._watched_cache() if self.regime == "tuned" and self.training else self.text_vec
        if self.variants is not None and self.regime == "frozen" and self.training:
            text_vec = self.variants.draw_vectors(text_vec, rng)
        item_vec = self.towers.item_tower(text_vec)
        if self.towers.user_model is None:
            batch = one_target_a_window(batch, rng)
            user_vec = self._users_from_text(batch)
        else:
            states = self.towers.user_states(*read_items(item_vec, batch), batch.history_mask)
            user_vec = states[batch.target_row, batch.target_state]
        head = self.towers.head
        with torch.autocast(user_vec.device.type, enabled=False):
            asked = Asked(
                head.prepare(user_vec),
                head.prepare(item_vec),
                batch.target_idx,
                batch.target_weight,
                head.scale.float(),
                seen_before(batch) if self.mask_seen else None,
                batch.shown,
            )
            loss = self.objective(asked, rng)
            return loss + self.pull(self.towers) if self.pull is not None and self.training else loss

    def refresh(self, progress: Progress | None = None) -> None:
        """Rebuild the whole cache with the language model as it is now."""
        if self.encoder is not None and self.tokens is not None:
            self.text_vec.copy_(torch.from_numpy(self.reader.encode_all(progress)))

    def pass_on(self, rng: np.random.Generator) -> Iterator[Tensor]:
        """Encode the drawn items batch by batch: scalars whose gradients in the language model add up to the loss's.

        Call backward on each before the next is taken: memory is that of one batch, however many items are drawn. The
        cache takes the fresh vectors, and what was added up starts again from zero.
        """
        importance = self.text_grad.norm(dim=1).double().cpu().numpy()
        drawn = draw_items(importance, self.max_encoded_items, rng)
        for rows, fresh in self._read_drawn(drawn.item_idx, rng):
            places = torch.from_numpy(rows).to(self.text_vec.device)
            scale = torch.from_numpy(drawn.scale_of(rows)).to(fresh).unsqueeze(1)
            yield (fresh * self.text_grad[places] * scale).sum()
            self.text_vec[places] = fresh.detach()
        self.text_grad.zero_()
        if self.encoder is not None and self.encoder.allocation is not None:
            yield self.encoder.allocation.penalty()

    @property
    def reader(self) -> TextReader:
        """How the catalog is read; made when it is first needed, on the device and in the precision of then."""
        assert self.tokens is not None, "the tuned regime needs a language model"
        if self._reader is None:
            self._reader = self._build_reader(self.tokens)
        return self._reader

    def _build_reader(self, tokens: Ragged) -> TextReader:
        assert self.encoder is not None, "the tuned regime needs a language model"
        config = self.encoder_config
        way = Way(config.batch_tokens, self.text_vec.device, self.autocast)
        return build_reader(self.encoder, tokens, way, config.states_mb, cache_folder() / "states")

    def _read_drawn(self, item_idx: IntArray, rng: np.random.Generator) -> Iterator[tuple[IntArray, Tensor]]:
        """Batches of (M,) rows and (M, Dt) their vectors with gradient, each item by its own text or a drawn variant's."""
        if self.variants is None:
            yield from self.reader.encode_rows(item_idx)
            return
        if self._variant_reader is None:
            self._variant_reader = self._build_reader(self.variants.tokens)
        number, n_items = self.variants.draw_numbers(len(item_idx), rng), self.variants.n_items
        varied = number >= 0
        yield from self.reader.encode_rows(item_idx[~varied])
        for rows, fresh in self._variant_reader.encode_rows(number[varied] * n_items + item_idx[varied]):
            yield rows % n_items, fresh

    def _watched_cache(self) -> Tensor:
        """The cache as a leaf whose gradient is added to `text_grad`."""
        leaf = self.text_vec.detach().clone().requires_grad_(True)
        leaf.register_hook(self._add_gradient)  # type: ignore[no-untyped-call]
        return leaf

    def _add_gradient(self, gradient: Tensor) -> None:
        self.text_grad.add_(gradient)

    def _users_from_text(self, batch: TrainBatch) -> Tensor:
        """(T, D), one pass of the language model for each target's history."""
        assert self.encoder is not None and self.history_tokens is not None, "a text user model needs a language model"
        rows, states = batch.target_row.cpu().numpy(), batch.target_state.cpu().numpy()
        items = batch.history_idx.cpu().numpy()
        if batch.hidden is None:
            histories = [items[row, :state] for row, state in zip(rows, states, strict=True)]
        else:
            read = ~batch.hidden.cpu().numpy()
            histories = [items[row, :state][read[row, :state]] for row, state in zip(rows, states, strict=True)]
        with torch.set_grad_enabled(self.regime == "tuned" and torch.is_grad_enabled()):
            text_vec = encode_histories(self.encoder, self.history_tokens(histories), self.text_vec.device)
        return self.towers.user_from_text(text_vec, batch.target_state > 0)


def read_items(item_vec: Tensor, batch: TrainBatch) -> tuple[Tensor, Tensor]:
    """Item vectors and (B, H) rows in them for the user model; a hidden event reads a row of zeros behind the catalog."""
    if batch.hidden is None:
        return item_vec, batch.history_idx
    nothing = item_vec.new_zeros(1, item_vec.shape[1])
    return torch.cat([item_vec, nothing]), batch.history_idx.masked_fill(batch.hidden, len(item_vec))


def one_target_a_window(batch: TrainBatch, rng: np.random.Generator) -> TrainBatch:
    """The batch with one target of each window, drawn at random: what a pass of a language model each can afford."""
    order = rng.permutation(len(batch.target_row))
    _, first = np.unique(batch.target_row.cpu().numpy()[order], return_index=True)
    return take_targets(batch, torch.from_numpy(order[first]).to(batch.target_row.device))


def seen_before(batch: TrainBatch) -> Seen:
    """For each target (T,) the items of its window before it: no candidates, since what was seen is not recommended."""
    place = torch.arange(batch.history_idx.shape[1], device=batch.history_idx.device)
    return Seen(batch.history_idx[batch.target_row], place < batch.target_state.unsqueeze(1))


def encode_histories(encoder: TextEncoder, tokens: Ragged, device: torch.device) -> Tensor:
    """(B, Dt) vectors of B histories' token ids, in order."""
    ids, mask = pad_tokens(tokens)
    vectors: Tensor = encoder(ids.to(device), mask.to(device))
    return vectors
