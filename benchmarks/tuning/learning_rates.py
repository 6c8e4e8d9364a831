"""How sensitive tuning is to the language model's learning rate: validation after the second stage at rates 1e-6 to 1e-3.

    python -m benchmarks.tuning.learning_rates [--seeds 2] [--rates 1e-6 1e-5 ...] [--small] [--set KEY=VALUE]

A fit for each rate and seed on MovieLens-100K, each in a folder of its own, so that an interrupted call goes on where it was.
The dashed line is validation before the second stage: below it, tuning does harm. --small: fewer epochs and validation cases.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.movielens.run import ROOT, fit_once
from lmrec.artifacts.pretrained import cache_folder
from lmrec.artifacts.run import describe_environment
from lmrec.data.sources.movielens import read_movielens_100k
from lmrec.data.sources.registry import fetch_dataset
from lmrec.evaluation.rate_chart import draw_rates
from lmrec.recipe import load_recipe
from lmrec.workflows.prepare import prepare_dataset

RATES = (1e-6, 1e-5, 2e-5, 3e-5, 1e-4, 3e-4, 1e-3)
SMALL = ("training.frozen_epochs=4", "training.tuned_epochs=1", "training.validation_cases=500")

STAGES_ALONE = ("training.refit=false", *(f"fusion.{part}=false" for part in ("transitions", "content", "popularity")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bench-learning-rates")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "tuning" / "learning_rates")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    dataset = read_movielens_100k(fetch_dataset("movielens-100k", cache_folder() / "data"))
    choices = [*(SMALL if options.small else ()), *options.set, *STAGES_ALONE]
    found: dict[float, list[dict[str, float]]] = {rate: [] for rate in sorted(options.rates)}
    for seed in range(options.seeds):
        for rate in found:
            mine = [*choices, f"training.seed={seed}", f"training.encoder_learning_rate={rate:g}"]
            recipe = load_recipe(ROOT / "recipes" / "movielens-100k.toml", mine)
            name = f"{'small-' if options.small else ''}{rate:g}-seed-{seed}"
            run = fit_once(options.runs / name, recipe, prepare_dataset(dataset, recipe))
            found[rate].append(validation_of(run.read_metrics()))
    means = {rate: float(np.mean([one["tuned"] for one in all_seeds])) for rate, all_seeds in found.items()}
    before = float(np.mean([one["frozen"] for all_seeds in found.values() for one in all_seeds]))
    options.out.mkdir(parents=True, exist_ok=True)
    curves = {"after the second stage": list(means.items()), "before": [(rate, before) for rate in means]}
    draw_rates(curves, options.out / "rates.png", f"validation {recipe.evaluation.metric}", {"default": 2e-5})
    facts: dict[str, Any] = {"seeds": options.seeds, "small": options.small, "set": options.set}
    facts |= {"made": time.strftime("%Y-%m-%d", time.gmtime()), **describe_environment()}
    result = {"facts": facts, "before": before, "after": {f"{rate:g}": found[rate] for rate in found}}
    (options.out / "rates.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"before the second stage {before:.4f}")
    for rate, value in means.items():
        print(f"{rate:8.0e}  {value:.4f}  {value - before:+.4f}")


def validation_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The best validation metric of each stage."""
    return {
        stage: max(float(row["validation"]) for row in rows if row["stage"] == stage) for stage in ("frozen", "tuned")
    }


if __name__ == "__main__":
    main()
