"""Structured logs: one JSON object a line on stderr, with the request id and without anything personal.

What goes in is chosen field by field: route templates instead of paths, key ids instead of keys, places in our code
instead of the texts of exceptions, because paths, bodies and those texts can hold user ids and what users typed.
"""

import json
import logging
import sys
import time
import traceback
from typing import Any, Final, TextIO

LOGGER: Final = logging.getLogger("lmrec.service")
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


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """One line. Give ids of requests, keys, rules and generations; never of users, and nothing they wrote."""
    LOGGER.log(level, event, extra={_FIELDS: fields})


def log_failure(event: str, error: BaseException, **fields: Any) -> None:
    """An error of ours: its type and where it happened, not its text, which may quote data."""
    frames = traceback.extract_tb(error.__traceback__)[-8:]
    places = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}" for frame in frames]
    cause = type(error.__cause__).__name__ if error.__cause__ is not None else None
    log(event, logging.ERROR, error=type(error).__name__, cause=cause, at=places, **fields)


def start_logging(stream: TextIO | None = None, level: int = logging.INFO) -> None:
    """Send lmrec's and uvicorn's lines to `stream` (stderr) as JSON; uvicorn's own access lines, with paths, are off."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("lmrec", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
