"""The gate: what every request passes before and after a route sees it.

In this order, the cheap before the dear: a request id, a place among those in flight, who asks, their rate, whether we are
ready, the bounded body; then the route; then its number, its log line and, where it raised, an error without internals.
Whether the service lives and is ready is answered without a place, however many others take one: a busy service must not
look like a dead one. Bodies are read of those only who were let in.
"""

import json
import random
import time
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from lmrec.errors import LmrecError
from lmrec.feedback.errors import StoreError
from lmrec.service.errors import ErrorAnswer, ServiceError, error_answer
from lmrec.service.limits import Message, RateLimiter, Receive, Scope, Send, read_body, replay
from lmrec.service.logs import log, log_failure
from lmrec.service.security import LOCAL, Caller, check_local, secret_of
from lmrec.service.state import ServiceState

# Unique, not secret: asking the system for random bytes would give the interpreter up for each request.
_IDS: Final = random.Random()  # noqa: S311
_GUARDED: Final = ("/v1/", "/metrics")
_HEALTH: Final = frozenset({"/healthz", "/readyz"})
_METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"})
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"),
)


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, state: ServiceState) -> None:
        limits = state.settings.limits
        self._app = app
        self._state = state
        self._limits = limits
        self._rates = RateLimiter(limits.rate_per_s, limits.rate_burst)
        self._wrong_keys = RateLimiter(limits.wrong_keys_per_s, max(1, int(2 * limits.wrong_keys_per_s)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        try:
            if scope["path"] in _HEALTH:
                await self._app(scope, replay(b"", receive), exchange.send)
            else:
                with self._state.in_flight:
                    await self._pass(scope, receive, exchange)
        except LmrecError as error:
            await exchange.fail(error)
        except Exception as error:  # whatever it is, the client gets the error shape and the log its place
            await exchange.fail(error)
        finally:
            self._record(scope, exchange)

    async def _pass(self, scope: Scope, receive: Receive, exchange: "_Exchange") -> None:
        path: str = scope["path"]
        if not path.startswith(_GUARDED):  # pages and their parts, of which nobody has to send a body
            await self._app(scope, replay(b"", receive), exchange.send)
            return
        caller = exchange.caller = await self._identify(scope)
        self._rates.take(f"key:{caller.key_id}" if caller.key_id else f"ip:{_address(scope)}")
        scope["state"]["caller"] = caller
        if path.startswith("/v1/"):
            self._state.check_ready()
        body = await read_body(scope, receive, self._limits.max_body_bytes, self._limits.body_timeout_s)
        if body is not None:
            await self._app(scope, replay(body, receive), exchange.send)

    async def _identify(self, scope: Scope) -> Caller:
        """Raises ServiceError: 401 without a right key where there are keys, 403 for a stranger where there are none."""
        keys = self._state.keys
        headers = dict(scope["headers"])
        secret = secret_of(headers)
        if secret is not None and (caller := keys.remembered(secret)) is not None:
            return caller
        has_keys = keys.knows_whether_keys()
        if has_keys is None:
            has_keys = await run_in_threadpool(keys.look_up_whether_keys)
        if not has_keys:
            check_local(headers)
            return LOCAL
        if secret is None:
            raise ServiceError(
                401, "no_key", "this needs a key, and none came. Send the header 'Authorization: Bearer KEY'"
            )
        if not keys.was_right(secret):  # who tries keys out is stopped before the store is asked
            self._wrong_keys.take(_address(scope), price=0)
        caller = await run_in_threadpool(keys.look_up, secret)
        if caller is None:
            self._wrong_keys.take(_address(scope))
            raise ServiceError(
                401, "wrong_key", "this key is unknown or revoked. Ask for another, made with `lmrec keys RUN add`"
            )
        return caller

    def _record(self, scope: Scope, exchange: "_Exchange") -> None:
        seconds = time.perf_counter() - exchange.start
        route = getattr(scope.get("route"), "path_format", None) or "other"
        method = scope["method"] if scope["method"] in _METHODS and route != "other" else "other"  # labels are few
        status = exchange.status or 499  # the client went away before there was an answer
        metrics = self._state.metrics
        metrics.requests.labels(method, route, str(status)).inc()
        metrics.seconds.labels(method, route).observe(seconds)
        # "Not ready yet" is an answer, no failure that somebody should look into for an hour.
        if scope["path"] not in _HEALTH:
            self._state.traffic.add(f"{method} {route}", status, seconds)
        caller = exchange.caller
        log(
            "request",
            request_id=exchange.request_id,
            method=method,
            route=route,
            status=status,
            ms=round(1000 * seconds, 2),
            key=caller.key_id if caller is not None else None,
        )


class _Exchange:
    """One request: its id, its start, and what was answered."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = f"{_IDS.getrandbits(128):032x}"
        self.start = time.perf_counter()
        self.status: int | None = None
        self.caller: Caller | None = None
        self._send = send
        scope.setdefault("state", {})["request_id"] = self.request_id
        self._extra = [(b"x-request-id", self.request_id.encode()), *_HEADERS]
        if scope["path"].startswith("/v1/"):
            self._extra.append((b"cache-control", b"no-store"))

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._extra]
        await self._send(message)

    async def fail(self, error: Exception) -> None:
        """Answer with the error shape, unless an answer has begun already."""
        answer = error_answer(error) if isinstance(error, LmrecError) else None
        if answer is None or isinstance(error, StoreError):
            log_failure("failure", error, request_id=self.request_id)
        if self.status is not None:
            return
        await send_error(self.send, answer or internal(self.request_id))


def internal(request_id: str) -> ErrorAnswer:
    return ErrorAnswer(
        500, "internal", f"something went wrong on our side. The service's log has it under request id {request_id}"
    )


async def send_error(send: Send, answer: ErrorAnswer) -> None:
    body = render_json(answer.body())
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if answer.retry_after_s is not None:
        headers.append((b"retry-after", str(answer.retry_after_s).encode()))
    if answer.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def render_json(value: Any) -> bytes:
    """UTF-8; half characters, which no UTF-8 can hold, become question marks."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unknown"
