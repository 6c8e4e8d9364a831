"""Item fields as clients send them, cast to the types of the catalog's columns."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeAlias

import polars as pl

from lmrec.errors import InputError, nearest
from lmrec.fields import ITEM_ID, ItemId

Fields: TypeAlias = dict[str, Any]  # a catalog row without its item_id; null where nothing is known

MAX_TEXT = 20_000
MAX_ID = 512


def cast_items(items: Sequence[Mapping[str, Any]], schema: Mapping[str, pl.DataType]) -> list[tuple[ItemId, Fields]]:
    """Each item's id and its fields, every column present, null where nothing was sent.

    Raises InputError for an id that is absent, blank or there twice, for unknown fields, and for values that do not fit.
    """
    cast = [cast_item(item, schema) for item in items]
    seen: set[ItemId] = set()
    for item_id, _ in cast:
        if item_id in seen:
            raise InputError(f"item '{item_id}' is in the request twice; an item can be put once at a time. Drop one")
        seen.add(item_id)
    return cast


def cast_item(item: Mapping[str, Any], schema: Mapping[str, pl.DataType]) -> tuple[ItemId, Fields]:
    raw = item.get(ITEM_ID)
    if isinstance(raw, bool) or not isinstance(raw, str | int) or not str(raw).strip():
        raise InputError(f"an item has the {ITEM_ID} {raw!r:.100}; it must be a text that is not blank")
    item_id = checked_text(str(raw), f"the {ITEM_ID}", MAX_ID)
    for name in item:
        if name not in schema:
            known = [column for column in schema if column != ITEM_ID]
            raise InputError(
                f"item '{item_id}' has the field '{name}', which the catalog lacks. {nearest(name, known)}"
            )
    return item_id, {
        name: cast_value(item.get(name), dtype, f"the field '{name}' of item '{item_id}'")
        for name, dtype in schema.items()
        if name != ITEM_ID
    }


def fitting_fields(fields: Mapping[str, Any], schema: Mapping[str, pl.DataType]) -> Fields:
    """Every column of a catalog from stored fields that may have been put into another one: null where a value is absent
    or does not fit."""
    fitting: Fields = {}
    for name, dtype in schema.items():
        if name == ITEM_ID:
            continue
        try:
            fitting[name] = cast_value(fields.get(name), dtype, f"the field '{name}'")
        except InputError:
            fitting[name] = None
    return fitting


def cast_value(value: Any, dtype: pl.DataType, where: str) -> Any:
    """A JSON scalar as a column holds it, but times as text; blank texts are null, as in a table that is read."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str):
        checked_text(value, where, MAX_TEXT)
    elif not isinstance(value, bool | int | float):
        raise InputError(f"{where} is a {type(value).__name__}; it must be a text, a number, true, false or null")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} is {value}; it must be a finite number")
    if dtype == pl.String:
        return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    if dtype == pl.Boolean:
        return _as_bool(value, where)
    if isinstance(value, bool):
        raise InputError(f"{where} is {value}; the catalog's column is {dtype}. Convert it")
    if isinstance(dtype, pl.Date | pl.Datetime):
        if not isinstance(value, str):
            raise InputError(
                f"{where} is {value}; the catalog's column holds times. Send ISO 8601, such as '2024-05-31'"
            )
        return plain(parse_time(value, dtype, where))
    try:
        (cast,) = pl.Series([value.strip() if isinstance(value, str) else value]).cast(dtype, strict=True).to_list()
    except (pl.exceptions.PolarsError, OverflowError, TypeError, ValueError):
        raise InputError(f"{where} is {value!r:.100}; the catalog's column is {dtype}. Convert it") from None
    if isinstance(cast, float) and not math.isfinite(cast):
        raise InputError(
            f"{where} is {value!r:.100}, more than the catalog's column ({dtype}) holds. Send a smaller number"
        )
    if isinstance(value, float) and dtype.is_integer() and cast != value:
        raise InputError(f"{where} is {value}; the catalog's column holds whole numbers. Round it")
    return plain(cast)


def parse_time(text: str, dtype: pl.Date | pl.Datetime, where: str) -> date:
    """An ISO 8601 text as the column's kind of time; without a zone it is UTC. Raises InputError for other texts."""
    try:
        if isinstance(dtype, pl.Date):
            return date.fromisoformat(text.strip())
        time = datetime.fromisoformat(text.strip())
        zoned = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
        return zoned if dtype.time_zone else zoned.replace(tzinfo=None)
    except (ValueError, OverflowError):
        kind = "a day, such as '2024-05-31'" if isinstance(dtype, pl.Date) else "a time, such as '2024-05-31T18:00:00'"
        raise InputError(f"{where} has {text!r:.100}, which is no time in ISO 8601. Send {kind}") from None


def checked_text(text: str, where: str, max_length: int) -> str:
    """Raises InputError for a text that is too long or is no Unicode (half of a surrogate pair, as JSON can hold)."""
    if len(text) > max_length:
        raise InputError(f"{where} has a text of {len(text):,} characters; at most {max_length:,} are read. Shorten it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where} has a text with half a character at place {error.start} (a lone surrogate). Send valid Unicode"
        ) from None
    return text


def plain(value: Any) -> Any:
    """A value of a table as a JSON scalar: times and whatever else JSON lacks as text, the way a template renders them."""
    return value if value is None or isinstance(value, str | bool | int | float) else str(value)


def column_of(name: str, values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    """Values that `cast_value` made, as a column of the catalog."""
    if isinstance(dtype, pl.Date | pl.Datetime):
        values = [None if value is None else parse_time(value, dtype, name) for value in values]
    return pl.Series(name, values, dtype=dtype)


def _as_bool(value: str | bool | int | float, where: str) -> bool:
    said = str(value).strip().lower()
    if said in ("true", "1", "1.0"):
        return True
    if said in ("false", "0", "0.0"):
        return False
    raise InputError(f"{where} is {value!r:.100}; the catalog's column holds true or false. Send one of them")
