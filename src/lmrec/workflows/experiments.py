"""Experiments of a run: started, ended and read where the service keeps them."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from lmrec.artifacts.generation import check_servable, promote, read_serving
from lmrec.artifacts.run import open_run
from lmrec.artifacts.weighing import read_weighing
from lmrec.errors import UnknownIdError
from lmrec.evaluation import readout
from lmrec.evaluation.experiments import ReadOut
from lmrec.feedback.assignment import Experiment, Mode
from lmrec.feedback.experiments import ExperimentRow
from lmrec.feedback.store import Store, StoreError
from lmrec.workflows.news import store_url

_DAY_S: Final = 86_400.0
_ACTOR: Final = "command line"


def start_experiment(
    run: Path | str, name: str, generation: str, *, url: str | None = None, share: float = 0.5, mode: Mode = "split"
) -> Experiment:
    """What is served against `generation`, in force within a moment in a running service. Raises InputError where another
    one runs, UnknownIdError and RunFolderError for a generation that cannot be served."""
    control = read_serving(run)
    check_servable(run, generation)
    experiment = Experiment.of_two(name, control, generation, share, mode)
    with Store.open(store_url(run, url)) as store:
        store.start_experiment(experiment, by=_ACTOR)
    return experiment


def end_experiment(
    run: Path | str, name: str, why: str, *, url: str | None = None, promote_challenger: bool = False
) -> ExperimentRow:
    """Everybody is answered by one generation again. Raises UnknownIdError where no such experiment runs."""
    with Store.open(store_url(run, url)) as store:
        if not store.end_experiment(name, why, by=_ACTOR):
            raise UnknownIdError(f"no experiment '{name}' is running. `lmrec experiment {run} list` shows all")
        row = _find(store, run, name)
        if promote_challenger:
            winner = row.experiment.arms[-1].generation
            promote(run, winner, f"experiment {name}: {why}")
            if (error := store.note_done(_ACTOR, "promote", winner, {"experiment": name, "why": why})) is not None:
                raise StoreError(f"generation {winner} is served now, but the audit table has no note of it: {error}")
    return row


def list_experiments(run: Path | str, url: str | None = None) -> list[ExperimentRow]:
    """All of them, the newest first."""
    open_run(run)
    with Store.open(store_url(run, url)) as store:
        return store.experiments()


def name_of_running(run: Path | str, url: str | None = None) -> str | None:
    with Store.open(store_url(run, url)) as store:
        row = store.running_experiment()
    return None if row is None else row.experiment.name


def show_experiment(run: Path | str, name: str, url: str | None = None) -> tuple[ExperimentRow, dict[str, Any]]:
    """An experiment and its read-out. Raises UnknownIdError."""
    weighing = read_weighing(open_run(run))
    with Store.open(store_url(run, url)) as store:
        row = _find(store, run, name)
        return row, readout.read_experiment(store, row, weighing)


def compare_lists(
    run: Path | str, url: str | None = None, *, days: float = 30.0, against: str | None = None, effect: float = 0.05
) -> ReadOut:
    """All lists of the last `days`, by the arm that the shop or an experiment wrote into their context, else by their
    generation. against: the arm that the others are compared with. effect: the relative gain that would matter.

    A warning says where the lists that are kept begin later than was asked for.
    """
    weighing = read_weighing(open_run(run))
    from_ts = time.time() - days * _DAY_S
    with Store.open(store_url(run, url)) as store:
        found = readout.compare_lists(store, from_ts, weighing, against=against, effect=effect)
        oldest = store.shown_after(from_ts, 1)
    if not oldest or oldest[0].time_ts - from_ts < _DAY_S:
        return found
    since = f"{datetime.fromtimestamp(oldest[0].time_ts, UTC):%Y-%m-%d %H:%M} UTC"
    gap = (
        f"the oldest list here is of {since}, though {days:g} days were asked for: none was shown before, or it is not kept "
        "any more (`lmrec serve --keep-lists`)"
    )
    return replace(found, warnings=(*found.warnings, gap))


def _find(store: Store, run: Path | str, name: str) -> ExperimentRow:
    for row in store.experiments():
        if row.experiment.name == name:
            return row
    raise UnknownIdError(f"there is no experiment '{name}'. `lmrec experiment {run} list` shows all")
