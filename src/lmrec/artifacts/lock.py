"""One at a time: a lock that the system takes back when its process ends, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lmrec.errors import RunFolderError

# Of a run folder: while its generations are made, and while its reranker is.
UPDATING, RERANKING = ".update.lock", "reranker.lock"


@contextmanager
def locked(file: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock `file` until the block ends. `what` names the work in the error.

    Raises RunFolderError at once, or with `wait` waits, where another process (or thread) holds it; and where the file
    cannot be made. The file stays; it is the lock on it that counts, and a kill sets it free.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunFolderError(f"{file} cannot be written ({error.strerror}). Free or unlock the disk") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 100).decode("utf-8", "replace").strip() or "unknown"
            raise RunFolderError(
                f"another {what} is at work in '{file.parent}' (process {holder}), and there can be one at a time. "
                "Wait until it is done, or end it"
            ) from None
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
