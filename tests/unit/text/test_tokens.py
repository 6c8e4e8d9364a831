"""Tokens: the budget holds for every text, and what was cut is counted."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrec.errors import RecipeError
from lmrec.text.tokens import load_tokenizer, tokenize_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def gpt_tokenizer(tiny_gpt: Path) -> "PreTrainedTokenizerBase":
    return load_tokenizer(tiny_gpt)


@given(texts=st.lists(st.text("rocket whale,. x9", max_size=40), max_size=6), max_tokens=st.integers(3, 20))
def test_no_text_exceeds_the_budget_and_the_cut_ones_are_counted(
    tiny_tokenizer: "PreTrainedTokenizerFast", texts: list[str], max_tokens: int
) -> None:
    tokens = tokenize_texts(tiny_tokenizer, texts, max_tokens)
    whole = [len(tiny_tokenizer(text)["input_ids"]) for text in texts]
    assert tokens.ids.lengths.tolist() == [min(length, max_tokens) for length in whole]
    assert tokens.n_cut == sum(length > max_tokens for length in whole)


def test_a_cut_text_keeps_its_beginning_and_its_special_tokens(tiny_tokenizer: "PreTrainedTokenizerFast") -> None:
    whole = tiny_tokenizer("rocket whale tiger queen")["input_ids"]
    cut = tokenize_texts(tiny_tokenizer, ["rocket whale tiger queen"], 4).ids[0].tolist()
    assert cut == [CLS, whole[1], whole[2], SEP]


def test_a_text_that_fits_exactly_is_not_cut(tiny_tokenizer: "PreTrainedTokenizerFast") -> None:
    assert tokenize_texts(tiny_tokenizer, ["rocket whale"], 4).n_cut == 0
    assert tokenize_texts(tiny_tokenizer, ["rocket whale tiger"], 4).n_cut == 1


def test_a_blank_text_is_its_special_tokens_alone(tiny_tokenizer: "PreTrainedTokenizerFast") -> None:
    assert tokenize_texts(tiny_tokenizer, ["", "  "], 8).ids[0].tolist() == [CLS, SEP]


def test_a_blank_text_without_special_tokens_is_one_end_token(gpt_tokenizer: "PreTrainedTokenizerBase") -> None:
    tokens = tokenize_texts(gpt_tokenizer, ["", "rocket"], 8)
    assert tokens.ids[0].tolist() == [gpt_tokenizer.eos_token_id]
    assert tokens.ids.lengths.tolist() == [1, 1]


def test_a_budget_that_special_tokens_use_up_is_refused(tiny_tokenizer: "PreTrainedTokenizerFast") -> None:
    with pytest.raises(RecipeError, match=r"encoder.max_tokens is 2, and special tokens alone take 2"):
        tokenize_texts(tiny_tokenizer, ["rocket"], 2)


def test_no_texts_have_no_tokens(tiny_tokenizer: "PreTrainedTokenizerFast") -> None:
    tokens = tokenize_texts(tiny_tokenizer, [], 8)
    assert (len(tokens.ids), tokens.n_cut) == (0, 0)


def test_order_holds_across_blocks_of_texts(tiny_tokenizer: "PreTrainedTokenizerFast") -> None:
    texts = ["rocket", "whale tiger"] * 2100  # more than one block of 4096
    tokens = tokenize_texts(tiny_tokenizer, texts, 8)
    assert tokens.ids.lengths.tolist() == [3, 4] * 2100


def test_a_tokenizer_without_padding_gets_its_end_token_for_it(gpt_tokenizer: "PreTrainedTokenizerBase") -> None:
    assert gpt_tokenizer.pad_token_id == gpt_tokenizer.eos_token_id


def test_a_name_that_leads_to_no_tokenizer_is_wrong_input(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"(?s)tokenizer of encoder.name .* could not be loaded.*folder with config.json"
    ):
        load_tokenizer(tmp_path)
