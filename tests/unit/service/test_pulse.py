"""Who asks whether the store answers never waits for long, and never adds to what waits."""

import asyncio
from threading import Event

import pytest

from lmrec.feedback.errors import StoreError
from lmrec.service.errors import ServiceError
from lmrec.service.pulse import Pulse


def test_a_store_that_hangs_is_asked_once_however_many_want_to_know() -> None:
    awake, asked = Event(), []

    def hang() -> None:
        asked.append(1)
        awake.wait(20)

    async def look() -> list[BaseException | None]:
        pulse = Pulse(hang, wait_s=0.05)
        said = [await asyncio.gather(pulse.beat(), return_exceptions=True) for _ in range(5)]
        awake.set()
        await asyncio.sleep(0.1)
        await pulse.beat()  # it is asked again once it has answered
        return [one for (one,) in said]

    said = asyncio.run(look())
    assert all(isinstance(one, ServiceError) and one.status == 503 for one in said)
    assert len(asked) == 2


def test_a_store_that_is_away_is_said_to_be() -> None:
    def away() -> None:
        raise StoreError("the store is away")

    async def look() -> None:
        with pytest.raises(ServiceError, match="does not answer"):
            await Pulse(away).beat()

    asyncio.run(look())
