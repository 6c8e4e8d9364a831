"""Ctrl-C at a chosen moment, for tests of what a stop leaves."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

StopWish = Callable[[], AbstractContextManager[Callable[[], bool]]]


def asks(answers: Callable[[int], bool]) -> tuple[StopWish, list[int]]:
    """In place of `stop_on_interrupt`: `answers` says whether to stop at the n-th time of asking; and the times asked."""
    times: list[int] = []

    @contextmanager
    def wish() -> Iterator[Callable[[], bool]]:
        def should_stop() -> bool:
            times.append(len(times))
            return answers(times[-1])

        yield should_stop

    return wish, times
