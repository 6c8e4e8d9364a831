"""One address, two ways in: transactions that write, one at a time, and reads that wait for nobody.

SQLite: WAL, so that readers see the last commit while a writer works; synchronous FULL, so that a commit is on the disk when
it returns. https://sqlite.org/wal.html, https://sqlite.org/pragma.html#pragma_synchronous
PostgreSQL: writers take an advisory lock first. Numbers of events are given before a commit; without the lock a slow
transaction could commit number 9 after a reader has seen 10 and gone on from there, and event 9 would never be read.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from lmrec.errors import InputError, MissingExtraError
from lmrec.feedback.errors import StoreError, closed_error, explain_failure

BUSY_WAIT_S: Final = 10
"""How long a writer waits for another process's write lock."""
_BUSY_PAUSE_S: Final = 0.01

_N_READERS: Final = 8
_MORE_READERS: Final = {"sqlite": 56, "postgresql": 8}  # a server has few connections to give, a file has many
_WRITE_LOCK: Final = int.from_bytes(b"lmrec")
_GONE_SERVER: Final = {
    "connect_timeout": BUSY_WAIT_S,
    "tcp_user_timeout": 1_000 * BUSY_WAIT_S,
    "keepalives_idle": BUSY_WAIT_S // 2,
    "keepalives_interval": 1,
    "keepalives_count": BUSY_WAIT_S // 2,
}
"""A machine that is gone without a word: by themselves Linux and libpq wait a quarter of an hour for it, or two hours.
https://www.postgresql.org/docs/current/libpq-connect.html"""
_HOW: Final = "Give sqlite:///path/to/file.db or postgresql+psycopg://user:password@host/database"


class Database:
    """Connections to one store. Threads may share it. `where` is the address without its password.

    To make one touches a SQLite file only to create it, and no server: what is wrong shows at the first use.
    """

    def __init__(self, url: URL) -> None:
        self.where = url.render_as_string(hide_password=True)
        self._closed = False
        self._file = Path(url.database or "") if url.drivername == "sqlite" else None
        if self._file is not None:
            _make_private_file(self._file)
            self._inode = self._file.stat().st_ino
        self._writes = _engine(url, pool_size=1, max_overflow=0)
        self._reads = _engine(
            url, pool_size=_N_READERS, max_overflow=_MORE_READERS[url.get_backend_name()], isolation_level="AUTOCOMMIT"
        )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start, committed to the disk when the block ends well.

        Raises what the driver raises.
        """
        self.check_in_place()
        with self._writes.connect() as connection:
            try:
                with connection.begin():
                    if self._file is None:
                        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITE_LOCK})
                    yield connection
            except DBAPIError:
                connection.invalidate()  # what state it is in after a failed disk is not worth knowing
                raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """For single statements: each sees what was committed when it began. Raises StoreError."""
        if self._closed:
            raise closed_error(self.where)
        try:
            with self._reads.connect() as connection:
                yield connection
        except (DBAPIError, PoolTimeoutError) as error:
            raise explain_failure(error, self.where) from error

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """For several statements that must see one and the same moment. Raises StoreError."""
        with self.read() as connection:
            connection.exec_driver_sql(
                "BEGIN" if self._file is not None else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
            )
            try:
                yield connection
            finally:
                connection.exec_driver_sql("ROLLBACK")

    def check_in_place(self) -> None:
        """StoreError where the SQLite file was moved, deleted or replaced: what is written would go with the old one."""
        if self._file is not None and _inode(self._file) != self._inode:
            raise StoreError(
                f"the store {self.where} was moved, deleted or replaced while it was in use. Put the file back, "
                "or stop the service, put the file in place, and start it again"
            )

    def clean(self) -> None:
        """Move what SQLite's log holds into its file and empty the log, so that bytes of deleted rows are gone too."""
        if self._file is not None:
            with self.read() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._closed = True
        self._reads.dispose()
        self._writes.dispose()


def parse_address(address: str) -> URL:
    """The URL of a store, a SQLite path made absolute; InputError for what is no address of a store."""
    try:
        url = make_url(address)
    except ArgumentError:
        raise InputError(f"store '{address}' is no URL. {_HOW}") from None
    shown = url.render_as_string(hide_password=True)
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername != "sqlite":
        raise InputError(f"store '{shown}' is of the kind '{url.drivername}', which lmrec cannot use. {_HOW}")
    if url.host or url.query or not url.database or url.database == ":memory:":
        raise InputError(f"store '{shown}' does not name a file. {_HOW} (four slashes before an absolute path)")
    file = Path(url.database).absolute()
    if file.is_dir():
        raise InputError(f"store '{shown}' is a folder; name a file in it, such as {shown}/store.db")
    if not file.parent.is_dir() and not file.parent.parent.is_dir():
        raise InputError(
            f"store '{shown}': the folder {file.parent.parent} does not exist. Make it, or correct the path"
        )
    return URL.create("sqlite", database=str(file))


def _engine(url: URL, **settings: Any) -> Engine:
    if url.drivername == "sqlite":
        # Never made anew: where the file was moved away, an empty one in its place would share the old one's log.
        in_place = URL.create(
            "sqlite", database=f"file:{quote(url.database or '')}", query={"mode": "rw", "uri": "true"}
        )
        engine = create_engine(in_place, connect_args={"timeout": BUSY_WAIT_S}, **settings)
        event.listen(engine, "connect", _set_up_sqlite)
        if "isolation_level" not in settings:
            event.listen(engine, "begin", _begin_immediate)
        return engine
    try:
        engine = create_engine(
            url,
            pool_pre_ping=True,
            connect_args={name: value for name, value in _GONE_SERVER.items() if name not in url.query},
            **settings,
        )
    except ImportError:
        raise MissingExtraError("a store in PostgreSQL", "psycopg", "postgresql") from None
    event.listen(engine, "connect", _set_up_postgresql)
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    connection.create_function("power", 2, pow, deterministic=True)  # SQLite is often built without mathematics
    connection.isolation_level = None  # transactions begin where we say so, not at the first INSERT
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS: a plain fsync stops at the disk's own cache
    connection.execute("PRAGMA secure_delete = ON")  # a forgotten user's bytes are overwritten


def _use_wal(connection: sqlite3.Connection) -> None:
    """Put a new file into WAL mode; an old one is in it.

    SQLite does not wait for a lock here, whatever its timeout, where waiting could be a deadlock: two processes that open a
    new file at one moment. https://sqlite.org/c3ref/busy_handler.html
    """
    give_up_at = time.monotonic() + BUSY_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(_BUSY_PAUSE_S)
        else:
            return


def _begin_immediate(connection: Connection) -> None:
    """Take the write lock at once: a transaction that first reads and then writes can fail halfway."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _set_up_postgresql(connection: Any, _record: object) -> None:
    connection.execute(f"SET lock_timeout = '{BUSY_WAIT_S}s'")
    # An acknowledged event must be on the disk, also where a server is set up to be quick instead.
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    connection.commit()


def _make_private_file(file: Path) -> None:
    """An empty file that only its owner reads: it holds personal data. SQLite gives its log the same rights."""
    try:
        file.parent.mkdir(exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(
            f"the store {file} cannot be made or written: {error.strerror}. Make the file and its folder writable, or "
            "name another store"
        ) from error


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except FileNotFoundError:
        return None
