"""Bounds on what one caller, and all together, may take: requests at once, rates, and the size and time of a body."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from threading import Lock
from typing import Any, TypeAlias

from lmrec.service.errors import ServiceError, busy

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

_MAX_CALLERS = 10_000  # callers remembered at once; whoever was away longest is forgotten, with a full bucket


class RateLimiter:
    """A token bucket a caller: `rate_per_s` flow in, `burst` fit, each request takes one."""

    def __init__(self, rate_per_s: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # caller -> (tokens, when counted)
        self._lock = Lock()

    def take(self, caller: str, price: int = 1) -> None:
        """Raises ServiceError (429) with the seconds until the next request may come. Price 0 only looks."""
        now = self._clock()
        with self._lock:
            tokens, counted = self._buckets.pop(caller, (float(self._burst), now))
            tokens = min(float(self._burst), tokens + (now - counted) * self._rate_per_s)
            allowed = tokens >= 1
            self._buckets[caller] = (tokens - price if allowed else tokens, now)
            if len(self._buckets) > _MAX_CALLERS:
                self._buckets.popitem(last=False)
        if not allowed:
            wait_s = max(1, math.ceil((1 - tokens) / self._rate_per_s))
            raise ServiceError(
                429, "rate", f"more than {self._rate_per_s:g} requests a second. Wait {wait_s} s and go slower", wait_s
            )


class InFlight:
    """How many requests are being answered. Touched by the event loop only, so it needs no lock."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.count = 0

    def __enter__(self) -> None:
        """Raises ServiceError (503) beyond the limit."""
        if self.count >= self._limit:
            raise busy(
                f"{self.count} requests are being answered, which is the limit. "
                "Send the request again after the time in Retry-After"
            )
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


async def read_body(scope: Scope, receive: Receive, max_bytes: int, timeout_s: float) -> bytes | None:
    """The whole body; None where the client went away before it was complete.

    Raises ServiceError: 413 beyond `max_bytes` (told by the header alone, where that is honest), 408 beyond `timeout_s`.
    """
    declared = dict(scope["headers"]).get(b"content-length", b"")
    if declared.isdigit() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                part = message.get("body", b"")
                size += len(part)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise ServiceError(
            408, "slow_body", f"the body did not arrive within {timeout_s:g} s. Send it again, in smaller parts"
        ) from None


def replay(body: bytes, receive: Receive) -> Receive:
    """`receive` for an application whose body was read already; afterwards the real one, which tells of a disconnect."""
    sent = False

    async def next_message() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


def _too_large(max_bytes: int) -> ServiceError:
    return ServiceError(
        413, "too_large", f"the body is larger than {max_bytes:,} bytes, the limit. Send it in several requests"
    )
