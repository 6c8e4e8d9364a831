"""The catalog's words as vectors of a language model, encoded once and kept in the cache by fingerprint."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lmrec.artifacts.encoder_files import exported_folder, fingerprint_encoder
from lmrec.artifacts.pretrained import cache_folder, locate_pretrained
from lmrec.artifacts.vector_cache import VectorCache, text_keys
from lmrec.data.catalog import Catalog
from lmrec.models.adaptation import attach_adapter, share_weights
from lmrec.models.encoder import (
    EncoderConfig,
    TextEncoder,
    choose_trainable,
    encode_tokens,
    load_encoder,
    unique_rows,
)
from lmrec.models.runtime import candidates, encode_batches, held_runtime
from lmrec.progress import progress_bar
from lmrec.text.template import Template
from lmrec.text.tokens import Tokens, load_tokenizer, tokenize_texts
from lmrec.training.optimizer import check_layer_decay

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class PretrainedText:
    """A pretrained language model bound to a catalog: its tokenizer, the items' texts and tokens, and where it lies."""

    location: Path | str
    config: EncoderConfig
    tokenizer: "PreTrainedTokenizerBase"
    texts: list[str]
    tokens: Tokens

    @property
    def fingerprint(self) -> str:
        """Of the model as it lies there now."""
        return fingerprint_encoder(self.location, self.config.pooling)

    def load_encoder(self) -> TextEncoder:
        return load_encoder(self.location, self.config)


def read_texts(catalog: Catalog, template: Template, config: EncoderConfig) -> PretrainedText:
    """Render and tokenise the catalog. Fetches the language model on first use."""
    location = locate_pretrained(config.name)
    tokenizer = load_tokenizer(location)
    texts = template.render_items(catalog.frame)
    return PretrainedText(location, config, tokenizer, texts, tokenize_texts(tokenizer, texts, config.max_tokens))


def begin_tuning(source: PretrainedText, seed: int, show: bool, layer_decay: float = 1.0) -> tuple[TextEncoder, Tensor]:
    """The language model as a training begins with it, with its adapter and with what learns chosen, and its vectors (N, Dt).

    layer_decay: of its rates, where it is going to learn. Raises RecipeError, before anything is encoded, where it cannot be
    tuned as its config asks.
    """
    base = source.load_encoder()
    encoder = base
    if source.config.adapter.kind != "none":
        encoder = share_weights(base)
        torch.manual_seed(seed)
        attach_adapter(encoder, source.config)
    choose_trainable(encoder, source.config)
    check_layer_decay(encoder, layer_decay, source.config.name)
    text_vec = untuned_vectors(source, base, show)
    if source.config.adapter.kind == "prefix":  # the one adapter that is not the identity before it has learnt
        with progress_bar("encode with prefix", show) as bar:
            tokens, device = source.tokens.ids, torch.device("cuda" if torch.cuda.is_available() else "cpu")
            text_vec = torch.from_numpy(
                encode_tokens(encoder.to(device), tokens, source.config.batch_tokens, device, bar)
            )
    return encoder, text_vec


def untuned_vectors(source: PretrainedText, encoder: TextEncoder, show: bool) -> Tensor:
    """(N, Dt) vectors of the un-tuned model; `encoder` must be as loaded.

    Each text is encoded once and kept: a grown catalog costs its new texts, and an interrupted call what is left.
    """
    config, tokens = source.config, source.tokens.ids
    model = source.fingerprint
    unique, place = unique_rows(tokens)
    keys = text_keys(tokens.take(unique))
    for name in candidates(config.runtime):
        cache = VectorCache(cache_folder() / "vectors" / f"{model}-{name}", encoder.width)
        missing = np.flatnonzero(cache.find(keys) < 0)
        if len(missing):
            texts = tokens.take(unique[missing])
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            folder = exported_folder(source.location, config.pooling)
            runtime = held_runtime(name, encoder.to(device), folder, texts)
            if runtime is None:
                continue
            done = 0
            with progress_bar("encode catalog", show) as bar:
                for rows, vectors in encode_batches(runtime, texts, np.arange(len(texts)), config.batch_tokens):
                    cache.append([keys[missing[row]] for row in rows], vectors)
                    done += len(rows)  # batches go by length, not by row
                    bar(done, len(texts))
        return torch.from_numpy(cache.read(cache.find(keys))[place])
    raise AssertionError("torch-fp32 is the last candidate and is never refused")
