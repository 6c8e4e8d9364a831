"""Updates on a timer: a process of its own, low in priority, so that answers do not wait for learning.

What it makes is served the way every generation is: by the pointer that the service follows. A failed update changes
nothing and is tried again at its next time.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event as Signal
from typing import Any, Final

from lmrec.service.logs import log
from lmrec.service.watching import Task, Watcher

_NICENESS: Final = 10
_STOP_S: Final = 20.0
_POLL_S: Final = 0.2


class UpdateSchedule:
    """`lmrec update RUN` every so often, the first time after one pause. One at a time."""

    def __init__(self, run: Path, store: str, every_s: float) -> None:
        self._command = [sys.executable, "-m", "lmrec.cli.app", "update", str(run), "--json", "--quiet"]
        self._store = store
        self._closed = Signal()
        self._watcher = Watcher([Task("update", self._update, every_s)], _not_started)

    def start(self) -> None:
        self._watcher.start()

    def close(self) -> None:
        """Stop, and an update at work with it: it ends without a trace."""
        self._closed.set()
        self._watcher.close()

    def _update(self) -> None:
        # The address may hold a password, and command lines can be read by everybody on the machine.
        environment = {**os.environ, "LMREC_STORE": self._store}
        with subprocess.Popen(
            self._command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            with suppress(OSError):  # it may have ended already
                os.setpriority(os.PRIO_PROCESS, process.pid, _NICENESS)
            said, complained = self._outcome(process)
        if process.returncode == 0:
            log("update", **_summary(said))
        elif self._closed.is_set():
            log("update stopped", code=process.returncode)
        else:
            log("update failed", logging.ERROR, code=process.returncode, error=_reason(complained))

    def _outcome(self, process: "subprocess.Popen[str]") -> tuple[str, str]:
        stopped_s = 0.0
        while True:
            try:
                return process.communicate(timeout=_POLL_S)
            except subprocess.TimeoutExpired:
                if not self._closed.is_set():
                    continue
                if not stopped_s:
                    process.terminate()
                elif stopped_s > _STOP_S:
                    process.kill()
                stopped_s += _POLL_S


@contextmanager
def scheduled_updates(run: Path, store: str, every_hours: float | None) -> Iterator[None]:
    """Updates for as long as the block lasts; without a pause, none."""
    if every_hours is None:
        yield
        return
    schedule = UpdateSchedule(run, store, 3600.0 * every_hours)
    schedule.start()
    try:
        yield
    finally:
        schedule.close()


def _not_started(task: str, error: Exception) -> None:
    """No process could be started; perhaps at the next time."""
    log(f"{task} failed", logging.ERROR, error=str(error))


def _reason(complained: str) -> str:
    """What the command says of its own; a traceback may quote data, which is not for logs."""
    return " ".join(line for line in complained.splitlines() if line.startswith("error:"))[-2000:]


def _summary(said: str) -> dict[str, Any]:
    try:
        result = json.loads(said)
        return {name: result[name] for name in ("status", "generation", "reason")}
    except (json.JSONDecodeError, KeyError, TypeError):
        return {"status": "unknown"}
