"""What to show somebody."""

from fastapi import APIRouter, Response

from lmrec.service.recommending import Ask
from lmrec.service.routes.shared import RequestId, State, answer, errors, needs
from lmrec.service.schemas.answers import RecommendationAnswer, RecommendationBatchAnswer
from lmrec.service.schemas.questions import RecommendationBatch, RecommendationQuestion

router = APIRouter(prefix="/v1", tags=["recommend"], dependencies=[needs("read")])


@router.post("/recommendations", response_model=RecommendationAnswer, responses=errors(400))
async def recommend(question: RecommendationQuestion, state: State, request_id: RequestId) -> Response:
    """The best items for a user, a list of items, or words, as of this moment.

    `basis` says what the list rests on. Somebody of whom nothing is known gets what is popular now.
    """
    (body,) = await state.recommend([Ask(request_id, question)])
    return answer(body)


@router.post("/recommendations/batch", response_model=RecommendationBatchAnswer, responses=errors(400))
async def recommend_batch(batch: RecommendationBatch, state: State, request_id: RequestId) -> Response:
    """Many questions in one request. One that cannot be answered fails the whole request."""
    asks = [Ask(f"{request_id}-{place}", question) for place, question in enumerate(batch.questions)]
    return answer({"answers": await state.recommend(asks)})
