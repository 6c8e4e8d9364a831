"""The formats that can be read by name, each to the same checked `Dataset`.

| name      | what lies at the path                                                             |
|-----------|-----------------------------------------------------------------------------------|
| tables    | items.* and interactions.* (or events.*), and users.* where known: csv, parquet, ... |
| movielens | MovieLens: 100K, 1M and 10M (.dat), 20M and latest (csv); folder or zip           |
| amazon    | a reviews file and its meta file, of 2014, 2018 or 2023                           |
| mind      | behaviors.tsv, news.tsv, and news_zh.tsv where wanted                             |
| lastfm    | the HetRec 2011 Last.fm zip or its folder                                         |
| retail    | UCI Online Retail: xlsx, also in its zip, csv or parquet                          |
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from lmrec.data.dataset import Dataset
from lmrec.data.sources.amazon import read_amazon
from lmrec.data.sources.lastfm import read_lastfm
from lmrec.data.sources.mind import read_mind
from lmrec.data.sources.movielens import read_movielens
from lmrec.data.sources.retail import read_retail
from lmrec.data.sources.tables import TablesConfig, read_dataset
from lmrec.errors import DataError, InputError, nearest

Reader: TypeAlias = Callable[[Path | str, TablesConfig | None], Dataset]

_TABLES = {"items": ("items",), "interactions": ("interactions", "events"), "users": ("users",)}


def read_source(name: str, path: Path | str, config: TablesConfig | None = None) -> Dataset:
    """Read what lies at `path` in the format `name`. Raises `InputError` for an unknown name, `DataError` as readers do."""
    if name not in SOURCES:
        raise InputError(f"there is no source '{name}'. {nearest(name, SOURCES)} All: {', '.join(sorted(SOURCES))}")
    if not Path(path).exists():
        raise DataError("there is no such folder or file. Check the path", file=path)
    return SOURCES[name](path, config)


def read_tables(path: Path | str, config: TablesConfig | None = None) -> Dataset:
    """The tables of a folder, told by their names: items.*, interactions.* or events.*, users.*."""
    folder = Path(path)
    if not folder.is_dir():
        raise DataError("this is no folder. Give one that holds items.* and interactions.*", file=folder)
    found = {role: _find(folder, stems) for role, stems in _TABLES.items()}
    missing = [role for role in ("items", "interactions") if found[role] is None]
    if missing:
        held = [entry.name for entry in sorted(folder.iterdir())][:8]
        raise DataError(
            f"there is no table {missing} among {held}. Call the files items.* and interactions.*", file=folder
        )
    return read_dataset(found["items"], found["interactions"], found["users"], config)


def _find(folder: Path, stems: tuple[str, ...]) -> Path | None:
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and file.name.partition(".")[0] in stems]
    if len(files) > 1:
        raise DataError(f"more than one file could be meant: {[file.name for file in files]}. Keep one", file=folder)
    return files[0] if files else None


SOURCES: Mapping[str, Reader] = {
    "amazon": read_amazon,
    "lastfm": read_lastfm,
    "mind": read_mind,
    "movielens": read_movielens,
    "retail": read_retail,
    "tables": read_tables,
}
