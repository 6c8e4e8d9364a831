"""Where the steps of a cell keep what they did, and what every one of them records.

WORK/CELL/split/                       what outside rivals read
WORK/CELL/RIVAL/trial-NN/result.json   one training of an outside rival's search
WORK/CELL/RIVAL/search.json            trials of the search, and the best one for each form
WORK/CELL/RIVAL/final-.../             lists of the test part
WORK/CELL/rows/FORM/SYSTEM-SEED.json   one row for one seed: settings, seconds, memory; beside it .npz, a value for each case
"""

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lmrec.artifacts.files import read_json, write_json
from lmrec.artifacts.run import describe_environment
from lmrec.data.history import Cases
from lmrec.errors import DataError
from lmrec.evaluation.evaluator import Evaluation
from lmrec.recipe import Recipe
from peers.cells import Cell

METRICS = ("ndcg@10", "hit@10", "recall@10", "mrr@10", "ndcg@20", "hit@20")
CHOSEN_BY = "ndcg@10"
N_SHOWN = 10


@dataclass(frozen=True)
class Effort:
    """How hard to try, the same for every rival. Outside rivals train at most `epochs` and stop early by `patience`.

    own_overrides: what is set beside the recipe in lmrec's own rows, for small runs.
    """

    trials: int = 6
    seeds: int = 3
    epochs: int = 30
    patience: int = 4
    search_cases: int = 4000
    own_overrides: tuple[str, ...] = ()

    def recipe(self, cell: Cell, form: str) -> Recipe:
        return cell.recipe(form, (*self.own_overrides, "evaluation.ks=[10,20]"))


@dataclass(frozen=True)
class Place:
    work: Path
    cell: Cell

    @property
    def folder(self) -> Path:
        return self.work / self.cell.name

    @property
    def split(self) -> Path:
        return self.folder / "split"

    def search(self, system: str) -> Path:
        return self.folder / system / "search.json"

    def row(self, form: str, system: str, seed: int) -> Path:
        return self.folder / "rows" / form / f"{system}-{seed}.json"


class Stopwatch:
    """Seconds since it was made: by the clock, and of processors (which other jobs on the machine change less)."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "seconds": round(time.monotonic() - self._wall, 2),
            "cpu_seconds": round(time.process_time() - self._cpu, 2),
        }


def peak_mb() -> int:
    """The most memory that this process has held, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def save_search(place: Place, system: str, trials: list[dict[str, Any]]) -> None:
    """The trials and, for each form, the one with the best validation metric (the first of equals)."""
    best = {
        form: trials[int(np.argmax([trial["validation"][form] for trial in trials]))]
        for form in place.cell.protocol.forms
    }
    place.search(system).parent.mkdir(parents=True, exist_ok=True)
    write_json(place.search(system), {"n_trials": len(trials), "best": best, "trials": trials})


def save_row(place: Place, form: str, system: str, seed: int, evaluation: Evaluation, facts: dict[str, Any]) -> None:
    """`facts`: settings, seconds and so on; what made the row is added. The row exists once its JSON does."""
    path = place.row(form, system, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {metric: evaluation.metrics[metric].astype(np.float32) for metric in METRICS}
    np.savez_compressed(path.with_suffix(".npz"), top=evaluation.top[:, :N_SHOWN], **values)
    about = describe_environment()
    means = {metric: float(evaluation.metrics[metric].mean()) for metric in METRICS}
    write_json(
        path,
        {
            "system": system,
            "form": place.cell.protocol.form_name(form),
            "seed": seed,
            "n_cases": len(evaluation.cases),
            **means,
            **facts,
            "commit": about["commit"],
            "machine": about["machine"],
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )


def load_row(path: Path, cases: Cases, n_items: int) -> tuple[dict[str, Any], Evaluation]:
    """A saved row, as an evaluation of the same cases."""
    facts = read_json(path)
    with np.load(path.with_suffix(".npz")) as arrays:
        values = {metric: arrays[metric].astype(np.float64) for metric in METRICS}
        top = arrays["top"]
    if len(top) != len(cases):
        raise DataError(
            f"the row holds {len(top):,} cases and the split has {len(cases):,}: it is of other data. Remove it",
            file=path,
        )
    aggregate = {metric: float(value.mean()) for metric, value in values.items()}
    return facts, Evaluation(facts["system"], values, top, aggregate, cases, n_items)
