"""Events in and out, inside a transaction that somebody else opens and commits."""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Double, Row, bindparam, case, exists, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from lmrec.feedback.events import LIKED_STARS, POSITIVE_KINDS, UNKNOWN_ITEM, Added, Event, StoredEvent, Tally
from lmrec.feedback.tables import AUDIT, EVENTS, FORGOTTEN_EVENTS
from lmrec.fields import ItemId, UserId

_EVENT_COLUMNS = (
    EVENTS.c.event_id,
    EVENTS.c.item_id,
    EVENTS.c.kind,
    EVENTS.c.time_ts,
    EVENTS.c.value,
    EVENTS.c.request_id,
    EVENTS.c.flags,
    EVENTS.c.user_id,
    EVENTS.c.received_ts,
)
GOOD = EVENTS.c.kind.in_(sorted(POSITIVE_KINDS)) & (
    (EVENTS.c.kind != "rating") | EVENTS.c.value.is_(None) | (EVENTS.c.value >= LIKED_STARS)
)
"""`lmrec.feedback.events.counts_as_good` of an event, for the database; never NULL."""
_HAPPENED_TS = case((EVENTS.c.time_ts > EVENTS.c.received_ts, EVENTS.c.received_ts), else_=EVENTS.c.time_ts)
_TALLY_COLUMNS = (EVENTS.c.seq, EVENTS.c.item_id, _HAPPENED_TS, GOOD)

_HISTORY = (
    select(*_TALLY_COLUMNS)
    .where(EVENTS.c.user_id == bindparam("user_id"))
    .order_by(_HAPPENED_TS.desc(), EVENTS.c.received_ts.desc(), EVENTS.c.time_ts.desc(), EVENTS.c.seq.desc())
    .limit(bindparam("n_events"))
)
_DENIALS = _HISTORY.where(~GOOD)
_AFTER = (
    select(*_EVENT_COLUMNS, EVENTS.c.seq)
    .where(EVENTS.c.seq > bindparam("after_seq"))
    .order_by(EVENTS.c.seq)
    .limit(bindparam("n_events"))
)
_NOW_TS = bindparam("now", type_=Double)
_HALF_LIFE_S = bindparam("half_life_s", type_=Double)
_AGE_S = _NOW_TS - case((_HAPPENED_TS > _NOW_TS, _NOW_TS), else_=_HAPPENED_TS)
_WORTH = (
    select(EVENTS.c.item_id, func.sum(func.power(2.0, -_AGE_S / _HALF_LIFE_S)))
    .where(EVENTS.c.seq > bindparam("after_seq"), EVENTS.c.seq <= bindparam("upto_seq"), GOOD)
    .where(~EVENTS.c.flags.contains(UNKNOWN_ITEM), _AGE_S < 100.0 * _HALF_LIFE_S)  # for PostgreSQL 2^-2000 is an error
    .group_by(EVENTS.c.item_id)
)
_MARK = select(
    select(func.coalesce(func.max(EVENTS.c.seq), 0)).scalar_subquery(),
    select(func.coalesce(func.max(AUDIT.c.audit_id), 0)).scalar_subquery(),
)
_OF_USER = select(*_EVENT_COLUMNS, EVENTS.c.seq).where(EVENTS.c.user_id == bindparam("user_id")).order_by(EVENTS.c.seq)


def add_events(connection: Connection, events: Sequence[Event], received_ts: float) -> Added:
    """Each event once, whatever the number of times it comes: in this call, in another, or after it was forgotten."""
    if not events:
        return Added(0, 0)
    rows = [_row(event, received_ts) for event in events]
    accepted = connection.execute(_add(connection.dialect.name), rows).rowcount
    return Added(accepted, len(events) - accepted)


def history(connection: Connection, user_id: UserId, limit: int, denials: int) -> list[Tally]:
    """The newest `limit` of a user, oldest first, and before them the older ones among the newest `denials` that say no."""
    newest = _tallies(connection.execute(_HISTORY, {"user_id": user_id, "n_events": limit}).all())
    older: list[Tally] = []
    if len(newest) == limit and denials:  # else these are all there are
        known = {tally.seq for tally in newest}
        said_no = _tallies(connection.execute(_DENIALS, {"user_id": user_id, "n_events": denials}).all())
        older = [tally for tally in said_no if tally.seq not in known]
    return [*reversed(older), *reversed(newest)]


def changes_mark(connection: Connection) -> tuple[int, int]:
    """(the last event, the last decision): what anybody's history may have changed by since."""
    last_event, last_decision = connection.execute(_MARK).one()
    return int(last_event), int(last_decision)


def events_after(connection: Connection, seq: int, limit: int) -> list[StoredEvent]:
    return [_stored(row) for row in connection.execute(_AFTER, {"after_seq": seq, "n_events": limit})]


def events_of_user(connection: Connection, user_id: UserId) -> list[StoredEvent]:
    """All of them, in the order they came in."""
    return [_stored(row) for row in connection.execute(_OF_USER, {"user_id": user_id})]


def worth(connection: Connection, after_seq: int, upto_seq: int, now: float, half_life_s: float) -> dict[ItemId, float]:
    """What the good events of those numbers are worth by item; added up by the database, for a start counts hundreds of
    thousands."""
    span = {"after_seq": after_seq, "upto_seq": upto_seq, "now": now, "half_life_s": half_life_s}
    return {item_id: float(sum_) for item_id, sum_ in connection.execute(_WORTH, span).all()}


def last_seq(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(EVENTS.c.seq), 0))).scalar_one())


def count_events(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(EVENTS)).scalar_one())


def forgotten_mark(user_id: UserId, event_id: str) -> str:
    """What is kept of a forgotten event: enough to know it again, of no use to somebody who does not have it."""
    return hashlib.sha256(f"{user_id}\x00{event_id}".encode()).hexdigest()


@cache
def _add(dialect: str) -> sqlite.Insert | postgresql.Insert:
    """INSERT .. SELECT the values WHERE the event was not forgotten, ON CONFLICT(event_id) DO NOTHING.

    One statement, so that the number of rows it made is the number of events accepted.
    """
    values = select(*(bindparam(column.name, type_=column.type) for column in _EVENT_COLUMNS)).where(
        ~exists(literal(1)).where(FORGOTTEN_EVENTS.c.mark == bindparam("mark"))
    )
    insert = postgresql.insert(EVENTS) if dialect == "postgresql" else sqlite.insert(EVENTS)
    return (
        insert.from_select(list(_EVENT_COLUMNS), values)
        .on_conflict_do_nothing(index_elements=[EVENTS.c.event_id])
        .execution_options(preserve_rowcount=True)
    )


def _tallies(rows: Iterable[Any]) -> list[Tally]:
    return [Tally(seq, item_id, when_ts, bool(good)) for seq, item_id, when_ts, good in rows]


def _row(event: Event, received_ts: float) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "kind": event.kind,
        "time_ts": event.time_ts,
        "value": event.value,
        "request_id": event.request_id,
        "flags": ",".join(event.flags),
        "received_ts": received_ts,
        "mark": forgotten_mark(event.user_id, event.event_id),
    }


def _stored(row: Row[*tuple[Any, ...]]) -> StoredEvent:
    event = Event(
        event_id=row.event_id,
        user_id=row.user_id,
        item_id=row.item_id,
        kind=row.kind,
        time_ts=row.time_ts,
        value=row.value,
        request_id=row.request_id,
        flags=tuple(row.flags.split(",")) if row.flags else (),
    )
    return StoredEvent(row.seq, event, row.received_ts)
