"""Augment: variants of the catalog's texts for training, made and encoded once."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lmrec.artifacts.files import fingerprint_files, write_json
from lmrec.artifacts.pretrained import cache_folder
from lmrec.data.sources.registry import fetch_dataset
from lmrec.fields import Ragged
from lmrec.models.encoder import TextEncoder, encode_tokens
from lmrec.progress import progress_bar
from lmrec.recipe import AugmentConfig
from lmrec.text.augment import TextAugmenter, Translate, WordAugmentConfig
from lmrec.text.tokens import tokenize_texts
from lmrec.text.translate import load_translator
from lmrec.text.wordnet import read_synonyms
from lmrec.training.variants import TextVariants
from lmrec.workflows.encode import PretrainedText, untuned_vectors

_MAX_TRANSLATED_TOKENS = 256
_DRAWN = "by text"  # how words are sampled: what was kept of another way is not used


def load_augmenter(config: WordAugmentConfig, seed: int, max_tokens: int, show: bool = True) -> TextAugmenter:
    """What makes variants, with its WordNet and its translators. Fetches WordNet where no folder of it is given."""
    synonyms = {}
    if config.synonyms:
        folder = Path(config.wordnet) if config.wordnet else fetch_dataset("wordnet", cache_folder() / "data")
        synonyms = read_synonyms(folder)
    translate = None
    if config.back_translate:
        there, back = config.back_translate
        translate = _back_translation(there, back, min(2 * max_tokens, _MAX_TRANSLATED_TOKENS), show)
    return TextAugmenter(config, seed, synonyms, translate)


def vary_texts(
    source: PretrainedText, config: WordAugmentConfig, seed: int, show: bool = True
) -> PretrainedText | None:
    """The source with V * N texts in place of its N, variant after variant; None where nothing is to be augmented."""
    if not config.any:
        return None
    augmenter = load_augmenter(config, seed, source.config.max_tokens, show)
    texts = [text for variant in augmenter.vary(source.texts) for text in variant]
    return replace(source, texts=texts, tokens=tokenize_texts(source.tokenizer, texts, source.config.max_tokens))


def untuned_variants(varied: PretrainedText, n_items: int, encoder: TextEncoder, show: bool) -> TextVariants:
    """The variants' vectors by the model that tuning begins with, which is `encoder`, from the cache where they are known."""
    tokens, batch_tokens = varied.tokens.ids, varied.config.batch_tokens
    # With a prefix that is not the un-tuned model, see begin_tuning, and the cache knows that one alone.
    if varied.config.adapter.kind == "prefix":
        return TextVariants(_encode(tokens, n_items, encoder, batch_tokens, show), tokens)
    vectors = untuned_vectors(varied, varied.load_encoder(), show)
    return TextVariants(vectors.view(-1, n_items, vectors.shape[1]), tokens)


def tuned_variants(variants: TextVariants, encoder: TextEncoder, batch_tokens: int, show: bool) -> TextVariants:
    """The same variants as a tuned model sees them."""
    return replace(variants, text_vec=_encode(variants.tokens, variants.n_items, encoder, batch_tokens, show))


def _encode(tokens: Ragged, n_items: int, encoder: TextEncoder, batch_tokens: int, show: bool) -> Tensor:
    """(V, N, Dt)."""
    with progress_bar("encode variants", show) as bar:
        device = next(encoder.parameters()).device
        vectors = torch.from_numpy(encode_tokens(encoder, tokens, batch_tokens, device, bar))
    return vectors.view(-1, n_items, vectors.shape[1])


def describe_augmentation(config: AugmentConfig, source: PretrainedText, varied: PretrainedText | None) -> list[str]:
    """Notes of a fit: what training reads, with one example."""
    notes = []
    if varied is not None:
        n_items = len(source.texts)
        example = next((i for i in range(n_items) if varied.texts[i] != source.texts[i]), 0)
        notes.append(
            f"training also reads {config.words.variants} variants of each of the {n_items:,} item texts (augment.words), such "
            f"as '{varied.texts[example][:80]}' for '{source.texts[example][:80]}'; judging and serving do not"
        )
    if config.history.kinds:
        notes.append(
            f"{config.history.share:.0%} of the training histories are changed ({', '.join(config.history.kinds)}; "
            "augment.history); judging and serving read them as they are"
        )
    return notes


def _back_translation(there: str, back: str, max_tokens: int, show: bool) -> Translate:
    """Through both models; what was translated before comes from the cache."""

    def translate(texts: Sequence[str], seed: int) -> list[str]:
        name = _translation_name((there, back), texts, seed, max_tokens)
        file = cache_folder() / "translations" / f"{name}.json"
        if file.exists():
            found: list[str] = json.loads(file.read_text(encoding="utf-8"))
            return found
        with progress_bar("translate there", show) as bar:
            said = load_translator(there, max_tokens).translate(texts, seed, bar)
        with progress_bar("translate back", show) as bar:
            said = load_translator(back, max_tokens).translate(said, seed, bar)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, said)
        return said

    return translate


def _translation_name(models: tuple[str, str], texts: Sequence[str], seed: int, max_tokens: int) -> str:
    weights = [sorted(Path(model).glob("*.safetensors")) for model in models]
    made_by = [fingerprint_files(*files) if files else model for files, model in zip(weights, models, strict=True)]
    return hashlib.sha256(json.dumps([_DRAWN, made_by, list(texts), seed, max_tokens]).encode()).hexdigest()[:32]
