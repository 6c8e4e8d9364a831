"""For machines that watch over machines."""

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from lmrec.service.routes.shared import State, answer, errors, needs
from lmrec.service.schemas.answers import Alive, Ready

router = APIRouter(tags=["service"])
_OPEN = {status: entry for status, entry in errors().items() if status not in (401, 403, 422, 429)}


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", response_model=Alive, responses=_OPEN)
async def alive() -> Response:
    """The process answers. Restart it where this does not."""
    return answer({"status": "alive"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", response_model=Ready, responses=_OPEN)
async def ready(state: State) -> Response:
    """What is being served; 503 with the reason while it loads, or while the store does not answer."""

    state.check_ready()
    await state.pulse.beat()
    served = state.serving.current
    return answer(
        {
            "status": "ready",
            "generation": served.generation,
            "items": served.live.n_items,
            "knows_words": state.knows_words,
            "store": state.store.where.partition(":")[0].partition("+")[0],
            "problems": state.problems,
        }
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={**errors(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    dependencies=[needs("read")],
)
async def metrics(state: State) -> Response:
    """For Prometheus. Where there are keys, it needs one with the scope read."""
    body = await run_in_threadpool(state.metrics.render)
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")
