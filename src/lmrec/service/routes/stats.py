"""Numbers for the console."""

import time
from typing import Any

from fastapi import APIRouter, Response
from starlette.concurrency import run_in_threadpool

from lmrec.service.routes.shared import State, answer, errors, needs
from lmrec.service.schemas.answers import Stats
from lmrec.service.state import ServiceState

router = APIRouter(prefix="/v1", tags=["service"], dependencies=[needs("read")])


@router.get("/stats", response_model=Stats, responses=errors())
async def get_stats(state: State) -> Response:
    """The last hour of this process, and what it serves."""
    return answer(await run_in_threadpool(_stats, state))


def _stats(state: ServiceState) -> dict[str, Any]:
    served = state.serving.current
    live = served.live
    return {
        "generation": served.generation,
        "generation_since": served.since_ts,
        "uptime_s": time.time() - state.started_ts,
        "items": live.n_items,
        "events": state.store.count_events(),
        "users_in_log": len(state.users.log.user_rows),
        "waiting": state.n_waiting,
        "in_flight": state.in_flight.count,
        "cold_share": state.lists.cold_share(),
        "coverage": state.lists.coverage(live.n_items),
        "columns": {name: str(kind) for name, kind in live.schema.items()},
        "run": state.settings.run.resolve().name,
        "times": [vars(entry) for entry in state.traffic.times()],
        "minutes": [
            {"start": start, "statuses": statuses, "routes": routes}
            for start, statuses, routes in state.traffic.minutes()
        ],
        "problems": state.problems,
    }
