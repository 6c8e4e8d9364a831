"""Files that the command line reads and writes besides the data itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmrec.errors import InputError, nearest
from lmrec.fields import USER_ID

if TYPE_CHECKING:
    import polars as pl

    from lmrec.recipe import Recipe
    from lmrec.retrieval.recommender import Recommendation
    from lmrec.workflows.prepare import Prepared

_USER_FIELDS = ("user_id",)
_ITEM_FIELDS = ("item_id", "added_at")
_INTERACTION_FIELDS = ("user_id", "item_id", "timestamp", "position", "kind", "rating", "weight")


@dataclass(frozen=True)
class Input:
    """What a command is to read: two or three tables, or an original format and where it lies."""

    items: Path | None
    interactions: Path | None
    users: Path | None
    source: str | None
    path: Path | None

    def check(self) -> None:
        """InputError unless exactly one of the two ways is given, and given wholly."""
        tables = {"--items": self.items, "--interactions": self.interactions, "--users": self.users}
        given = [option for option, value in tables.items() if value is not None]
        ways = "Give --items and --interactions, or --source NAME and --path FOLDER"
        if self.source is None and self.path is None:
            missing = [option for option in ("--items", "--interactions") if option not in given]
            if missing:
                raise InputError(f"{' and '.join(missing)} missing: there is nothing to read. {ways}")
        elif given:
            raise InputError(f"{' and '.join(given)} cannot be given beside --source and --path. {ways}")
        elif self.source is None:
            raise InputError(f"--path {self.path} says where, but not in which format. {ways}")
        elif self.path is None:
            raise InputError(f"--source {self.source} says which format, but not where it lies. {ways}")

    def prepare(self, recipe: "Recipe") -> "Prepared":
        from lmrec.workflows.prepare import prepare, prepare_source

        self.check()
        if self.source is not None and self.path is not None:
            return prepare_source(self.source, self.path, recipe)
        return prepare(self.items, self.interactions, self.users, recipe)


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


def recipe_of(
    path: Path | None,
    overrides: Sequence[str] | None,
    split: str | None,
    column_map: Sequence[str] | None,
    command: str,
    **values: Any,
) -> "Recipe":
    """The recipe that --recipe, --set, --split and --map ask for; values: of other options, by key, None where not given."""
    from lmrec.recipe import load_recipe

    named = {"split.kind": split, **values}
    given = {key: value for key, value in named.items() if value is not None}
    return load_recipe(path, overrides or (), {**given, **parse_column_map(column_map or [])}, command)


def parse_column_map(pairs: Sequence[str]) -> dict[str, Any]:
    """--map values as recipe values: with a prefix for that table, without one for each table that has the column."""
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
        if not dot:
            values[f"data.columns.{ours}"] = theirs  # whichever tables have such a column
            continue
        fields = {"items": _ITEM_FIELDS, "interactions": _INTERACTION_FIELDS, "users": _USER_FIELDS}[table]
        if ours not in fields:
            raise InputError(f"--map {pair}: the table {table} has no {ours}; it may have {', '.join(fields)}")
        values[f"data.{table.removesuffix('s')}_columns.{ours}"] = theirs
    return values
