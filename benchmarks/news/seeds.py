"""One seed: fit, judge, and keep what the judge said of each list."""

import shutil
import time
from pathlib import Path
from typing import Final

from benchmarks.news.table import Kept
from benchmarks.peers.cells import ROOT
from benchmarks.peers.own import fingerprint_of
from benchmarks.peers.stopwatch import Stopwatch, peak_mb
from lmrec.artifacts.files import write_json
from lmrec.artifacts.run import describe_environment
from lmrec.errors import LmrecError
from lmrec.recipe import Recipe, load_recipe
from lmrec.workflows.judge import judge_run
from lmrec.workflows.prepare import prepare_source
from lmrec.workflows.train import fit_run

WORK: Final = ROOT / "runs" / "bench-news"


def recipe_of(language: str, seed: int) -> Recipe:
    choices = (f"data.language={language}", f"training.seed={seed}", "tracking.to=[]")
    return load_recipe(ROOT / "recipes" / "mind-impressions.toml", choices)


def is_made(kept: Kept) -> bool:
    """Whether it is there, of the recipe as it is now."""
    return kept.is_there and bool(kept.facts()["recipe"] == fingerprint_of(recipe_of(kept.language, kept.seed)))


def measure(mind: Path, kept: Kept) -> None:
    """Fit and judge one seed, and keep what the judge said of each list."""
    recipe = recipe_of(kept.language, kept.seed)
    out, watch = WORK / f"{kept.language}-{kept.seed}", Stopwatch()
    shutil.rmtree(out, ignore_errors=True)
    run = fit_run(None, None, out=out, recipe=recipe, prepared=prepare_source("mind", mind, recipe)).run
    spent = watch.read()
    table = judge_run(run.path).impressions
    if table is None:
        raise LmrecError(f"{mind} holds no lists that can be judged after the cut in time of the recipe's split")
    kept.lists.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run.shown_file, kept.lists)
    record = run.read_record()
    facts = {
        "recipe": fingerprint_of(recipe),
        "data_fingerprint": record["data_fingerprint"],
        "fusion": record["fusion"],
        "table": table.as_dict(),
        **spent,
        "peak_mb": peak_mb(),
        **describe_environment(),
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    write_json(kept.file, facts)  # last: it says that the lists are there
    shutil.rmtree(out)
