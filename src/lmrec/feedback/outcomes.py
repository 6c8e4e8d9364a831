"""What came of the lists that were shown, counted where they lie: memory and time go by the lists asked about, however many
events the store holds.

A list led to something where a positive event names its request id and an item of it, however many such events there are.
Lists that somebody tried out in the console count nowhere.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, cast, exists, func, literal, select
from sqlalchemy.dialects.postgresql import JSON, JSONB

from lmrec.feedback.judging import PLAIN_JUDGING, Judging, said_yes
from lmrec.feedback.shown import ARM, EXPERIMENT
from lmrec.feedback.tables import EVENTS, SHOWN
from lmrec.fields import ItemId, UserId


@dataclass(frozen=True)
class Lists:
    """Those shown later than `after_ts`: all, or an experiment's. with_arm: only those whose context names an arm."""

    after_ts: float
    experiment: str | None = None
    with_arm: bool = False


class ListOutcome(NamedTuple):
    """`arm`: what the list's context says, else the generation that made it."""

    request_id: str
    user_id: UserId | None
    arm: str
    time_ts: float
    succeeded: bool


class ClickedItem(NamedTuple):
    """`time_ts`: when its list was shown."""

    request_id: str
    item_id: ItemId
    time_ts: float


class GenerationOutcome(NamedTuple):
    generation: str
    lists: int
    successes: int


def generation_outcomes(
    connection: Connection, after_ts: float, judging: Judging = PLAIN_JUDGING
) -> list[GenerationOutcome]:
    """Of the lists shown later than `after_ts`, by generation."""
    dialect = connection.dialect.name
    counted = select(SHOWN.c.generation, func.count(), func.count().filter(_succeeded(dialect, judging)))
    rows = connection.execute(_among(counted, dialect, Lists(after_ts)).group_by(SHOWN.c.generation))
    return sorted(GenerationOutcome(*row) for row in rows)


def newest_lists(connection: Connection, lists: Lists, limit: int) -> tuple[Lists, int]:
    """`lists`, or where there are more than `limit` the newest of them; and how many were left out."""
    dialect = connection.dialect.name
    n = _count(connection, lists)
    if n <= limit:
        return lists, 0
    times = _among(select(SHOWN.c.time_ts), dialect, lists).order_by(SHOWN.c.time_ts.desc())
    fewer = replace(lists, after_ts=connection.execute(times.offset(limit).limit(1)).scalar_one())
    return fewer, n - _count(connection, fewer)


def newest_shows(connection: Connection, lists: Lists, limit: int) -> Lists:
    """`lists`, or where they have more than `limit` items together the newest of them that do not."""
    dialect = connection.dialect.name
    so_far = func.sum(_n_items(dialect)).over(order_by=SHOWN.c.time_ts.desc()).label("so_far")
    counted = _among(select(SHOWN.c.time_ts, so_far), dialect, lists).subquery()
    after_ts = connection.execute(select(func.max(counted.c.time_ts)).where(counted.c.so_far > limit)).scalar_one()
    return lists if after_ts is None else replace(lists, after_ts=after_ts)


def list_outcomes(connection: Connection, lists: Lists, judging: Judging = PLAIN_JUDGING) -> list[ListOutcome]:
    """In order of time."""
    dialect = connection.dialect.name
    arm = func.coalesce(_said(dialect, ARM), SHOWN.c.generation)
    rows = select(SHOWN.c.request_id, SHOWN.c.user_id, arm, SHOWN.c.time_ts, _succeeded(dialect, judging))
    ordered = _among(rows, dialect, lists).order_by(SHOWN.c.time_ts, SHOWN.c.request_id)
    return [
        ListOutcome(request_id, user_id, str(arm_name), time_ts, bool(succeeded))
        for request_id, user_id, arm_name, time_ts, succeeded in connection.execute(ordered)
    ]


