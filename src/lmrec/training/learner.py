"""What is trained: language model, two towers and the cache of text vectors between them, with one loss.

Two regimes. *Frozen*: text vectors are fixed and only the towers learn. *Tuned*: each batch encodes some items, each
once, with gradient; every other item of the catalog takes part in the softmax with its vector from the cache, which
keeps what the batch has just computed and is rebuilt whole between epochs.

Which items are encoded matters. Those of the batch alone are nearly all positives: each step would push every fresh
vector towards the users, with nobody to push back, and validation falls (docs/LOG.md). So half of the budget goes to
items of the batch and half to the rest of the catalog, and each half's gradient is scaled up to stand for the whole of
its kind: in expectation it is the gradient of the plain full softmax.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.encoder import EncoderConfig, TextEncoder, encode_rows, encode_tokens, pad_tokens
from lmrec.models.two_tower import TwoTower
from lmrec.progress import Progress
from lmrec.training.batches import TrainBatch
from lmrec.training.objectives import Seen, full_softmax

Regime = Literal["frozen", "tuned"]
HistoryTokens = Callable[[list[IntArray]], Ragged]  # histories as item rows -> their text's token ids


@dataclass(frozen=True)
class DrawnItems:
    """item_idx: (M,) rows drawn without repeats. scale: (M,) how many rows of its kind each one stands for."""

    item_idx: IntArray
    scale: FloatArray

    def scale_of(self, rows: IntArray) -> FloatArray:
        """The scales of the same rows in another order."""
        order = np.argsort(self.item_idx)
        return self.scale[order[np.searchsorted(self.item_idx[order], rows)]]


def draw_items(in_batch: IntArray, n_items: int, n_most: int, rng: np.random.Generator) -> DrawnItems:
    """At most `n_most` items to encode with gradient: a uniform draw from the batch's and one from all others.

    What one kind leaves unused of its half goes to the other. Where everything fits, everything is drawn, at scale 1.
    """
    others = np.setdiff1d(np.arange(n_items), in_batch)
    n_other = min(len(others), max(n_most // 2, n_most - len(in_batch)))
    n_batch = min(len(in_batch), n_most - n_other)
    parts = [(in_batch, n_batch), (others, n_other)]
    drawn = [rng.choice(kind, n, replace=False) for kind, n in parts]
    scales = [np.full(n, len(kind) / max(1, n), np.float32) for kind, n in parts]
    return DrawnItems(np.concatenate(drawn), np.concatenate(scales))


class Learner(nn.Module):
    """Called with a batch and the step's random generator, it returns the loss.

    history_tokens: renders and tokenises histories; needed where the user model reads text.
    mask_seen: items of a target's history are no candidates in its softmax, as they are none when judged and served.
    """

    text_vec: Tensor

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
    ) -> None:
        super().__init__()
        self.towers = towers
        self.encoder = encoder
        self.tokens = tokens
        self.register_buffer("text_vec", text_vec)  # (N, Dt), the cache
        self.encoder_config = encoder_config
        self.max_encoded_items = max_encoded_items
        self.history_tokens = history_tokens
        self.mask_seen = mask_seen
        self.regime: Regime = "frozen"

    def forward(self, batch: TrainBatch, rng: np.random.Generator) -> Tensor:
        text_vec = self._text_vectors(batch, rng) if self.regime == "tuned" else self.text_vec
        item_vec = self.towers.item_tower(text_vec)
        if self.towers.user_model is None:
            batch = one_target_a_window(batch, rng)
            user_vec = self._users_from_text(batch)
        else:
            states = self.towers.user_states(item_vec, batch.history_idx, batch.history_mask)
            user_vec = states[batch.target_row, batch.target_state]
        head = self.towers.head
        with torch.autocast(user_vec.device.type, enabled=False):
            return full_softmax(
                head.prepare(user_vec),
                head.prepare(item_vec),
                batch.target_idx,
                batch.target_weight,
                head.scale.float(),
                seen_before(batch) if self.mask_seen else None,
            )

    def refresh(self, progress: Progress | None = None) -> None:
        """Rebuild the whole cache with the language model as it is now."""
        if self.encoder is None or self.tokens is None:
            return
        vectors = encode_tokens(
            self.encoder, self.tokens, self.encoder_config.batch_tokens, self.text_vec.device, progress
        )
        self.text_vec.copy_(torch.from_numpy(vectors))

    def _text_vectors(self, batch: TrainBatch, rng: np.random.Generator) -> Tensor:
        """The cache, with the drawn rows fresh and differentiable, their gradients scaled as the draw demands."""
        assert self.encoder is not None and self.tokens is not None, "the tuned regime needs a language model"
        drawn = draw_items(batch.items, len(self.text_vec), self.max_encoded_items, rng)
        rows, fresh = encode_rows(
            self.encoder, self.tokens, drawn.item_idx, self.encoder_config.batch_tokens, self.text_vec.device
        )
        places = torch.from_numpy(rows).to(self.text_vec.device)
        scale = torch.from_numpy(drawn.scale_of(rows)).to(fresh)
        kept = fresh.detach()
        mixed = self.text_vec.index_copy(0, places, kept + scale.unsqueeze(1) * (fresh - kept))
        self.text_vec[places] = kept
        return mixed

    def _users_from_text(self, batch: TrainBatch) -> Tensor:
        """(T, D), one pass of the language model for each target's history."""
        assert self.encoder is not None and self.history_tokens is not None, "a text user model needs a language model"
        rows, states = batch.target_row.cpu().numpy(), batch.target_state.cpu().numpy()
        items = batch.history_idx.cpu().numpy()
        histories = [items[row, :state] for row, state in zip(rows, states, strict=True)]
        with torch.set_grad_enabled(self.regime == "tuned" and torch.is_grad_enabled()):
            text_vec = encode_histories(self.encoder, self.history_tokens(histories), self.text_vec.device)
        return self.towers.user_from_text(text_vec, batch.target_state > 0)


def one_target_a_window(batch: TrainBatch, rng: np.random.Generator) -> TrainBatch:
    """The batch with one target of each window, drawn at random: what a pass of a language model each can afford."""
    order = rng.permutation(len(batch.target_row))
    _, first = np.unique(batch.target_row.cpu().numpy()[order], return_index=True)
    chosen = torch.from_numpy(order[first]).to(batch.target_row.device)
    targets = ("target_row", "target_state", "target_idx", "target_weight")
    return replace(batch, **{name: getattr(batch, name)[chosen] for name in targets})


def seen_before(batch: TrainBatch) -> Seen:
    """For each target (T,) the items of its window before it: no candidates, since what was seen is not recommended."""
    place = torch.arange(batch.history_idx.shape[1], device=batch.history_idx.device)
    return Seen(batch.history_idx[batch.target_row], place < batch.target_state.unsqueeze(1))


def encode_histories(encoder: TextEncoder, tokens: Ragged, device: torch.device) -> Tensor:
    """(B, Dt) vectors of B histories' token ids, in order."""
    ids, mask = pad_tokens([tokens[row] for row in range(len(tokens))])
    vectors: Tensor = encoder(ids.to(device), mask.to(device))
    return vectors
