"""Items from clients: cast to the catalog's types where that loses nothing, refused with a reason where it would."""

from datetime import date, datetime
from typing import Any

import polars as pl
import pytest

from lmrec.errors import InputError
from lmrec.retrieval.casting import cast_item, cast_items, column_of

SCHEMA: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "title": pl.String(),
    "pages": pl.Int16(),
    "price": pl.Float32(),
    "adult": pl.Boolean(),
    "day": pl.Date(),
    "at": pl.Datetime("us"),
    "zoned": pl.Datetime("ms", "UTC"),
}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("title", "Heat", "Heat"),
        ("title", "  ", None),
        ("title", 1984, "1984"),
        ("title", True, "true"),
        ("title", None, None),
        ("pages", 12, 12),
        ("pages", 12.0, 12),
        ("pages", " 12 ", 12),
        ("pages", "", None),
        ("price", 3, 3.0),
        ("price", "2.5", 2.5),
        ("adult", True, True),
        ("adult", "FALSE", False),
        ("adult", 1, True),
        ("day", "2024-05-31", "2024-05-31"),
        ("at", "2024-05-31T18:00:00+02:00", "2024-05-31 16:00:00"),
        ("zoned", "2024-05-31", "2024-05-31 00:00:00+00:00"),
    ],
)
def test_values_become_what_the_column_holds(name: str, value: Any, expected: Any) -> None:
    item_id, fields = cast_item({"item_id": "x", name: value}, SCHEMA)
    assert item_id == "x"
    assert fields.keys() == SCHEMA.keys() - {"item_id"}
    assert fields[name] == expected
    assert type(fields[name]) is type(expected)
    column_of(name, [fields[name], None], SCHEMA[name])
    assert cast_item({"item_id": "x", **fields}, SCHEMA) == (item_id, fields), "casting twice is casting once"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({}, "it must be a text that is not blank"),
        ({"item_id": " "}, "it must be a text that is not blank"),
        ({"item_id": True}, "it must be a text that is not blank"),
        ({"item_id": ["x"]}, "it must be a text that is not blank"),
        ({"item_id": "x" * 600}, "at most 512"),
        ({"item_id": "\udfff"}, "half a character"),
        ({"item_id": "x", "titel": "Heat"}, r"the field 'titel', which the catalog lacks. Did you mean 'title'\?"),
        ({"item_id": "x", "title": "\ud800"}, "half a character"),
        ({"item_id": "x", "title": "y" * 20_001}, "at most 20,000"),
        ({"item_id": "x", "title": ["Heat"]}, "is a list; it must be a text"),
        ({"item_id": "x", "title": {"en": "Heat"}}, "is a dict; it must be a text"),
        ({"item_id": "x", "pages": 12.5}, "holds whole numbers"),
        ({"item_id": "x", "pages": 40_000}, "the catalog's column is Int16"),
        ({"item_id": "x", "pages": 10**400}, "the catalog's column is Int16"),
        ({"item_id": "x", "pages": "twelve"}, "the catalog's column is Int16"),
        ({"item_id": "x", "pages": True}, "the catalog's column is Int16"),
        ({"item_id": "x", "price": float("nan")}, "must be a finite number"),
        ({"item_id": "x", "price": "inf"}, "Send a smaller number"),
        ({"item_id": "x", "price": 1e300}, "Send a smaller number"),
        ({"item_id": "x", "adult": "maybe"}, "holds true or false"),
        ({"item_id": "x", "adult": 2}, "holds true or false"),
        ({"item_id": "x", "day": 20240531}, "Send ISO 8601"),
        ({"item_id": "x", "day": "31.5.2024"}, "no time in ISO 8601"),
        ({"item_id": "x", "at": "noon"}, "no time in ISO 8601"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_fit_is_refused(item: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cast_item(item, SCHEMA)


def test_an_item_twice_in_one_request_is_refused() -> None:
    with pytest.raises(InputError, match="item 'x' is in the request twice"):
        cast_items([{"item_id": "x"}, {"item_id": "y"}, {"item_id": "x"}], SCHEMA)


def test_columns_hold_times_as_times() -> None:
    assert column_of("day", ["2024-05-31", None], SCHEMA["day"]).to_list() == [date(2024, 5, 31), None]
    assert column_of("at", ["2024-05-31 16:00:00"], SCHEMA["at"]).to_list() == [datetime(2024, 5, 31, 16)]
