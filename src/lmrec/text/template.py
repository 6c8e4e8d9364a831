"""From an item's row, or from a history, to the words that the language model reads."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, TypeAlias

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lmrec.data.catalog import Catalog
from lmrec.errors import RecipeError, nearest
from lmrec.fields import IntArray
from lmrec.text.pattern import check_pattern, columns_of, fill, plain_words
from lmrec.text.textrank import keep_head, keep_keywords, keep_sentences
from lmrec.text.users import UserTemplate

Shortening: TypeAlias = Literal["head", "sentences", "keywords"]


class TemplateConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    item: str = Field(
        default="",
        description="Words of an item, such as '{title}. Genres: {genres}'. Empty: every text column, in table order. "
        "The words before a blank field are left out with it.",
    )
    user: str = Field(
        default="",
        description="Words of a user before the history, where user_model.kind 'text' reads it, such as 'Age: {age}. Likes: "
        "{likes}': columns of the user table. Empty: none.",
    )
    history_separator: str = Field(default=" | ", description="Between two items of a history written as text.")
    max_chars: int = Field(default=4000, ge=1, description="Longest text of one item; the rest is never tokenised.")
    max_words: int = Field(
        default=0,
        ge=0,
        description="Words of one item's columns at most: its longest column is shortened to what the others leave. "
        "About three quarters of encoder.max_tokens; 0: as long as it is.",
    )
    shorten: Shortening = Field(
        default="head",
        description="What max_words keeps: head: the first words; sentences, keywords: the most central ones (TextRank).",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.user:
            check_pattern("template.user", self.user)
        return self


@dataclass(frozen=True)
class Template:
    """A template bound to column names. Its `fingerprint` changes with anything that changes what it renders."""

    pattern: str
    history_separator: str
    max_chars: int
    max_words: int = 0
    shorten: Shortening = "head"
    user: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        return columns_of(self.pattern)

    @property
    def of_users(self) -> UserTemplate:
        return UserTemplate(self.user)

    def of_pairs(self, item: str, max_words: int) -> "Template":
        """What a reranker reads of items: this, with another pattern and number of words where they are given."""
        return replace(self, pattern=item or self.pattern, max_words=max_words or self.max_words)

    @property
    def fingerprint(self) -> str:
        """16 hex characters."""
        parts = "\x1f".join([self.pattern, self.history_separator, str(self.max_chars)])
        if self.max_words:
            parts += f"\x1f{self.max_words}\x1f{self.shorten}"
        if self.user:
            parts += f"\x1fuser\x1f{self.user}"
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def render_item(self, row: Mapping[str, object]) -> str:
        """One item's words; blank fields disappear together with the words before them.

        >>> t = Template("{title}. Genres: {genres}", " | ", 100)
        >>> t.render_item({"title": "Heat", "genres": None}), t.render_item({"title": " Heat ", "genres": "Crime"})
        ('Heat', 'Heat. Genres: Crime')
        """
        values = {name: plain_words(row[name]) for name in self.columns}
        if self.max_words:
            values = self._within_words(values)
        return fill(self.pattern, values)[: self.max_chars].strip()

    def _within_words(self, values: dict[str, str]) -> dict[str, str]:
        """The values with the longest one shortened to the room that the others leave; where they leave it none, all long ones
        to one length that fits, one word at least."""
        lengths = {name: len(value.split()) for name, value in values.items()}
        longest = max(lengths, key=lambda name: lengths[name])
        excess = sum(lengths.values()) - self.max_words
        if excess <= 0:
            return values
        shorten = {"head": keep_head, "sentences": keep_sentences, "keywords": keep_keywords}[self.shorten]
        if excess < lengths[longest]:
            return {**values, longest: shorten(values[longest], lengths[longest] - excess)}
        level = _level(list(lengths.values()), self.max_words)
        return {name: shorten(value, level) if lengths[name] > level else value for name, value in values.items()}

    def text_column(self, schema: Mapping[str, pl.DataType]) -> str:
        """Where typed words go: the first column of text."""
        return next((name for name in self.columns if schema[name] == pl.String), self.columns[0])

    def render_typed(self, text: str, column: str) -> str:
        """Typed words as an item that has nothing but them in this column."""
        return self.render_item({name: text if name == column else None for name in self.columns})

    def check(self, columns: Sequence[str], setting: str = "template.item") -> None:
        """Raises RecipeError where the pattern, written at `setting`, names a column that is not there."""
        missing = [name for name in self.columns if name not in columns]
        if missing:
            raise RecipeError(
                f"{setting} names the column '{missing[0]}', which the catalog lacks. {nearest(missing[0], columns)} Write "
                f"your own: --set '{setting}={{YOUR COLUMN}}'"
            )

    def render_items(self, frame: pl.DataFrame, setting: str = "template.item") -> list[str]:
        """The words of each row, in row order. setting: where the pattern is written.

        Raises RecipeError where it names a column that is not there.
        """
        self.check(frame.columns, setting)
        return [self.render_item(row) for row in frame.select(list(dict.fromkeys(self.columns))).iter_rows(named=True)]

    def render_history(self, texts: Sequence[str], user: str = "") -> str:
        """A history as one text, the words of the user and then the newest item first: under a token budget the oldest is
        what gets cut.

        >>> Template("{title}", " | ", 100).render_history(["Heat", "Ronin"], "Likes: tea")
        'Likes: tea | Ronin | Heat'
        """
        return self.history_separator.join(text for text in (user, *reversed(texts)) if text)

    def render_histories(
        self, texts: Sequence[str], histories: Sequence[IntArray], words: Sequence[str] | None = None
    ) -> list[str]:
        """(B,) histories of items that have these texts, each after the words (B,) of whom it is of."""
        said = [""] * len(histories) if words is None else words
        return [
            self.render_history([texts[int(item)] for item in history], user)
            for history, user in zip(histories, said, strict=True)
        ]


def _level(lengths: Sequence[int], budget: int) -> int:
    """The greatest length, 1 or more, at which columns cut to it fit into the budget.

    >>> _level([3, 120, 130], 48), _level([9, 9, 9], 2)
    (22, 1)
    """
    fitting = (level for level in range(max(lengths), 0, -1) if sum(min(one, level) for one in lengths) <= budget)
    return next(fitting, 1)


def build_template(config: TemplateConfig, catalog: Catalog) -> Template:
    """The configured template, or one made of all text columns: the first bare, the others with their names.

    Raises RecipeError where the pattern is malformed or names no column.
    """
    pattern = config.item or default_pattern(catalog.text_columns)
    try:
        check_pattern("template.item", pattern)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    return Template(pattern, config.history_separator, config.max_chars, config.max_words, config.shorten, config.user)


def default_pattern(text_columns: Sequence[str]) -> str:
    """
    >>> default_pattern(["title", "release_year"])
    '{title}. Release year: {release_year}'
    """
    first, *others = text_columns
    return "{" + first + "}" + "".join(f". {_label(name)}: {{{name}}}" for name in others)


def _label(column: str) -> str:
    return column.replace("_", " ").strip().capitalize()
