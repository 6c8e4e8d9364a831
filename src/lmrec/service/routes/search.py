"""Items like an item, and items for words."""

from typing import Any

from fastapi import APIRouter, Response

from lmrec.service.recommending import columns_of, filter_of, full_history, item_body
from lmrec.service.routes.shared import State, answer, errors, needs
from lmrec.service.schemas.answers import FoundItems
from lmrec.service.schemas.questions import SearchQuestion, SimilarQuestion

router = APIRouter(prefix="/v1", tags=["search"], dependencies=[needs("read")])


@router.post("/similar", response_model=FoundItems, responses=errors(400, 404))
async def similar(question: SimilarQuestion, state: State) -> Response:
    """The items nearest to an item, or to words, in meaning."""

    def find() -> dict[str, Any]:
        served = state.serving.current
        columns = columns_of(question.fields, served)
        items = served.live.similar(question.item_id, question.text, question.k, filter_of(question.filter, served))
        return {"items": [item_body(item, columns) for item in items], "generation": served.generation}

    return answer(await state.read(find))


@router.post("/search", response_model=FoundItems, responses=errors(400))
async def search(question: SearchQuestion, state: State) -> Response:
    """Items for words: by their meaning and by their title. With a user or a history, ordered by taste, too."""

    def find() -> dict[str, Any]:
        served = state.serving.lineup.served_for(question.user_id)
        columns = columns_of(question.fields, served)
        history = full_history(question.user_id, question.history, state.users)
        items = served.live.search(question.words, question.k, history, filter_of(question.filter, served))
        return {"items": [item_body(item, columns) for item in items], "generation": served.generation}

    return answer(await state.read(find))
