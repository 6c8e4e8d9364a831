"""Structured logs: one JSON object a line on stderr, with the request id and without anything personal.

What goes in is chosen field by field: route templates instead of paths, key ids instead of keys, places in our code
instead of the texts of exceptions, because paths, bodies and those texts can hold user ids and what users typed.
"""

import json
import logging
import sys
import time
import traceback
from collections import deque
from threading import Event as Signal
from threading import Lock, Thread
from typing import Any, Final, TextIO

from lmrec.errors import RunFolderError
from lmrec.feedback.errors import StoreError

LOGGER: Final = logging.getLogger("lmrec.service")
FLUSH_S: Final = 0.05
MAX_WAITING_LINES: Final = 10_000
_FIELDS: Final = "lmrec_fields"


class JsonLines(logging.Formatter):
    """A record as one line. Only what `log` was given appears, and for foreign records nothing but their origin."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, _FIELDS, {})
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage() if record.name.startswith(("lmrec", "uvicorn")) else record.name,
            **fields,
        }
        return json.dumps(line, ensure_ascii=True, default=str)


class BehindHandler(logging.StreamHandler[TextIO]):
    """Lines are written by a thread of their own, a moment later: a write to a full disk or a slow pipe would else hold up
    every answer. Warnings and errors are written at once, and what waits with them."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: deque[str] = deque()
        self._writing = Lock()
        self._wake = Signal()
        self._thread: Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record))
        except Exception:  # logging's own way: a line that cannot be made must not fail the request
            self.handleError(record)
            return
        if record.levelno >= logging.WARNING or len(self._lines) > MAX_WAITING_LINES:
            self.flush()
            return
        if self._thread is None:
            self._thread = Thread(target=self._write_on, name="lmrec-log", daemon=True)
            self._thread.start()
        if not self._wake.is_set():
            self._wake.set()

    def flush(self) -> None:
        """Also called when the process ends."""
        with self._writing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if not lines:
                return
            try:
                self.stream.write("".join(line + self.terminator for line in lines))
                self.stream.flush()
            except (OSError, ValueError):  # a log that cannot be written must not take the service down
                return

    def _write_on(self) -> None:
        while self._wake.wait():
            self._wake.clear()
            time.sleep(FLUSH_S)
            self.flush()


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """One line. Give ids of requests, keys, rules and generations; never of users, and nothing they wrote."""
    LOGGER.log(level, event, extra={_FIELDS: fields})


def log_failure(event: str, error: BaseException, **fields: Any) -> None:
    """An error of ours: its type and where it happened. Its text may quote data and is left out, but for what the store and
    run folders say of themselves."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    places = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames]
    cause = type(error.__cause__).__name__ if error.__cause__ is not None else None
    says = next((str(one) for one in (error, error.__cause__) if isinstance(one, StoreError | RunFolderError)), None)
    log(event, logging.ERROR, error=type(error).__name__, says=says, cause=cause, at=places, **fields)


def start_logging(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send lmrec's and uvicorn's lines to `stream` (stderr) as JSON; uvicorn's own access lines, with paths, are off."""
    handler = BehindHandler(sys.stderr) if stream is None else logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name in ("lmrec", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
