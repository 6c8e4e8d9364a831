"""Filters on attributes: from JSON to a test of catalog rows, computed on whole columns.

A filter names fields, all of which must hold: {"year": {"min": 1990}, "genre": ["Drama", "Crime"], "lang": {"not": "en"}}.

value              equal to it; null: nothing is known. Numbers also meet numbers that a table wrote as text
[values]           equal to one of them
{"min", "max"}     at least, at most; one of them or both. Numbers meet texts that read as numbers, times are ISO 8601
{"not": condition} the condition does not hold; an item of which nothing is known passes
{"contains": word} the text holds the word (or words in a row), whatever its case: "sci" is not in "science"
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from lmrec.errors import InputError, nearest
from lmrec.retrieval.casting import checked_text, parse_time

MAX_CONDITIONS = 50
MAX_VALUES = 1_000
MAX_TEXT = 1_000
_MAX_DEPTH = 4
_MAX_PATTERN = 20_000  # characters
_SHAPES = 'Write a value, a list of values, {"min": .., "max": ..}, {"not": ..} or {"contains": "word"}'


@dataclass(frozen=True, eq=False)
class Filter:
    """A parsed filter. `key` is its canonical JSON: equal filters have equal keys. `expr` is never null."""

    key: str
    expr: pl.Expr


def parse_filter(spec: Mapping[str, Any], schema: Mapping[str, pl.DataType]) -> Filter:
    """Raises InputError for unknown fields, wrong types and malformed conditions.

    >>> rows = pl.DataFrame({"title": ["Heat", "Ronin"], "year": ["1995", None]})
    >>> rows.filter(parse_filter({"year": {"min": 1990}}, rows.schema).expr)["title"].to_list()
    ['Heat']
    """
    if not isinstance(spec, Mapping):
        raise InputError(
            f'a filter is a {type(spec).__name__}; it must be an object, such as {{"year": {{"min": 1990}}}}'
        )
    if not spec or len(spec) > MAX_CONDITIONS:
        raise InputError(
            f"a filter names {len(spec)} fields; it must name 1 to {MAX_CONDITIONS}. Leave an empty one out"
        )
    for name in spec:
        if name not in schema:
            raise InputError(f"the filter names the field '{name}', which items do not have. {nearest(name, schema)}")
    tests = [_condition(name, schema[name], spec[name], _MAX_DEPTH).fill_null(False) for name in spec]
    return Filter(_canonical(spec), pl.all_horizontal(tests))


def words_filter(words: tuple[str, ...], columns: tuple[str, ...]) -> Filter:
    """Items of which one of the columns holds one of the words, as whole words, whatever their case."""
    patterns = [_words_pattern(group) for group in _groups(sorted(words))]
    tests = [pl.col(name).str.contains(pattern).fill_null(False) for pattern in patterns for name in columns]
    key = "words " + _canonical(
        {"words": sorted(words), "columns": columns}
    )  # no JSON: no filter of a client's equals it
    return Filter(key, pl.any_horizontal(tests))


def leaving_out(unwanted: Filter, item_filter: Filter | None) -> Filter:
    """Items that pass `item_filter` and not `unwanted`."""
    key = f"without {unwanted.key}"
    if item_filter is None:
        return Filter(key, ~unwanted.expr)
    return Filter(f"{item_filter.key} {key}", item_filter.expr & ~unwanted.expr)


def number_of(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as numbers: of a text such as 'FSK 16' or '12+' the first number; null where there is none."""
    if dtype == pl.String:
        return pl.col(name).str.extract(r"(\d+(?:\.\d+)?)").cast(pl.Float64, strict=False)
    return pl.col(name).cast(pl.Float64, strict=False)


def truth_of(name: str, dtype: pl.DataType) -> pl.Expr:
    """A column as yes or no: true, above zero, or a text that says so; null and all else are no."""
    column = pl.col(name)
    if dtype == pl.String:
        said = column.str.strip_chars().str.to_lowercase()
        number = said.cast(pl.Float64, strict=False)
        return (said.is_in(["true", "yes", "y", "in stock", "available"]) | (number > 0)).fill_null(False)
    return (
        column.fill_null(False) if dtype == pl.Boolean else (column.cast(pl.Float64, strict=False) > 0).fill_null(False)
    )


