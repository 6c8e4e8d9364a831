"""Updates on a timer: a real process, niced, told the store without showing it, and gone when the service stops."""

import io
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lmrec.service.logs import start_logging
from lmrec.service.schedule import UpdateSchedule, scheduled_updates

TELL = (
    "import json, os, sys; json.dump({'status': 'kept', 'generation': '0001', "
    "'reason': f\"{os.environ['LMREC_STORE']} nice {os.nice(0)}\"}, sys.stdout)"
)


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, object]]]]:
    logger = logging.getLogger("lmrec")
    before = (logger.handlers, logger.propagate)
    stream = io.StringIO()
    start_logging(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.handlers, logger.propagate = before


def schedule(code: str, every_s: float = 0.01) -> UpdateSchedule:
    made = UpdateSchedule(Path("run"), "sqlite:///secret", every_s)
    assert "secret" not in " ".join(made._command)
    made._command = [sys.executable, "-c", code]
    return made


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_outcome_is_logged_again_and_again(lines: Callable[[], list[dict[str, object]]]) -> None:
    made = schedule(TELL)
    made.start()
    until(lambda: len(lines()) >= 2)
    made.close()
    first = lines()[0]
    assert (first["event"], first["status"], first["generation"]) == ("update", "kept", "0001")
    assert str(first["reason"]).startswith("sqlite:///secret nice ")


def test_a_failure_is_logged_in_its_own_words_only(lines: Callable[[], list[dict[str, object]]]) -> None:
    made = schedule("import sys; print('user 42 said', file=sys.stderr); sys.exit('error: the disk is full')")
    made.start()
    until(lines)
    made.close()
    assert (lines()[0]["event"], lines()[0]["level"]) == ("update failed", "error")
    assert (lines()[0]["code"], lines()[0]["error"]) == (1, "error: the disk is full")


def test_closing_ends_an_update_at_work(tmp_path: Path, lines: Callable[[], list[dict[str, object]]]) -> None:
    made = schedule(f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    made.start()
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = int((tmp_path / "pid").read_text())
    made.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (lines()[0]["event"], lines()[0]["code"]) == ("update stopped", -15)  # which is no failure


def test_without_a_pause_there_is_no_schedule() -> None:
    with scheduled_updates(Path("run"), "sqlite:///x", None):
        pass
    with scheduled_updates(Path("run"), "sqlite:///x", 10.0):
        pass
