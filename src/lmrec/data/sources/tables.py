"""Two or three tables (csv, tsv, parquet, json lines, data frames) -> a checked `Dataset`."""

import time
from dataclasses import replace
from typing import Annotated, Literal, Self

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lmrec.data.catalog import Catalog
from lmrec.data.dataset import Dataset
from lmrec.data.interactions import Interactions
from lmrec.data.prices import PRICE, PRICE_BAND, price_band_among, read_prices
from lmrec.data.sources import checks, columns
from lmrec.data.sources.reading import INTERNAL, Table, read_table
from lmrec.data.sources.times import parse_times
from lmrec.data.sources.weights import cancel_returned_kinds, count_lines, drop_kinds, note_weights, see_kinds
from lmrec.data.users import TAG_SEPARATOR, UserTable
from lmrec.data.weighing import Weighing, WeightScale, WeightSource, plain_kind
from lmrec.data.weights import fitted, weigh
from lmrec.errors import DataError, nearest
from lmrec.fields import ADDED_AT, ITEM_ID, KIND, POSITION, RATING, TIMESTAMP, USER_ID, WEIGHT, TimeKind

__all__ = ["TablesConfig", "read_dataset", "read_new_items", "read_table"]

_SECONDS = INTERNAL + "seconds"
_ITEM_IDX = INTERNAL + "item_idx"
_OTHER_PRICES = 0.1  # of those that are written may be no numbers ("ask") where there are bands
_ORDER_BELOW = 1_000_000  # whole numbers below this are hardly a clock: as seconds they end on 12 January 1970


