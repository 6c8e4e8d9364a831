"""Start: how long until `import lmrec`, `lmrec --help` and `lmrec recommend RUN` are done, each in a fresh process."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.speed.figure import Figure, percentile
from benchmarks.speed.worlds import first_user, fitted_run

LIMITS_S = {"import lmrec": 0.1, "lmrec --help": 0.3, "lmrec recommend": 3.0}


def main(small: bool) -> list[Figure]:
    times = 3 if small else 11
    with tempfile.TemporaryDirectory() as folder:
        run = fitted_run(Path(folder) / "run", small)
        commands = {
            "import lmrec": [sys.executable, "-c", "import lmrec"],
            "lmrec --help": lmrec("--help"),
            "lmrec recommend": lmrec("recommend", str(run), "--user", first_user(run)),
        }
        seconds = {what: seconds_of(command, times) for what, command in commands.items()}
    bare = seconds_of([sys.executable, "-c", "pass"], times)
    note = f"median of {times} fresh processes; an empty Python takes {bare:.3f} s"
    return [Figure(what, seconds[what], limit, "s", "limit", note) for what, limit in LIMITS_S.items()]


def lmrec(*arguments: str) -> list[str]:
    """The command line as its console script starts it."""
    return [sys.executable, "-c", "from lmrec.cli.app import run; run()", *arguments]


def seconds_of(command: list[str], times: int) -> float:
    """The median wall time of a fresh process; the first, with cold files, does not count."""
    seconds = []
    for _ in range(times + 1):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return percentile(seconds[1:], 0.5)
