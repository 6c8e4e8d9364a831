"""Group commit: one thread writes what is waiting in one transaction, so that one flush of the disk serves many calls.

A call returns after its commit, never before. A write that fails by its own data fails alone; a fault of disk, lock
or server fails the whole group, of which then nothing is stored or acknowledged.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from sqlalchemy import Connection

from lmrec.feedback.errors import StoreBusyError, closed_error, explain_failure, spoils_the_group

T = TypeVar("T")
Write: TypeAlias = Callable[[Connection], T]
"""Statements inside an open transaction. May be run again after a rollback, so it changes nothing but the database."""

MAX_WAITING_ROWS: Final = 50_000
MAX_GROUP_ROWS: Final = 5_000


class Transactions(Protocol):
    """Where to write: `lmrec.feedback.database.Database`."""

    where: str

    def transaction(self) -> AbstractContextManager[Connection]: ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    write: Write[Any]
    n_rows: int
    future: "Future[Any]"


class _WriteFailedError(Exception):
    """Names the write of a group that failed; the error itself is the cause."""

    def __init__(self, waiting: _Waiting, error: Exception) -> None:
        super().__init__()
        self.waiting = waiting
        self.error = error


class GroupWriter:
    """Takes writes from any thread and commits them in the order they came."""

    def __init__(
        self,
        database: Transactions,
        *,
        max_waiting_rows: int = MAX_WAITING_ROWS,
        max_group_rows: int = MAX_GROUP_ROWS,
    ) -> None:
        self._database = database
        self._max_waiting_rows = max_waiting_rows
        self._max_group_rows = max_group_rows
        self._waiting: deque[_Waiting] = deque()
        self._n_rows = 0  # waiting
        self._closed = False
        self.trouble: str | None = None  # why the newest write could not be kept, where its data were not to blame
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="lmrec-store-writer", daemon=True)
        self._thread.start()

    def submit(self, write: Write[T], *, n_rows: int = 1) -> "Future[T]":
        """Queue a write; the future has its result once it is committed. StoreBusyError where too much waits."""
        future: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise closed_error(self._database.where)
            if self._waiting and self._n_rows + n_rows > self._max_waiting_rows:
                raise StoreBusyError(
                    f"the store {self._database.where} has {self._n_rows:,} rows waiting, and takes "
                    f"{self._max_waiting_rows:,}. Try again in a second"
                )
            self._waiting.append(_Waiting(write, n_rows, future))
            self._n_rows += n_rows
            self._changed.notify()
        return future

    @property
    def n_waiting_rows(self) -> int:
        return self._n_rows

    def close(self) -> None:
        """Commit what waits, then stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while group := self._take():
            self._commit([waiting for waiting in group if waiting.future.set_running_or_notify_cancel()])

    def _take(self) -> list[_Waiting]:
        """What waits, up to a group's size, in order; empty once closed and drained."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            group: list[_Waiting] = []
            n_rows = 0
            while self._waiting and (not group or n_rows + self._waiting[0].n_rows <= self._max_group_rows):
                group.append(self._waiting.popleft())
                n_rows += group[-1].n_rows
            self._n_rows -= n_rows
            return group

    def _commit(self, group: list[_Waiting]) -> None:
        """Settle every future of the group, each exactly once."""
        while group:
            try:
                results = self._write_together(group)
            except _WriteFailedError as failed:
                failed.waiting.future.set_exception(self._explain(failed.error))
                group = [waiting for waiting in group if waiting is not failed.waiting]
            except Exception as error:
                self.trouble = str(self._explain(error))
                for waiting in group:
                    waiting.future.set_exception(self._explain(error))
                return
            else:
                self.trouble = None
                for waiting, result in zip(group, results, strict=True):
                    waiting.future.set_result(result)
                return

    def _write_together(self, group: list[_Waiting]) -> list[Any]:
        """The writes' results, all committed; _WriteFailedError, and nothing stored, where one fails by its own data."""
        with self._database.transaction() as connection:
            results = []
            for waiting in group:
                with _blamed_on(waiting):
                    results.append(waiting.write(connection))
        return results

    def _explain(self, error: Exception) -> Exception:
        explained = explain_failure(error, self._database.where)
        if explained is not error:
            explained.__cause__ = error  # a future has no `raise ... from`
        return explained


@contextmanager
def _blamed_on(waiting: _Waiting) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if spoils_the_group(error):
            raise
        raise _WriteFailedError(waiting, error) from error