class TablesConfig(BaseModel):
    """How to read tables. The column maps say `ours = "theirs"`; other columns are guessed, and the guess is noted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[str, str] = Field(
        default={},
        description="ours = theirs, for each table that has such a column; the three below are for one table",
    )
    item_columns: dict[str, str] = Field(
        default={}, description="item_id, added_at, or any new name for a column of items"
    )
    interaction_columns: dict[str, str] = Field(
        default={}, description="user_id, item_id, timestamp or position, kind, rating, weight"
    )
    user_columns: dict[str, str] = Field(default={}, description="user_id, or any new name for a column of users")
    text_columns: tuple[str, ...] | None = Field(
        default=None, description="item columns with words, in order; else guessed"
    )
    max_bad_share: float = Field(
        default=0.05, ge=0, le=1, description="of a table's rows; if more are unusable, reading stops"
    )
    max_text_chars: int = Field(default=20_000, ge=1, description="longer texts are cut, and counted")
    min_rating: float | None = Field(
        default=None, description="keep only events rated at least this, as what the user liked"
    )
    kind_weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default={},
        description="what events of a kind count, such as {view = 1, purchase = 3}; 0 leaves them out, others count 1",
    )
    return_kinds: dict[str, str] = Field(
        default={},
        description="kinds that take back a user's earlier events on the item, such as {return = 'purchase'}",
    )
    weight_from: WeightSource = Field(
        default="weight",
        description="what an event counts: weight (that column, else 1), rating ((r - lowest + 1) / (highest - lowest "
        "+ 1)), none (1)",
    )
    weight_scale: WeightScale = Field(
        default="linear", description="of the weight column; log: log2(1 + weight), for counts. lastfm and retail: log"
    )
    language: Literal["en", "zh"] | None = Field(
        default=None, description="MIND: which texts; unset: zh where news_zh.tsv lies beside news.tsv"
    )
    secret_tags: int = Field(
        default=2,
        ge=0,
        description="lastfm: of each user's newest artists, so many whose tags by that user are not among the words; at "
        "least what the split holds out of a user (last: 2, last_n: 2 n)",
    )
    future_slack_s: float = Field(default=86_400.0, ge=0, description="how far past the present clock an event may be")

    @field_validator("kind_weights", "return_kinds")
    @classmethod
    def _check_names(cls, named: dict[str, object]) -> dict[str, object]:
        plain = [plain_kind(kind) for kind in named]
        if twice := next((kind for kind in plain if plain.count(kind) > 1), None):
            raise ValueError(f"names the kind '{twice}' twice: upper and lower case are alike. Say it once")
        return named

    @model_validator(mode="after")
    def _check_returns(self) -> Self:
        weighing = self.weighing
        for kind, bought in weighing.return_kinds.items():
            if bought in weighing.return_kinds:
                raise ValueError(
                    f"data.return_kinds: '{kind}' takes back '{bought}', which is a return itself. Name what was bought"
                )
            if bought in weighing.zero_kinds:
                raise ValueError(
                    f"data.return_kinds: '{kind}' takes back '{bought}', of which data.kind_weights leaves out every event. "
                    "Give it a weight, or leave the return out"
                )
        return self

    @property
    def weighing(self) -> Weighing:
        """What events count by these choices, before any log was seen."""
        return Weighing(
            kind_weights=dict(self.kind_weights),
            return_kinds=dict(self.return_kinds),
            weight_from=self.weight_from,
            weight_scale=self.weight_scale,
            min_rating=self.min_rating,
        )


def read_dataset(
    items: object, interactions: object, users: object | None = None, config: TablesConfig | None = None
) -> Dataset:
    """Read and check an item table, an interaction table and, where given, a user table.

    Each is a path, a polars frame or a pandas frame. Rows that cannot be used are set aside in `Dataset.quarantine`, up
    to `max_bad_share` of a table. Raises `DataError`, with file and row where known, for what cannot be repaired.
    """
    config = config or TablesConfig()
    _refuse_unknown_names(config)
    item_source, event_source = read_table(items, "items"), read_table(interactions, "interactions")
    user_source = None if users is None else read_table(users, "users", TAG_SEPARATOR)
    columns.require_somewhere([table for table in (item_source, event_source, user_source) if table], config.columns)
    item_table, catalog = _read_items(item_source, config)
    event_table, log, weighing = _read_interactions(event_source, catalog, config)
    tables = [item_table, event_table]
    user_table = None
    if user_source is not None:
        table = _read_users(user_source, config)
        tables.append(table)
        user_table = UserTable(table.frame.select(USER_ID, *(name for name in table.columns if name != USER_ID)))
    return Dataset(
        catalog=catalog,
        interactions=log,
        users=user_table,
        quarantine=pl.concat([table.quarantine for table in tables]),
        notes=[note for table in tables for note in table.notes],
        source=", ".join(table.name for table in tables),
        weighing=weighing,
    )


def read_catalog(items: object, config: TablesConfig | None = None) -> Catalog:
    """An item table alone, checked as `read_dataset` checks it."""
    return _read_items(read_table(items, "items"), config or TablesConfig())[1]


def read_new_items(source: object, catalog: Catalog) -> pl.DataFrame:
    """A table of items that came after `catalog` was read, checked alike, with the columns that the catalog knows."""
    table = columns.name_columns(read_table(source, "new items"), {}, columns.ITEM_GUESSES, "item_columns")
    known = tuple(name for name in catalog.text_columns if name in table.columns)
    prices = catalog.frame[PRICE] if PRICE in catalog.frame.columns else pl.Series(PRICE, [], pl.Float64)
    _, fresh = _read_items(source, TablesConfig(text_columns=known or None), prices)
    return fresh.frame.select(name for name in fresh.frame.columns if name in catalog.frame.columns)


def _read_items(source: object, config: TablesConfig, prices: pl.Series | None = None) -> tuple[Table, Catalog]:
    """prices: those of a catalog that these items come to, whose bands are theirs."""
    table = read_table(source, "items")
    table = columns.name_columns(table, config.item_columns, columns.ITEM_GUESSES, "item_columns", config.columns)
    columns.require_columns(table, (ITEM_ID,), "item_columns")
    table = checks.normalise_ids(table, ITEM_ID)
    table = checks.drop_duplicated_items(table, ITEM_ID)
    checks.require_few_bad(table, config.max_bad_share)
    table = _band_prices(table, prices)
    text_columns = columns.choose_text_columns(table, config.text_columns, config.item_columns)
    if not text_columns:
        raise DataError(
            f"no column holds words to describe the items; found {table.columns}. "
            'Add one, or say which it is: --set data.text_columns=["YOUR COLUMN"]',
            file=table.name,
        )
    if config.text_columns is None:
        table = table.note(f"text columns are {', '.join(text_columns)}")
    table = checks.clean_texts(table, text_columns, ITEM_ID, config.max_text_chars)
    if ADDED_AT in table.columns:
        parsed = parse_times(table.frame[ADDED_AT])
        table = checks.parse_added_at(table, parsed.seconds).note(f"{ADDED_AT}: {parsed.note}")
    attributes = tuple(name for name in table.columns if name not in (ITEM_ID, ADDED_AT, *text_columns))
    added_at = [ADDED_AT] if ADDED_AT in table.columns else []
    frame = table.frame.select(ITEM_ID, *text_columns, *attributes, *added_at)
    return table, Catalog(frame, text_columns, attributes)


def _band_prices(table: Table, prices: pl.Series | None) -> Table:
    """With the fifth that each price lies in, in words, where most prices are numbers and no column says so already."""
    if PRICE not in table.columns or PRICE_BAND in table.columns:
        return table
    price = read_prices(table.frame[PRICE], prices)
    n_written = int(table.frame[PRICE].cast(pl.String).str.contains(r"\S").sum() or 0)
    n_other = n_written - price.count()
    # Items that come to a catalog have the bands of its prices, however few of them have one.
    if prices is None and (not (price > 0).any() or n_other > _OTHER_PRICES * n_written):
        if n_written:
            n_priced = int((price > 0).sum() or 0)
            table = table.note(f"no {PRICE_BAND}: {n_priced:,} of {n_written:,} values of {PRICE} are numbers above 0")
        return table
    if n_other:
        table = table.note(
            f"{n_other:,} of {n_written:,} values of {PRICE} are no numbers; these items have no {PRICE_BAND}"
        )
    known = price if prices is None else read_prices(prices)
    band = price_band_among(price, known).alias(PRICE_BAND)
    table = replace(table, frame=table.frame.with_columns(band))
    return table.note(
        f"{PRICE_BAND}: the fifth of the catalog that each {PRICE} lies in, from 'very low' to 'very high'"
    )


def _read_interactions(source: object, catalog: Catalog, config: TablesConfig) -> tuple[Table, Interactions, Weighing]:
    table = source = read_table(source, "interactions")
    table = columns.name_columns(
        source, config.interaction_columns, columns.INTERACTION_GUESSES, "interaction_columns", config.columns
    )
    time_kind: TimeKind = POSITION if POSITION in table.columns and TIMESTAMP not in table.columns else TIMESTAMP
    columns.require_columns(table, (USER_ID, ITEM_ID, time_kind), "interaction_columns")
    if config.min_rating is not None or config.weight_from == "rating":
        columns.require_columns(table, (RATING,), "interaction_columns")
    if config.weight_scale == "log" and config.weight_from == "weight":
        columns.require_columns(table, (WEIGHT,), "interaction_columns")
    table = checks.normalise_ids(checks.normalise_ids(table, USER_ID), ITEM_ID)
    # The physical number of an Enum is its place in the list that it was made from: the item's row in the catalog.
    item_idx = pl.col(ITEM_ID).cast(pl.Enum(catalog.ids), strict=False).to_physical().cast(pl.Int32)
    table = replace(table, frame=table.frame.with_columns(item_idx.alias(_ITEM_IDX)))
    table = table.set_aside(pl.col(_ITEM_IDX).is_null(), "the item is not in the catalog")
    table = _check_times(_note_small_times(table, source), time_kind, config)
    table = count_lines(table, config.weighing)
    if WEIGHT in table.columns:
        table = checks.parse_numbers(table, WEIGHT, required=True, at_least=0.0)
    if RATING in table.columns:
        table = checks.parse_numbers(table, RATING, required=False)
    checks.require_few_bad(table, config.max_bad_share)
    same = [USER_ID, _ITEM_IDX, _SECONDS, *([KIND] if KIND in table.columns else [])]
    values = [name for name in (WEIGHT, RATING, checks.SETTLED) if name in table.frame.columns]
    table = checks.drop_duplicated_events(table, [*same, *values])
    table = checks.join_events(table, same)
    table, weighing = see_kinds(table, config.weighing)
    table = cancel_returned_kinds(drop_kinds(table, weighing), weighing, _SECONDS)
    if config.min_rating is not None:
        table = _keep_rated(table, config.min_rating)
    if table.frame.is_empty():
        raise DataError(
            "no event is left after the checks. Lower min_rating, weigh more kinds above 0, or give more events",
            file=table.name,
        )
    table = note_weights(table, weighing)
    if weighing.weight_from == "rating":
        weighing = fitted(weighing, table.frame[RATING])
    return table, _build_interactions(table, time_kind, weighing), weighing


def _read_users(source: object, config: TablesConfig) -> Table:
    table = read_table(source, "users")
    table = columns.name_columns(table, config.user_columns, columns.USER_GUESSES, "user_columns", config.columns)
    columns.require_columns(table, (USER_ID,), "user_columns")
    table = checks.drop_duplicated_items(checks.normalise_ids(table, USER_ID), USER_ID)
    checks.require_few_bad(table, config.max_bad_share)
    return table


def _refuse_unknown_names(config: TablesConfig) -> None:
    for name in config.interaction_columns:
        if name not in columns.INTERACTION_GUESSES:
            raise DataError(f"interaction_columns has no '{name}'. {nearest(name, columns.INTERACTION_GUESSES)}")
    known = {*columns.ITEM_GUESSES, *columns.INTERACTION_GUESSES, *columns.USER_GUESSES}
    for name in config.columns:
        if name not in known:
            raise DataError(f"data.columns has no '{name}'. {nearest(name, known)}")


def _check_times(table: Table, time_kind: TimeKind, config: TablesConfig) -> Table:
    """Add `_SECONDS`, and set aside events whose time cannot be read or has not come yet."""
    if time_kind == POSITION:
        place = pl.col(POSITION).cast(pl.Float64, strict=False)
        table = replace(table, frame=table.frame.with_columns(place.alias(_SECONDS)))
        wrong = ~(pl.col(_SECONDS).is_finite() & (pl.col(_SECONDS) == pl.col(_SECONDS).round())).fill_null(False)
        return table.set_aside(wrong, "the position is not a whole number")
    parsed = parse_times(table.frame[TIMESTAMP])
    table = replace(table, frame=table.frame.with_columns(parsed.seconds.alias(_SECONDS))).note(parsed.note)
    table = table.set_aside(pl.col(_SECONDS).is_null(), "the time is neither unix seconds nor ISO 8601")
    return table.set_aside(pl.col(_SECONDS) > time.time() + config.future_slack_s, "the time is in the future")


def _note_small_times(table: Table, source: Table) -> Table:
    """Say where numbers called a time are so small that they rather are an order; `source` has the column's own name."""
    if TIMESTAMP not in table.columns or not (table.frame.schema[TIMESTAMP].is_numeric() or _is_text(table, TIMESTAMP)):
        return table
    numbers = table.frame[TIMESTAMP].cast(pl.Float64, strict=False).drop_nulls()
    if not len(numbers) or not ((numbers >= 0) & (numbers <= _ORDER_BELOW) & (numbers == numbers.round())).all():
        return table
    same_places = len(table.columns) == len(source.columns)
    theirs = source.columns[table.columns.index(TIMESTAMP)] if same_places else TIMESTAMP
    shown = f"{np.max(numbers.to_numpy()):,.0f}"
    return table.note(
        f"the times in '{theirs}' are whole numbers up to {shown}, and as seconds all lie in January 1970. If they are an "
        f"order within each user, say so: --map interactions.position={theirs}"
    )


