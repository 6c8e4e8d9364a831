"""Lists that were shown are written down behind the answers' backs, many at once: one by one they cost a commit each, which
takes more of the interpreter than answering does."""

import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from threading import Condition, Lock, Thread
from typing import Final

from lmrec.errors import LmrecError
from lmrec.feedback.shown import Shown
from lmrec.feedback.store import WRITE_WAIT_S, Store

PAUSE_S: Final = 0.05
_MAX_WAITING: Final = 10_000  # here, and of rows in the store; beyond it lists are let go: events go first


class ShownLists:
    """lost: is told how many lists could not be kept."""

    def __init__(self, store: Store, lost: Callable[[int], object]) -> None:
        self._store = store
        self._lost = lost
        self._waiting: list[Shown] = []
        self._last: Future[None] = Future()  # the newest write
        self._last.set_result(None)
        self._closed = False
        self._changed = Condition()
        self._writing = Lock()  # who takes lists out has handed them to the store before anybody else looks
        self._thread = Thread(target=self._run, name="lmrec-shown", daemon=True)
        self._thread.start()

    def add(self, shown: Shown) -> None:
        with self._changed:
            full = len(self._waiting) >= _MAX_WAITING or self._closed
            if not full:
                self._waiting.append(shown)
                if len(self._waiting) == 1:
                    self._changed.notify()
        if full:
            self._lost(1)

    def flush(self) -> None:
        """All lists added before are in the store: who counts lists, asks what is held of a user,
        or has it deleted, means them too."""
        with self._writing:
            with self._changed:
                batch, self._waiting = self._waiting, []
            if batch:
                self._write(batch)
            written = self._last
        with suppress(LmrecError, TimeoutError, CancelledError):  # lost, and `_written` says so
            written.result(WRITE_WAIT_S)

    def close(self) -> None:
        """Hands what waits to the store, which commits it before it closes."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed and not self._waiting:
                    return
            if not self._closed:
                time.sleep(PAUSE_S)
            self.flush()

    def _write(self, batch: list[Shown]) -> None:
        if self._store.n_waiting_rows > _MAX_WAITING:
            self._lost(len(batch))
            return
        try:
            self._last = self._store.queue_shown(batch)
        except LmrecError:
            self._lost(len(batch))
        else:
            self._last.add_done_callback(lambda written: self._written(written, len(batch)))

    def _written(self, written: "Future[None]", n: int) -> None:
        if written.cancelled() or written.exception() is not None:
            self._lost(n)