def followed_items(
    connection: Connection, after_ts: float, until_ts: float, judging: Judging = PLAIN_JUDGING
) -> list[tuple[str, ItemId]]:
    """(request id, item) of the positive events that name a list shown in this time; the item may be none of it."""
    rows = (
        select(EVENTS.c.request_id, EVENTS.c.item_id)
        .select_from(SHOWN.join(EVENTS, EVENTS.c.request_id == SHOWN.c.request_id))
        .where(SHOWN.c.time_ts > after_ts, SHOWN.c.time_ts <= until_ts, said_yes(judging))
        .distinct()
    )
    return [(request_id, item_id) for request_id, item_id in connection.execute(rows)]


def clicked_items(
    connection: Connection,
    after_ts: float,
    after_seq: int,
    upto_seq: int,
    judging: Judging = PLAIN_JUDGING,
    request_ids: Collection[str] | None = None,
) -> list[ClickedItem]:
    """Of the positive events of these numbers, above `after_seq` up to `upto_seq`, that name a list shown after `after_ts`,
    one of `request_ids` where given, and an item of it. An item of a list counts once, with its first such event."""
    dialect, heard = connection.dialect.name, EVENTS.alias()
    named = select(heard.c.request_id).where(
        heard.c.seq > after_seq, heard.c.seq <= upto_seq, heard.c.request_id.is_not(None)
    )
    joined = SHOWN.join(EVENTS, EVENTS.c.request_id == SHOWN.c.request_id)
    first_seq = func.min(EVENTS.c.seq)
    columns = select(SHOWN.c.request_id, EVENTS.c.item_id, SHOWN.c.time_ts).select_from(joined)
    rows = (
        _among(columns, dialect, Lists(after_ts))
        .where(
            SHOWN.c.request_id.in_(named if request_ids is None else request_ids), said_yes(judging), _holds(dialect)
        )
        .group_by(SHOWN.c.request_id, SHOWN.c.time_ts, EVENTS.c.item_id)
        .having(first_seq > after_seq, first_seq <= upto_seq)
        .order_by(first_seq)
    )
    return [ClickedItem(*row) for row in connection.execute(rows)]


def _count(connection: Connection, lists: Lists) -> int:
    counted = _among(select(func.count()).select_from(SHOWN), connection.dialect.name, lists)
    return int(connection.execute(counted).scalar_one())


def _among(query: Select[Any], dialect: str, lists: Lists) -> Select[Any]:
    query = query.where(SHOWN.c.time_ts > lists.after_ts, _said(dialect, "page").is_distinct_from("console"))
    if lists.experiment is not None:
        query = query.where(_said(dialect, EXPERIMENT) == lists.experiment)
    return query.where(_said(dialect, ARM).is_not(None)) if lists.with_arm else query


@lru_cache(maxsize=64)
def _succeeded(dialect: str, judging: Judging) -> ColumnElement[bool]:
    return exists(literal(1)).where(EVENTS.c.request_id == SHOWN.c.request_id, said_yes(judging), _holds(dialect))


def _holds(dialect: str) -> ColumnElement[bool]:
    """Whether the event's item is one of the list's."""
    if dialect == "postgresql":
        return func.jsonb_exists(cast(SHOWN.c.item_ids, JSONB), EVENTS.c.item_id)
    items = func.json_each(SHOWN.c.item_ids).table_valued("value")
    return exists(literal(1)).select_from(items).where(items.c.value == EVENTS.c.item_id)


def _n_items(dialect: str) -> ColumnElement[int]:
    return func.json_array_length(cast(SHOWN.c.item_ids, JSON) if dialect == "postgresql" else SHOWN.c.item_ids)


@cache
def _said(dialect: str, name: str) -> ColumnElement[Any]:
    """What the list's context has under a name, NULL where it has nothing."""
    if dialect == "postgresql":
        return cast(SHOWN.c.context, JSON).op("->>")(name)
    return func.json_extract(SHOWN.c.context, f"$.{name}")
