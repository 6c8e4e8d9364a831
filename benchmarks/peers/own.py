"""lmrec's own rows: fitted by the product's own workflow with the data set's recipe, judged by the product's own judge."""

import hashlib
from collections.abc import Mapping
from typing import Any

from benchmarks.fitting import fit_once
from benchmarks.peers.kept import read_facts
from benchmarks.peers.steps import prepare_cell
from benchmarks.peers.stopwatch import Stopwatch, peak_mb
from benchmarks.peers.work import Effort, Place, keep_row
from lmrec.recipe import Recipe, with_choices
from lmrec.workflows.judge import FROZEN, FUSED, REFIT, TUNED, judge_run, own_name
from lmrec.workflows.train import training_text

OWN = "lmrec"
# What else the run knows is shown too, where it is not what it serves.
PARTS = {FROZEN: "lmrec_frozen", TUNED: "lmrec_tuned", REFIT: "lmrec_refit", FUSED: "lmrec_fused"}
TITLES = {
    OWN: "**lmrec**, the data set's recipe",
    "lmrec_frozen": "lmrec, towers alone, PLM frozen, learnt from training alone",
    "lmrec_tuned": "lmrec, towers alone, PLM tuned, learnt from training alone",
    "lmrec_refit": "lmrec, towers alone",
    "lmrec_fused": "lmrec, fused",
}


def title_of(system: str, settings: Mapping[str, Any]) -> str:
    """A row's name in the table; it says what was set beside the recipe."""
    chosen = settings.get("set", ())
    return f"{TITLES[system]}, {', '.join(chosen)}" if chosen else TITLES[system]


def is_made(place: Place, effort: Effort, form: str, seed: int) -> bool:
    """Whether there is a row of the recipe as it is now."""
    path = place.row(form, OWN, seed)
    return path.exists() and bool(read_facts(path)["recipe"] == fingerprint_of(effort.recipe(place.cell, form)))


def fingerprint_of(recipe: Recipe) -> str:
    """Of all choices that can change what is served, but the seed."""
    text = training_text(with_choices(recipe, {"training.seed": 0}))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_own(place: Place, effort: Effort, form: str, seed: int) -> None:
    """Fit with one seed and save the row of what the run serves, and rows of its parts. An interrupted fit goes on."""
    prepared, recipes = prepare_cell(place, effort)
    recipe = with_choices(recipes[form], {"training.seed": seed})
    watch = Stopwatch()
    run = fit_once(place.folder / OWN / f"{form}-{seed}", recipe, prepared)
    record = run.read_record()
    if "bench" not in record:  # it was fitted just now
        run.update_record(bench={**watch.read(), "peak_mb": peak_mb()})
        record = run.read_record()
    judged = judge_run(run.path, ["baselines.names=[]"])
    served = own_name(run)
    settings = {"recipe": place.cell.data.recipe, "set": list(effort.own_overrides), "fusion": record["fusion"]}
    facts = {"settings": settings, "recipe": fingerprint_of(recipes[form]), **record["bench"]}
    for name, evaluation in judged.evaluations.items():
        if name != served and name in PARTS:
            keep_row(place, form, PARTS[name], seed, evaluation, facts)
    keep_row(place, form, OWN, seed, judged.evaluations[served], facts)
