"""Variants of texts: seeded, from the text alone, and never more than was asked for."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lmrec.text.augment import TextAugmenter, WordAugmentConfig, delete_words, replace_words, swap_words

SYNONYMS = {"film": ("movie", "motion picture"), "quiet": ("silent",), "so": ("thus",)}
TEXT = "A quiet film (1995). Drama, about a quiet Film"
texts = st.text("ab c.,(é'-", max_size=30)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def words_of(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’-]\w+)*", text)


@given(text=texts, seed=st.integers(0, 50), share=st.floats(0, 1))
def test_swapping_keeps_every_word_and_all_that_stands_between(text: str, seed: int, share: float) -> None:
    swapped = swap_words(text, share, rng(seed))
    assert sorted(words_of(swapped)) == sorted(words_of(text))
    assert re.sub(r"\w+(?:['’-]\w+)*", "_", swapped) == re.sub(r"\w+(?:['’-]\w+)*", "_", text)


@given(text=texts, seed=st.integers(0, 50), chance=st.floats(0, 0.99))
def test_deleting_keeps_the_order_and_one_word_at_least(text: str, seed: int, chance: float) -> None:
    left, all_words = words_of(delete_words(text, chance, rng(seed))), iter(words_of(text))
    assert all(word in all_words for word in left)
    assert bool(left) == bool(words_of(text))


def test_synonyms_keep_the_case_and_leave_small_words_and_others_alone() -> None:
    changed = replace_words(TEXT, SYNONYMS, 1.0, rng(1))
    assert re.fullmatch(
        r"A silent (movie|motion picture) \(1995\)\. Drama, about a silent (Movie|Motion picture)", changed
    )
    assert replace_words("so FILM", {**SYNONYMS, "film": ("movie",)}, 1.0, rng()) == "so MOVIE"
    one = replace_words(TEXT, SYNONYMS, 0.01, rng())
    assert sum(a != b for a, b in zip(words_of(one), words_of(TEXT), strict=False)) >= 1
    assert replace_words("nothing known", SYNONYMS, 1.0, rng()) == "nothing known"


def test_a_variant_follows_from_the_seed_its_number_and_the_text_alone() -> None:
    config = WordAugmentConfig(synonyms=0.3, swap=0.2, delete=0.2, variants=3)
    variants = TextAugmenter(config, 0, SYNONYMS).vary([TEXT, "Other words here"])
    assert variants == TextAugmenter(config, 0, SYNONYMS).vary([TEXT, "Other words here"])
    alone = TextAugmenter(config, 0, SYNONYMS).vary([TEXT])
    assert [variant[0] for variant in variants] == [variant[0] for variant in alone]
    assert len({variant[0] for variant in variants}) == 3
    assert variants != TextAugmenter(config, 1, SYNONYMS).vary([TEXT, "Other words here"])


def test_translation_comes_first_with_another_seed_for_each_variant() -> None:
    asked: list[int] = []

    def translate(texts: Sequence[str], seed: int) -> list[str]:
        asked.append(seed)
        return [f"film {seed}" for _ in texts]

    config = WordAugmentConfig(synonyms=1.0, variants=2, back_translate=("there", "back"))
    assert TextAugmenter(config, 5, {"film": ("movie",)}, translate).vary(["a", "b"]) == [
        ["movie 5", "movie 5"],
        ["movie 6", "movie 6"],
    ]
    assert asked == [5, 6]


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValidationError, match="names 1 models: give two"):
        WordAugmentConfig(back_translate=("there",))
