"""What both clients do alike around the network: the request, what an answer means, and whether and when to ask again."""

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from lmrec import __version__
from lmrec.client.calls import Call
from lmrec.client.errors import ApiError, UnreachableError
from lmrec.errors import MissingExtraError
from lmrec.service.schemas.answers import ErrorAnswer

if TYPE_CHECKING:
    import httpx

T = TypeVar("T", bound=BaseModel)

_BUSY = (429, 503)  # refused before anything was done
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 30.0


def load_httpx() -> Any:
    """The package, or MissingExtraError."""
    try:
        import httpx
    except ImportError:
        raise MissingExtraError("the client", "httpx", "client") from None
    return httpx


def headers(key: str | None) -> dict[str, str]:
    own = {"User-Agent": f"lmrec-client/{__version__}", "Accept": "application/json"}
    return own if key is None else {**own, "Authorization": f"Bearer {key}"}


def request_of(call: Call[Any]) -> dict[str, Any]:
    """As httpx's `request` takes it."""
    return {"method": call.method, "url": call.path, "json": call.body, "params": call.query or None}


def read_answer(call: Call[T], response: "httpx.Response") -> T:
    """Raises ApiError for anything but success."""
    if response.status_code == 200:
        return call.read(response.content)
    request_id = response.headers.get("X-Request-ID")
    try:
        error = ErrorAnswer.model_validate_json(response.content, extra="ignore").error
    except ValidationError:  # from a proxy in between, say
        message = (
            f"{call.method} {call.path} was answered with the status {response.status_code} and no message of lmrec's"
        )
        raise ApiError(response.status_code, "unreadable", message, request_id) from None
    raise ApiError(response.status_code, error.code, error.message, request_id)


def unreachable(call: Call[Any], address: str, error: Exception) -> UnreachableError:
    return UnreachableError(
        f"{call.method} {call.path} at {address} got no answer ({error or type(error).__name__}). Is the service running there?"
    )


def pause_s(call: Call[Any], attempt: int, retries: int, outcome: "httpx.Response | None") -> float | None:
    """How long to wait before asking again, None to let it be. outcome: None where no answer came.

    attempt: from 0. A refusal for being busy says how long; else each pause is twice the one before.
    """
    if attempt >= retries or (outcome is None and not call.is_safe_twice):
        return None
    if outcome is None:
        return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0**attempt)
    if outcome.status_code not in _BUSY:
        return None
    told = outcome.headers.get("Retry-After", "")
    return min(_LONGEST_PAUSE_S, float(told) if told.isdigit() else _FIRST_PAUSE_S * 2.0**attempt)
