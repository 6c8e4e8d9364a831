"""A run as these measurements read it, and where what they find is kept."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.fusing.halves import learnt_towers
from lmrec.artifacts.run import describe_environment, open_run
from lmrec.data.split import Split
from lmrec.recipe import Recipe, load_fitted
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.scorer import Scorer
from lmrec.workflows.prepare import split_log

RESULTS = Path(__file__).resolve().parent / "results"


def open_towers(path: Path) -> tuple[Recommender, Recipe, Split, Scorer]:
    """A run, what it was fitted by and to, and its towers as they were before they learnt from validation."""
    run, recommender = open_run(path), Recommender.load(path)
    recipe = load_fitted(run.recipe_file)
    split = split_log(recommender.interactions, recommender.catalog.n_items, recipe)
    return recommender, recipe, split, learnt_towers(recommender, split)


def keep(file: str, data: str, found: Mapping[str, Any]) -> None:
    """Write what was found on the data into results/FILE.json, with when and on what."""
    about = {"data": data, **describe_environment(), "made": time.strftime("%Y-%m-%d", time.gmtime())}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**about, **found}, indent=1, allow_nan=False)
    (RESULTS / f"{file}.json").write_text(text + "\n", encoding="utf-8")
