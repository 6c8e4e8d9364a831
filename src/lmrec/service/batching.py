"""Micro-batches: questions that arrive while the model works are answered together the next time it is free.

Nothing waits for a batch to fill: under light load a batch is one question, under heavy load it grows by itself.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Final, Generic, TypeAlias, TypeVar

from lmrec.service.errors import busy

Question = TypeVar("Question")
Answer = TypeVar("Answer")

TIMEOUT: Final = "timeout"  # the error's code where no answer came in time

Observe: TypeAlias = Callable[[int], None]  # is told the size of each batch


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Question, Answer]):
    question: Question
    future: "asyncio.Future[Answer]"
    loop: asyncio.AbstractEventLoop


class Batcher(Generic[Question, Answer]):
    """One thread that answers questions of many coroutines in batches.

    answer: (B,) questions -> (B,) answers, in order. Where it raises for a batch, each question is asked alone, so that
    only the one at fault gets the error.
    """

    def __init__(
        self,
        name: str,
        answer: Callable[[Sequence[Question]], Sequence[Answer]],
        *,
        max_batch: int,
        max_waiting: int,
        timeout_s: float,
        observe: Observe,
    ) -> None:
        self._answer = answer
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._timeout_s = timeout_s
        self._observe = observe
        self._waiting: deque[_Waiting[Question, Answer]] = deque()
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._run, name=f"lmrec-{name}", daemon=True)
        self._thread.start()

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    async def ask(self, question: Question) -> Answer:
        """Raises ServiceError (503) where too many wait already, where it takes too long, and after `close`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        with self._changed:
            if self._closed:
                raise busy("the service is stopping. Send the request again to another one, or later", "stopping")
            if len(self._waiting) >= self._max_waiting:  # who gave up takes no place
                self._waiting = deque(entry for entry in self._waiting if not entry.future.cancelled())
            if len(self._waiting) >= self._max_waiting:
                raise busy(
                    f"{len(self._waiting)} requests wait for the model already, which is the limit. "
                    "Send the request again after the time in Retry-After"
                )
            self._waiting.append(_Waiting(question, future, loop))
            self._changed.notify()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await future
        except TimeoutError:
            raise busy(
                f"no answer within {self._timeout_s:g} s: the service has more to do than it can. "
                "Send the request again after the time in Retry-After",
                TIMEOUT,
            ) from None

    def close(self) -> None:
        """Answers what waits already, then stops."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            wanted = [entry for entry in batch if not entry.future.cancelled()]
            if not wanted:
                continue
            self._observe(len(wanted))
            outcomes = self._outcomes([entry.question for entry in wanted])
            _deliver(list(zip(wanted, outcomes, strict=True)))

    def _next_batch(self) -> list[_Waiting[Question, Answer]]:
        """Empty once closed and nothing waits any more."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]

    def _outcomes(self, questions: list[Question]) -> "list[Answer | Exception]":
        try:
            return list(self._answer(questions))
        except Exception as error:  # handed to whoever asked
            if len(questions) == 1:
                return [error]
        return [outcome for question in questions for outcome in self._outcomes([question])]


def _deliver(answered: "Sequence[tuple[_Waiting[Question, Answer], Answer | Exception]]") -> None:
    """Wakes each event loop once."""
    for loop in dict.fromkeys(entry.loop for entry, _ in answered):
        own = [(entry.future, outcome) for entry, outcome in answered if entry.loop is loop]
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, own)


def _settle(answered: "Sequence[tuple[asyncio.Future[Answer], Answer | Exception]]") -> None:
    for future, outcome in answered:
        if future.done():  # its coroutine gave up in the meantime
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
