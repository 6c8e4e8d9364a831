"""`make bench-speed`: every figure of this folder, each in a process of its own, and one table at the end.

    python -m benchmarks.speed.run [--small] [--only search,data]

A figure is a module of this folder with `main(small: bool) -> list[Figure]`. What it measured goes to
results/NAME.json (results/small/NAME.json with --small); its pictures lie beside that. A module that fails is named at
the end, and the exit status is 1; the others are run all the same.
"""

import argparse
import importlib
import json
import os
import pkgutil
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from benchmarks.speed.figure import Figure, show_table
from lmrec.artifacts.run import processor_name

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
_NO_FIGURES = frozenset({"run", "alone", "courses", "figure", "page", "pictures", "scaling", "worlds", "vectors"})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="small sizes: the whole in about five minutes")
    parser.add_argument("--only", default="", help="names of figures, with commas between")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measure(options.one, options.small)
        return 0
    names = chosen_names(options.only.split(",") if options.only else [])
    failed = [name for name in names if not run_alone(name, options.small)]
    figures = [figure for name in names if name not in failed for figure in read_figures(name, options.small)]
    print("\n" + show_table(figures))
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def figure_names() -> list[str]:
    """Modules of this folder that measure something, in the order of the alphabet."""
    return sorted(
        module.name
        for module in pkgutil.iter_modules([str(FOLDER)])
        if module.name not in _NO_FIGURES and not module.name.startswith("_")
    )


def chosen_names(asked: Sequence[str]) -> list[str]:
    known = figure_names()
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise SystemExit(f"there is no figure '{unknown[0]}'; there are {', '.join(known)}")
    return list(asked) or known


def results_folder(small: bool) -> Path:
    folder = FOLDER / "results" / "small" if small else FOLDER / "results"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def run_alone(name: str, small: bool) -> bool:
    """One figure in a fresh process, so that memory is its own; False where it failed."""
    command = [sys.executable, "-m", "benchmarks.speed.run", "--one", name, *(["--small"] if small else [])]
    began = time.perf_counter()
    print(f"{name} ...", flush=True)
    done = subprocess.run(command, cwd=ROOT, check=False)
    print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    return done.returncode == 0


def measure(name: str, small: bool) -> None:
    """Run one figure here and keep what it found with the machine and commit that it was found on."""
    run = cast(Callable[[bool], list[Figure]], importlib.import_module(f"benchmarks.speed.{name}").main)
    began = time.perf_counter()
    figures = run(small)
    values = {
        "figures": [figure.as_dict() for figure in figures],
        "seconds": round(time.perf_counter() - began, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "small": small,
        **where(),
    }
    file = results_folder(small) / f"{name}.json"
    file.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_figures(name: str, small: bool) -> list[Figure]:
    values = json.loads((results_folder(small) / f"{name}.json").read_text(encoding="utf-8"))
    return [Figure.from_dict(figure) for figure in values["figures"]]


def where() -> dict[str, Any]:
    """Commit, processor, cores, threads and time: what a number means nothing without."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks/**/*.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    torch = sys.modules.get("torch")
    threads = os.environ.get("OMP_NUM_THREADS", "default") if torch is None else str(torch.get_num_threads())
    return {
        "commit": commit.stdout.strip() + ("+changes" if changed.stdout.strip() else ""),
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": os.getloadavg()[0],
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


if __name__ == "__main__":
    sys.exit(main())
