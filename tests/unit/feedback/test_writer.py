"""Group commit: who is answered when, what fails alone, and what happens when too much waits."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from lmrec.feedback import store as store_module
from lmrec.feedback.database import Database, parse_address
from lmrec.feedback.errors import StoreBusyError, StoreError
from lmrec.feedback.store import Added, Event, ItemPut, Store
from lmrec.feedback.writer import GroupWriter


class CountedTransactions:
    """A real database that counts its commits and can be made to fail them."""

    def __init__(self, folder: Path) -> None:
        self._database = Database(parse_address(f"sqlite:///{folder}/store.db"))
        self.where = self._database.where
        self.n_commits = 0
        self.fault: Exception | None = None
        with self._database.transaction() as connection:
            connection.execute(text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)"))

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with self._database.transaction() as connection:
            yield connection
            if self.fault is not None:
                raise self.fault
        self.n_commits += 1

    def numbers(self) -> list[int]:
        with self._database.read() as connection:
            return list(connection.execute(text("SELECT n FROM numbers ORDER BY n")).scalars())

    def close(self) -> None:
        self._database.close()


@pytest.fixture
def transactions(tmp_path: Path) -> Iterator[CountedTransactions]:
    opened = CountedTransactions(tmp_path)
    yield opened
    opened.close()


def add(n: int) -> Callable[[Connection], int]:
    def write(connection: Connection) -> int:
        connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": n})
        return n

    return write


@contextmanager
def held_up(writer: GroupWriter) -> Iterator[None]:
    """The writer waits inside a write of its own while the block runs, so that others queue up behind it."""
    entered, leave = threading.Event(), threading.Event()

    def write(_: Connection) -> None:
        entered.set()
        assert leave.wait(20)

    blocking = writer.submit(write)
    assert entered.wait(20)
    try:
        yield
    finally:
        leave.set()
        blocking.result(20)


def test_what_waits_is_committed_together_and_in_order(transactions: CountedTransactions) -> None:
    writer = GroupWriter(transactions)
    seen: list[int] = []
    with held_up(writer):
        futures = [writer.submit(add(n)) for n in range(50)]
        for future in futures:
            future.add_done_callback(lambda done: seen.append(done.result()))
        assert not any(future.done() for future in futures)
        assert writer.n_waiting_rows == 50
    wait(futures, 20)
    writer.close()
    assert transactions.n_commits == 2  # the one that held up, and the fifty
    assert seen == transactions.numbers() == list(range(50))


def test_a_group_has_an_end(transactions: CountedTransactions) -> None:
    writer = GroupWriter(transactions, max_group_rows=20)
    with held_up(writer):
        futures = [writer.submit(add(n), n_rows=9) for n in range(5)]
        huge = writer.submit(add(5), n_rows=1000)  # more than a group takes, so it is one by itself
    assert [future.result(20) for future in [*futures, huge]] == list(range(6))
    writer.close()
    assert transactions.n_commits == 1 + 3 + 1


def test_a_write_that_fails_by_its_own_data_fails_alone(transactions: CountedTransactions) -> None:
    writer = GroupWriter(transactions)
    with held_up(writer):
        futures = [writer.submit(add(n)) for n in (1, 2, 1, 3, 2)]
    wait(futures, 20)
    writer.close()
    assert [future.exception() is None for future in futures] == [True, True, False, True, False]
    assert isinstance(futures[2].exception(), StoreError)
    assert transactions.numbers() == [1, 2, 3]


def test_a_fault_of_the_disk_fails_all_and_stores_nothing(transactions: CountedTransactions) -> None:
    writer = GroupWriter(transactions)
    futures: list[Future[int]] = []

    def hold_up() -> None:
        with held_up(writer):
            futures.extend(writer.submit(add(n)) for n in range(3))
            transactions.fault = OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left on device"):  # the commit of what held up fails as well
        hold_up()
    wait(futures, 20)
    for future in futures:
        assert "No space left on device. Check path, rights and disk" in str(future.exception())
    assert transactions.numbers() == []
    transactions.fault = None
    assert [writer.submit(add(n)).result(20) for n in range(3)] == [0, 1, 2]
    writer.close()
    assert transactions.numbers() == [0, 1, 2]


def test_too_much_waiting_is_refused_at_once(transactions: CountedTransactions) -> None:
    writer = GroupWriter(transactions, max_waiting_rows=10)
    with held_up(writer):
        futures = [writer.submit(add(n), n_rows=5) for n in range(2)]
        with pytest.raises(StoreBusyError, match="has 10 rows waiting, and takes 10. Try again in a second"):
            writer.submit(add(2), n_rows=1)
    wait(futures, 20)
    assert writer.submit(add(3), n_rows=11).result(20) == 3  # larger than what may wait, but nothing waits
    writer.close()
    assert transactions.numbers() == [0, 1, 3]


def test_a_write_that_was_given_up_is_not_made(transactions: CountedTransactions) -> None:
    writer = GroupWriter(transactions)
    with held_up(writer):
        given_up, kept = writer.submit(add(1)), writer.submit(add(2))
        assert given_up.cancel()
    assert kept.result(20) == 2
    writer.close()
    with pytest.raises(CancelledError):
        given_up.result()
    assert transactions.numbers() == [2]


def test_to_close_commits_what_waits(transactions: CountedTransactions) -> None:
    writer = GroupWriter(transactions)
    with held_up(writer):
        futures: list[Future[int]] = [writer.submit(add(n)) for n in range(20)]
        closing = threading.Thread(target=writer.close)
        closing.start()
    closing.join(20)
    assert [future.result(0) for future in futures] == transactions.numbers() == list(range(20))
    with pytest.raises(StoreError, match="is closed"):
        writer.submit(add(99))


def test_a_store_that_does_not_get_to_a_write_in_time_says_that_nothing_was_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = Event("e1", "ann", "i1", "view", 1.0)
    with Store.open(f"sqlite:///{tmp_path}/store.db") as store:
        monkeypatch.setattr(store_module, "WRITE_WAIT_S", 0.05)
        with held_up(store._writer), pytest.raises(StoreBusyError, match="nothing of it was stored. Try again"):
            store.add_events([event])
        assert store.count_events() == 0
        monkeypatch.setattr(store_module, "WRITE_WAIT_S", 20.0)
        assert store.add_events([event]) == Added(1, 0)


def test_a_store_that_is_slow_with_a_write_says_that_it_may_still_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow_clock() -> float:
        """Looked at inside the transaction of a write of items."""
        entered.set()
        assert leave.wait(20)
        return 1.0

    with Store.open(f"sqlite:///{tmp_path}/store.db", clock=slow_clock) as store:
        monkeypatch.setattr(store_module, "WRITE_WAIT_S", 0.05)
        with pytest.raises(StoreBusyError, match="it may still be stored. Try again"):
            store.put_items([ItemPut("i1", {})])
        assert entered.is_set()
        leave.set()
        monkeypatch.setattr(store_module, "WRITE_WAIT_S", 20.0)
        assert store.put_items([ItemPut("i2", {})]) == 2  # the first one was stored after all
