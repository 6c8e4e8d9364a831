"""Files that the command line reads and writes besides the data itself."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmrec.errors import InputError, nearest
from lmrec.fields import USER_ID

if TYPE_CHECKING:
    import polars as pl

    from lmrec.retrieval.recommender import Recommendation

_USER_FIELDS = ("user_id",)
_ITEM_FIELDS = ("item_id", "added_at")
_INTERACTION_FIELDS = ("user_id", "item_id", "timestamp", "position", "kind", "rating", "weight")


def writer_for(path: Path) -> "Callable[[Sequence[Recommendation]], None]":
    """What writes recommendations to `path`, chosen by its ending."""
    writers: dict[str, Callable[[pl.DataFrame], None]] = {
        ".csv": lambda frame: frame.write_csv(path),
        ".parquet": lambda frame: frame.write_parquet(path),
        ".jsonl": lambda frame: frame.write_ndjson(path),
    }
    if path.suffix not in writers:
        raise InputError(f"--out {path}: the ending '{path.suffix}' is unknown. Use .csv, .parquet or .jsonl")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder '{path.parent}'. Make it first")

    def write(answers: "Sequence[Recommendation]") -> None:
        from lmrec.retrieval.recommender import to_frame

        writers[path.suffix](to_frame(answers))

    return write


def read_user_ids(path: Path) -> list[str]:
    """User ids: the column user_id of a table, its only column, or the lines of a text file."""
    from lmrec.data.sources.columns import USER_GUESSES, name_columns
    from lmrec.data.sources.reading import read_table

    if path.suffix == ".txt":
        try:
            return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--users {path}: cannot be read ({error})") from None
    table = read_table(path)
    table = name_columns(table, {}, USER_GUESSES, "user_columns")
    if USER_ID not in table.columns:
        raise InputError(
            f"--users {path}: no column is called user_id; the first line says {table.columns}. Put the header user_id "
            "above the ids, or give a .txt file with an id a line"
        )
    return [str(user) for user in table.frame[USER_ID].drop_nulls().unique(maintain_order=True)]


def parse_column_map(pairs: Sequence[str]) -> dict[str, Any]:
    """--map values as recipe values: each goes to the tables that can have such a column."""
    values: dict[str, Any] = {}
    known = {*_USER_FIELDS, *_ITEM_FIELDS, *_INTERACTION_FIELDS}
    for pair in pairs:
        table, dot, rest = pair.rpartition(".")
        ours, equals, theirs = rest.partition("=")
        if not equals or not theirs or ours not in known or (dot and table not in ("items", "interactions", "users")):
            raise InputError(
                f"--map {pair}: write OURS=THEIRS, ours being one of {', '.join(sorted(known))}; prefix it with items., "
                f"interactions. or users. where the tables differ. {nearest(ours, known)}"
            )
        for home, fields, part in (
            ("items", _ITEM_FIELDS, "item_columns"),
            ("interactions", _INTERACTION_FIELDS, "interaction_columns"),
            ("users", _USER_FIELDS, "user_columns"),
        ):
            if ours in fields and table in ("", home):
                values[f"data.{part}.{ours}"] = theirs
    return values
