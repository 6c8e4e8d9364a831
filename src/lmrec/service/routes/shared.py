"""What routes share: who asks, the state, the errors that every path declares, and quick JSON answers."""

from typing import Annotated, Any

from fastapi import Depends, Path, Request, Response
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPBearer

from lmrec.service.errors import ServiceError
from lmrec.service.gate import render_json
from lmrec.service.schemas.answers import ErrorAnswer
from lmrec.service.schemas.words import PLAIN
from lmrec.service.security import AccessScope, Caller
from lmrec.service.state import ServiceState

_TEXTS = {
    400: "The body is no JSON.",
    401: "There are keys, and none or a wrong one came.",
    403: "The key lacks the scope, or there are no keys and this is not the service's own machine.",
    404: "There is no such thing.",
    408: "The body took too long to arrive.",
    409: "It cannot be done in the present state.",
    413: "The body is too large.",
    422: "A value does not keep to its rule.",
    429: "Too many requests; see Retry-After.",
    500: "Our fault; the log has it under the request id in X-Request-ID.",
    503: "Full, loading or stopping; see Retry-After.",
}
_ALWAYS = (401, 403, 408, 413, 422, 429, 500, 503)
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}

# The gate has checked the key already; this says in the OpenAPI how to send one.
_BEARER = HTTPBearer(
    auto_error=False, description="A key made with `lmrec keys RUN add`. Not needed while there is none."
)

IdPath = Annotated[str, Path(min_length=1, max_length=200, pattern=PLAIN)]


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The declared error answers: those that every path has, and `statuses`."""
    return {
        status: {
            "model": ErrorAnswer,
            "description": _TEXTS[status],
            **({"headers": _RETRY} if status in (429, 503) else {}),
        }
        for status in sorted({*_ALWAYS, *statuses})
    }


def needs(scope: AccessScope) -> Dependency:
    """A dependency that lets only keys with `scope` (or admin) pass."""

    async def check(request: Request, _: Annotated[Any, Depends(_BEARER)] = None) -> None:
        caller: Caller = request.state.caller
        if not caller.may(scope):
            raise ServiceError(
                403,
                "scope",
                f"the key '{caller.name}' has the scopes {sorted(caller.scopes)}, and this needs '{scope}'. "
                f"Make a key with `lmrec keys RUN add NAME --scope {scope}`",
            )

    result: Dependency = Depends(check)
    return result


# `async def`, or FastAPI would hand each of these to a thread.
async def _state(request: Request) -> ServiceState:
    state: ServiceState = request.app.state.service
    return state


async def _request_id(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


async def _actor(request: Request) -> str:
    caller: Caller = request.state.caller
    return caller.name


State = Annotated[ServiceState, Depends(_state)]
RequestId = Annotated[str, Depends(_request_id)]
Actor = Annotated[str, Depends(_actor)]


def answer(body: Any) -> Response:
    """JSON as it is, without the second validation that FastAPI would do."""
    return Response(render_json(body), media_type="application/json")
