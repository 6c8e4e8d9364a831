"""Users' rights: everything we hold of one user, and its removal."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, bindparam, delete, select, update

from lmrec.feedback.audit import add_audit
from lmrec.feedback.eventlog import events_of_user, forgotten_mark
from lmrec.feedback.events import StoredEvent
from lmrec.feedback.shown import Shown, shown_to_user
from lmrec.feedback.tables import EVENTS, FORGOTTEN, FORGOTTEN_EVENTS, SHOWN, insert_or_replace, insert_or_skip
from lmrec.fields import UserId


@dataclass(frozen=True, slots=True)
class UserExport:
    """All that the store holds of a user. `forgotten_ts`: when the user was last forgotten, None for never."""

    events: list[StoredEvent]
    shown: list[Shown]
    forgotten_ts: float | None


def find_users(connection: Connection, query: str) -> list[UserId]:
    """The first 10,000 users with events whose id holds `query`, in the order of the alphabet."""
    found = select(EVENTS.c.user_id).distinct().order_by(EVENTS.c.user_id).limit(_MAX_FOUND)
    if query:
        found = found.where(EVENTS.c.user_id.contains(query, autoescape=True))
    return [
        user_id for user_id in connection.execute(found).scalars() if query in user_id
    ]  # SQLite's LIKE knows no case


_MAX_FOUND: Final = 10_000
_FORGOTTEN_TS = select(FORGOTTEN.c.time_ts).where(FORGOTTEN.c.user_id == bindparam("user_id"))


def export_user(connection: Connection, user_id: UserId) -> UserExport:
    events, shown = events_of_user(connection, user_id), shown_to_user(connection, user_id)
    return UserExport(events, shown, is_forgotten(connection, user_id))


def forget_user(connection: Connection, user_id: UserId, by: str, now: float) -> int:
    """Remove the user's events and take the user out of shown lists; return the number of events removed.

    What stays is the id with the time (so that the log a model was trained on is not used either), a mark for each
    event (so that a retry on its way does not bring it back), and the lists without user and context (so that
    counts of what was shown stay right). Events that the user causes from now on are kept as anybody's.
    """
    dialect = connection.dialect.name
    own = EVENTS.c.user_id == user_id
    event_ids = connection.execute(select(EVENTS.c.event_id).where(own)).scalars().all()
    if event_ids:
        marks = [{"mark": forgotten_mark(user_id, event_id)} for event_id in event_ids]
        connection.execute(insert_or_skip(dialect, FORGOTTEN_EVENTS), marks)
        connection.execute(delete(EVENTS).where(own))
    connection.execute(update(SHOWN).where(SHOWN.c.user_id == user_id).values(user_id=None, context="{}"))
    connection.execute(insert_or_replace(dialect, FORGOTTEN), {"user_id": user_id, "time_ts": now})
    add_audit(connection, by, "forget_user", user_id, {"events": len(event_ids)}, now)
    return len(event_ids)


def is_forgotten(connection: Connection, user_id: UserId) -> float | None:
    return connection.execute(_FORGOTTEN_TS, {"user_id": user_id}).scalar_one_or_none()


def forgotten_users(connection: Connection) -> dict[UserId, float]:
    return {row.user_id: row.time_ts for row in connection.execute(select(FORGOTTEN))}
