"""From strings to token ids under a budget, and a word on what was cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmrec.errors import RecipeError
from lmrec.fields import IntArray, Ragged

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Tokens:
    """Token ids of N texts, special tokens included; `n_cut` texts were longer than the budget."""

    ids: Ragged
    n_cut: int


def load_tokenizer(location: str | Path) -> "PreTrainedTokenizerBase":
    """The tokenizer that came with a language model; code from model repositories is never run.

    Raises RecipeError where the name leads to none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(location), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"the tokenizer of encoder.name '{location}' could not be loaded: {str(error).splitlines()[0]} Give a registry "
            "name, a folder with config.json and the tokenizer's files, or a hub name that this machine can reach"
        ) from error
    if tokenizer.pad_token_id is None:  # GPT-type tokenizers often have none; padding is masked, so any id does
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tokenize_texts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_tokens: int) -> Tokens:
    """Token ids of each text, cut at `max_tokens`: equal texts once, on all cores where the tokenizer is a fast one.

    A blank text becomes the special tokens alone (or one end token).
    """
    special = tokenizer.num_special_tokens_to_add()
    if max_tokens <= special:
        raise RecipeError(
            f"encoder.max_tokens is {max_tokens}, and special tokens alone take {special}. Give more room"
        )
    unique = list(dict.fromkeys(texts))
    rows: list[IntArray] = []
    is_cut = np.zeros(len(unique), np.bool_)
    for start in range(0, len(unique), 4096):
        batch = unique[start : start + 4096]
        found = tokenizer(batch, truncation=True, max_length=max_tokens)
        is_cut[start : start + len(batch)] = _are_cut(tokenizer, batch, found, max_tokens - special)
        rows += [np.asarray(ids or [int(tokenizer.pad_token_id or 0)], np.int64) for ids in found["input_ids"]]
    place_of = {text: place for place, text in enumerate(unique)}
    place = np.fromiter((place_of[text] for text in texts), np.int64, len(texts))
    return Tokens(Ragged.from_rows(rows).take(place), int(is_cut[place].sum()))


def _are_cut(tokenizer: "PreTrainedTokenizerBase", texts: list[str], found: Any, room: int) -> list[bool]:
    """Which of the texts were longer than `room`; a fast tokenizer knows what it has left over."""
    if found.encodings is not None:
        return [bool(encoding.overflowing) for encoding in found.encodings]
    full = tokenizer(texts, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return [len(ids) > room for ids in full]
