"""Other ways to say an item: synonyms, words swapped and left out, and texts translated there and back.

Wei & Zou 2019, "EDA: Easy Data Augmentation Techniques", https://arxiv.org/abs/1901.11196 (their random insertion is
left out: it adds words that the item has not). Every variant of a text follows from the seed, the variant's number and the
text alone. Augmentation is for training; what is validated, judged and served reads the texts as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lmrec.text.words import SMALL_WORDS, WORD

Translate = Callable[[Sequence[str], int], list[str]]  # (texts, seed) -> the same texts, said otherwise


class WordAugmentConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    synonyms: float = Field(
        default=0.0, ge=0, le=1, description="Share of a text's words replaced by a WordNet synonym; English."
    )
    swap: float = Field(default=0.0, ge=0, le=1, description="Swaps of two words, as a share of a text's words.")
    delete: float = Field(default=0.0, ge=0, lt=1, description="Chance of each word to be left out; one word stays.")
    back_translate: tuple[str, ...] = Field(
        default=(),
        description="Two sequence-to-sequence models, there and back: folders or hub names. Texts are translated first.",
    )
    variants: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Variants made of each text; each step draws one of them, or the text itself.",
    )
    wordnet: str | None = Field(
        default=None, description="Folder of WordNet's files; unset: `lmrec data fetch wordnet`."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.back_translate) not in (0, 2):
            raise ValueError(
                f"augment.words.back_translate names {len(self.back_translate)} models: give two, one there and one back"
            )
        return self

    @property
    def any(self) -> bool:
        """Whether texts are changed at all."""
        return bool(self.synonyms or self.swap or self.delete or self.back_translate)


@dataclass(frozen=True)
class TextAugmenter:
    """Makes variants of texts. synonyms: word -> words of the same meaning; translate: there and back, where asked for."""

    config: WordAugmentConfig
    seed: int
    synonyms: Mapping[str, tuple[str, ...]]
    translate: Translate | None = None

    def vary(self, texts: Sequence[str]) -> list[list[str]]:
        """`config.variants` lists, each with one variant of every text, in the order of the texts."""
        return [self._variant(texts, number) for number in range(self.config.variants)]

    def _variant(self, texts: Sequence[str], number: int) -> list[str]:
        said = self.translate(texts, self.seed + number) if self.translate is not None else texts
        # Drawn from the text itself, so that a variant does not depend on what else the catalog holds.
        return [self._change(text, rng_of(text, self.seed, number)) for text in said]

    def _change(self, text: str, rng: np.random.Generator) -> str:
        config = self.config
        text = replace_words(text, self.synonyms, config.synonyms, rng)
        text = swap_words(text, config.swap, rng)
        return delete_words(text, config.delete, rng)


def replace_words(text: str, synonyms: Mapping[str, Sequence[str]], share: float, rng: np.random.Generator) -> str:
    """The text with that share of its words (at least one) put in other words, as far as synonyms are known.

    >>> replace_words("A Film about it", {"film": ("movie",)}, 0.1, np.random.default_rng(0))
    'A Movie about it'
    """
    places = [match.span() for match in WORD.finditer(text)]
    able = [span for span in places if (word := text[slice(*span)].lower()) in synonyms and word not in SMALL_WORDS]
    if not share or not able:
        return text
    chosen = rng.permutation(len(able))[: max(1, round(share * len(places)))]
    for start, stop in sorted((able[i] for i in chosen), reverse=True):
        word = text[start:stop]
        options = synonyms[word.lower()]
        text = text[:start] + _in_case_of(word, options[int(rng.integers(len(options)))]) + text[stop:]
    return text


def swap_words(text: str, share: float, rng: np.random.Generator) -> str:
    """The text with that many swaps of two of its words (at least one); what stands between words stays.

    >>> swap_words("dark, light", 0.5, np.random.default_rng(0))
    'light, dark'
    """
    words, between = _split(text)
    if not share or len(words) < 2:
        return text
    for _ in range(max(1, round(share * len(words)))):
        one, other = rng.choice(len(words), 2, replace=False)
        words[one], words[other] = words[other], words[one]
    return _join(words, between)


def delete_words(text: str, chance: float, rng: np.random.Generator) -> str:
    """The text with each word left out by that chance, with what stands before it; one word always stays.

    >>> delete_words("A quiet film. Drama", 0.5, np.random.default_rng(1))
    'A quiet. Drama'
    """
    words, between = _split(text)
    if not chance or not words:
        return text
    stays = rng.random(len(words)) >= chance
    if not stays.any():
        stays[rng.integers(len(words))] = True
    kept = np.flatnonzero(stays)
    first, *rest = kept
    opening = between[0] if first == 0 else ""
    return opening + words[first] + "".join(between[i] + words[i] for i in rest) + between[-1]


def _split(text: str) -> tuple[list[str], list[str]]:
    """W words and the W + 1 stretches before, between and after them."""
    spans = [match.span() for match in WORD.finditer(text)]
    edges = [(0, 0), *spans, (len(text), len(text))]
    return [text[slice(*span)] for span in spans], [text[left[1] : right[0]] for left, right in pairwise(edges)]


def _join(words: Sequence[str], between: Sequence[str]) -> str:
    return between[0] + "".join(word + gap for word, gap in zip(words, between[1:], strict=True))


def _in_case_of(word: str, other: str) -> str:
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other[:1].upper() + other[1:] if word[:1].isupper() else other


def rng_of(text: str, *numbers: int) -> np.random.Generator:
    """What is drawn for a text, whatever other texts there are."""
    digest = int.from_bytes(sha256(text.encode()).digest()[:8], "little")
    return np.random.default_rng((*numbers, digest))
