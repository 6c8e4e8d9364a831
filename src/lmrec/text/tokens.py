"""From strings to token ids under a budget, and a word on what was cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmrec.errors import RecipeError
from lmrec.fields import Ragged

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
    """Each text once, cut at `max_tokens`. A blank text becomes the special tokens alone (or one end token)."""
    special = tokenizer.num_special_tokens_to_add()
    if max_tokens <= special:
        raise RecipeError(
            f"encoder.max_tokens is {max_tokens}, and special tokens alone take {special}. Give more room"
        )
    rows: list[list[int]] = []
    n_cut = 0
    for start in range(0, len(texts), 4096):
        batch = list(texts[start : start + 4096])
        full = tokenizer(batch, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        n_cut += sum(len(ids) > max_tokens - special for ids in full)
        kept = tokenizer(batch, truncation=True, max_length=max_tokens)["input_ids"]
        rows += [ids if ids else [int(tokenizer.pad_token_id or 0)] for ids in kept]
    return Tokens(Ragged.from_rows([np.asarray(ids, np.int64) for ids in rows]), n_cut)
