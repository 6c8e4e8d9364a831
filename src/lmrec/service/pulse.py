"""Whether the store answers, asked by one thread at a time: a store that hangs holds up one of them and no more."""

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.concurrency import run_in_threadpool

from lmrec.feedback.errors import StoreError
from lmrec.service.errors import busy

WAIT_S: Final = 2.0


class Pulse:
    """`ping` asks and raises StoreError; `beat` is for coroutines of one event loop."""

    def __init__(self, ping: Callable[[], None], wait_s: float = WAIT_S) -> None:
        self._ping = ping
        self._wait_s = wait_s
        self._asking: asyncio.Task[None] | None = None

    async def beat(self) -> None:
        """Raises ServiceError (503) where the store does not answer, or not within `wait_s`."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(run_in_threadpool(self._ping))
            self._asking.add_done_callback(_looked_at)
        try:
            await asyncio.wait_for(asyncio.shield(self._asking), self._wait_s)
        except (StoreError, TimeoutError) as error:
            raise busy("the event store does not answer; the service's log says why", "store") from error


def _looked_at(asked: "asyncio.Task[None]") -> None:
    """Where all who waited have gone, nobody else would look at its error, and asyncio would complain."""
    if not asked.cancelled():
        asked.exception()