def _condition(name: str, dtype: pl.DataType, value: Any, depth: int) -> pl.Expr:
    if isinstance(value, list | tuple):
        if not value or len(value) > MAX_VALUES:
            raise InputError(f"the filter on '{name}' lists {len(value)} values; it must list 1 to {MAX_VALUES:,}")
        return pl.any_horizontal([_equal(name, dtype, one).fill_null(False) for one in value])
    if not isinstance(value, Mapping):
        return _equal(name, dtype, value)
    keys = set(value)
    if keys == {"not"} and depth:
        return ~_condition(name, dtype, value["not"], depth - 1).fill_null(False)
    if keys == {"contains"}:
        return _contains(name, dtype, value["contains"])
    if keys and keys <= {"min", "max"}:
        tests = [_bound(name, dtype, bound, value[bound]).fill_null(False) for bound in ("min", "max") if bound in keys]
        return pl.all_horizontal(tests)
    raise InputError(f"the filter on '{name}' has the keys {sorted(map(str, keys))[:5]}. {_SHAPES}")


def _equal(name: str, dtype: pl.DataType, value: Any) -> pl.Expr:
    column = pl.col(name)
    if value is None:
        return column.is_null()
    if isinstance(value, bool):
        if dtype == pl.Boolean:
            return column == value
        if dtype == pl.String:
            return column.str.to_lowercase() == str(value).lower()
        raise _misfit(name, dtype, value)
    left, right = _comparable(name, dtype, value)
    return left == pl.lit(right)


def _bound(name: str, dtype: pl.DataType, bound: str, value: Any) -> pl.Expr:
    if value is None or isinstance(value, bool) or dtype == pl.Boolean:
        raise InputError(f"the filter on '{name}' has the {bound} {value!r}; a bound is a number or a text. {_SHAPES}")
    left, right = _comparable(name, dtype, value)
    return left >= pl.lit(right) if bound == "min" else left <= pl.lit(right)


def _comparable(name: str, dtype: pl.DataType, value: Any) -> tuple[pl.Expr, str | float | date]:
    """The column and the value as two things that can be compared."""
    column = pl.col(name)
    if isinstance(value, int | float):
        if not math.isfinite(value) or abs(value) > 2**63:
            raise InputError(f"the filter on '{name}' has the number {value}; give one that is finite and below 2^63")
        if dtype.is_numeric():
            return column, value
        if dtype == pl.String:
            return column.str.strip_chars().cast(pl.Float64, strict=False), float(value)
    elif isinstance(value, str):
        text = checked_text(value, f"the filter on '{name}'", MAX_TEXT)
        if dtype == pl.String:
            return column, text
        if isinstance(dtype, pl.Date | pl.Datetime):
            return column, parse_time(text, dtype, f"the filter on '{name}'")
        if dtype.is_numeric():
            try:
                return column, float(text)
            except ValueError:
                raise _misfit(name, dtype, value) from None
    raise _misfit(name, dtype, value)


def _contains(name: str, dtype: pl.DataType, value: Any) -> pl.Expr:
    if dtype != pl.String:
        raise InputError(f"the filter asks what '{name}' contains, which is no text ({dtype}). Give a value or bounds")
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"the filter on '{name}' must contain {value!r}; give a word as text")
    word = checked_text(value, f"the filter on '{name}'", MAX_TEXT).strip()
    return pl.col(name).str.contains(_words_pattern((word,)))


def _groups(words: list[str]) -> list[tuple[str, ...]]:
    """The words in groups that a regular expression takes: it is refused where it would be compiled to over 10 MB."""
    groups: list[list[str]] = []
    for word in words:
        if not groups or sum(map(len, groups[-1])) + len(word) > _MAX_PATTERN:
            groups.append([])
        groups[-1].append(word)
    return [tuple(group) for group in groups]


def _words_pattern(words: tuple[str, ...]) -> str:
    # \b would ask for a letter at the edge of '+18' or 'C++'; this asks that no letter or digit goes on.
    alternatives = "|".join(pl.escape_regex(word.strip()) for word in words)
    return rf"(?i)(?:^|[^\p{{L}}\p{{N}}_])(?:{alternatives})(?:$|[^\p{{L}}\p{{N}}_])"


def _misfit(name: str, dtype: pl.DataType, value: Any) -> InputError:
    kind = "text" if dtype == pl.String else "true or false" if dtype == pl.Boolean else str(dtype)
    return InputError(f"the filter compares '{name}' ({kind}) with {value!r:.100} ({type(value).__name__}). {_SHAPES}")


def _canonical(spec: Mapping[str, Any]) -> str:
    return json.dumps(spec, sort_keys=True, ensure_ascii=True, default=dict)
