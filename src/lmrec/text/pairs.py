"""A history and an item as one row of tokens. Where room is short the history loses its oldest words, the item none.

BERT type:  [CLS] newest | older | oldest [SEP] item [SEP]          GPT type: the words of a prompt around the same parts

Words of the user, where there are any, stand before the newest item as one more part that is never cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lmrec.errors import NoRoomError, RecipeError
from lmrec.fields import IntArray, Ragged

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HISTORY: Final = "{history}"
ITEM: Final = "{item}"
DEFAULT_PROMPT: Final = "Liked, newest first: {history}\nCandidate: {item}\nWould they choose it, yes or no?\nAnswer:"
_WORD: Final = "a"
NEXT_PROMPT: Final = "Liked, newest first: {history}\nNext: {item}"  # for the likelihood of an item


@dataclass(frozen=True)
class PairLayout:
    """Token ids around the two parts of a pair, and between two items of a history. Saved with the model that learnt it."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    separator: tuple[int, ...]

    @property
    def n_fixed(self) -> int:
        """Tokens of a pair that are neither history nor item."""
        return len(self.before) + len(self.between) + len(self.after)


@dataclass(frozen=True)
class PairTokens:
    """P pairs. ids: their tokens. item_start: (P,) where the item begins. n_cut: pairs whose history was cut."""

    ids: Ragged
    item_start: IntArray
    n_cut: int

    def __len__(self) -> int:
        return len(self.ids)


def split_prompt(prompt: str) -> tuple[str, str, str]:
    """The words before the history, between it and the item, and after.

    >>> split_prompt("Liked: {history}. Next: {item}?")
    ('Liked: ', '. Next: ', '?')

    Raises RecipeError where a part is missing, comes twice, or the item comes first.
    """
    before, history, rest = prompt.partition(HISTORY)
    between, item, after = rest.partition(ITEM)
    if not history or not item or HISTORY in rest or ITEM in before + after:
        raise RecipeError(
            f"reranker.prompt '{prompt}' must hold {HISTORY} and after it {ITEM}, each once, such as "
            "'Liked: {history}. Next: {item}?'"
        )
    return before, between, after


def build_layout(tokenizer: "PreTrainedTokenizerBase", history_separator: str, prompt: str = "") -> PairLayout:
    """prompt: words with {history} and {item}; empty: the special tokens of a BERT-type tokenizer, or DEFAULT_PROMPT.

    The blank before a part belongs to that part's first word (`tokenize_parts`): by itself it would be a token that no text
    has there.
    """
    (separator,) = _inside(tokenizer, [history_separator.rstrip(" ")])
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    is_bert_type = isinstance(cls, int) and isinstance(sep, int)
    if is_bert_type and not prompt:
        return PairLayout((int(cls),), (int(sep),), (int(sep),), tuple(separator))
    first, *later = split_prompt(prompt or DEFAULT_PROMPT)
    before = tokenizer(first.rstrip(" "), add_special_tokens=False)["input_ids"] if first.strip(" ") else []
    between, after = _inside(tokenizer, [words.rstrip(" ") for words in later])
    if is_bert_type:
        return PairLayout((int(cls), *before), tuple(between), (*after, int(sep)), tuple(separator))
    bos = tokenizer.bos_token_id
    begins = tokenizer(_WORD)["input_ids"][:1] == [bos]  # some GPT-type models want a first token, some know none
    return PairLayout((*((int(bos),) if begins else ()), *before), tuple(between), tuple(after), tuple(separator))


def tokenize_parts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> Ragged:
    """Token ids of texts that will stand inside a row, a blank before each: no special tokens, nothing cut."""
    rows: list[list[int]] = []
    for start in range(0, len(texts), 4096):
        rows += _inside(tokenizer, [f" {text}" if text else "" for text in texts[start : start + 4096]])
    return Ragged.from_rows(rows)


