"""Events in and out, inside a transaction that somebody else opens and commits."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Connection, Double, Row, Select, bindparam, case, exists, func, literal, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from lmrec.data.weighing import PLAIN, Weighing
from lmrec.feedback.events import UNKNOWN_ITEM, Added, Event, StoredEvent, Tally, Worth
from lmrec.feedback.judging import Judging, said_no, said_yes
from lmrec.feedback.tables import AUDIT, EVENTS, FORGOTTEN_EVENTS
from lmrec.fields import ItemId, UserId

_EVENT_COLUMNS = (
    EVENTS.c.event_id,
    EVENTS.c.item_id,
    EVENTS.c.kind,
    EVENTS.c.time_ts,
    EVENTS.c.rating,
    EVENTS.c.weight,
    EVENTS.c.request_id,
    EVENTS.c.flags,
    EVENTS.c.user_id,
    EVENTS.c.received_ts,
)
_HAPPENED_TS = case((EVENTS.c.time_ts > EVENTS.c.received_ts, EVENTS.c.received_ts), else_=EVENTS.c.time_ts)

_TALLIED = (
    EVENTS.c.seq,
    EVENTS.c.item_id,
    _HAPPENED_TS,
    EVENTS.c.kind,
    EVENTS.c.rating,
    EVENTS.c.weight,
    EVENTS.c.event_id,
)
_HISTORY = (
    select(*_TALLIED)
    .where(EVENTS.c.user_id == bindparam("user_id"))
    .order_by(_HAPPENED_TS.desc(), EVENTS.c.received_ts.desc(), EVENTS.c.time_ts.desc(), EVENTS.c.seq.desc())
    .limit(bindparam("n_events"))
)
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
    select(
        EVENTS.c.item_id,
        EVENTS.c.kind,
        EVENTS.c.rating,
        EVENTS.c.weight,
        func.sum(func.power(2.0, -_AGE_S / _HALF_LIFE_S)),
    )
    .where(EVENTS.c.seq > bindparam("after_seq"), EVENTS.c.seq <= bindparam("upto_seq"))
    .where(~EVENTS.c.flags.contains(UNKNOWN_ITEM), _AGE_S < 100.0 * _HALF_LIFE_S)  # for PostgreSQL 2^-2000 is an error
    .group_by(EVENTS.c.item_id, EVENTS.c.kind, EVENTS.c.rating, EVENTS.c.weight)
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


def history(connection: Connection, user_id: UserId, limit: int, older: int, weighing: Weighing = PLAIN) -> list[Tally]:
    """The newest `limit` of a user, oldest first. Before them stand, of the rest, those among the newest `older` that later
    ones do not make good: they say no, or are returns and what these may have taken back."""
    judging = Judging.of(weighing)
    newest = _tallies(connection.execute(_HISTORY, {"user_id": user_id, "n_events": limit}).all(), judging)
    lasting: list[Tally] = []
    if len(newest) == limit and older:  # else these are all there are
        known = {tally.seq for tally in newest}
        rows = connection.execute(_lasting(judging, weighing.bought_kinds), {"user_id": user_id, "n_events": older})
        lasting = [tally for tally in _tallies(rows.all(), judging) if tally.seq not in known]
    return [*reversed(lasting), *reversed(newest)]


def returnables(
    connection: Connection, pairs: Collection[tuple[UserId, ItemId]], weighing: Weighing
) -> list[tuple[UserId, Tally]]:
    """The returns of these, and what they may take back, oldest first."""
    judging = Judging.of(weighing)
    kinds = sorted(weighing.bought_kinds.union(weighing.return_kinds))
    rows = connection.execute(
        select(EVENTS.c.user_id, *_TALLIED)
        .where(EVENTS.c.user_id.in_(sorted({user_id for user_id, _ in pairs})))
        .where(EVENTS.c.item_id.in_(sorted({item_id for _, item_id in pairs})), EVENTS.c.kind.in_(kinds))
        .order_by(_HAPPENED_TS, EVENTS.c.received_ts, EVENTS.c.time_ts, EVENTS.c.seq)
    ).all()
    tallies = _tallies((row[1:] for row in rows), judging)
    return [(row[0], tally) for row, tally in zip(rows, tallies, strict=True) if (row[0], tally.item_id) in pairs]


def changes_mark(connection: Connection) -> tuple[int, int]:
    """(the last event, the last decision): what anybody's history may have changed by since."""
    last_event, last_decision = connection.execute(_MARK).one()
    return int(last_event), int(last_decision)


def events_after(connection: Connection, seq: int, limit: int) -> list[StoredEvent]:
    return [_stored(row) for row in connection.execute(_AFTER, {"after_seq": seq, "n_events": limit})]


def events_of_user(connection: Connection, user_id: UserId) -> list[StoredEvent]:
    """All of them, in the order they came in."""
    return [_stored(row) for row in connection.execute(_OF_USER, {"user_id": user_id})]


def worth(
    connection: Connection, after_seq: int, upto_seq: int, now: float, half_life_s: float, judging: Judging
) -> list[Worth]:
    """What the events of those numbers that say yes are worth; those that say the same of an item are added up by the
    database, for a start counts hundreds of thousands."""
    span = {"after_seq": after_seq, "upto_seq": upto_seq, "now": now, "half_life_s": half_life_s}
    return [Worth(*row) for row in connection.execute(_WORTH.where(said_yes(judging)), span)]


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


@lru_cache(maxsize=64)
def _lasting(judging: Judging, bought_kinds: frozenset[str]) -> Select[Any]:
    if not judging.returns:
        return _HISTORY.where(said_no(judging))
    is_return = EVENTS.c.kind.in_(sorted(judging.returns))
    others = EVENTS.alias()
    returned = select(others.c.item_id).where(
        others.c.user_id == bindparam("user_id"), others.c.kind.in_(sorted(judging.returns))
    )
    may_be_taken = EVENTS.c.kind.in_(sorted(bought_kinds)) & EVENTS.c.item_id.in_(returned)
    return _HISTORY.where(or_(said_no(judging), is_return, may_be_taken))


def _tallies(rows: Iterable[Any], judging: Judging) -> list[Tally]:
    return [
        Tally(
            seq, item_id, when_ts, judging.judge(kind, rating), kind, 1.0 if weight is None else float(weight), event_id
        )
        for seq, item_id, when_ts, kind, rating, weight, event_id in rows
    ]


def _row(event: Event, received_ts: float) -> dict[str, Any]:
    return {
        "event_id": event.event_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "kind": event.kind,
        "time_ts": event.time_ts,
        "rating": event.rating,
        "weight": event.weight,
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
        rating=row.rating,
        weight=row.weight,
        request_id=row.request_id,
        flags=tuple(row.flags.split(",")) if row.flags else (),
    )
    return StoredEvent(row.seq, event, row.received_ts)
