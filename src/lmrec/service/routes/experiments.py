"""Which generation does better, read from what was shown and what followed."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from lmrec.service.outcomes import measure_outcomes
from lmrec.service.routes.shared import State, answer, errors, needs
from lmrec.service.schemas.answers import ExperimentList

router = APIRouter(prefix="/v1", tags=["generations"], dependencies=[needs("read")])


@router.get("/experiments", response_model=ExperimentList, responses=errors())
async def list_experiments(state: State, days: Annotated[float, Query(ge=0.01, le=90)] = 7.0) -> Response:
    """Of the lists that each generation showed lately, how many led to something, with a 95 % interval.

    Counted are positive events that carry the `request_id` of a list and name an item of it.
    """
    since = time.time() - days * 86_400

    def measure() -> dict[str, Any]:
        return {
            "since": since,
            "generations": [
                {
                    "generation": found.generation,
                    "lists": found.lists,
                    "lists_with_success": found.successes,
                    "rate": found.rate,
                    "low": found.low,
                    "high": found.high,
                }
                for found in measure_outcomes(state.store, since)
            ],
        }

    return answer(await run_in_threadpool(measure))
