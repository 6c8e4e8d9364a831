"""Small tasks done again and again in one thread, each at its own pace; one that fails waits longer and tries again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event as Signal
from threading import Thread


@dataclass(frozen=True)
class Task:
    """After a failure the next try comes after `retry_s`, at least."""

    name: str
    do: Callable[[], object]
    every_s: float
    retry_s: float = 1.0


class Watcher:
    def __init__(self, tasks: Sequence[Task], failed: Callable[[str, Exception], None]) -> None:
        self._tasks = tasks
        self._failed = failed
        self._closed = Signal()
        self._thread = Thread(target=self._run, name="lmrec-watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Waits for the task at work, if any."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        due = [time.monotonic() + task.every_s for task in self._tasks]
        while not self._closed.wait(max(0.0, min(due) - time.monotonic())):
            for place, task in enumerate(self._tasks):
                if due[place] <= time.monotonic():
                    due[place] = time.monotonic() + self._pause_s(task)

    def _pause_s(self, task: Task) -> float:
        """Do the task; how long until the next time."""
        try:
            task.do()
        except Exception as error:  # a background task must never take the service down
            self._failed(task.name, error)
            return max(task.retry_s, task.every_s)
        return task.every_s
