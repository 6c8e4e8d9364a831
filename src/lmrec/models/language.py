"""Language models with the head that guesses words: masked (BERT type) or next ones (GPT type).

Where a checkpoint lacks that head, as sentence encoders do, a fresh one is made: the architecture's own, whose last matrix
is tied to the token embeddings.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lmrec.errors import RecipeError

HeadKind = Literal["mlm", "clm"]


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """model: base and head; head_is_new: the checkpoint had none. `base` is what a text encoder reads with."""

    model: Any
    head_is_new: bool

    @property
    def base(self) -> nn.Module:
        base: nn.Module = self.model.base_model
        return base

    def logits_at(self, token_ids: Tensor, token_mask: Tensor, chosen: Tensor) -> Tensor:
        """(N, L) ids, mask and choice of places -> (M, V) logits of the M chosen places, row by row.

        The head, a matrix as wide as the vocabulary, runs at these places alone.
        """
        with _only_at(self.base, chosen):
            logits: Tensor = self.model(input_ids=token_ids, attention_mask=token_mask.long()).logits
        return logits[0]


@contextmanager
def _only_at(base: nn.Module, chosen: Tensor) -> Iterator[None]:
    """Let the base hand on the hidden states of the chosen places only, as one long row: heads work place by place."""

    def pick(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        output["last_hidden_state"] = output["last_hidden_state"][chosen].unsqueeze(0)
        return output

    handle = base.register_forward_hook(pick)
    try:
        yield
    finally:
        handle.remove()


def load_language_model(location: str | Path, kind: HeadKind) -> LanguageModel:
    """Safetensors only; code from model repositories is never run.

    Raises RecipeError where this architecture has no such head, or cannot be read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    try:
        config = AutoConfig.from_pretrained(str(location), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise RecipeError(f"'{location}' is no model that can be read: {str(error).splitlines()[0]}") from error
    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING
    if kind == "mlm" and not masked:
        raise RecipeError(
            f"pretrain.objective 'mlm' hides words, and {config.model_type} reads from left to right: choose 'clm', or a "
            "BERT-type encoder"
        )
    if kind == "clm" and (masked or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING):
        raise RecipeError(
            f"pretrain.objective 'clm' guesses the next word, and {config.model_type} reads in both directions: choose "
            "'mlm', or a GPT-type model"
        )
    auto: Any = AutoModelForMaskedLM if kind == "mlm" else AutoModelForCausalLM
    with quiet_loading():
        model, info = auto.from_pretrained(
            str(location), trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    model = model.float()
    return LanguageModel(model, has_new_head(model, info["missing_keys"]))


def is_tied(model: Any) -> bool:
    """Whether words are guessed by the matrix that they are read with."""
    return bool(model.get_output_embeddings().weight is model.get_input_embeddings().weight)


def has_new_head(model: Any, missing: Sequence[str]) -> bool:
    """Whether something of the head was missing in the checkpoint, and is drawn."""
    outside = [name for name in missing if not name.startswith(f"{model.base_model_prefix}.")]
    words = model.get_input_embeddings().weight
    return any(not (is_tied(model) and model.get_parameter(name) is words) for name in outside)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' report of heads that are made or dropped on purpose."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)


@torch.no_grad()
def grow_vocabulary(model: Any, new_ids: Sequence[int], pieces: Sequence[Sequence[int]]) -> None:
    """Give the model a vector for each new token, the mean of its pieces' vectors, in place."""
    if not new_ids:
        return
    if max(new_ids) >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(max(new_ids) + 1, mean_resizing=False)
    for matrix in _token_matrices(model):
        for new, old in zip(new_ids, pieces, strict=True):
            matrix[new] = matrix[list(old)].mean(0)


def _token_matrices(model: Any) -> list[Tensor]:
    """The embeddings and, where it is another matrix, the head's."""
    embeddings: Tensor = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    return [embeddings] if head is None or head.weight is embeddings else [embeddings, head.weight]
