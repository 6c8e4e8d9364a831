"""Ctrl-C as a wish, not an accident: the first one asks the loop to stop at a safe place, the second one insists."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lmrec.errors import Interrupted
from lmrec.progress import Progress

StopWish = Callable[[], bool]


@contextmanager
def stop_on_interrupt() -> Iterator[StopWish]:
    """Yields a function that says whether Ctrl-C (or SIGTERM) has come; restores the old handlers afterwards.

    Outside the main thread signals cannot be caught, and the answer is always no.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    for number in old:
        signal.signal(number, on_signal)
    try:
        yield asked.is_set
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def stopping(progress: Progress, should_stop: StopWish, told: str) -> Progress:
    """The same progress, which raises Interrupted, saying `told`, where a stop was asked for: for work without a loop of its
    own that could end at a safe place."""

    def watch(done: int, total: int) -> None:
        progress(done, total)
        if should_stop():
            raise Interrupted(told)

    return watch
