"""What can go wrong between a client and a service."""

from lmrec.errors import LmrecError


class ApiError(LmrecError):
    """The service refused, or failed. `str(error)` is its own message: the value, the rule and the way out.

    status: of HTTP. code: for programs, such as invalid, not_found, busy. request_id: what the service's log has it under.
    """

    def __init__(self, status: int, code: str, message: str, request_id: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id


class UnreachableError(LmrecError):
    """No answer came: the service is not there, or took too long."""
