"""Why an item."""

from typing import Any

from fastapi import APIRouter, Response

from lmrec.retrieval.explain import Explanation, explain
from lmrec.service.recommending import query_of
from lmrec.service.routes.shared import State, answer, errors, needs
from lmrec.service.schemas.answers import ExplanationAnswer
from lmrec.service.schemas.questions import ExplanationQuestion

router = APIRouter(prefix="/v1", tags=["recommend"], dependencies=[needs("read")])


@router.post("/explanations", response_model=ExplanationAnswer, responses=errors(400, 404))
async def explain_item(question: ExplanationQuestion, state: State) -> Response:
    """Which past items and which words moved this item's score, and what would drop it from the list."""

    def find() -> dict[str, Any]:
        served = state.serving.lineup.served_for(question.user_id)  # who made the list explains it
        (known,) = state.users.histories([question.user_id])
        found = explain(served.live, query_of(question, known, served), question.item_id, question.words)
        return {**_body(found), "generation": served.generation}

    return answer(await state.read(find))


def _body(found: Explanation) -> dict[str, Any]:
    change = found.smallest_change
    return {
        "item_id": found.item_id,
        "title": found.title,
        "score": found.score,
        "base": found.base,
        "place": found.place,
        "contributions": [vars(entry) for entry in found.contributions],
        "words": [vars(entry) for entry in found.words],
        "smallest_change": None if change is None else [vars(entry) for entry in change],
        "because": found.because,
        "text": found.text,
        "text_words": [vars(entry) for entry in found.text_words],
        "text_read": found.text_read,
    }