def _is_text(table: Table, column: str) -> bool:
    return table.frame.schema[column] == pl.String


def _keep_rated(table: Table, min_rating: float) -> Table:
    kept = table.frame.filter(pl.col(RATING) >= min_rating)
    n_dropped = table.frame.height - kept.height
    return replace(table, frame=kept).note(
        f"{n_dropped:,} events rated below {min_rating:g} or not at all were left out"
    )


def _build_interactions(table: Table, time_kind: TimeKind, weighing: Weighing) -> Interactions:
    frame = table.frame
    user_ids = frame[USER_ID].unique(maintain_order=True)
    user_idx = frame[USER_ID].cast(pl.Enum(user_ids)).to_physical().to_numpy()
    rating = frame[RATING].fill_null(np.nan).to_numpy() if RATING in frame.columns else None
    kind = np.asarray(frame[KIND].cast(pl.String).fill_null("").to_list(), object) if KIND in frame.columns else None
    return Interactions.from_arrays(
        user_ids.to_list(),
        user_idx,
        frame[_ITEM_IDX].to_numpy(),
        frame[_SECONDS].to_numpy(),
        time_kind=time_kind,
        weight=weigh(frame, weighing).to_numpy(),
        amount=frame[WEIGHT].to_numpy() if WEIGHT in frame.columns else None,
        rating=rating,
        kind=kind,
    )
