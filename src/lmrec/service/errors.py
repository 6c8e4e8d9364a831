"""Errors that have an HTTP status, and the one shape in which every error leaves the service.

    {"error": {"code": "...", "message": "value, rule, way out"}}

A code is for programs and never changes its meaning; a message is for people. What lmrec raises elsewhere is given a
status here, so that no other room has to know HTTP.
"""

from dataclasses import dataclass
from typing import Any, Final

from lmrec.errors import InputError, LmrecError, RunFolderError, UnknownIdError
from lmrec.feedback.errors import StoreBusyError, StoreError

RETRY_AFTER_S: Final = 1


class ServiceError(LmrecError):
    """An answer that is an error. `retry_after_s` becomes the Retry-After header."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


def busy(message: str, code: str = "busy", retry_after_s: int = RETRY_AFTER_S) -> ServiceError:
    """503: nothing is wrong with the request, it came at a bad moment."""
    return ServiceError(503, code, message, retry_after_s)


def not_found(message: str) -> ServiceError:
    return ServiceError(404, "not_found", message)


@dataclass(frozen=True)
class ErrorAnswer:
    status: int
    code: str
    message: str
    retry_after_s: int | None = None

    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message}}


def error_answer(error: LmrecError) -> ErrorAnswer | None:
    """What a client is told; None for an error of ours that the client cannot have caused (a 500).

    >>> error_answer(UnknownIdError("there is no item '7'"))
    ErrorAnswer(status=404, code='not_found', message="there is no item '7'", retry_after_s=None)
    >>> busy_store = StoreBusyError("the store postgresql+psycopg://lmrec@db.example/lmrec has 10 rows waiting")
    >>> error_answer(busy_store).message
    'the event store cannot take this just now. Send the same again in a moment'
    """
    match error:
        case ServiceError():
            return ErrorAnswer(error.status, error.code, str(error), error.retry_after_s)
        case UnknownIdError():
            return ErrorAnswer(404, "not_found", str(error))
        case RunFolderError():
            return ErrorAnswer(409, "run_folder", str(error))
        # Texts of the store may name folders and hosts of the server: they are for the log, not for a client.
        case StoreBusyError():
            message = "the event store cannot take this just now. Send the same again in a moment"
            return ErrorAnswer(503, "busy", message, RETRY_AFTER_S)
        case StoreError():
            message = "the event store does not answer just now; nothing of this request was kept. Send it again later"
            return ErrorAnswer(503, "store", message, RETRY_AFTER_S)
        case InputError():
            return ErrorAnswer(422, "invalid", str(error))
    return None
