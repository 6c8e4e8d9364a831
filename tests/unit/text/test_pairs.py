"""Pairs at token level: what is cut where room is short, and what never is."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Metaspace
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from lmrec.errors import RecipeError
from lmrec.fields import Ragged
from lmrec.text.pairs import (
    DEFAULT_PROMPT,
    NEXT_PROMPT,
    PairLayout,
    build_layout,
    join_pairs,
    join_prefix,
    split_prompt,
    tokenize_parts,
)
from lmrec.text.tokens import load_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

LAYOUT = PairLayout(before=(2,), between=(3,), after=(4,), separator=(9,))
PARTS = Ragged.from_rows([[10, 11], [20], [30, 31, 32], [40, 41]])


def join(history: list[int], items: list[int], max_tokens: int) -> tuple[list[list[int]], list[int], int]:
    pairs = join_pairs(LAYOUT, PARTS, Ragged.from_rows([history]), Ragged.from_rows([items]), max_tokens)
    return [pairs.ids[at].tolist() for at in range(len(pairs))], pairs.item_start.tolist(), pairs.n_cut


def test_the_newest_item_comes_first_and_the_item_begins_where_it_is_said() -> None:
    rows, starts, n_cut = join([0, 1, 2], [3], 50)
    assert rows == [[2, 30, 31, 32, 9, 20, 9, 10, 11, 3, 40, 41, 4]]
    assert starts == [10]
    assert n_cut == 0


@pytest.mark.parametrize(
    ("max_tokens", "history"),
    [
        (12, [30, 31, 32, 9, 20, 9, 10]),
        (10, [30, 31, 32, 9, 20]),
        (8, [30, 31, 32]),
        (6, [30]),
        (5, []),
    ],
)
def test_the_oldest_words_go_first_and_the_item_stays_whole(max_tokens: int, history: list[int]) -> None:
    rows, _, n_cut = join([0, 1, 2], [3], max_tokens)
    assert rows == [[2, *history, 3, 40, 41, 4]]
    assert n_cut == 1


@pytest.mark.parametrize(
    ("max_tokens", "known"), [(50, [7, 8, 9, 20, 9, 10, 11]), (9, [7, 8, 9, 20]), (8, [7, 8]), (7, [7, 8])]
)
def test_words_of_a_user_come_first_and_stay_whole(max_tokens: int, known: list[int]) -> None:
    users, history, items = Ragged.from_rows([[7, 8], []]), Ragged.from_rows([[0, 1]] * 2), Ragged.from_rows([[3]] * 2)
    pairs = join_pairs(LAYOUT, PARTS, history, items, max_tokens, users)
    assert pairs.ids[0].tolist() == [2, *known, 3, 40, 41, 4]
    assert pairs.item_start[0] == 2 + len(known)
    assert pairs.ids[1].tolist() == join([0, 1], [3], max_tokens)[0][0]
    prefix, own = join_prefix(LAYOUT, PARTS, np.array([0, 1]), np.array([3]), max_tokens, np.array([7, 8]))
    assert (prefix.tolist(), own[0].tolist()) == ([2, *known, 3], [40, 41])


def test_a_user_and_an_item_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        RecipeError, match="an item's text takes 2 tokens, the user's words 2, beside 3 fixed ones: neither"
    ):
        join_pairs(LAYOUT, PARTS, Ragged.from_rows([[0]]), Ragged.from_rows([[3]]), 6, Ragged.from_rows([[7, 8]]))


def test_a_longer_item_leaves_less_room_to_the_same_history() -> None:
    rows, _, _ = join([0, 1], [3, 2], 8)
    assert rows == [[2, 20, 9, 10, 3, 40, 41, 4], [2, 20, 9, 3, 30, 31, 32, 4]]


def test_an_item_that_does_not_fit_is_refused() -> None:
    with pytest.raises(RecipeError, match="reranker.max_tokens is 5, and an item's text takes 3 tokens beside 3 fixed"):
        join([0], [2], 5)


def test_a_history_longer_than_the_budget_is_not_read_to_its_end() -> None:
    long = list(np.tile([0, 1, 2], 1000))
    rows, _, n_cut = join(long, [3], 20)
    assert len(rows[0]) == 20
    assert n_cut == 1


def test_nothing_known_is_an_empty_history() -> None:
    assert join([], [3], 10)[0] == [[2, 3, 40, 41, 4]]


def test_special_tokens_for_a_bert_type_and_a_prompt_for_a_gpt_type(
    tiny_tokenizer: PreTrainedTokenizerFast, tiny_gpt: "Path"
) -> None:
    bert = build_layout(tiny_tokenizer, " | ")
    assert (bert.before, bert.between, bert.after) == ((2,), (3,), (3,))
    assert len(bert.separator) == 1
    tokenizer = load_tokenizer(tiny_gpt)
    gpt = build_layout(tokenizer, " | ")
    before, between, after = split_prompt(DEFAULT_PROMPT)
    assert list(gpt.before) == tokenizer(before, add_special_tokens=False)["input_ids"]
    assert list(gpt.between) == tokenizer(between, add_special_tokens=False)["input_ids"]
    assert gpt.after[-1] != tokenizer.pad_token_id  # a GPT-type classifier reads the last token that is not padding
    assert list(gpt.after) == tokenizer(after, add_special_tokens=False)["input_ids"]


def test_a_prompt_of_ones_own_stands_between_the_special_tokens(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    layout = build_layout(tiny_tokenizer, " | ", "a {history} b {item} c")
    a, b, c = (tiny_tokenizer.convert_tokens_to_ids(letter) for letter in "abc")
    assert (layout.before, layout.between, layout.after) == ((2, a), (b,), (c, 3))


def byte_level() -> Tokenizer:
    made = Tokenizer(BPE(unk_token="?"))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.decoder = ByteLevelDecoder()
    made.train_from_iterator([WORDS] * 3, BpeTrainer(vocab_size=400, initial_alphabet=ByteLevel.alphabet()))
    return made


def sentence_piece(prepend: Literal["always", "first", "never"]) -> Tokenizer:
    """As of Llama 2 and Mistral: a blank is put before a text, and is part of its first word."""
    made = Tokenizer(BPE(unk_token="?"))
    made.pre_tokenizer = Metaspace(prepend_scheme=prepend)
    made.train_from_iterator([WORDS] * 3, BpeTrainer(vocab_size=400))
    return made


WORDS = "Liked,newest first:Next Candidate Would they choose it yes or no Answer lamp red blue chair a b | ? . , \n"
KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte level": byte_level,
    "always": partial(sentence_piece, "always"),
    "first": partial(sentence_piece, "first"),
    "never": partial(sentence_piece, "never"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", [DEFAULT_PROMPT, NEXT_PROMPT, "Liked: {history}. Next: {item}?"])
def test_a_row_is_read_as_the_whole_text_is(prompt: str, kind: str) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=KINDS[kind]())  # type: ignore[no-untyped-call]
    layout = build_layout(tokenizer, " | ", prompt)
    parts = tokenize_parts(tokenizer, ["red lamp", "blue lamp", "a chair"])
    history, item = Ragged.from_rows([[0, 1]]), Ragged.from_rows([[2]])
    text = prompt.replace("{history}", "blue lamp | red lamp").replace("{item}", "a chair")
    assert join_pairs(layout, parts, history, item, 99).ids[0].tolist() == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("prompt", ["{item} {history}", "{history}", "{item}", "{history} {history} {item}", "none"])
def test_a_prompt_without_both_parts_in_order_is_refused(prompt: str) -> None:
    with pytest.raises(RecipeError, match="reranker.prompt"):
        split_prompt(prompt)


def test_parts_are_tokens_without_special_ones(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    parts = tokenize_parts(tiny_tokenizer, ["a b", "", "c"])
    assert parts.lengths.tolist() == [2, 0, 1]
