"""Words of a domain that a tokenizer cuts to pieces, made tokens of their own.

A word that a catalog says often and that the tokenizer splits into many pieces costs room in every text and has no vector of
its own. The words that would save the most tokens are added; who grows the model starts each new vector at the mean of its
pieces' (Hewitt 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html).
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORD = re.compile(r"[^\W_]+")
_HAS_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class NewWord:
    """count: how often the catalog says it; pieces: the token ids that it was until now."""

    word: str
    count: int
    pieces: tuple[int, ...]

    @property
    def saved(self) -> int:
        """Tokens that the catalog's texts lose where the word is one token."""
        return self.count * (len(self.pieces) - 1)


def choose_new_words(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], n_most: int, min_count: int, min_pieces: int
) -> list[NewWord]:
    """At most `n_most` words with a letter, said at least `min_count` times and cut into at least `min_pieces`, that the
    tokenizer has no token of: one that it has without the space before it is a piece of other words, whose vector stays.

    The most saved tokens first, then by spelling.
    """
    lowers = tokenizer.tokenize("LMREC") == tokenizer.tokenize("lmrec")
    said = Counter(word for text in texts for word in _WORD.findall(text.lower() if lowers else text))
    frequent = [(word, n) for word, n in said.items() if n >= min_count and _HAS_LETTER.search(word)]
    unknown, tokens = tokenizer.unk_token_id, tokenizer.get_vocab()
    found = []
    for word, n in frequent:
        # With a space before it, as in a text: tokenizers of the GPT type spell that into the token.
        pieces = tuple(tokenizer(f" {word}", add_special_tokens=False)["input_ids"])
        if len(pieces) >= min_pieces and unknown not in pieces and word not in tokens:
            found.append(NewWord(word, n, pieces))
    return sorted(found, key=lambda new: (-new.saved, new.word))[:n_most]


def add_new_words(tokenizer: "PreTrainedTokenizerBase", words: Sequence[NewWord]) -> list[int]:
    """Teach the tokenizer the words, in place; their ids, in the same order."""
    from tokenizers import AddedToken

    # lstrip: the space before the word is part of the token, where tokens have spaces.
    tokenizer.add_tokens([AddedToken(new.word, single_word=True, lstrip=True, normalized=True) for new in words])
    known = tokenizer.get_vocab()
    return [known[new.word] for new in words]
