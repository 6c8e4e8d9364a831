"""JSON lines as the Amazon files hold them: proper JSON, or the printed Python dicts of 2014, read without running them."""

import ast
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl

from lmrec.data.sources.files import LINE
from lmrec.data.sources.reading import Table

# A line of the real files stays below 100,000 characters; reading a printed dict takes some hundred times its size.
MAX_LOOSE_CHARS = 1_000_000


def read_fields(table: Table, fields: Mapping[str, Sequence[str]]) -> Table:
    """Take fields out of JSON lines, all as text: `fields` is our name -> the names it may have, the first found wins.

    Lists stay JSON text. Lines that are neither a JSON object nor a printed dict of plain values are set aside.
    """
    is_json = pl.col(LINE).str.json_path_match("$").is_not_null() & pl.col(LINE).str.contains(r"^\s*\{")
    frame = table.frame.with_columns(
        pl.when(is_json).then(LINE).otherwise(pl.col(LINE).map_elements(_to_json, return_dtype=pl.String)).alias("json")
        if not table.frame.select(is_json.all()).item()
        else pl.col(LINE).alias("json")
    )
    table = replace(table, frame=frame)
    readable = replace(table, frame=frame.drop("json"))
    broken = frame["json"].is_null()
    rejected = replace(readable, frame=readable.frame.filter(broken)).set_aside(
        pl.lit(True), "the line is neither JSON nor a Python dict of plain values"
    )
    chosen = {
        ours: pl.coalesce(*(pl.col("json").str.json_path_match(f"$['{name}']") for name in theirs))
        for ours, theirs in fields.items()
    }
    return replace(rejected, frame=frame.filter(~broken).select(pl.exclude(LINE, "json"), **chosen))


def _to_json(line: str) -> str | None:
    """A printed dict of texts, numbers, lists and dicts as JSON; None where it is anything else, or too long.

    `ast.literal_eval` builds values and calls nothing; deep nesting makes it raise, and is refused alike.
    """
    if len(line) > MAX_LOOSE_CHARS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stray backslash in somebody's review is no news
            value = ast.literal_eval(line.strip())
        return json.dumps(value, allow_nan=False) if isinstance(value, dict) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
