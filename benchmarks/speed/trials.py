"""Trials of one search, that share what fixed layers of the language model make of the catalog, against the same fits alone.

Fits of a recipe that differ in one rate, as `lmrec tune` fits its trials: one after another in one process, first each by
itself, then within `sharing_states()`, as a search is. Scientific where `LMREC_DATA` has it, else MovieLens-100K, whose
titles are short. Seconds are of the processor; what both ways validate must be the same, or nothing is told.
"""

import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import torch

from benchmarks.peers.cells import DATA
from benchmarks.speed.figure import Figure
from benchmarks.speed.worlds import ROOT
from benchmarks.tuning.bench import COMMON, few_users
from lmrec.models.shared_states import sharing_states
from lmrec.recipe import load_recipe
from lmrec.workflows.prepare import Prepared
from lmrec.workflows.train import fit_run

_RATES = (1e-3, 5e-4, 2e-4)  # of the towers, in the second stage
_FIT = (*COMMON, "training.frozen_epochs=2", "training.validation_cases=1000")
_ALONE = "each fit alone"


def main(small: bool) -> list[Figure]:
    torch.set_num_threads(1)
    long = DATA["amazon-scientific"].path
    data = DATA["movielens-100k" if small or long is None or not long.exists() else "amazon-scientific"]
    epochs, rates = (1, _RATES[:2]) if small else (2, _RATES)
    asked = (*_FIT, f"training.tuned_epochs={epochs}")
    recipe = load_recipe(ROOT / "recipes" / f"{data.recipe}.toml", asked)
    prepared = few_users(data.prepare(recipe), recipe, 60) if small else data.prepare(recipe)
    # First one that does not count: un-tuned vectors are kept on disk, so neither way pays for them.
    search(prepared, data.recipe, asked, rates[:1], shared=False)
    alone_s, found = search(prepared, data.recipe, asked, rates, shared=False)
    own_s, own_found = search(prepared, data.recipe, asked, rates, shared=True)
    if found != own_found:
        raise SystemExit(f"fits that share validate {own_found}, the same fits alone {found}")
    note = f"{data.name}, {prepared.dataset.catalog.n_items:,} items, {len(rates)} trials of 2 + {epochs} epochs, one thread"
    return [Figure("trials of a search", own_s, alone_s, "s", _ALONE, note)]


def search(
    prepared: Prepared, recipe: str, asked: tuple[str, ...], rates: tuple[float, ...], shared: bool
) -> tuple[float, list[float | None]]:
    """Processor seconds of all fits, and what each validated at its best."""
    found: list[float | None] = []
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder, sharing_states() if shared else nullcontext():
        for number, rate in enumerate(rates):
            trial = load_recipe(ROOT / "recipes" / f"{recipe}.toml", (*asked, f"training.tuned_learning_rate={rate}"))
            out = Path(folder) / str(number)
            fitted = fit_run(None, None, out=out, recipe=trial, show=False, prepared=prepared)
            found.append(fitted.training.best_metric)
    return time.process_time() - began, found
