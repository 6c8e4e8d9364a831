"""Rates, numbers at once, and the size and time of a body."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from lmrec.service.errors import ServiceError
from lmrec.service.limits import InFlight, RateLimiter, Receive, read_body, replay


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_then_the_rate_counts_and_each_caller_has_a_bucket_of_their_own() -> None:
    clock = Clock()
    limiter = RateLimiter(rate_per_s=0.5, burst=3, clock=clock)
    for _ in range(3):
        limiter.take("a")
    with pytest.raises(ServiceError, match="Wait 2 s") as refused:
        limiter.take("a")
    assert (refused.value.status, refused.value.retry_after_s) == (429, 2)
    limiter.take("b")
    clock.now = 2.0
    limiter.take("a")
    with pytest.raises(ServiceError):
        limiter.take("a", price=0)


def test_callers_without_end_do_not_fill_the_memory() -> None:
    limiter = RateLimiter(rate_per_s=1.0, burst=1, clock=Clock())
    for caller in range(10_050):
        limiter.take(str(caller))
    limiter.take("0")  # long forgotten, and so fresh
    with pytest.raises(ServiceError):
        limiter.take("10049")


def test_in_flight_gives_places_back() -> None:
    places = InFlight(1)
    for _ in range(2):
        with places, pytest.raises(ServiceError, match="the limit"), places:
            pytest.fail("one place was given twice")
    assert places.count == 0


def sender(*parts: bytes, end: bool = True) -> Receive:
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if messages and end:
        messages[-1]["more_body"] = False

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.sleep(60)
        return messages.pop(0)

    return receive


def read(receive: Receive, headers: Sequence[tuple[bytes, bytes]] = (), timeout_s: float = 5.0) -> bytes | None:
    return asyncio.run(read_body({"headers": headers}, receive, 10, timeout_s))


def test_a_body_within_the_bounds_comes_whole_and_is_replayed() -> None:
    body = read(sender(b"12345", b"67890"))
    assert body == b"1234567890"

    async def again() -> list[str]:
        receive = replay(body, sender(b"later"))
        return [(await receive())["body"].decode() for _ in range(2)]

    assert asyncio.run(again()) == ["1234567890", "later"]


@pytest.mark.parametrize(
    ("receive", "headers"),
    [
        (sender(b"12345", b"678901"), []),
        (sender(), [(b"content-length", b"11")]),
        (sender(), [(b"content-length", b"9" * 5_000)]),
        (sender(b"x" * 11), [(b"content-length", b"-1")]),
    ],
)
def test_a_larger_body_is_413_whether_it_says_so_or_not(
    receive: Receive, headers: Sequence[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(ServiceError, match="larger than 10 bytes") as refused:
        read(receive, headers)
    assert refused.value.status == 413


def test_a_body_that_dribbles_is_408() -> None:
    with pytest.raises(ServiceError, match=r"within 0\.05 s") as refused:
        read(sender(b"12", end=False), timeout_s=0.05)
    assert refused.value.status == 408


def test_a_client_that_goes_away_is_no_error() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    assert read(receive) is None
