"""How sensitive tuning is to the language model's learning rate: validation after the second stage at rates 1e-6 to 1e-3.

    python -m benchmarks.tuning.learning_rates [--seeds 3] [--rates 1e-6 1e-5 ...] [--small] [--set KEY=VALUE]

A fit for each rate and seed on MovieLens-100K, which all go on from one first stage (benchmarks/tuning/first_stage.py). An
interrupted call goes on where it was.
"before" is validation before the second stage: below it, tuning does harm. Lines are means, bands reach from the lowest seed to
the highest. --small: fewer epochs and validation cases. --redraw: the picture anew from the figures in --out, without a fit.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fitting import fit_once
from benchmarks.tuning.bench import ROOT, TOWERS_ALONE
from benchmarks.tuning.first_stage import KeepFirstStage, begin_from, is_kept
from lmrec.artifacts.pretrained import cache_folder
from lmrec.artifacts.run import RunFolder, describe_environment
from lmrec.data.sources.movielens import read_movielens_100k
from lmrec.data.sources.registry import fetch_dataset
from lmrec.evaluation.rate_chart import draw_rates
from lmrec.models.shared_states import sharing_states
from lmrec.recipe import Recipe, load_recipe, with_choices
from lmrec.workflows.prepare import Prepared, prepare_dataset
from lmrec.workflows.train import training_fingerprint

RECIPE = ROOT / "recipes" / "movielens-100k.toml"
RATES = (1e-6, 1e-5, 2e-5, 3e-5, 1e-4, 3e-4, 1e-3)
SMALL = ("training.frozen_epochs=4", "training.tuned_epochs=1", "training.validation_cases=500")


@sharing_states()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bench-learning-rates")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "tuning" / "learning_rates")
    parser.add_argument("--redraw", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    if options.redraw:
        draw_seeds(json.loads((options.out / "rates.json").read_text(encoding="utf-8"))["after"], options.out)
        return
    dataset = read_movielens_100k(fetch_dataset("movielens-100k", cache_folder() / "data"))
    choices = [*(SMALL if options.small else ()), *options.set, *TOWERS_ALONE]
    found: dict[float, list[dict[str, float]]] = {rate: [] for rate in sorted(options.rates)}
    for seed in range(options.seeds):
        plain = load_recipe(RECIPE, [*choices, f"training.seed={seed}"])
        prepared = prepare_dataset(dataset, plain)
        place = options.runs / f"first-stage-{training_fingerprint(plain, prepared)}"
        for rate, points in found.items():
            recipe = with_choices(plain, {"training.encoder_learning_rate": rate})
            name = f"{'small-' if options.small else ''}{rate:g}-seed-{seed}"
            points.append(validation_of(fit_rate(options.runs / name, place, plain, recipe, prepared).curves.read()))
    means = {rate: float(np.mean([one["tuned"] for one in all_seeds])) for rate, all_seeds in found.items()}
    before = float(np.mean([one["frozen"] for all_seeds in found.values() for one in all_seeds]))
    options.out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"seeds": options.seeds, "small": options.small, "set": options.set}
    facts |= {"made": time.strftime("%Y-%m-%d", time.gmtime()), **describe_environment()}
    after = {f"{rate:g}": found[rate] for rate in found}
    result = {"facts": facts, "before": before, "after": after}
    (options.out / "rates.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw_seeds(after, options.out)
    print(f"before the second stage {before:.4f}")
    for rate, value in means.items():
        print(f"{rate:8.0e}  {value:.4f}  {value - before:+.4f}")


def draw_seeds(found: Mapping[str, Sequence[Mapping[str, float]]], out: Path) -> None:
    """The picture of all seeds' best validation, by learning rate: after the second stage, and before it."""
    stages = {"after the second stage": "tuned", "before": "frozen"}
    of_stage = {
        name: {float(rate): [one[stage] for one in seeds] for rate, seeds in found.items()}
        for name, stage in stages.items()
    }
    means = {name: [(rate, float(np.mean(of))) for rate, of in rates.items()] for name, rates in of_stage.items()}
    spreads = {name: [(rate, min(of), max(of)) for rate, of in rates.items()] for name, rates in of_stage.items()}
    label = f"validation {load_recipe(RECIPE).evaluation.metric}"
    draw_rates(means, out / "rates.png", label, {"default": 2e-5}, spreads)


def fit_rate(path: Path, place: Path, plain: Recipe, recipe: Recipe, prepared: Prepared) -> RunFolder:
    """A finished fit: one that is there, one that goes on, or a new one from the first stage that `place` holds or will."""
    kept = is_kept(place, plain, prepared)
    begin = partial(begin_from, place, path, recipe, prepared) if kept else None
    return fit_once(path, recipe, prepared, begin, None if kept else KeepFirstStage(path, place), show=False)


def validation_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The best validation metric of each stage."""
    return {
        stage: max(float(row["validation"]) for row in rows if row["stage"] == stage) for stage in ("frozen", "tuned")
    }


if __name__ == "__main__":
    main()
