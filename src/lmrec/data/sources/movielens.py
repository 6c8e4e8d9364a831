"""MovieLens in the layouts that exist: 100K of GroupLens or RecBole, the .dat family (1M, 10M), the csv family.

| layout                     | films                     | ratings     | users                                      |
|----------------------------|---------------------------|-------------|--------------------------------------------|
| 100K                       | u.item                    | u.data      | u.user                                     |
| 100K, RecBole              | ml-100k.item              | .inter      | .user                                      |
| 1M, 10M                    | movies.dat                | ratings.dat | users.dat (1M only)                        |
| 20M to 32M, latest, small  | movies.csv                | ratings.csv | none                                       |
"""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import polars as pl

from lmrec.data.dataset import Dataset
from lmrec.data.sources.files import LINE, SourceFiles, open_files, split_fields
from lmrec.data.sources.reading import ROW, Table, read_separated
from lmrec.data.sources.tables import TablesConfig, read_dataset
from lmrec.errors import DataError
from lmrec.fields import ITEM_ID, RATING, TIMESTAMP, USER_ID

_GENRES = (
    "unknown Action Adventure Animation Children's Comedy Crime Documentary Drama Fantasy Film-Noir Horror Musical "
    "Mystery Romance Sci-Fi Thriller War Western"
).split()
_USER_COLUMNS = [USER_ID, "age", "gender", "occupation", "zip_code"]
_TITLE_YEAR = r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*$"
_ARTICLE_LAST = r"^(.+), (The|An?|Les?|La|Il|El|Das|Der|Die)( \(.+\))?$"

_ASK = "Fetch it with: lmrec data fetch movielens-100k"
# What the codes of users.dat mean, from the README of 1M.
_AGES = {
    "1": "under 18",
    "18": "18-24",
    "25": "25-34",
    "35": "35-44",
    "45": "45-49",
    "50": "50-55",
    "56": "56 or older",
}
_OCCUPATIONS = (
    "other, academic/educator, artist, clerical/admin, college/grad student, customer service, doctor/health care, "
    "executive/managerial, farmer, homemaker, K-12 student, lawyer, programmer, retired, sales/marketing, scientist, "
    "self-employed, technician/engineer, tradesman/craftsman, unemployed, writer"
).split(", ")

_LATIN = ("latin-1",)  # as GroupLens writes
_Tables: TypeAlias = tuple[Table, Table, Table | None]


def read_movielens(path: Path | str, config: TablesConfig | None = None) -> Dataset:
    """Read any layout, from a folder or a zip, to one form: films with title, year and genres; ratings; users if any.

    `config` may add choices such as `min_rating`. Raises `DataError` where no layout is found.
    """
    path = Path(path)
    if path.exists() and not path.is_dir() and not zipfile.is_zipfile(path):
        raise DataError(f"this is neither a folder nor a zip file. {_ASK}", file=path)
    files = open_files(path, "u.data", _ASK)
    layout = next((layout for marker, layout in _LAYOUTS.items() if marker in files), None)
    if layout is None:
        raise DataError(
            f"none of {', '.join(_LAYOUTS)} is among {files.names[:8]}. Give the folder or zip that holds it", file=path
        )
    name, read = layout
    items, events, users = read(files)
    config = config or TablesConfig()
    config = config.model_copy(update={"text_columns": config.text_columns or ("title", "year", "genres")})
    dataset = read_dataset(_tidy(items), events, users, config)
    catalog = replace(dataset.catalog, attribute_columns=("year", "genres"))
    return replace(dataset, catalog=catalog, source=f"{name} ({path})")


def read_movielens_100k(folder_or_zip: Path | str, config: TablesConfig | None = None) -> Dataset:
    """MovieLens-100K; any other layout of the family is read as well, see `read_movielens`."""
    return read_movielens(folder_or_zip, config)


