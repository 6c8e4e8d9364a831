"""Where the steps of a cell keep what they did.

WORK/CELL/split/                       what outside rivals read
WORK/CELL/RIVAL/trial-.../result.json  one training of an outside rival's search
WORK/CELL/RIVAL/final-.../             lists of the test part
WORK/CELL/lmrec/FORM-SEED/             a run of lmrec
KEPT/searches/CELL/SYSTEM.json         trials of a search, and the best one for each form
KEPT/rows/CELL, FORM/SYSTEM-SEED.npz   rows: see kept.py

KEPT is benchmarks/peers/results, in the repository: rows and searches are small and hours went into them, so they grow over as
many calls and machines as it takes. WORK is large and only passes by.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.cells import Cell
from benchmarks.peers.kept import KS, read_facts, save_row
from benchmarks.peers.spaces import Settings, Space, draw_settings
from lmrec.artifacts.files import read_json, write_json
from lmrec.evaluation.evaluator import Evaluation
from lmrec.recipe import Recipe

CHOSEN_BY = "ndcg@10"
_OUTSIDE_DRAWN = 6


@dataclass(frozen=True)
class Effort:
    """How hard to try, the same for every rival. Outside rivals train at most `epochs` and stop early by `patience`.

    trials: fits of a rival that counts that are drawn, each asked in every way. outside_trials: trainings of an outside
    rival, the first so many of six that are drawn; each is measured after every epoch.
    own_overrides: what is set beside the recipe in lmrec's own rows, for small runs.
    """

    trials: int = 12
    outside_trials: int = 6
    seeds: int = 3
    epochs: int = 100
    patience: int = 4
    search_cases: int = 4000
    own_overrides: tuple[str, ...] = ()

    def draw(self, space: Space, asked: Collection[str] = (), fits: Sequence[Settings] = ()) -> list[Settings]:
        """The settings that a rival tries, of which `asked` change only the question; `fits` are tried whatever is drawn."""
        return draw_settings(space, self.trials, asked, fits=fits)

    def draw_outside(self, space: Space) -> list[Settings]:
        """The settings that an outside rival is trained with."""
        return draw_settings(space, _OUTSIDE_DRAWN)[: self.outside_trials]

    def recipe(self, cell: Cell, form: str) -> Recipe:
        return cell.recipe(form, (*self.own_overrides, f"evaluation.ks={list(KS)}"))


@dataclass(frozen=True)
class Place:
    work: Path
    cell: Cell
    kept: Path

    @property
    def folder(self) -> Path:
        return self.work / self.cell.name

    @property
    def split(self) -> Path:
        return self.folder / "split"

    @property
    def data_fingerprint(self) -> str | None:
        """Of what was split; None before."""
        facts = self.split / "facts.json"
        return str(read_json(facts)["data_fingerprint"]) if facts.exists() else None

    def search(self, system: str) -> Path:
        return self.kept / "searches" / self.cell.name / f"{system}.json"

    def row(self, form: str, system: str, seed: int) -> Path:
        return self._rows(form) / f"{system}-{seed}.npz"

    def rows(self, form: str, system: str = "*") -> Iterator[tuple[str, Path]]:
        """(system, file) of the rows that there are, seed by seed."""
        for path in sorted(self._rows(form).glob(f"{system}-*.npz")):
            name = path.stem.rpartition("-")[0]
            if system in ("*", name):
                yield name, path

    def _rows(self, form: str) -> Path:
        return self.kept / "rows" / f"{self.cell.data.name}-{self.cell.protocol.form_name(form)}"


def is_searched(place: Place, system: str, n_trials: int) -> bool:
    """Whether at least so many settings were tried."""
    return len(trials_of(place, system)) >= n_trials


def trials_of(place: Place, system: str) -> list[dict[str, Any]]:
    """The settings that were tried so far on these data, with what validation said of them."""
    path = place.search(system)
    if not path.exists():
        return []
    kept, data = read_json(path), place.data_fingerprint
    return list(kept["trials"]) if data in (None, kept["data_fingerprint"]) else []


def save_search(place: Place, system: str, trials: list[dict[str, Any]]) -> None:
    """The trials and, for each form, the one with the best validation metric (the first of equals).

    Rows that an earlier search with fewer trials led to are removed where it had chosen otherwise.
    """
    best = {
        form: trials[int(np.argmax([trial["validation"][form] for trial in trials]))]
        for form in place.cell.protocol.forms
    }
    place.search(system).parent.mkdir(parents=True, exist_ok=True)
    kept = {"data_fingerprint": place.data_fingerprint, "best": best, "trials": trials}
    write_json(place.search(system), kept)
    for form in place.cell.protocol.forms:
        for _, row in place.rows(form, system):
            chosen = dict(best[form]["settings"])
            if "epochs" in best[form]:  # of an outside rival, by form
                chosen["epochs"] = best[form]["epochs"][form]
            settings = read_facts(row)["settings"]
            if any(settings.get(key) != value for key, value in chosen.items()):
                row.unlink()


def keep_row(place: Place, form: str, system: str, seed: int, evaluation: Evaluation, facts: dict[str, Any]) -> None:
    """`facts`: settings, seconds and so on."""
    named = {"system": system, "form": place.cell.protocol.form_name(form), "seed": seed}
    save_row(place.row(form, system, seed), evaluation, {**named, **facts})
