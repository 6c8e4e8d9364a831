"""Experiments as they are kept: what is compared, since when, and how it ended. At most one runs at a time."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from lmrec.errors import InputError
from lmrec.feedback.assignment import Experiment
from lmrec.feedback.audit import add_audit
from lmrec.feedback.checks import check_text, from_json, to_json
from lmrec.feedback.tables import EXPERIMENTS


@dataclass(frozen=True, slots=True)
class ExperimentRow:
    """`ended_*` are None while it runs; `why` says why it was ended. lists_from_ts: its lists from before are let go; None
    where all are kept."""

    experiment: Experiment
    started_ts: float
    started_by: str
    ended_ts: float | None
    ended_by: str | None
    why: str
    lists_from_ts: float | None = None

    @property
    def is_running(self) -> bool:
        return self.ended_ts is None


_RUNNING = select(EXPERIMENTS).where(EXPERIMENTS.c.running == 1)
_NEWEST = select(EXPERIMENTS).order_by(EXPERIMENTS.c.started_ts.desc(), EXPERIMENTS.c.name)


def start_experiment(connection: Connection, experiment: Experiment, by: str, now: float) -> None:
    """InputError where another one runs, or where the name was used: users were dealt to arms by it once already."""
    check_text("name", experiment.name)
    for row in experiments(connection):
        other = row.experiment.name
        if other == experiment.name:
            raise InputError(
                f"there was an experiment '{other}' already; users would be dealt as they were then. Name it anew"
            )
        if row.is_running:
            raise InputError(f"the experiment '{other}' is running, and one runs at a time. End it first")
    spec = experiment.as_dict()
    values = {
        "name": experiment.name,
        "running": 1,
        "spec": to_json(f"experiment '{experiment.name}'", spec),
        "started_ts": now,
        "started_by": by,
        "why": "",
    }
    connection.execute(insert(EXPERIMENTS), values)
    add_audit(connection, by, "start_experiment", experiment.name, spec, now)


def end_experiment(connection: Connection, name: str, by: str, why: str, now: float) -> bool:
    """Whether it was running."""
    if why:
        check_text("why", why)
    running = (EXPERIMENTS.c.name == name) & (EXPERIMENTS.c.running == 1)
    ended = update(EXPERIMENTS).where(running).values(running=None, ended_ts=now, ended_by=by, why=why)
    if connection.execute(ended).rowcount == 0:
        return False
    add_audit(connection, by, "end_experiment", name, {"why": why}, now)
    return True


def running_experiment(connection: Connection) -> ExperimentRow | None:
    row = connection.execute(_RUNNING).one_or_none()
    return None if row is None else _row(row)


def experiments(connection: Connection) -> list[ExperimentRow]:
    """All of them, the newest first."""
    return [_row(row) for row in connection.execute(_NEWEST)]


def _row(row: Row[*tuple[Any, ...]]) -> ExperimentRow:
    return ExperimentRow(
        experiment=Experiment.from_dict(from_json(row.spec)),
        started_ts=row.started_ts,
        started_by=row.started_by,
        ended_ts=row.ended_ts,
        ended_by=row.ended_by,
        why=row.why,
        lists_from_ts=row.lists_from_ts,
    )
