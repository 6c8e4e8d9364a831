"""Filters: exact on numbers, texts, numbers written as text, times and nulls, and refused where they mean nothing."""

from datetime import date, datetime
from typing import Any

import polars as pl
import pytest

from lmrec.errors import InputError
from lmrec.retrieval.filters import parse_filter, words_filter

FRAME = pl.DataFrame(
    {
        "item_id": ["a", "b", "c", "d", "e"],
        "genre": ["Sci-Fi|Drama", "science", "Drama", None, "C++ (18+)"],
        "year": ["1990", " 2001 ", "unknown", None, "1995.5"],
        "price": [1.5, 2.0, None, -1.0, 1e6],
        "stock": [0, 1, 2, None, 4],
        "adult": [True, False, None, True, False],
        "flag": ["True", "false", "yes", None, "0"],
        "day": [date(2024, 1, 1), date(2024, 5, 31), None, date(2025, 1, 1), date(1999, 1, 1)],
        "at": [datetime(2024, 1, 1, 12), datetime(2024, 5, 31), None, datetime(2025, 1, 1), datetime(1999, 1, 1)],
    }
)


def passing(spec: Any) -> str:
    found = parse_filter(spec, FRAME.schema)
    mask = FRAME.select(found.expr).to_series()
    assert mask.null_count() == 0
    return "".join(FRAME.filter(mask)["item_id"])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"item_id": "a"}, "a"),
        ({"item_id": ["a", "e", "zz"]}, "ae"),
        ({"genre": "Drama"}, "c"),
        ({"genre": None}, "d"),
        ({"genre": ["Drama", None]}, "cd"),
        ({"genre": {"not": "Drama"}}, "abde"),
        ({"genre": {"not": None}}, "abce"),
        ({"genre": {"not": ["Drama", "science"]}}, "ade"),
        ({"genre": {"contains": "sci"}}, "a"),
        ({"genre": {"contains": "DRAMA"}}, "ac"),
        ({"genre": {"contains": "sci-fi"}}, "a"),
        ({"genre": {"contains": "C++"}}, "e"),
        ({"genre": {"contains": "18+"}}, "e"),
        ({"genre": {"contains": "."}}, ""),
        ({"genre": {"not": {"contains": "drama"}}}, "bde"),
        ({"year": 1990}, "a"),
        ({"year": "1990"}, "a"),
        ({"year": {"min": 1991}}, "be"),
        ({"year": {"min": 1990, "max": 2000}}, "ae"),
        ({"year": {"not": {"min": 1991}}}, "acd"),
        ({"year": {"min": "1991"}}, "ce"),  # text against text: in the order of the alphabet
        ({"price": 2}, "b"),
        ({"price": "2"}, "b"),
        ({"price": {"max": 1.5}}, "ad"),
        ({"price": {"min": -1, "max": 2}}, "abd"),
        ({"stock": [1, 4.0]}, "be"),
        ({"stock": 1.5}, ""),
        ({"stock": None}, "d"),
        ({"stock": {"min": 2**40}}, ""),
        ({"stock": {"max": 2**62}}, "abce"),
        ({"adult": True}, "ad"),
        ({"adult": False}, "be"),
        ({"adult": {"not": True}}, "bce"),
        ({"flag": True}, "a"),
        ({"flag": False}, "b"),
        ({"day": "2024-05-31"}, "b"),
        ({"day": {"min": "2024-05-31"}}, "bd"),
        ({"at": "2024-01-01T12:00:00"}, "a"),
        ({"at": "2024-01-01T13:00:00+01:00"}, "a"),
        ({"at": {"min": "2024-01-01", "max": "2024-12-31"}}, "ab"),
        ({"genre": {"contains": "drama"}, "year": {"max": 2000}}, "a"),
    ],
    ids=str,
)
def test_exactly_these_items_pass(spec: Any, expected: str) -> None:
    assert passing(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"genr": "Drama"}, r"the field 'genr', which items do not have. Did you mean 'genre'\?"),
        ({}, "names 0 fields"),
        ({"genre": []}, "lists 0 values"),
        ({"genre": ["x"] * 1001}, "lists 1001 values"),
        ({"genre": {}}, "has the keys"),
        ({"genre": {"contains": "a", "not": "b"}}, "has the keys"),
        ({"genre": {"between": [1, 2]}}, "has the keys"),
        ({"genre": {"contains": ""}}, "give a word"),
        ({"genre": {"contains": 5}}, "give a word"),
        ({"stock": {"contains": "5"}}, "which is no text"),
        ({"stock": "many"}, "compares 'stock'"),
        ({"stock": True}, "compares 'stock'"),
        ({"adult": 1}, "compares 'adult'"),
        ({"adult": {"min": 0}}, "a bound is a number or a text"),
        ({"price": {"min": None}}, "a bound is a number or a text"),
        ({"price": {"min": [1]}}, "compares 'price'"),
        ({"price": float("nan")}, "finite"),
        ({"price": {"max": float("inf")}}, "finite"),
        ({"price": 10**30}, "below 2"),
        ({"day": "yesterday"}, "no time in ISO 8601"),
        ({"day": 5}, "compares 'day'"),
        ({"at": {"min": "2024-13-45"}}, "no time in ISO 8601"),
        ({"genre": "x" * 1001}, "at most 1,000"),
        ({"genre": "\ud800"}, "half a character"),
        ({"genre": [["Drama"]]}, "compares 'genre'"),
        ({"genre": {"not": {"not": {"not": {"not": {"not": "x"}}}}}}, "has the keys"),
        ([{"genre": "Drama"}], "must be an object"),
        ("genre = Drama", "must be an object"),
        ({f"f{place}": 1 for place in range(51)}, "names 51 fields"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_means_nothing_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_filter(spec, FRAME.schema)


def test_equal_filters_have_equal_keys() -> None:
    first = parse_filter({"year": {"min": 1, "max": 2}, "genre": ("a", "b")}, FRAME.schema)
    second = parse_filter({"genre": ["a", "b"], "year": {"max": 2, "min": 1}}, FRAME.schema)
    assert first.key == second.key
    keys = {
        parse_filter(spec, FRAME.schema).key for spec in ({"flag": True}, {"flag": "true"}, {"flag": 1}, {"flag": [1]})
    }
    assert len(keys) == 4


def test_words_are_found_whole_in_any_of_the_columns() -> None:
    found = words_filter(("drama", "2001", "a.b"), ("genre", "year"))
    assert FRAME.filter(found.expr)["item_id"].to_list() == ["a", "b", "c"]


def test_a_long_list_of_words_is_no_trouble() -> None:
    words = tuple(f"{'wörd' * 40}{place}" for place in range(1000))
    assert FRAME.filter(words_filter((*words, "science"), ("genre",)).expr)["item_id"].to_list() == ["b"]
