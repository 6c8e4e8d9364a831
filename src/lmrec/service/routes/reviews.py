"""The review queue and the table of decisions."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from starlette.concurrency import run_in_threadpool

from lmrec.feedback.reviews import ReviewRow, ReviewStatus
from lmrec.service.routes.shared import Actor, IdPath, State, answer, errors, needs
from lmrec.service.schemas.answers import AuditList, Review, ReviewList
from lmrec.service.schemas.questions import Decision
from lmrec.service.state import ServiceState

router = APIRouter(prefix="/v1", tags=["reviews"], dependencies=[needs("admin")])


@router.get("/reviews", response_model=ReviewList, responses=errors())
async def list_reviews(state: State, status: ReviewStatus = "waiting") -> Response:
    """Items that wait for a decision, or were decided; the one flagged first at the top."""

    def find() -> dict[str, Any]:
        return {"reviews": [review_body(row, state) for row in state.store.reviews(status)]}

    return answer(await run_in_threadpool(find))


@router.post("/reviews/{item_id:path}", response_model=Review, responses=errors(400, 404))
async def decide(item_id: IdPath, decision: Decision, state: State, actor: Actor) -> Response:
    """Show a flagged item again, or hide it for good. In force at once; may be decided anew."""

    def keep() -> dict[str, Any]:
        row = state.store.decide_item(item_id, decision.approved, actor, decision.note)
        state.serving.sync_reviews()
        return review_body(row, state)

    return answer(await run_in_threadpool(keep))


@router.get("/audit", response_model=AuditList, responses=errors())
async def list_audit(state: State, limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> Response:
    """Who decided what, newest first."""

    def find() -> dict[str, Any]:
        return {
            "entries": [
                {
                    "time": row.time_ts,
                    "actor": row.actor,
                    "action": row.action,
                    "target": row.target,
                    "detail": row.detail,
                }
                for row in state.store.audit(limit)
            ]
        }

    return answer(await run_in_threadpool(find))


def review_body(row: ReviewRow, state: ServiceState) -> dict[str, Any]:
    item = state.serving.current.live.get_item(row.item_id)
    return {
        "item_id": row.item_id,
        "title": None if item is None else item.title,
        "status": row.status,
        "reason": row.reason,
        "flagged_by": row.flagged_by,
        "flagged": row.flagged_ts,
        "decided_by": row.decided_by,
        "decided": row.decided_ts,
        "note": row.note,
    }
