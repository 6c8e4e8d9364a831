"""The text encoder: (N, L) token ids -> (N, D) unit vectors, from any transformers model."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from lmrec.errors import RecipeError
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.adapters import AdapterConfig
from lmrec.models.layers import norms_and_biases, parameter_parts, set_dropout, transformer_layers
from lmrec.models.pruning import holds_pruned, is_pruned, load_pruned, save_pruned
from lmrec.progress import Progress

if TYPE_CHECKING:
    from lmrec.models.rank_allocation import RankAllocation

Pooling: TypeAlias = Literal["mean", "cls", "last"]
Trained: TypeAlias = Literal["all", "all_but_embeddings", "all_but_first", "last_layers", "norms_and_biases", "none"]
RuntimeName: TypeAlias = Literal["torch-fp32", "torch-bf16", "onnx", "openvino-bf16"]
RuntimeChoice: TypeAlias = Literal["auto"] | RuntimeName


class EncoderConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        default="all-MiniLM-L6-v2",
        description="A registry name (see `lmrec data list`), a local folder, or a hub name of any transformers encoder.",
    )
    pooling: Pooling = Field(default="mean", description="How token vectors become one: mean, first token, last token.")
    max_tokens: int = Field(default=64, ge=1, le=8192, description="Token budget of one text; longer texts are cut.")
    train: Trained = Field(
        default="last_layers",
        description="What of the encoder is tuned: all; all_but_embeddings; all_but_first (what is above the `n_layers` lowest "
        "layers); last_layers (the `n_layers` top ones); norms_and_biases (as BitFit); none (only what stands on top learns). "
        "With an adapter, the layers that get one.",
    )
    n_layers: int = Field(default=2, ge=1, description="How many layers `last_layers` and `all_but_first` mean.")
    adapter: AdapterConfig = AdapterConfig()
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="Dropout inside the encoder while it is tuned.")
    batch_tokens: int = Field(default=4096, ge=1, description="Padded tokens in one pass; bounds memory.")
    runtime: RuntimeChoice = Field(
        default="auto",
        description="What encodes where nothing is learnt: a catalog, and words where the run answers. auto: a catalog by "
        "torch-bf16 where the CPU has it, else torch-fp32; answers by torch-fp32, as tuning leaves a catalog's vectors. "
        "`lmrec bench-encoder` measures all on this machine. One that is unfaithful to fp32 is refused.",
    )
    checkpointing: bool = Field(
        default=False,
        description="Second stage, and `lmrec pretrain`: keep only what goes into each layer and run the layer again for its "
        "gradient: less memory, about a third more time.",
    )
    states_mb: int = Field(
        default=1024,
        ge=0,
        description="Where only `last_layers` are tuned: hidden states of the layers below are kept, up to this size in "
        "memory, above it in a file; 0: those layers run again each time.",
    )

    @model_validator(mode="after")
    def _adapter_has_layers(self) -> Self:
        kind = self.adapter.kind
        wanted = ("all",) if kind == "prefix" else ("all", "all_but_first", "last_layers")
        if kind != "none" and self.train not in wanted:
            choices = " or ".join(f"'{choice}'" for choice in wanted)
            why = "a prefix stands in every layer" if kind == "prefix" else "it says which layers get the adapter"
            raise ValueError(
                f"encoder.train is '{self.train}' beside encoder.adapter.kind '{kind}': {why}. Set encoder.train to {choices}"
            )
        return self


_PEFT_VECTORS = ("ia3_l", "lora_E")


class TextEncoder(nn.Module):
    """A pretrained language model and a pooling. Output vectors have length one and are always fp32.

    fp32 matters: vectors rounded to bf16 make near-duplicate items tie.

    adapter_names: the backbone's parameters that belong to an adapter (lmrec.models.adaptation); none: it has none.
    base_fingerprint: of the weights that it was attached to. allocation: what decides the ranks of an AdaLoRA.
    shares_with: the encoder whose weights this one shares, kept alive as long as this one is.
    """

    def __init__(self, backbone: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.adapter_names: tuple[str, ...] = ()
        self.base_fingerprint = ""
        self.allocation: RankAllocation | None = None
        self.shares_with: tuple[TextEncoder, ...] = ()  # in a tuple: it is no part of this module

    @property
    def width(self) -> int:
        return int(self.backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def vectors(self) -> list[nn.Parameter]:
        """Vectors of an adapter, which peft keeps as narrow matrices: (IA)3's factors, AdaLoRA's singular values."""
        names = [name for name in self.adapter_names if any(part in name for part in _PEFT_VECTORS)]
        return [self.backbone.get_parameter(name) for name in names]

    def embed_words(self, token_ids: Tensor) -> Tensor:
        """(N, L) ids -> (N, L, E) what the model takes each token for, before it knows places or context."""
        embedded: Tensor = self.backbone.get_input_embeddings()(token_ids)  # type: ignore[operator]
        return embedded

    def forward(self, token_ids: Tensor, token_mask: Tensor, words: Tensor | None = None) -> Tensor:
        """(N, L) ids and (N, L) mask, True = real -> (N, D). words: (N, L, E) in place of `embed_words` of the ids."""
        read = {"input_ids": token_ids} if words is None else {"inputs_embeds": words}
        hidden = self.backbone(**read, attention_mask=token_mask.long()).last_hidden_state
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
    """Read a transformers model, without adapters. Safetensors only, and code from model repositories is never run.

    Raises RecipeError where the name leads to no model.
    """
    from transformers import AutoModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    backbone: nn.Module
    try:
        if holds_pruned(location):
            backbone = load_pruned(Path(location))
        else:
            backbone = AutoModel.from_pretrained(str(location), trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"encoder.name '{config.name}' could not be loaded: {str(error).splitlines()[0]} Give a registry name, a "
            "folder with config.json and model.safetensors, or a hub name that this machine can reach"
        ) from error
    encoder = TextEncoder(backbone.float(), config.pooling)
    configure_encoder(encoder, config)
    return encoder


def save_encoder(encoder: TextEncoder, folder: Path) -> None:
    """Where `load_encoder` finds it; a pruned one as `lmrec.models.pruning` keeps it. One with an adapter is not for here."""
    if is_pruned(encoder.backbone):
        save_pruned(encoder.backbone, folder)
    else:
        encoder.backbone.save_pretrained(folder)  # type: ignore[operator]


def configure_encoder(encoder: TextEncoder, config: EncoderConfig) -> None:
    """Pooling and dropout as the config says. Raises RecipeError where the model has no room for so many tokens, or none for
    what is asked."""
    check_places(encoder.backbone, config.max_tokens, "encoder.max_tokens", config.name)
    if config.pooling == "cls" and looks_back_only(encoder.backbone):
        raise RecipeError(
            f"encoder.pooling is 'cls', and the first token of {config.name} sees nothing behind it: all texts that begin "
            "alike would be one vector. Set it to 'mean' or 'last'"
        )
    encoder.pooling = config.pooling
    set_dropout(encoder, config.dropout, "encoder.dropout", config.name)


def check_places(backbone: nn.Module, max_tokens: int, key: str, name: str) -> None:
    """Raises RecipeError where `key` asks the model of this name to read more tokens than it has places for."""
    limit = max_tokens_of(backbone)
    if limit is not None and max_tokens > limit:
        raise RecipeError(f"{key} is {max_tokens}, and {name} reads at most {limit}. Lower it")


@torch.no_grad()
def looks_back_only(model: nn.Module) -> bool:
    """Whether a later token leaves what is said of an earlier one as it was (GPT type). The model is in eval."""
    base: Any = getattr(model, "base_model", model)
    ids = torch.tensor([[1, 2], [1, 3]], device=next(model.parameters()).device)
    one, other = base(input_ids=ids).last_hidden_state[:, 0]
    return torch.allclose(one, other, atol=1e-5)


def max_tokens_of(backbone: nn.Module) -> int | None:
    """How many tokens the model has places for; RoBERTa-type models keep the places up to the padding id for padding."""
    limit: int | None = getattr(backbone.config, "max_position_embeddings", None)
    for name, module in backbone.named_modules():
        if limit is not None and name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return limit - (0 if module.padding_idx is None else module.padding_idx + 1)
    return limit


def choose_trainable(encoder: TextEncoder, config: EncoderConfig) -> list[nn.Parameter]:
    """Freeze all but what `config.train` names, or all but the adapter; returns the parameters left to train.

    norms_and_biases is BitFit with the norms (Ben Zaken et al. 2021, https://arxiv.org/abs/2106.10199). Raises RecipeError
    where the layers of the model are fewer than asked for.
    """
    encoder.requires_grad_(False)
    for parameter in _parameters_to_train(encoder, config):
        parameter.requires_grad_(True)
    return [parameter for parameter in encoder.parameters() if parameter.requires_grad]


def chosen_layers(encoder: TextEncoder, config: EncoderConfig) -> list[nn.Module]:
    """The layers that `config.train` names, bottom first. Raises RecipeError where there are not so many."""
    layers = transformer_layers(encoder)
    n_layers, n_most = config.n_layers, len(layers) - (config.train == "all_but_first")
    if config.train in ("last_layers", "all_but_first") and n_layers > n_most:
        raise RecipeError(
            f"encoder.n_layers is {n_layers}, and {config.name} has {len(layers)} layers. "
            "Lower it, or set encoder.train to 'all'"
        )
    match config.train:
        case "last_layers":
            return layers[-n_layers:]
        case "all_but_first":
            return layers[n_layers:]
        case "none":
            return []
        case _:
            return layers


def _parameters_to_train(encoder: TextEncoder, config: EncoderConfig) -> list[nn.Parameter]:
    if encoder.adapter_names:
        return [encoder.backbone.get_parameter(name) for name in encoder.adapter_names]
    in_layers = [p for layer in chosen_layers(encoder, config) for p in layer.parameters()]
    match config.train:
        case "all":
            return list(encoder.parameters())
        case "norms_and_biases":
            return norms_and_biases(encoder)
        case "all_but_embeddings" | "all_but_first":
            return in_layers + parameter_parts(encoder).above
        case _:
            return in_layers


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
