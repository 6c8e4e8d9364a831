"""MovieLens-100K, as GroupLens packs it (u.data, u.item, u.user) or as RecBole does (.inter, .item, .user)."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import polars as pl

from lmrec.data.dataset import Dataset
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

_Members: TypeAlias = dict[str, Callable[[], bytes]]  # a file's own name -> read it


def read_movielens_100k(folder_or_zip: Path | str, config: TablesConfig | None = None) -> Dataset:
    """Read either layout, from a folder or a zip, to the same dataset: texts title, year and genres; ratings kept.

    `config` may add choices such as `min_rating`. Raises `DataError` where neither layout is found.
    """
    path = Path(folder_or_zip)
    members = _list_members(path)
    if "u.data" in members:
        items, events, users = _read_grouplens(members)
    elif "ml-100k.inter" in members:
        items, events, users = (_read_recbole(members, suffix) for suffix in ("item", "inter", "user"))
        items = items.rename({"movie_title": "title", "release_year": "year", "class": "genres"})
        items = items.with_columns(pl.col("genres").str.replace_all(" ", ", "))
    else:
        raise DataError(
            f"neither u.data nor ml-100k.inter is among {sorted(members)[:8]}. Give its folder or zip", file=path
        )
    config = (config or TablesConfig()).model_copy(update={"text_columns": ("title", "year", "genres")})
    dataset = read_dataset(_tidy(items), events, users, config)
    catalog = replace(dataset.catalog, attribute_columns=("year", "genres"))
    return replace(dataset, catalog=catalog, source=f"MovieLens-100K ({path})")


def _list_members(path: Path) -> _Members:
    """The files of a folder (and the folders in it) or of a zip, by their own name."""
    if path.is_dir():
        return {file.name: file.read_bytes for file in path.rglob("*") if file.is_file()}
    if not zipfile.is_zipfile(path):
        raise DataError(
            "this is neither a folder nor a zip file. Fetch it with: lmrec data fetch movielens-100k", file=path
        )
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    return {Path(name).name: partial(_read_member, path, name) for name in names}


def _read_member(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def _need(members: _Members, name: str) -> bytes:
    if name not in members:
        raise DataError(f"{name} is missing beside {sorted(members)[:8]}. Fetch MovieLens-100K again", file=name)
    return members[name]()


def _read_grouplens(members: _Members) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    item_columns = [ITEM_ID, "full_title", "release_date", "video_date", "url", *_GENRES]
    items = _read_plain(_need(members, "u.item"), "|", item_columns)
    parts = pl.col("full_title").str.extract_groups(_TITLE_YEAR)
    items = items.select(
        ITEM_ID,
        title=parts.struct.field("title").fill_null(pl.col("full_title")),
        year=parts.struct.field("year").fill_null(pl.col("release_date").str.extract(r"(\d{4})$")),
        genres=pl.concat_str(
            [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in _GENRES], separator=", ", ignore_nulls=True
        ),
    )
    events = _read_plain(_need(members, "u.data"), "\t", [USER_ID, ITEM_ID, RATING, TIMESTAMP])
    users = _read_plain(_need(members, "u.user"), "|", _USER_COLUMNS)
    return items, events, users


def _read_plain(data: bytes, separator: str, columns: list[str]) -> pl.DataFrame:
    """A table without header or quotes, in Latin-1 as GroupLens writes."""
    text = data.decode("latin-1").encode()
    return pl.read_csv(
        text, separator=separator, new_columns=columns, has_header=False, quote_char=None, infer_schema=False
    )


def _read_recbole(members: _Members, suffix: str) -> pl.DataFrame:
    """An atomic file: tab-separated UTF-8, each column named `name:type`."""
    frame = pl.read_csv(_need(members, f"ml-100k.{suffix}"), separator="\t", quote_char=None, infer_schema=False)
    return frame.rename(lambda name: name.partition(":")[0])


def _tidy(items: pl.DataFrame) -> pl.DataFrame:
    """`Net, The` -> `The Net`; and the placeholders of film 267, misspelt in one layout, become nulls."""
    texts = pl.col("title", "year", "genres")
    blank = texts.str.to_lowercase().is_in(["unknown", "unkonwn", ""])
    items = items.with_columns(pl.when(~blank).then(texts))
    return items.with_columns(pl.col("title").str.replace(_ARTICLE_LAST, "${2} ${1}${3}"))
