"""Batches form by themselves, stay in order, stay bounded, and fail one by one."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from threading import Event

import pytest

from lmrec.service.batching import Batcher
from lmrec.service.errors import ServiceError


class Doubler:
    """Doubles numbers once the gate is open; remembers the batches; chokes on 13."""

    def __init__(self) -> None:
        self.gate = Event()
        self.begun = Event()
        self.batches: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.begun.set()
        assert self.gate.wait(10)
        self.batches.append(list(numbers))
        if 13 in numbers:
            raise ValueError("13")
        return [2 * number for number in numbers]


@pytest.fixture
def doubler() -> Iterator[Doubler]:
    made = Doubler()
    yield made
    made.gate.set()


def batcher(doubler: Doubler, sizes: list[int], **limits: float) -> Batcher[int, int]:
    return Batcher(
        "test",
        doubler,
        max_batch=int(limits.get("max_batch", 4)),
        max_waiting=int(limits.get("max_waiting", 100)),
        timeout_s=limits.get("timeout_s", 10.0),
        observe=sizes.append,
    )


async def held(lane: Batcher[int, int], doubler: Doubler, numbers: Sequence[int]) -> list[asyncio.Task[int]]:
    """The first number is being answered, the others wait."""
    first = asyncio.create_task(lane.ask(numbers[0]))
    await asyncio.to_thread(doubler.begun.wait, 10)
    others = [asyncio.create_task(lane.ask(number)) for number in numbers[1:]]
    await until(lambda: lane.n_waiting == len(others))
    return [first, *others]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


def test_what_waits_is_answered_together_and_each_gets_its_own(doubler: Doubler) -> None:
    sizes: list[int] = []

    async def scene() -> list[int]:
        lane = batcher(doubler, sizes)
        tasks = await held(lane, doubler, range(8))
        doubler.gate.set()
        answers = await asyncio.gather(*tasks)
        await asyncio.to_thread(lane.close)
        return list(answers)

    assert asyncio.run(scene()) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert doubler.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]
    assert sizes == [1, 4, 3]


def test_only_the_question_at_fault_fails(doubler: Doubler) -> None:
    async def scene() -> list[int | BaseException]:
        lane = batcher(doubler, [])
        tasks = await held(lane, doubler, [1, 2, 13, 3])
        doubler.gate.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(lane.close)
        return list(answers)

    first, second, third, fourth = asyncio.run(scene())
    assert (first, second, fourth) == (2, 4, 6)
    assert isinstance(third, ValueError)


def test_beyond_the_bound_and_beyond_the_time_the_answer_is_503(doubler: Doubler) -> None:
    async def scene() -> None:
        lane = batcher(doubler, [], max_waiting=2, timeout_s=0.2)
        tasks = await held(lane, doubler, [1, 2, 3])
        with pytest.raises(ServiceError, match="2 requests wait") as full:
            await lane.ask(4)
        assert (full.value.status, full.value.retry_after_s) == (503, 1)
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, ServiceError)
            assert (outcome.status, outcome.code) == (503, "timeout")
        doubler.gate.set()
        assert await lane.ask(5) == 10
        await asyncio.to_thread(lane.close)

    asyncio.run(scene())
    assert doubler.batches == [[1], [5]], "questions that nobody waits for any more are not answered"


def test_close_answers_what_waits_and_refuses_what_comes(doubler: Doubler) -> None:
    async def scene() -> None:
        lane = batcher(doubler, [])
        tasks = await held(lane, doubler, [1, 2])
        closing = asyncio.create_task(asyncio.to_thread(lane.close))
        await asyncio.sleep(0.02)
        doubler.gate.set()
        await closing
        assert await asyncio.gather(*tasks) == [2, 4]
        with pytest.raises(ServiceError, match="stopping"):
            await lane.ask(3)

    asyncio.run(scene())
