"""What can go wrong with the store, and how a driver's error becomes a sentence with a way out.

StoreError          the store cannot be read or written; nothing was acknowledged
`-- StoreBusyError  it cannot take this now; the same call may be made again (the service answers 503 with Retry-After)
"""

import sqlite3

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from lmrec.errors import LmrecError


class StoreError(LmrecError):
    pass


class StoreBusyError(StoreError):
    pass


def closed_error(where: str) -> StoreError:
    return StoreError(f"the store {where} is closed; open it again")


# First match wins: (start of sqlite_errorname or of SQLSTATE, busy, what to say). SQLSTATE: PostgreSQL, appendix A.
_SAYINGS: tuple[tuple[str, bool, str], ...] = (
    ("SQLITE_BUSY", True, "another process holds its write lock; try again"),
    ("SQLITE_LOCKED", True, "another connection holds its lock; try again"),
    ("SQLITE_FULL", False, "its disk is full; free some space and send the same again"),
    ("SQLITE_READONLY", False, "it cannot be written; make the file and its folder writable, or name another store"),
    ("SQLITE_CANTOPEN", False, "it cannot be opened; the file and its folder must exist and be readable and writable"),
    ("SQLITE_NOTADB", False, "it is no SQLite file, or is damaged; restore a backup, or name another store"),
    ("SQLITE_CORRUPT", False, "it is damaged; stop the service and restore a backup (docs/operations.md)"),
    ("SQLITE_IOERR", False, "reading or writing its disk failed; check the disk and its free space, then send again"),
    ("SQLITE_PERM", False, "access was refused; check the owner and the rights of the file"),
    ("53100", False, "the disk of the PostgreSQL server is full; free some space and send the same again"),
    ("53300", True, "the PostgreSQL server has no connection left; raise max_connections or use fewer workers"),
    ("55P03", True, "another process holds the write lock; try again"),
    ("57014", True, "the statement took too long; try again"),
    ("40", True, "it met another transaction; try again"),
    ("57P", True, "the PostgreSQL server is starting or stopping; try again"),
    ("25006", False, "this PostgreSQL server is read-only; give the address of the primary"),
    ("42501", False, "the PostgreSQL user may not do this; grant rights on the schema"),
    ("28", False, "the PostgreSQL server refused user or password; check the store's URL"),
    ("3D000", False, "the PostgreSQL server has no such database; make it with createdb"),
)


def explain_failure(error: Exception, where: str) -> Exception:
    """What to raise for `error`: a fresh StoreError that names the store (`where`) and the way out.

    Errors of ours, and mistakes in code (anything that is no fault of a database or a disk), come back as they are.
    """
    if isinstance(error, PoolTimeoutError):
        return StoreBusyError(f"the store {where} has no free connection; try again")
    if isinstance(error, OSError):
        return StoreError(f"the store {where} cannot be used: {error.strerror or error}. Check path, rights and disk")
    if not isinstance(error, DBAPIError):
        return error
    for start, busy, saying in _SAYINGS:
        if _code(error).startswith(start):
            return (StoreBusyError if busy else StoreError)(f"the store {where}: {saying} ({_first_line(error)})")
    if error.connection_invalidated or not _code(error):
        return StoreError(
            f"the store {where} does not answer ({_first_line(error)}). Check that the server runs and that the URL is right"
        )
    return StoreError(f"the store {where} refused a statement ({_first_line(error)}). See the database's own log")


def spoils_the_group(error: Exception) -> bool:
    """Whether every write of the moment fails with this one: a fault of disk, lock or server, not of one write's data.

    >>> spoils_the_group(ValueError("one bad value")), spoils_the_group(OSError("disk"))
    (False, True)
    """
    if isinstance(error, DBAPIError):
        return not _code(error).startswith(("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG", "22", "23"))
    return isinstance(error, OSError | PoolTimeoutError | MemoryError)


def _code(error: DBAPIError) -> str:
    """The driver's own code; empty where it has none, as when a server cannot be reached."""
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return str(getattr(original, "sqlite_errorname", None) or "SQLITE")
    return str(getattr(original, "sqlstate", None) or "")


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().split("\n", 1)[0]
