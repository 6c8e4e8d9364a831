"""A measurement in a process of its own, so that its peak of memory is its own: `python -m MODULE ARGUMENTS` that prints
one line of JSON at the end."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[2]


def measure_alone(module: str, *arguments: object) -> dict[str, Any]:
    """What `python -m module arguments` printed last. Raises RuntimeError with its words where it failed."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
    return cast("dict[str, Any]", json.loads(done.stdout.splitlines()[-1]))


def peak_mb() -> float:
    """The most memory that this process has held so far. Not `ru_maxrss` where there is better: a child begins with its
    parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
