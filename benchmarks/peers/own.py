"""lmrec's own rows: fitted by the product's own workflow with the data set's recipe, judged by the product's own judge."""

import shutil
from collections.abc import Mapping
from typing import Any

from benchmarks.peers.steps import prepare_cell
from benchmarks.peers.stopwatch import Stopwatch, peak_mb
from benchmarks.peers.work import Effort, Place, save_row
from lmrec.artifacts.run import RunFolder
from lmrec.workflows.judge import FROZEN, FUSED, REFIT, TUNED, judge_run, own_name
from lmrec.workflows.train import fit_run

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


def run_own(place: Place, effort: Effort, form: str, seed: int) -> None:
    """Fit with one seed and save the row of what the run serves, and rows of its parts. An interrupted fit goes on."""
    if place.row(form, OWN, seed).exists():
        return
    prepared, recipes = prepare_cell(place, effort)
    recipe = recipes[form]
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": seed})})
    run, watch = RunFolder(place.folder / OWN / f"{form}-{seed}"), Stopwatch()
    status = run.read_record()["status"] if run.record_file.exists() else "new"
    if status != "trained":
        if status == "new":
            shutil.rmtree(run.path, ignore_errors=True)
        fit_run(None, None, out=run.path, recipe=recipe, prepared=prepared, resume=status != "new")
        run.update_record(bench={**watch.read(), "peak_mb": peak_mb()})
    record = run.read_record()
    judged = judge_run(run.path, ["baselines.names=[]"])
    served = own_name(run)
    settings = {"recipe": place.cell.data.recipe, "set": list(effort.own_overrides), "fusion": record["fusion"]}
    facts = {"settings": settings, **record.get("bench", {})}
    for name, evaluation in judged.evaluations.items():
        if name != served and name in PARTS:
            save_row(place, form, PARTS[name], seed, evaluation, facts)
    save_row(place, form, OWN, seed, judged.evaluations[served], facts)
