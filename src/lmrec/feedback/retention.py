"""Shown lists go when they are old, a few at a time, so that no write waits long for them.

Those of the experiment that runs stay however old they are. One that has ended is told from when on its lists are here.
"""

from sqlalchemy import ColumnElement, Connection, Update, delete, exists, func, literal, or_, select, update

from lmrec.feedback.experiments import running_experiment
from lmrec.feedback.tables import EXPERIMENTS, SHOWN

_EARLIER_S = 1.0  # a list may carry a time from just before its experiment was written down


def has_old_lists(connection: Connection, before_ts: float) -> bool:
    """Whether `drop_old_lists` would find any."""
    old = exists(literal(1)).where(_is_old(_spared(connection, before_ts)))
    return bool(connection.execute(select(old)).scalar_one())


def drop_old_lists(connection: Connection, before_ts: float, limit: int) -> int:
    """Delete up to `limit` of the lists shown before `before_ts`, the oldest first; return how many."""
    before_ts = _spared(connection, before_ts)
    oldest = select(SHOWN.c.request_id).where(_is_old(before_ts)).order_by(SHOWN.c.time_ts).limit(limit)
    n = connection.execute(delete(SHOWN).where(SHOWN.c.request_id.in_(oldest))).rowcount
    if n:
        connection.execute(_mark_experiments(before_ts))
    return n


def _spared(connection: Connection, before_ts: float) -> float:
    running = running_experiment(connection)
    return before_ts if running is None else min(before_ts, running.started_ts - _EARLIER_S)


def _is_old(before_ts: float) -> ColumnElement[bool]:
    return SHOWN.c.time_ts < before_ts


def _mark_experiments(before_ts: float) -> Update:
    known = func.coalesce(EXPERIMENTS.c.lists_from_ts, EXPERIMENTS.c.started_ts)
    had_some = or_(EXPERIMENTS.c.ended_ts.is_(None), known < EXPERIMENTS.c.ended_ts)
    return update(EXPERIMENTS).where(known < before_ts, had_some).values(lists_from_ts=before_ts)
