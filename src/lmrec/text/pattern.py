"""Patterns of words with fields in them, such as '{title}. Genres: {genres}'."""

import re
from collections.abc import Mapping
from string import Formatter

_SPACES = re.compile(r"\s+")
_LEADING = " .,;:|-"
_CLOSING = {
    "(": ")",
    "[": "]",
    "{": "}",
    "<": ">",
    '"': '"',
    "'": "'",
    "«": "»",
    "“": "”",
    "（": "）",
    "「": "」",
    "《": "》",
}


def columns_of(pattern: str) -> tuple[str, ...]:
    """The columns that a pattern names, in order."""
    return tuple(field for _, field in _segments(pattern) if field)


def check_pattern(key: str, pattern: str) -> None:
    """ValueError, naming the choice `key`, for a pattern that is malformed or names no column."""
    try:
        fields = columns_of(pattern)
    except ValueError as error:
        raise ValueError(f"{key} '{pattern}' is not a template ({error}). Write columns as {{title}}") from None
    if not fields:
        raise ValueError(f"{key} '{pattern}' names no column. Write at least one, such as {{title}}")
    for _, field, form, conversion in Formatter().parse(pattern):
        if field and (form or conversion):
            raise ValueError(
                f"{key} '{pattern}' says how '{field}' is to look, which is not read. Write {{{field}}} alone"
            )


def plain_words(value: object) -> str:
    """A cell as words on one line, blank where it is empty."""
    return _SPACES.sub(" ", str(value if value is not None else "")).strip()


def fill(pattern: str, values: Mapping[str, str]) -> str:
    """The pattern's words; a blank field disappears together with the words before it, and with the brackets or quotes that it
    stands in.

    >>> fill("{title}. Genres: {genres}!", {"title": "Heat", "genres": ""})
    'Heat!'
    >>> fill("Age: {age}. Likes: {likes}", {"age": "", "likes": "tea"})
    'Likes: tea'
    >>> fill("{title} ({year}). {genres}", {"title": "Heat", "year": "", "genres": "Crime"})
    'Heat. Crime'
    """
    words = closing = ""
    for literal, field in _segments(pattern):
        if closing and literal.startswith(closing):
            literal = literal[1:]
        closing = "" if not field or values[field] else _CLOSING.get(literal[-1:], "")
        if not field:
            words += literal if words else ""
        elif values[field]:
            words += literal + values[field] if words else literal.lstrip(_LEADING) + values[field]
    return words


def _segments(pattern: str) -> list[tuple[str, str]]:
    return [(literal, field or "") for literal, field, _, _ in Formatter().parse(pattern)]
