"""Sequences of item numbers, as repositories of papers keep Amazon's reviews, -> the two tables that lmrec reads.

    python scripts/sequence_tables.py Scientific.inter.json --items Scientific.item.json --out DATA/amazon-scientific
    python scripts/sequence_tables.py Beauty.inter.json --titles item_list.txt --out DATA/amazon-beauty

`*.inter.json` holds {user: [item numbers, oldest first]}, `*.item.json` {item number: {"title": ..., "brand": ...}} (LETTER and
after). `item_list.txt` (org_id remap_id title, split at blanks, titles quoted) numbers the same items in another way: in the
order in which they come among all but each user's last two events, and then among those. docs/data says where they are.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from lmrec.errors import DataError, LmrecError

TEXTS = ("title", "brand", "categories", "description")
HELD_OUT = 2
_LIST_HEADER = ["org_id", "remap_id", "title"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inter", type=Path, help="*.inter.json")
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument("--items", type=Path, help="*.item.json")
    words.add_argument("--titles", type=Path, help="item_list.txt")
    parser.add_argument("--out", type=Path, required=True, help="a folder for items.parquet and interactions.parquet")
    asked = parser.parse_args(arguments)
    try:
        sequences = read_sequences(asked.inter)
        ids: dict[str, str] = {}
        if asked.items:
            items = read_items(asked.items)
        else:
            items, ids = read_titles(asked.titles, sequences)
        save_tables(items, events_of(sequences, ids, items, asked.inter), asked.out)
    except LmrecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    n_events = sum(map(len, sequences.values()))
    print(f"{len(sequences):,} users, {items.height:,} items and {n_events:,} interactions are in {asked.out}")
    return 0


def read_sequences(path: Path) -> dict[str, list[str]]:
    """User -> item numbers, oldest first."""
    found = _read_object(path)
    for user, items in found.items():
        if not isinstance(items, list) or not all(isinstance(item, int) for item in items):
            raise DataError(f"user '{user}' has no list of item numbers. Give the *.inter.json", file=path)
    return {user: [str(item) for item in items] for user, items in found.items()}


def read_items(path: Path) -> pl.DataFrame:
    """item_id and the columns of `TEXTS`, in the file's order."""
    found = _read_object(path)
    for item, texts in found.items():
        if not isinstance(texts, dict) or not isinstance(texts.get("title"), str):
            raise DataError(f"item '{item}' has no title. Give the *.item.json of the same folder", file=path)
    columns = {name: [str(texts.get(name) or "") for texts in found.values()] for name in TEXTS}
    return pl.DataFrame({"item_id": list(found), **columns})


def read_titles(path: Path, sequences: dict[str, list[str]]) -> tuple[pl.DataFrame, dict[str, str]]:
    """(item_id and title in the list's order, item number in `sequences` -> item_id)."""
    rows = list(csv.reader(io.StringIO(_read(path), newline=""), delimiter=" "))
    if not rows or rows[0] != _LIST_HEADER:
        raise DataError(
            f"the first line is {rows[:1]}, not {' '.join(_LIST_HEADER)}. Give the item_list.txt", file=path
        )
    for at, row in enumerate(rows[1:]):
        if len(row) != len(_LIST_HEADER) or row[1] != str(at):
            raise DataError(f"{row} is not an id, the number {at} and a title. Fetch it again", file=path, row=at + 2)
    order = list_order(sequences.values())
    if len(order) != len(rows) - 1:
        raise DataError(
            f"it lists {len(rows) - 1:,} items, and the sequences have {len(order):,}. Give both of one data set",
            file=path,
        )
    items = pl.DataFrame({"item_id": [row[0] for row in rows[1:]], "title": [row[2] for row in rows[1:]]})
    return items, dict(zip(order, items["item_id"].to_list(), strict=True))


def list_order(sequences: Iterable[list[str]]) -> list[str]:
    """Items as item_list.txt numbers them.

    >>> list_order([["0", "1", "2", "3"], ["4", "0", "3", "5"]])
    ['0', '1', '4', '2', '3', '5']
    """
    sequences = list(sequences)
    learnt = [item for sequence in sequences for item in sequence[:-HELD_OUT]]
    return list(dict.fromkeys([*learnt, *(item for sequence in sequences for item in sequence[-HELD_OUT:])]))


def events_of(sequences: dict[str, list[str]], ids: dict[str, str], items: pl.DataFrame, path: Path) -> pl.DataFrame:
    """user_id, item_id, position: one row an event; an item that has no id in `ids` keeps its number."""
    rows = [
        (user, ids.get(item, item), position)
        for user, sequence in sequences.items()
        for position, item in enumerate(sequence)
    ]
    events = pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String, "position": pl.Int64}, orient="row")
    unknown = events.filter(~pl.col("item_id").is_in(items["item_id"].implode()))
    if unknown.height:
        user, item, _ = unknown.row(0)
        raise DataError(
            f"user '{user}' has the item '{item}', which has no words. Give the two files of one folder", file=path
        )
    return events


def save_tables(items: pl.DataFrame, events: pl.DataFrame, out: Path) -> None:
    for name in ("items.parquet", "interactions.parquet"):
        if (out / name).exists():
            raise DataError(f"{name} is there already. Choose another --out, or remove it", file=out)
    out.mkdir(parents=True, exist_ok=True)
    items.write_parquet(out / "items.parquet")
    events.write_parquet(out / "interactions.parquet")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise DataError(f"this is not JSON ({error}). Fetch it again", file=path) from error
    if not isinstance(found, dict) or not found:
        raise DataError("there is no object of users or items in it. Fetch it again", file=path)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror}). Check the path", file=path) from error
    except UnicodeDecodeError as error:
        raise DataError(f"this is not UTF-8 ({error.reason}). Fetch it again", file=path) from error


if __name__ == "__main__":
    sys.exit(main())
