"""MIND, the Microsoft news data set: behaviors.tsv and news.tsv, and where wanted the translated news_zh.tsv (xMIND).

Clicks come from two places. A click in an impression has the impression's time. The history of a user has an order but
no times; its clicks were made in the four weeks before the log, and always before its first day. They get times evenly
spaced over these 28 days, in the order given: the order is real, the distances are made up. A cut in time among the
impressions is therefore a real one; a cut among the histories asks for the last share of each user's history.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from lmrec.data.dataset import Dataset
from lmrec.data.impressions import Impressions
from lmrec.data.sources.checks import require_few_bad
from lmrec.data.sources.files import SourceFiles, open_files, split_fields
from lmrec.data.sources.reading import ROW, Table
from lmrec.data.sources.tables import TablesConfig, read_dataset
from lmrec.errors import DataError
from lmrec.fields import ITEM_ID, KIND, TIMESTAMP, USER_ID, Ragged

TEXT_COLUMNS = ("title", "abstract")
ATTRIBUTE_COLUMNS = ("category", "subcategory")
HISTORY_SPAN_S = 28 * 86_400.0  # how long before the log's first day a history reaches

_BEHAVIORS, _NEWS, _NEWS_ZH = "behaviors.tsv", "news.tsv", "news_zh.tsv"
_ASK = "Give the unpacked folder or the zip of MIND, which holds behaviors.tsv and news.tsv"
_NEWS_COLUMNS = [ITEM_ID, "category", "subcategory", "title", "abstract", "url", "title_entities", "abstract_entities"]
_CANDIDATE = r"^\S+-[01]$"
_SHOWN, _HISTORY = "shown", "history"

_Column = TypeVar("_Column", pl.Expr, pl.Series)


@dataclass(frozen=True, eq=False)
class _Log:
    """Impressions as they were read: one row each with id, user, seconds, history and shown candidates as lists."""

    table: Table

    @property
    def first_day_ts(self) -> float:
        first = float(self.table.frame.select(pl.col(TIMESTAMP).min()).item())
        return first - first % 86_400


def read_mind(path: Path | str, config: TablesConfig | None = None) -> Dataset:
    """News as items, clicks as interactions (kinds "history" and "click"), and `Dataset.impressions` for judging.

    The catalog holds the news that the log names, those without a text too; others are left out and counted. Where
    news_zh.tsv lies beside, its title and abstract replace the English ones, unless `config.language` is "en". Raises
    `DataError` for missing files and where too many lines are broken.
    """
    config = config or TablesConfig()
    files = open_files(path, _BEHAVIORS, _ASK)
    log = _read_log(files, config)
    items = _read_news(files, log, config)
    config = config.model_copy(update={"text_columns": config.text_columns or TEXT_COLUMNS})
    dataset = read_dataset(items, _clicks_of(log), config=config)
    impressions, n_lost = _impressions_of(log, dataset)
    notes = list(dataset.notes)
    if n_lost:
        notes.append(f"{log.table.name}: {n_lost:,} impressions of users without any event were left out")
    catalog = replace(dataset.catalog, attribute_columns=ATTRIBUTE_COLUMNS)
    return replace(dataset, catalog=catalog, impressions=impressions, notes=notes, source=f"MIND ({files.path})")


def _read_log(files: SourceFiles, config: TablesConfig) -> _Log:
    names = ["impression_id", USER_ID, "time", _HISTORY, _SHOWN]
    table = split_fields(files.read_lines(_BEHAVIORS), "\t", names)
    clock = pl.col("time").str.to_datetime("%m/%d/%Y %I:%M:%S %p", strict=False)
    frame = table.frame.with_columns((clock.dt.epoch("us") / 1e6).alias(TIMESTAMP))
    table = replace(table, frame=frame).set_aside(
        pl.col(TIMESTAMP).is_null(), "the time is not written like 11/12/2019 2:14:46 PM"
    )
    shown = pl.col(_SHOWN).str.extract_all(r"\S+")
    malformed = ~shown.list.eval(pl.element().str.contains(_CANDIDATE)).list.all() | (shown.list.len() == 0)
    table = table.set_aside(malformed, "a candidate is not written like N123-0 or N123-1")
    table = table.set_aside(~pl.col(USER_ID).str.contains(r"\S"), f"no {USER_ID}")
    require_few_bad(table, config.max_bad_share)
    if table.frame.is_empty():
        raise DataError("no impression can be used. Fetch the file again", file=table.name)
    lists = pl.col(_HISTORY, _SHOWN).str.extract_all(r"\S+")
    frame = table.frame.with_columns(lists).sort(TIMESTAMP, maintain_order=True)
    return _Log(replace(table, frame=frame.drop("time")).note("times read as month/day/year, UTC assumed"))


def _read_news(files: SourceFiles, log: _Log, config: TablesConfig) -> Table:
    """One row for each news that the log names: those with a text first, then the others by id."""
    news = split_fields(files.read_lines(_NEWS), "\t", _NEWS_COLUMNS)
    require_few_bad(news, config.max_bad_share)
    frame = news.frame.select(ROW, *_NEWS_COLUMNS[:6]).filter(pl.col(ITEM_ID).is_first_distinct())
    translated = config.language == "zh" or (config.language is None and _NEWS_ZH in files)
    if translated:
        chinese = split_fields(files.read_lines(_NEWS_ZH), "\t", [ITEM_ID, "title", "abstract"], header=True)
        require_few_bad(chinese, config.max_bad_share)
        news = replace(news, quarantine=pl.concat([news.quarantine, chinese.quarantine]))
        fresh = chinese.frame.filter(pl.col(ITEM_ID).is_first_distinct())
        frame = frame.join(fresh, on=ITEM_ID, how="full", coalesce=True, suffix="_zh", maintain_order="left_right")
        frame = frame.with_columns(pl.coalesce(f"{name}_zh", name).alias(name) for name in (ROW, *TEXT_COLUMNS)).select(
            ROW, *_NEWS_COLUMNS[:6]
        )
        news = news.note(f"{fresh.height:,} news take title and abstract from {_NEWS_ZH} (data.language: en, zh)")
    named = pl.concat([log.table.frame[_HISTORY].explode(), _shown_ids(log.table.frame[_SHOWN].explode())])
    ids = named.drop_nulls().unique().sort().alias(ITEM_ID)
    known = frame.filter(pl.col(ITEM_ID).is_in(ids.implode()))
    blank = ids.filter(~ids.is_in(known[ITEM_ID].implode())).to_frame().with_columns(pl.lit(0, pl.Int64).alias(ROW))
    n_unused = frame.height - known.height
    if n_unused:
        news = news.note(f"{n_unused:,} news that the log never names were left out")
    if blank.height:
        news = news.note(
            f"{blank.height:,} of {len(ids):,} news that the log names have no text here and live from their id"
        )
    frame = pl.concat([known, blank], how="diagonal")
    return replace(news, frame=frame, n_rows=frame.height + news.quarantine.height)


def _clicks_of(log: _Log) -> Table:
    """History clicks and impression clicks as events."""
    rows = log.table.frame.select(ROW, USER_ID, TIMESTAMP, _HISTORY, _SHOWN)
    # All impressions of a user carry the same history in MIND. Where they differ, later ones hold clicks of this very log.
    first = rows.unique(USER_ID, keep="first", maintain_order=True)
    n_differ = int((rows.group_by(USER_ID).agg(pl.col(_HISTORY).n_unique())[_HISTORY] > 1).sum())
    place = pl.int_range(pl.len()).over(USER_ID)
    history = (
        first.explode(_HISTORY)
        .drop_nulls(_HISTORY)
        .select(
            ROW,
            USER_ID,
            pl.col(_HISTORY).alias(ITEM_ID),
            (log.first_day_ts - HISTORY_SPAN_S * (1 - (place + 0.5) / pl.len().over(USER_ID))).alias(TIMESTAMP),
            pl.lit("history").alias(KIND),
        )
    )
    clicked = rows.explode(_SHOWN).filter(pl.col(_SHOWN).str.ends_with("-1"))
    clicks = clicked.select(
        ROW, USER_ID, _shown_ids(pl.col(_SHOWN)).alias(ITEM_ID), TIMESTAMP, pl.lit("click").alias(KIND)
    )
    events = pl.concat([history, clicks])
    table = replace(log.table, frame=events, n_rows=events.height + log.table.quarantine.height)
    if n_differ:
        table = table.note(
            f"{n_differ:,} users have other histories beside later lists, as where clicks are added as they come; that of each "
            "user's first list is read, and clicks after it come from the lists"
        )
    return table.note(
        "clicks of histories have no times and are spread over the 28 days before the first impression's day, in order"
    )


def _impressions_of(log: _Log, dataset: Dataset) -> tuple[Impressions, int]:
    """The impressions of users who have events, and how many others there were."""
    users = {user: row for row, user in enumerate(dataset.interactions.user_ids)}
    frame = log.table.frame.with_columns(
        pl.col(USER_ID).str.strip_chars().replace_strict(users, default=None, return_dtype=pl.Int32)
    )
    kept = frame.filter(pl.col(USER_ID).is_not_null())
    shown = kept[_SHOWN].explode()
    items = _shown_ids(shown).cast(pl.Enum(dataset.catalog.ids)).to_physical().to_numpy().astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept[_SHOWN].list.len().to_numpy().astype(np.int64))])
    impressions = Impressions(
        kept["impression_id"].to_list(),
        kept[USER_ID].to_numpy(),
        kept[TIMESTAMP].to_numpy(),
        Ragged(items, offsets),
        shown.str.ends_with("-1").to_numpy(),
    )
    return impressions, frame.height - kept.height


def _shown_ids(shown: _Column) -> _Column:
    """N123-0 -> N123."""
    return shown.str.head(-2)
