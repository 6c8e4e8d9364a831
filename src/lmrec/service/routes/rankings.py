"""In which order to show what is to be shown."""

from fastapi import APIRouter, Response

from lmrec.service.recommending import Ask
from lmrec.service.routes.shared import RequestId, State, answer, errors, needs
from lmrec.service.schemas.answers import RankingAnswer
from lmrec.service.schemas.questions import RankingQuestion

router = APIRouter(prefix="/v1", tags=["recommend"], dependencies=[needs("read")])


@router.post("/rankings", response_model=RankingAnswer, responses=errors(400, 404))
async def rank(question: RankingQuestion, state: State, request_id: RequestId) -> Response:
    """The order of given items for a user or a list of items, as of this moment, whether they have been seen or not.

    The answer is kept as a list that was shown, as those of `/recommendations` are.
    """
    (body,) = await state.recommend([Ask(request_id, question)])
    return answer(body)
