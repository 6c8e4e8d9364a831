"""Where the steps of a cell keep what they did, and what every one of them records.

WORK/CELL/split/                       what outside rivals read
WORK/CELL/RIVAL/trial-NN/result.json   one training of an outside rival's search
WORK/CELL/RIVAL/search.json            trials of the search, and the best one for each form
WORK/CELL/RIVAL/final-.../             lists of the test part
WORK/CELL/rows/FORM/SYSTEM-SEED.json   one row for one seed: settings, seconds, memory; beside it .npz, the ranks in each case
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.cells import Cell
from benchmarks.peers.exchange import evaluation_of
from benchmarks.peers.spaces import Settings, Space, draw_settings
from lmrec.artifacts.files import read_json, write_json
from lmrec.artifacts.run import describe_environment
from lmrec.data.history import Cases
from lmrec.errors import DataError
from lmrec.evaluation.evaluator import Evaluation
from lmrec.evaluation.metrics import Ranks
from lmrec.fields import Ragged
from lmrec.recipe import Recipe

METRICS = ("ndcg@10", "hit@10", "recall@10", "mrr@10", "ndcg@20", "hit@20")  # named in a row's JSON
CHOSEN_BY = "ndcg@10"
KS = (10, 20)
_OUTSIDE_DRAWN = 6


@dataclass(frozen=True)
class Effort:
    """How hard to try, the same for every rival. Outside rivals train at most `epochs` and stop early by `patience`.

    trials: fits of a rival that counts, each asked in every way. outside_trials: trainings of an outside rival, the first so
    many of six that are drawn; each is measured after every epoch.
    own_overrides: what is set beside the recipe in lmrec's own rows, for small runs.
    """

    trials: int = 12
    outside_trials: int = 6
    seeds: int = 3
    epochs: int = 30
    patience: int = 4
    search_cases: int = 4000
    own_overrides: tuple[str, ...] = ()

    def draw(self, space: Space, asked: Collection[str] = ()) -> list[Settings]:
        """The settings that a rival tries, of which `asked` change only the question."""
        return draw_settings(space, self.trials, asked)

    def draw_outside(self, space: Space) -> list[Settings]:
        """The settings that an outside rival is trained with."""
        return draw_settings(space, _OUTSIDE_DRAWN)[: self.outside_trials]

    def recipe(self, cell: Cell, form: str) -> Recipe:
        return cell.recipe(form, (*self.own_overrides, f"evaluation.ks={list(KS)}"))


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


def is_searched(place: Place, system: str, n_trials: int) -> bool:
    """Whether at least so many settings were tried."""
    path = place.search(system)
    return path.exists() and bool(read_json(path)["n_trials"] >= n_trials)


def save_search(place: Place, system: str, trials: list[dict[str, Any]]) -> None:
    """The trials and, for each form, the one with the best validation metric (the first of equals).

    Rows that an earlier search with fewer trials led to are removed where it had chosen otherwise.
    """
    best = {
        form: trials[int(np.argmax([trial["validation"][form] for trial in trials]))]
        for form in place.cell.protocol.forms
    }
    place.search(system).parent.mkdir(parents=True, exist_ok=True)
    write_json(place.search(system), {"n_trials": len(trials), "best": best, "trials": trials})

    for form in place.cell.protocol.forms:
        for row in place.row(form, system, 0).parent.glob(f"{system}-*.json"):
            settings = read_json(row)["settings"]
            if any(settings.get(key) != value for key, value in best[form]["settings"].items()):
                row.unlink()


def save_row(place: Place, form: str, system: str, seed: int, evaluation: Evaluation, facts: dict[str, Any]) -> None:
    """`facts`: settings, seconds and so on; what made the row is added. The row exists once its JSON does."""
    path = place.row(form, system, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    ranks = evaluation.ranks
    np.savez_compressed(
        path.with_suffix(".npz"),
        ranks=ranks.ranks.values,
        offsets=ranks.ranks.offsets,
        n_candidates=ranks.n_candidates,
        top=evaluation.top[:, : max(KS)],
    )
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
        found = Ragged(arrays["ranks"], arrays["offsets"])
        ranks, top = Ranks(found, arrays["n_candidates"], found.lengths), arrays["top"]
    if not np.array_equal(found.lengths, cases.relevant.lengths):
        raise DataError("the row answers other questions than the split asks now. Remove it", file=path)
    return facts, evaluation_of(facts["system"], ranks, top, cases, n_items, KS)