def _inside(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[list[int]]:
    """Token ids of texts as they are behind other words. By themselves some tokenizers give their first word another token
    (byte level), or a blank that is not there (SentencePiece)."""
    (word, *rows) = tokenizer([_WORD, *(_WORD + text for text in texts)], add_special_tokens=False, verbose=False)[
        "input_ids"
    ]
    return [
        row[len(word) :] if row[: len(word)] == word else _alone(tokenizer, text)
        for row, text in zip(rows, texts, strict=True)
    ]


def _alone(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Where the text does not begin with a blank or a sign, and so would be one word with what is before it."""
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else []
    return found


def check_room(layout: PairLayout, max_tokens: int, parts: Ragged, users: Ragged) -> None:
    """Raises NoRoomError where the longest item and the longest words of a user leave no room: neither is ever cut."""
    _room_beside(layout, max_tokens, int(parts.lengths.max(initial=0)), int(users.lengths.max(initial=0)))


def join_pairs(
    layout: PairLayout,
    parts: Ragged,
    history: Ragged,
    candidates: Ragged,
    max_tokens: int,
    users: Ragged | None = None,
) -> PairTokens:
    """Each history (B rows of places in `parts`, oldest first) with each of its candidates (B rows): P pairs, row by row.

    users: (B) rows of token ids that stand before each history. Of the history as much as fits stands in the pair, newest item
    first. Raises NoRoomError where an item, with what is said of the user, is longer than `max_tokens` less the fixed tokens:
    neither is ever cut.
    """
    rows: list[IntArray] = []
    starts: list[int] = []
    n_cut = 0
    before, between, after = (np.array(ids, np.int64) for ids in (layout.before, layout.between, layout.after))
    for at in range(len(history)):
        words, is_whole = _newest_first(layout, parts, history[at], max_tokens)
        user = np.zeros(0, np.int64) if users is None else users[at]
        for item in candidates[at]:
            item_ids = parts[int(item)]
            room = _room_beside(layout, max_tokens, len(item_ids), len(user))
            known, is_cut = _after_user(layout, user, words, room)
            n_cut += is_cut or not is_whole
            rows.append(np.concatenate([before, known, between, item_ids, after]))
            starts.append(len(before) + len(known) + len(between))
    return PairTokens(Ragged.from_rows(rows), np.array(starts, np.int64), n_cut)


def join_prefix(
    layout: PairLayout,
    parts: Ragged,
    history: IntArray,
    candidates: IntArray,
    max_tokens: int,
    user: IntArray | None = None,
) -> tuple[IntArray, Ragged]:
    """One history (places in `parts`, oldest first) as tokens before all of its candidates, and the candidates' own tokens.

    The history, after the token ids of `user`, leaves room for the longest candidate. Raises NoRoomError as `join_pairs`.
    """
    own = parts.take(candidates)
    said = np.zeros(0, np.int64) if user is None else user
    room = _room_beside(layout, max_tokens, int(own.lengths.max(initial=0)), len(said))
    words, _ = _newest_first(layout, parts, history, max_tokens)
    known, _ = _after_user(layout, said, words, room)
    return np.concatenate([layout.before, known, layout.between]).astype(np.int64), own


def answer_tokens(tokenizer: "PreTrainedTokenizerBase") -> tuple[int, int]:
    """The first tokens of " yes" and " no". Raises RecipeError where they are the same."""
    yes, no = (ids[0] for ids in _inside(tokenizer, [" yes", " no"]))
    if yes == no:
        raise RecipeError(
            "reranker.form is 'yes_no', and the tokenizer of this language model begins both words alike. Set it to "
            "'classifier', or choose another model"
        )
    return yes, no


def _room_beside(layout: PairLayout, max_tokens: int, n_item: int, n_user: int) -> int:
    """How many tokens are left for a history. Raises NoRoomError where item and user alone are too long."""
    room = max_tokens - layout.n_fixed - n_item - n_user
    if room < 0:
        both = f", the user's words {n_user}," if n_user else ""
        rule = "neither is ever cut. Say less of the user, raise it" if n_user else "an item is never cut. Raise it"
        raise NoRoomError(
            f"reranker.max_tokens is {max_tokens}, and an item's text takes {n_item} tokens{both} beside {layout.n_fixed} "
            f"fixed ones: {rule}, or have less of each item read: reranker.item, such as '{{title}}', or reranker.max_words"
        )
    return room


def _after_user(layout: PairLayout, user: IntArray, words: IntArray, room: int) -> tuple[IntArray, bool]:
    """The words of the user and as much of a history's as `room` allows, and whether something was cut."""
    if not len(user):
        return words[:room], len(words) > room
    separator = np.array(layout.separator, np.int64)
    kept = words[: max(0, room - len(separator))]
    is_cut = len(kept) < len(words)
    return np.concatenate([user, separator, kept]) if len(kept) else user, is_cut


def _newest_first(layout: PairLayout, parts: Ragged, items: IntArray, max_tokens: int) -> tuple[IntArray, bool]:
    """At least `max_tokens` of a history's tokens where it has so many, and whether that is all of it."""
    pieces: list[IntArray] = []
    n = 0
    for place, item in enumerate(items[::-1]):
        if n >= max_tokens:
            return np.concatenate(pieces), False
        piece = parts[int(item)] if not place else np.concatenate([layout.separator, parts[int(item)]])
        pieces.append(piece.astype(np.int64))
        n += len(piece)
    return (np.concatenate(pieces) if pieces else np.zeros(0, np.int64)), True
