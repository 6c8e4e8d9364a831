"""Items like an item, and items for words."""

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Response

from lmrec.retrieval.answers import LiveItem
from lmrec.service.lineup import Served
from lmrec.service.recommending import columns_of, each_answered, filter_of, full_history, item_body
from lmrec.service.routes.shared import State, answer, errors, needs
from lmrec.service.schemas.answers import FoundItems, FoundItemsBatch
from lmrec.service.schemas.questions import SearchBatch, SearchQuestion, SimilarBatch, SimilarQuestion
from lmrec.service.state import ServiceState

router = APIRouter(prefix="/v1", tags=["search"], dependencies=[needs("read")])


@router.post("/similar", response_model=FoundItems, responses=errors(400, 404))
async def similar(question: SimilarQuestion, state: State) -> Response:
    """The items nearest to an item, or to words, in meaning. Words are taken as they are, a "no" among them too."""
    return answer(await state.read(lambda: _similar(question, state)))


@router.post("/similar/batch", response_model=FoundItemsBatch, responses=errors(400, 404))
async def similar_batch(batch: SimilarBatch, state: State) -> Response:
    """Many questions in one request. One that cannot be answered fails the whole request."""
    return answer(
        await state.read(lambda: {"answers": each_answered(batch.questions, lambda one: _similar(one, state))})
    )


@router.post("/search", response_model=FoundItems, responses=errors(400))
async def search(question: SearchQuestion, state: State) -> Response:
    """Items for words: by their meaning and by their title. With a user or a history, ordered by taste, too.

    Words are taken as they are, as a title may hold a "no"; what somebody does not want is said to `/recommendations`.
    """
    return answer(await state.read(lambda: _search(question, state)))


@router.post("/search/batch", response_model=FoundItemsBatch, responses=errors(400))
async def search_batch(batch: SearchBatch, state: State) -> Response:
    """Many questions in one request. One that cannot be answered fails the whole request."""
    return answer(
        await state.read(lambda: {"answers": each_answered(batch.questions, lambda one: _search(one, state))})
    )


def _similar(question: SimilarQuestion, state: ServiceState) -> dict[str, Any]:
    served = state.serving.current
    item_filter = filter_of(question.filter, served)
    return _found(
        served,
        question.fields,
        lambda: served.live.similar(question.item_id, question.text, question.k, item_filter, question.segment),
    )


def _search(question: SearchQuestion, state: ServiceState) -> dict[str, Any]:
    served = state.serving.lineup.served_for(question.user_id)
    history = full_history(question.user_id, question.history, state.users)
    item_filter = filter_of(question.filter, served)
    return _found(
        served,
        question.fields,
        lambda: served.live.search(question.words, question.k, history, item_filter, question.segment),
    )


def _found(served: Served, fields: Sequence[str] | None, find: Callable[[], Sequence[LiveItem]]) -> dict[str, Any]:
    columns = columns_of(fields, served)
    return {"items": [item_body(item, columns) for item in find()], "generation": served.generation}
