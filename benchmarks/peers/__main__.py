"""The command line: `make bench-peers`, or `python -m benchmarks.peers`.

Finished steps are skipped, so the same command goes on where it was stopped; --minutes stops it between two steps (exit 3).
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.pages import write_between
from benchmarks.peers.cells import ROOT, choose_cells
from benchmarks.peers.known import Known
from benchmarks.peers.own import OWN, is_made, run_own
from benchmarks.peers.results import BEGIN, END, build_results, known_results
from benchmarks.peers.rivals import INSIDE, OUTSIDE
from benchmarks.peers.steps import (
    export_split,
    in_own_process,
    is_tried,
    run_inside,
    run_known,
    run_outside,
    train_outside,
)
from benchmarks.peers.work import Effort, Place, trials_of
from lmrec.errors import InputError, LmrecError, nearest

Step = tuple[str, Callable[[], bool], Callable[[], None]]  # what it is, whether it is done, do it

SMALL = Effort(
    trials=2, outside_trials=2, seeds=1, epochs=2, own_overrides=("training.frozen_epochs=2", "training.tuned_epochs=0")
)
SYSTEMS = (*INSIDE, *OUTSIDE, OWN)
OUT_OF_TIME = 3


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(highlight=False)
    try:
        return run(options, console)
    except LmrecError as error:
        console.print(f"[red]{error}[/red]")
        return error.exit_code


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    parser.add_argument("--dataset", help="one data set instead of all")
    parser.add_argument("--protocol", help="one protocol instead of all: P1 (both forms), P2, P4, P5")
    parser.add_argument("--systems", help=f"only these, by comma: {', '.join(SYSTEMS)}; or 'rivals'")
    parser.add_argument("--seeds", type=int, help="seeds of what is random (3)")
    parser.add_argument("--trials", type=int, help="fits of the search of each rival that counts (12)")
    parser.add_argument("--outside-trials", type=int, help="trainings of the search of each of RecTools' models (6)")
    parser.add_argument("--epochs", type=int, help="most epochs of a training of RecTools")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="lmrec: set beside the recipe; the table says so",
    )
    parser.add_argument("--small", action="store_true", help="two trials, two epochs, one seed: to see that it runs")
    parser.add_argument("--minutes", type=float, help="start no step after so long")
    parser.add_argument("--work", type=Path, help="where fits and splits lie while they are needed (runs/bench-peers)")
    parser.add_argument(
        "--results",
        type=Path,
        default=ROOT / "benchmarks",
        help="where RESULTS.md lies, and in peers/results what was found before; an empty folder: all anew",
    )
    parser.add_argument("--tables", action="store_true", help="no step: only the tables of what is there")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, console: Console) -> int:
    effort = _effort(options)
    work = options.work or ROOT / "runs" / ("bench-peers-small" if options.small else "bench-peers")
    # A small run is none of the benchmark: it neither reads nor writes what the benchmark has found.
    kept = work / "kept" if options.small else options.results / "peers" / "results"
    places = [Place(work, cell, kept) for cell in choose_cells(options.dataset, options.protocol)]
    for place in [place for place in places if not place.cell.is_there]:
        console.print(
            f"skipped: {place.cell.name}, for there is no {place.cell.data.path} (LMREC_DATA says where data lie)"
        )
        places.remove(place)
    systems = choose_systems(options.systems)
    started, finished = time.monotonic(), True
    steps = [] if options.tables else [step for place in places for step in plan(place, effort, systems)]
    for number, (name, is_done, do) in enumerate(steps, 1):
        if is_done():
            continue
        if options.minutes is not None and time.monotonic() - started > 60 * options.minutes:
            console.print(
                f"stopped after {options.minutes:g} minutes before '{name}'; the same command goes on from there"
            )
            finished = False
            break
        console.print(f"[{number}/{len(steps)}] {time.strftime('%H:%M:%S')} {name}")
        do()
    print(build_results(places, effort))
    if not options.small:
        # RESULTS.md holds every table there is, whatever was asked for in this call and whoever made it.
        write_between(options.results / "RESULTS.md", known_results(kept), BEGIN, END)
    return 0 if finished else OUT_OF_TIME


def plan(place: Place, effort: Effort, systems: Sequence[str]) -> Iterator[Step]:
    """The steps of a cell in order: the split, rivals' searches and first seeds, lmrec, then the other seeds.

    The best rival of a known table is fitted again where it is neither asked for nor its row kept, to compare with.
    """
    forms, cell = tuple(place.cell.protocol.forms), place.cell.name
    # Whether what lies there is of these data, the step sees itself.
    yield f"{cell}: split", lambda: False, partial(in_own_process, export_split, place, effort)
    for name in INSIDE:
        if name in systems and INSIDE[name].is_asked(place.cell.protocol.name):
            n_seeds = effort.seeds if INSIDE[name].is_seeded else 1
            rows = [place.row(form, name, seed) for form in forms for seed in range(n_seeds)]
            yield (
                f"{cell}: {name}",
                partial(_is_asked, place, name, rows),
                partial(in_own_process, run_inside, place, name, effort),
            )
    yield from _known_steps(place, effort, systems)
    for name in OUTSIDE:
        if name in systems:
            yield from _search_steps(place, name, effort)
    for seed in range(effort.seeds):
        for form in forms:
            for name in OUTSIDE:
                if name in systems:
                    row = place.row(form, name, seed)
                    yield (
                        f"{cell}: {name}, form {form}, seed {seed}",
                        row.exists,
                        partial(in_own_process, run_outside, place, name, effort, form, seed),
                    )
            if OWN in systems:
                yield (
                    f"{cell}: lmrec, form {form}, seed {seed}",
                    partial(is_made, place, effort, form, seed),
                    partial(in_own_process, run_own, place, effort, form, seed),
                )


def _known_steps(place: Place, effort: Effort, systems: Sequence[str]) -> Iterator[Step]:
    for form in place.cell.protocol.forms:
        found = Known.read(place.kept, place.cell, form)
        name = None if found is None else found.rival_to_fit(place, form)
        if found is None or name is None or name in systems:
            continue
        facts = found.systems[name]
        rows = [place.row(form, name, seed) for seed in range(len(facts["seeds"]))]
        do = partial(in_own_process, run_known, place, name, {form: facts["settings"]}, len(rows), effort)
        yield f"{place.cell.name}: {name} as chosen before, form {form}", partial(_all_there, rows), do


def _search_steps(place: Place, name: str, effort: Effort) -> Iterator[Step]:
    n_trials = len(effort.draw_outside(OUTSIDE[name].space))
    for number in range(n_trials):
        yield (
            f"{place.cell.name}: {name}, trial {number + 1} of {n_trials}",
            partial(is_tried, place, name, effort, number),
            partial(in_own_process, train_outside, place, name, effort, number),
        )


def choose_systems(names: str | None) -> tuple[str, ...]:
    if names is None:
        return SYSTEMS
    chosen = [*INSIDE, *OUTSIDE] if names == "rivals" else [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in SYSTEMS:
            raise InputError(f"there is no system '{name}'. {nearest(name, SYSTEMS)} All: {', '.join(SYSTEMS)}")
    return tuple(chosen)


def _effort(options: argparse.Namespace) -> Effort:
    asked = {name: getattr(options, name) for name in ("seeds", "trials", "outside_trials", "epochs")}
    effort = SMALL if options.small else Effort()
    given = {name: n for name, n in asked.items() if n is not None}
    return replace(effort, own_overrides=(*effort.own_overrides, *options.set), **given)


def _is_asked(place: Place, name: str, rows: Sequence[Path]) -> bool:
    """Rows alone are not enough: they may be of settings that an earlier search had chosen, fitted to compare with."""
    return bool(trials_of(place, name)) and _all_there(rows)


def _all_there(paths: Sequence[Path]) -> bool:
    return all(path.exists() for path in paths)


if __name__ == "__main__":
    sys.exit(main())
