"""One holder at a time, and no lock outlives its process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmrec.artifacts.lock import locked
from lmrec.errors import RunFolderError

HOLD = """
import sys, time
from pathlib import Path
from lmrec.artifacts.lock import locked
with locked(Path(sys.argv[1]), "update"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    told = f"another update is at work .*process {os.getpid()}"
    with locked(file, "update"), pytest.raises(RunFolderError, match=told), locked(file, "update"):
        pass
    with locked(file, "update"):
        assert file.read_text() == f"{os.getpid()}\n"


def test_a_kill_sets_it_free(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match=f"process {process.pid}"), locked(file, "update"):
            pass
        process.kill()
    with locked(file, "update"):
        pass


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="cannot be written"), locked(tmp_path / "no" / "lock", "update"):
        pass
