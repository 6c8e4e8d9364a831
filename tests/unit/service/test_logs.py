"""One JSON object a line, and nothing in it that a user typed."""

import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lmrec.errors import LmrecError
from lmrec.feedback.errors import StoreError
from lmrec.service.logs import BehindHandler, log, log_failure, start_logging


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    before = {
        name: (logging.getLogger(name).handlers, logging.getLogger(name).propagate) for name in ("lmrec", "uvicorn")
    }
    stream = io.StringIO()
    start_logging(stream)
    yield stream
    for name, (handlers, propagate) in before.items():
        logging.getLogger(name).handlers = handlers
        logging.getLogger(name).propagate = propagate


def parsed(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_its_time_level_event_and_fields(lines: io.StringIO) -> None:
    log("request", request_id="r1", status=200)
    (line,) = parsed(lines)
    assert line["time"].endswith("Z")
    assert {key: line[key] for key in ("level", "event", "request_id", "status")} == {
        "level": "info", "event": "request", "request_id": "r1", "status": 200,
    }  # fmt: skip


def test_a_failure_says_where_and_not_what(lines: io.StringIO) -> None:
    try:
        raise ValueError("user 42 said: I am ill")
    except ValueError as error:
        log_failure("failure", error, request_id="r1")
    (line,) = parsed(lines)
    assert line["error"] == "ValueError"
    assert "test_logs.py" in line["at"][-1]
    assert "ill" not in lines.getvalue()


def test_uvicorns_lines_with_paths_are_off(lines: io.StringIO) -> None:
    logging.getLogger("uvicorn.access").info("GET /v1/users/42")
    logging.getLogger("uvicorn.error").info("Started")
    assert parsed(lines) == []


def test_lines_are_written_a_moment_later_and_errors_at_once() -> None:
    stream = io.StringIO()
    logger = logging.Logger("lmrec.service")
    logger.addHandler(BehindHandler(stream))
    for n in range(3):
        logger.info("request %d", n)
    logger.error("broken")
    assert stream.getvalue().splitlines() == ["request 0", "request 1", "request 2", "broken"]
    logger.info("later")
    deadline = time.monotonic() + 5
    while "later" not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stream.getvalue().splitlines()[-1] == "later"


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    stream = io.StringIO()
    handler = BehindHandler(stream)
    stream.close()
    handler.emit(logging.LogRecord("lmrec", logging.ERROR, "", 0, "broken", None, None))


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_the_store_says_of_itself_is_said(lines: io.StringIO, wrapped: bool) -> None:
    """Its texts hold no data of users, and say what to do."""
    try:
        try:
            raise StoreError("the store x: its disk is full; free some space")
        except StoreError as error:
            if not wrapped:
                raise
            raise LmrecError("busy") from error
    except LmrecError as error:
        log_failure("failure", error)
    (line,) = parsed(lines)
    assert line["says"] == "the store x: its disk is full; free some space"
