"""What is served, what was, and the way back."""

from typing import Any

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from lmrec.artifacts.generation import list_generations, rollback
from lmrec.service.routes.shared import Actor, State, answer, errors, needs
from lmrec.service.schemas.answers import GenerationList, RolledBack
from lmrec.service.schemas.questions import RollbackQuestion

router = APIRouter(prefix="/v1", tags=["generations"])


@router.get("/generations", response_model=GenerationList, responses=errors(409), dependencies=[needs("read")])
async def list_all(state: State) -> Response:
    """All generations of the run, oldest first, and which one answers at this moment."""

    def find() -> dict[str, Any]:
        serving = state.serving.current.generation
        return {
            "serving": serving,
            "generations": [
                {
                    "name": info.name,
                    "created": info.created,
                    "why": info.why,
                    "serving": info.name == serving,
                    "metrics": info.metrics,
                }
                for info in list_generations(state.settings.run)
            ],
            "problem": state.serving.generation_problem,
        }

    return answer(await run_in_threadpool(find))


@router.post(
    "/generations/rollback", response_model=RolledBack, responses=errors(400, 409), dependencies=[needs("admin")]
)
async def roll_back(question: RollbackQuestion, state: State, actor: Actor) -> Response:
    """Serve again what was served before. Answers once it is in force here, or `/readyz` says why not yet; no request fails
    meanwhile."""

    def back() -> dict[str, Any]:
        before = state.serving.current.generation
        name = rollback(state.settings.run, question.why)
        state.follow_own()
        state.note_done(actor, "rollback", name, {"from": before, "why": question.why})
        return {"generation": name, "before": before}

    return answer(await run_in_threadpool(back))
