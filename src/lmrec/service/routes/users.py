"""Users' rights: all that is held of somebody, and its removal."""

import math
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from lmrec.feedback.events import StoredEvent
from lmrec.feedback.shown import Shown
from lmrec.service.routes.shared import Actor, IdPath, State, answer, errors, needs
from lmrec.service.schemas.answers import UserAnswer, UserForgotten, UserList
from lmrec.service.state import ServiceState

router = APIRouter(prefix="/v1", tags=["users"], dependencies=[needs("admin")])


@router.get("/users", response_model=UserList, responses=errors())
async def find_users(
    state: State,
    query: Annotated[str, Query(max_length=200, pattern=r"^[^\x00]*$", description="Part of a user id.")] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> Response:
    """Users of the log that the run was fitted on, and those who have done something since."""

    def find() -> dict[str, Any]:
        found, total = state.users.find(query, limit)
        return {"user_ids": found, "total": total}

    return answer(await run_in_threadpool(find))


@router.get("/users/{user_id:path}", response_model=UserAnswer, responses=errors())
async def get_user(user_id: IdPath, state: State) -> Response:
    """All that is held of a user. Somebody never heard of gets empty lists."""
    return answer(await run_in_threadpool(_export, state, user_id))


@router.delete("/users/{user_id:path}", response_model=UserForgotten, responses=errors())
async def forget_user(user_id: IdPath, state: State, actor: Actor) -> Response:
    """Delete a user's events and the user's name from shown lists; the training log is not used for them any more.

    What they do from now on is kept as anybody's.
    """

    def forget() -> dict[str, Any]:
        state.shown.flush()
        removed = state.store.forget_user(user_id, by=actor)
        state.users.refresh_forgotten()
        return {"user_id": user_id, "events_removed": removed}

    return answer(await run_in_threadpool(forget))


def _export(state: ServiceState, user_id: str) -> dict[str, Any]:
    state.shown.flush()
    held = state.store.export_user(user_id)
    live = state.serving.current.live
    titles: dict[str, str] = {}
    for _, item_id in state.users.logged(user_id):
        if item_id not in titles:
            item = live.get_item(item_id)
            titles[item_id] = item_id if item is None else item.title
    return {
        "user_id": user_id,
        "events": [_event(stored) for stored in held.events],
        "shown": [_shown(shown) for shown in held.shown],
        "training_log": [
            {"item_id": item_id, "title": titles[item_id], "time": time_ts if math.isfinite(time_ts) else None}
            for time_ts, item_id in state.users.logged(user_id)
        ],
        "history": list(state.users.history(user_id).positive),
        "forgotten": held.forgotten_ts,
    }


def _event(stored: StoredEvent) -> dict[str, Any]:
    event = stored.event
    return {
        "seq": stored.seq,
        "event_id": event.event_id,
        "item_id": event.item_id,
        "kind": event.kind,
        "time": event.time_ts,
        "rating": event.rating,
        "weight": event.weight,
        "request_id": event.request_id,
        "flags": list(event.flags),
        "received": stored.received_ts,
    }


def _shown(shown: Shown) -> dict[str, Any]:
    return {
        "request_id": shown.request_id,
        "generation": shown.generation,
        "item_ids": list(shown.item_ids),
        "time": shown.time_ts,
        "context": shown.context,
    }
