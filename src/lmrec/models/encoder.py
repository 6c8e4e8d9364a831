"""The text encoder: (N, L) token ids -> (N, D) unit vectors, from any transformers model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from lmrec.errors import RecipeError
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.progress import Progress

Pooling: TypeAlias = Literal["mean", "cls", "last"]


class EncoderConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        default="all-MiniLM-L6-v2",
        description="A registry name (see `lmrec data list`), a local folder, or a hub name of any transformers encoder.",
    )
    pooling: Pooling = Field(default="mean", description="How token vectors become one: mean, first token, last token.")
    max_tokens: int = Field(default=64, ge=1, le=8192, description="Token budget of one text; longer texts are cut.")
    train: Literal["all", "last_layers", "none"] = Field(
        default="last_layers", description="Which of the encoder's parameters are tuned."
    )
    n_layers: int = Field(default=2, ge=1, description="How many top layers `last_layers` means.")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="Dropout inside the encoder while it is tuned.")
    batch_tokens: int = Field(default=4096, ge=1, description="Padded tokens in one pass; bounds memory.")
    states_mb: int = Field(
        default=1024,
        ge=0,
        description="Where only `last_layers` are tuned: hidden states of the layers below are kept, up to this size in "
        "memory, above it in a file; 0: those layers run again each time.",
    )


class TextEncoder(nn.Module):
    """A pretrained language model and a pooling. Output vectors have length one and are always fp32.

    fp32 matters: vectors rounded to bf16 make near-duplicate items tie.
    """

    def __init__(self, backbone: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling

    @property
    def width(self) -> int:
        return int(self.backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]

    def forward(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """(N, L) ids and (N, L) mask, True = real -> (N, D)."""
        hidden = self.backbone(input_ids=token_ids, attention_mask=token_mask.long()).last_hidden_state
        return nn.functional.normalize(pool(hidden.float(), token_mask, self.pooling), dim=-1)


def pool(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """(N, L, D) token vectors, right-padded, (N, L) mask -> (N, D)."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        last = mask.long().sum(1).clamp(min=1) - 1
        return hidden[torch.arange(len(hidden), device=hidden.device), last]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def load_encoder(location: str | Path, config: EncoderConfig) -> TextEncoder:
    """Read a transformers model. Safetensors only, and code from model repositories is never run.

    Raises RecipeError where the name leads to no model.
    """
    from transformers import AutoModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        backbone = AutoModel.from_pretrained(str(location), trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"encoder.name '{config.name}' could not be loaded: {str(error).splitlines()[0]} Give a registry name, a "
            "folder with config.json and model.safetensors, or a hub name that this machine can reach"
        ) from error
    encoder = TextEncoder(backbone.float(), config.pooling)
    limit = max_tokens_of(backbone)
    if limit is not None and config.max_tokens > limit:
        raise RecipeError(
            f"encoder.max_tokens is {config.max_tokens}, and {config.name} reads at most {limit}. Lower it"
        )
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = config.dropout
    return encoder


def max_tokens_of(backbone: nn.Module) -> int | None:
    """How many tokens the model has places for; RoBERTa-type models keep the places up to the padding id for padding."""
    limit: int | None = getattr(backbone.config, "max_position_embeddings", None)
    for name, module in backbone.named_modules():
        if limit is not None and name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return limit - (0 if module.padding_idx is None else module.padding_idx + 1)
    return limit


def choose_trainable(encoder: TextEncoder, config: EncoderConfig) -> list[nn.Parameter]:
    """Freeze all but what `config.train` names; returns the parameters left to train.

    Raises RecipeError where the layers of the model cannot be found or are fewer than asked for.
    """
    encoder.requires_grad_(config.train == "all")
    if config.train == "last_layers":
        layers = transformer_layers(encoder)
        if config.n_layers > len(layers):
            raise RecipeError(
                f"encoder.n_layers is {config.n_layers}, and {config.name} has {len(layers)} layers. "
                "Lower it, or set encoder.train to 'all'"
            )
        for layer in layers[-config.n_layers :]:
            layer.requires_grad_(True)
    return [parameter for parameter in encoder.parameters() if parameter.requires_grad]


def transformer_layers(encoder: nn.Module) -> list[nn.Module]:
    """The model's stack of layers, bottom first: its longest list of modules of one class."""
    stacks = [list(m) for m in encoder.modules() if isinstance(m, nn.ModuleList) and len({type(x) for x in m}) == 1]
    return max(stacks, key=len, default=[])


def pad_tokens(tokens: Ragged) -> tuple[Tensor, Tensor]:
    """Rows of token ids -> right-padded (N, L) ids and (N, L) mask. The pad id is 0; the mask hides it."""
    lengths = tokens.lengths
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = tokens.values
    return torch.from_numpy(ids), torch.from_numpy(mask)


def token_batches(tokens: Ragged, rows: IntArray, batch_tokens: int) -> Iterator[IntArray]:
    """Cut `rows`, sorted by length, into batches of at most `batch_tokens` padded tokens (at least one row each)."""
    order = rows[np.argsort(tokens.lengths[rows], kind="stable")]
    lengths = tokens.lengths[order].tolist()
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * lengths[stop] <= batch_tokens:
            stop += 1
        yield order[start:stop]
        start = stop


def unique_rows(tokens: Ragged) -> tuple[IntArray, IntArray]:
    """(M,) the first row of each different text, ascending, and (N,) for each row the place of its text in that list."""
    first_of: dict[bytes, int] = {}
    first = np.fromiter(
        (first_of.setdefault(tokens[row].tobytes(), row) for row in range(len(tokens))), np.int64, len(tokens)
    )
    unique, place = np.unique(first, return_inverse=True)
    return unique, place


@torch.no_grad()
def encode_tokens(
    encoder: TextEncoder, tokens: Ragged, batch_tokens: int, device: torch.device, progress: Progress | None = None
) -> FloatArray:
    """(N, D) fp32 vectors of N texts. Equal texts are encoded once, and batches hold texts of like length."""
    unique, place = unique_rows(tokens)
    result = np.zeros((len(tokens), encoder.width), np.float32)
    was_training = encoder.training
    encoder.eval()
    done = 0
    for batch in token_batches(tokens, unique, batch_tokens):
        ids, mask = pad_tokens(tokens.take(batch))
        result[batch] = encoder(ids.to(device), mask.to(device)).cpu().numpy()
        done += len(batch)
        if progress is not None:
            progress(done, len(unique))
    encoder.train(was_training)
    return result[unique[place]]
