"""Training of the user model: seconds until RecTools' SASRec's best validation NDCG@10 on Scientific and Beauty is reached.

RecTools runs in its environment (`make bench-peers-setup`), on the settings that its search chose on Scientific
(benchmarks/RESULTS.md), with the same events, cases and threads, one after the other. Its loss is computed at real places
alone, which RecTools itself does not do: with its own loss an epoch takes longer, and that is measured too, for one epoch.
Ours is the first stage of a fit, once with ids alone, as SASRec has, and once as a fit makes it, words and ids on vectors
that are in the cache (what encoding costs is a figure of its own). Seconds are of the processor; validation counts on
neither side.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.cells import DATA, PROTOCOLS, Cell
from benchmarks.peers.exchange import write_split
from benchmarks.peers.steps import PEERS, PEERS_PYTHON
from benchmarks.speed.courses import Course, trainer_of
from benchmarks.speed.figure import Figure
from benchmarks.speed.pictures import draw_course
from benchmarks.speed.run import ROOT, results_folder
from lmrec.recipe import Recipe
from lmrec.text.template import build_template
from lmrec.training.trainer import Stage
from lmrec.workflows.encode import begin_tuning, read_texts
from lmrec.workflows.prepare import Prepared
from lmrec.workflows.train import build_learner

_SETTINGS = {
    "n_factors": 128,
    "n_blocks": 1,
    "n_heads": 1,
    "dropout_rate": 0.5,
    "lr": 2e-3,
    "batch_size": 128,
    "session_max_len": 20,
}
_CASES = 4000  # of validation, the same on both sides
_METRIC = "validation NDCG@10"
_WAYS = {"ids alone": "id", "words and ids": "text+id"}
_LIMIT = 0.2  # of RecTools' seconds
_DATA = ("amazon-scientific", "amazon-beauty")
_THEIRS = "RecTools SASRec"


def main(small: bool) -> list[Figure]:
    if not PEERS_PYTHON.exists():
        raise SystemExit("RecTools' environment is missing: make bench-peers-setup")
    folder = results_folder(small)
    figures: list[Figure] = []
    every: dict[str, dict[str, Course]] = {}
    for data in _DATA[:1] if small else _DATA:
        series, slow = courses_on(data, *((1, 2) if small else (10, 30)), own_loss=not small)
        every[data] = series
        title = f"{data}, leave-last-out, items of the history excluded"
        draw_course(folder / f"training_{data}.png", series, "seconds of one processor", _METRIC, title)
        theirs = series[_THEIRS]
        for name in _WAYS:
            figures += figures_of(f"{data}, {name}", series[f"lmrec, {name}"], theirs, slow)
    (folder / "training_courses.json").write_text(json.dumps(every, indent=1) + "\n", encoding="utf-8")
    return figures


def courses_on(data: str, n_epochs: int, n_theirs: int, own_loss: bool) -> tuple[dict[str, Course], Course | None]:
    """Quality against seconds of RecTools and of both ways of ours; and one epoch of RecTools with its own loss."""
    cell = Cell(DATA[data], PROTOCOLS["P1"])
    ways = {name: the_recipe(cell, source, n_epochs) for name, source in _WAYS.items()}
    prepared = cell.prepare(next(iter(ways.values())))
    with tempfile.TemporaryDirectory() as folder:
        write_split(prepared, None, Path(folder) / "split")
        theirs = rectools_course(Path(folder), n_theirs, own_loss=False)
        slow = rectools_course(Path(folder), 1, own_loss=True) if own_loss else None
        courses = {name: own_course(recipe, prepared, Path(folder) / name, n_epochs) for name, recipe in ways.items()}
    return {_THEIRS: theirs} | {f"lmrec, {name}": course for name, course in courses.items()}, slow


def figures_of(name: str, own: Course, theirs: Course, slow: Course | None) -> list[Figure]:
    goal, their_s = max(theirs.values()), seconds_to(theirs, max(theirs.values()))
    one = min(theirs) if slow is None else min(slow)
    note = (
        f"to NDCG@10 {goal:.4f}; ours reached {max(own.values()):.4f} in {max(own):.0f} s; {_LIMIT} of its time is asked, "
        f"which is {1 / _LIMIT:.0f}x; threads: {torch.get_num_threads()}"
    )
    if slow is not None:
        note += f"; with RecTools' own loss an epoch takes {one:.0f} s instead of {min(theirs):.0f}"
    own_s = seconds_to(own, goal)
    if own_s is None or their_s is None:
        return [Figure(f"training, {name}, quality", max(own.values()), goal, "share", "RecTools SASRec", note)]
    figures = [Figure(f"training, {name}", own_s, their_s, "s", "RecTools SASRec, loss at real places", note)]
    if slow is not None:
        slow_s = their_s * one / min(theirs)
        told = f"its epochs with its own loss: one was timed, {one:.0f} s; as many are counted as it took with the quicker loss"
        figures.append(Figure(f"training, {name}", own_s, slow_s, "s", "RecTools SASRec as it is", told))
    return figures


def seconds_to(course: Course, goal: float) -> float | None:
    return min((seconds for seconds, value in course.items() if value >= goal), default=None)


def the_recipe(cell: Cell, source: str, n_epochs: int) -> Recipe:
    asked = (
        f"item.source={source}",
        f"training.frozen_epochs={n_epochs}",
        f"training.validation_cases={_CASES}",
        "training.precision=fp32",
    )
    return cell.recipe("x", asked)


def own_course(recipe: Recipe, prepared: Prepared, state: Path, n_epochs: int) -> Course:
    """The first stage, as a fit runs it."""
    source = read_texts(
        prepared.dataset.catalog, build_template(recipe.template, prepared.dataset.catalog), recipe.encoder
    )
    if recipe.item.source == "id":
        text_vec = torch.zeros(prepared.dataset.catalog.n_items, 1)
    else:
        _, text_vec = begin_tuning(source, recipe.training.seed, show=False)
    learner = build_learner(recipe, text_vec, prepared.split.train)
    course: list[tuple[float, float]] = []
    trainer = trainer_of(learner, recipe, prepared, state, course)
    trainer.run([Stage("frozen", n_epochs, recipe.training.learning_rate, 0.0)], resume=False)
    return dict(course)


def rectools_course(folder: Path, n_epochs: int, own_loss: bool) -> Course:
    """As the peers' benchmark trains it: validated after each epoch, until four in a row are no better."""
    out = folder / f"sasrec-{own_loss}"
    out.mkdir()
    job: dict[str, Any] = {
        "peer": "sasrec",
        "settings": {**_SETTINGS, "own_loss": own_loss},
        "seed": 0,
        "split": str(folder / "split"),
        "out": str(out),
        "epochs": n_epochs,
        "patience": 4,
        "final": False,
        "forms": {"x": True},
        "metric_k": 10,
        "list_k": 100,
        "search_cases": _CASES,
    }
    (out / "job.json").write_text(json.dumps(job), encoding="utf-8")
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": threads}
    command = [PEERS_PYTHON, PEERS / "rectools_peer.py", out / "job.json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"RecTools failed:\n{done.stderr[-2000:]}")
    rows = json.loads((out / "result.json").read_text(encoding="utf-8"))["epochs"]
    return {row["cpu_seconds"]: row["validation"]["x"] for row in rows}
