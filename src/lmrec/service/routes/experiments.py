"""Which generation does better: experiments that are started, read and ended, and all that was shown, by generation."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from starlette.concurrency import run_in_threadpool

from lmrec.artifacts.generation import check_servable, promote
from lmrec.errors import RunFolderError
from lmrec.evaluation.readout import read_experiment, read_generations
from lmrec.feedback.assignment import Experiment
from lmrec.feedback.experiments import ExperimentRow
from lmrec.service.errors import ServiceError, not_found
from lmrec.service.logs import log_failure
from lmrec.service.routes.shared import Actor, State, answer, errors, needs
from lmrec.service.schemas.answers import ExperimentAnswer, ExperimentList, ExperimentRead
from lmrec.service.schemas.questions import EndExperiment, NewExperiment
from lmrec.service.state import ServiceState

router = APIRouter(prefix="/v1", tags=["experiments"])
_Name = Annotated[str, Path(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


@router.get("/experiments", response_model=ExperimentList, responses=errors(), dependencies=[needs("read")])
async def list_experiments(state: State, days: Annotated[float, Query(ge=0.01, le=90)] = 7.0) -> Response:
    """All experiments; and of all lists that each generation showed in the last `days`, how many led to something.

    Counted are positive events that carry the `request_id` of a list and name an item of it.
    """
    now = time.time()
    since = max(now - days * 86_400, state.lists_from(now))

    def measure() -> dict[str, Any]:
        state.shown.flush()
        return {
            "since": since,
            "generations": [
                found.as_dict() for found in read_generations(state.store, since, state.users.log.weighing)
            ],
            "experiments": [_body(row, state) for row in state.store.experiments()],
        }

    return answer(await run_in_threadpool(measure))


@router.post("/experiments", response_model=ExperimentAnswer, responses=errors(400, 409), dependencies=[needs("admin")])
async def start_experiment(question: NewExperiment, state: State, actor: Actor) -> Response:
    """What is served against another generation. Answers once both are in memory here and users are dealt to them.

    A user stays in their arm. It ends by itself where another generation comes to be served, by a rollback or otherwise;
    updates wait until it has ended.
    """

    def start() -> dict[str, Any]:
        running = state.store.running_experiment()
        if running is not None:
            name = running.experiment.name
            raise ServiceError(
                409, "experiment", f"the experiment '{name}' is running, and one runs at a time. End it first"
            )
        check_servable(state.settings.run, question.generation)
        control = state.serving.current.generation
        wanted = Experiment.of_two(question.name, control, question.generation, question.share, question.mode)
        state.store.start_experiment(wanted, by=actor)
        _put_in_force(state, wanted)
        return _body(_find(state, question.name), state)

    return answer(await run_in_threadpool(start))


@router.get("/experiments/{name}", response_model=ExperimentRead, responses=errors(404), dependencies=[needs("read")])
async def get_experiment(name: _Name, state: State) -> Response:
    """An experiment and what it says so far. To look changes nothing: `p_always` holds however often one does."""

    def read() -> dict[str, Any]:
        row = _find(state, name)
        state.shown.flush()
        return {**_body(row, state), **read_experiment(state.store, row, state.users.log.weighing)}

    return answer(await run_in_threadpool(read))


@router.post(
    "/experiments/{name}/end",
    response_model=ExperimentAnswer,
    responses=errors(400, 404, 409),
    dependencies=[needs("admin")],
)
async def end_experiment(name: _Name, question: EndExperiment, state: State, actor: Actor) -> Response:
    """Everybody is answered by one generation again: the control, or with `promote` the challenger."""

    def end() -> dict[str, Any]:
        row = _find(state, name)
        if not state.store.end_experiment(name, question.why, by=actor):
            raise ServiceError(409, "experiment", f"the experiment '{name}' has ended already")
        if question.promote:
            winner = row.experiment.arms[-1].generation
            promote(state.settings.run, winner, f"experiment {name}: {question.why}")
            state.follow_own()
            state.note_done(actor, "promote", winner, {"experiment": name, "why": question.why})
        state.serving.sync_experiment()
        return _body(_find(state, name), state)

    return answer(await run_in_threadpool(end))


def _put_in_force(state: ServiceState, experiment: Experiment) -> None:
    """Where a generation cannot be loaded, the experiment is ended again, and this raises ServiceError (409)."""
    try:
        state.serving.sync_experiment()
    except RunFolderError as error:
        log_failure("experiment refused", error)
    if state.serving.lineup.experiment != experiment:
        problem = state.serving.experiment_problem or "another generation came to be served"
        state.store.end_experiment(experiment.name, problem)
        state.serving.sync_experiment()
        raise ServiceError(409, "experiment", f"{problem}. It was ended; start another under a new name")


def _find(state: ServiceState, name: str) -> ExperimentRow:
    for row in state.store.experiments():
        if row.experiment.name == name:
            return row
    raise not_found(f"there is no experiment '{name}'. GET /v1/experiments lists all")


def _body(row: ExperimentRow, state: ServiceState) -> dict[str, Any]:
    experiment = row.experiment
    return {
        "name": experiment.name,
        "mode": experiment.mode,
        "arms": [vars(arm) for arm in experiment.arms],
        "running": row.is_running,
        "in_force": state.serving.lineup.experiment == experiment,
        "started": row.started_ts,
        "started_by": row.started_by,
        "ended": row.ended_ts,
        "ended_by": row.ended_by,
        "why": row.why,
    }