def _read_grouplens(files: SourceFiles) -> _Tables:
    item_columns = [ITEM_ID, "full_title", "release_date", "video_date", "url", *_GENRES]
    items = split_fields(files.read_lines("u.item", _LATIN), "|", item_columns)
    parts = pl.col("full_title").str.extract_groups(_TITLE_YEAR)
    named = items.frame.select(
        ROW,
        ITEM_ID,
        title=parts.struct.field("title").fill_null(pl.col("full_title")),
        year=parts.struct.field("year").fill_null(pl.col("release_date").str.extract(r"(\d{4})$")),
        genres=pl.concat_str(
            [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _GENRES], separator=", ", ignore_nulls=True
        ),
    )
    events = split_fields(files.read_lines("u.data", _LATIN), "\t", [USER_ID, ITEM_ID, RATING, TIMESTAMP])
    users = split_fields(files.read_lines("u.user", _LATIN), "|", _USER_COLUMNS)
    return replace(items, frame=named), events, users


def _read_recbole(files: SourceFiles) -> _Tables:
    """Atomic files: tab-separated UTF-8, each column named `name:type`."""
    items, events, users = (_read_atomic(files, f"ml-100k.{suffix}") for suffix in ("item", "inter", "user"))
    frame = items.frame.rename({"movie_title": "title", "release_year": "year", "class": "genres"})
    return replace(items, frame=frame.with_columns(pl.col("genres").str.replace_all(" ", ", "))), events, users


def _read_atomic(files: SourceFiles, name: str) -> Table:
    lines = files.read_lines(name)
    names = [column.partition(":")[0] for column in str(lines.frame[LINE][0]).split("\t")]
    return split_fields(lines, "\t", names, header=True)


def _read_dat(files: SourceFiles) -> _Tables:
    """Fields between double colons, without a header: Latin-1 in 1M, UTF-8 in 10M."""
    encodings = ("utf-8", "latin-1")
    items = split_fields(files.read_lines("movies.dat", encodings), "::", [ITEM_ID, "full_title", "genres"])
    events = split_fields(files.read_lines("ratings.dat"), "::", [USER_ID, ITEM_ID, RATING, TIMESTAMP])
    if "users.dat" not in files:
        return _from_full_title(items), events, None
    columns = [USER_ID, "gender", "age", "occupation", "zip_code"]
    users = split_fields(files.read_lines("users.dat"), "::", columns)
    occupations = {str(code): name for code, name in enumerate(_OCCUPATIONS)}
    named = users.frame.with_columns(pl.col("age").replace(_AGES), pl.col("occupation").replace(occupations))
    return _from_full_title(items), events, replace(users, frame=named)


def _read_csv_family(files: SourceFiles) -> _Tables:
    """movies.csv and ratings.csv, with headers; the column names are guessed and need no map."""
    items, events = (
        read_separated(files.label(name), files.read(name), tabs=False) for name in ("movies.csv", "ratings.csv")
    )
    missing = [name for name in ("title", "genres") if name not in items.columns]
    if missing:
        raise DataError(f"there is no column {missing}; found {items.columns}. Fetch it again", file=items.name)
    return _from_full_title(replace(items, frame=items.frame.rename({"title": "full_title"}))), events, None


def _from_full_title(items: Table) -> Table:
    """`Toy Story (1995)` into title and year; genres from `A|B` to `A, B`."""
    parts = pl.col("full_title").str.extract_groups(_TITLE_YEAR)
    frame = items.frame.with_columns(
        title=parts.struct.field("title").fill_null(pl.col("full_title")),
        year=parts.struct.field("year"),
        genres=pl.col("genres").str.replace_all("|", ", ", literal=True),
    )
    return replace(items, frame=frame.drop("full_title"))


def _tidy(items: Table) -> Table:
    """`Net, The` -> `The Net`; placeholders such as those of film 267, misspelt in one layout, become nulls."""
    texts = pl.col("title", "year", "genres")
    blank = texts.str.to_lowercase().is_in(["unknown", "unkonwn", "(no genres listed)", ""])
    frame = items.frame.with_columns(pl.when(~blank).then(texts))
    return replace(items, frame=frame.with_columns(pl.col("title").str.replace(_ARTICLE_LAST, "${2} ${1}${3}")))


_LAYOUTS: dict[str, tuple[str, Callable[[SourceFiles], _Tables]]] = {
    "u.data": ("MovieLens-100K", _read_grouplens),
    "ml-100k.inter": ("MovieLens-100K", _read_recbole),
    "ratings.dat": ("MovieLens, .dat", _read_dat),
    "ratings.csv": ("MovieLens, csv", _read_csv_family),
}
