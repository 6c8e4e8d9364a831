"""The catalog's words as vectors of a language model, encoded once and kept in the cache by fingerprint."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor

from lmrec.artifacts.files import fingerprint_files, replaced_folder
from lmrec.artifacts.pretrained import cache_folder, locate_pretrained
from lmrec.data.catalog import Catalog
from lmrec.models.adaptation import attach_adapter, share_weights
from lmrec.models.encoder import EncoderConfig, TextEncoder, choose_trainable, encode_tokens, load_encoder
from lmrec.progress import progress_bar
from lmrec.text.template import Template
from lmrec.text.tokens import Tokens, load_tokenizer, tokenize_texts

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

    def load_encoder(self) -> TextEncoder:
        return load_encoder(self.location, self.config)


def read_texts(catalog: Catalog, template: Template, config: EncoderConfig) -> PretrainedText:
    """Render and tokenise the catalog. Fetches the language model on first use."""
    location = locate_pretrained(config.name)
    tokenizer = load_tokenizer(location)
    texts = template.render_items(catalog.frame)
    return PretrainedText(location, config, tokenizer, texts, tokenize_texts(tokenizer, texts, config.max_tokens))


def begin_tuning(source: PretrainedText, seed: int, show: bool) -> tuple[TextEncoder, Tensor]:
    """The language model as a training begins with it, with its adapter and with what learns chosen, and its vectors (N, Dt).

    Raises RecipeError, before anything is encoded, where it cannot be tuned as its config asks.
    """
    base = source.load_encoder()
    encoder = base
    if source.config.adapter.kind != "none":
        encoder = share_weights(base)
        torch.manual_seed(seed)
        attach_adapter(encoder, source.config)
    choose_trainable(encoder, source.config)
    text_vec = untuned_vectors(source, base, show)
    if source.config.adapter.kind == "prefix":  # the one adapter that is not the identity before it has learnt
        text_vec = _encode(source, encoder, "encode with prefix", show)
    return encoder, text_vec


def untuned_vectors(source: PretrainedText, encoder: TextEncoder, show: bool) -> Tensor:
    """(N, Dt) vectors of the un-tuned model; `encoder` must be as loaded. Reused from the cache where they are known."""
    from safetensors.torch import save_file

    folder = cache_folder() / "vectors" / _fingerprint(source)
    file = folder / "text_vec.safetensors"
    cached = _read_cached(file)
    if cached is not None:
        return cached
    text_vec = _encode(source, encoder, "encode catalog", show)
    with replaced_folder(folder) as fresh:
        save_file({"text_vec": text_vec}, fresh / file.name)
    return text_vec


def _encode(source: PretrainedText, encoder: TextEncoder, label: str, show: bool) -> Tensor:
    with progress_bar(label, show) as bar:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        vectors = encode_tokens(encoder.to(device), source.tokens.ids, source.config.batch_tokens, device, bar)
    return torch.from_numpy(vectors)


def _read_cached(file: Path) -> Tensor | None:
    """None where the entry is absent or damaged: then it is made anew."""
    from safetensors.torch import load_file

    try:
        return load_file(file)["text_vec"] if file.exists() else None
    except (SafetensorError, KeyError, OSError):
        return None


def _fingerprint(source: PretrainedText) -> str:
    """Of all that decides the vectors: weights (or hub name), pooling, and the very tokens."""
    folder = Path(source.location)
    weights = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    digest = hashlib.sha256(f"{source.location if not weights else fingerprint_files(*weights)}".encode())
    digest.update(source.config.pooling.encode())
    digest.update(source.tokens.ids.values.tobytes())
    digest.update(source.tokens.ids.offsets.tobytes())
    return digest.hexdigest()[:32]
