"""What each way of training costs on MovieLens-100K, without the wait for a fit: a few steps of the second stage, each row in
a process of its own.

    python -m benchmarks.tuning.costs [--steps 10] [--only lora] [--only all]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.tuning.rows import Row
from benchmarks.tuning.what_trains import ROWS
from lmrec.artifacts.pretrained import cache_folder
from lmrec.data.sources.movielens import read_movielens_100k
from lmrec.data.sources.registry import fetch_dataset
from lmrec.models.adaptation import adapter_weights
from lmrec.recipe import load_recipe
from lmrec.text.template import build_template
from lmrec.training.trainer import Trainer, plan_stages
from lmrec.workflows.encode import begin_tuning, read_texts
from lmrec.workflows.prepare import prepare_dataset
from lmrec.workflows.train import Words, batch_source, build_learner

_RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "movielens-100k.toml"
_MB = 2**20


def measure_row(row: Row, n_steps: int) -> dict[str, Any]:
    """The cost of the second stage's first steps, and the size of what a checkpoint keeps of the language model."""
    recipe = load_recipe(_RECIPE, row.overrides)
    prepared = prepare_dataset(read_movielens_100k(fetch_dataset("movielens-100k", cache_folder() / "data")), recipe)
    template = build_template(recipe.template, prepared.dataset.catalog)
    texts = read_texts(prepared.dataset.catalog, template, recipe.encoder)
    encoder, text_vec = begin_tuning(texts, recipe.training.seed, show=False)
    learner = build_learner(recipe, text_vec, prepared.split.train, Words(encoder, texts, template))
    batches = batch_source(recipe, prepared.split.train)
    tuned = [stage for stage in plan_stages(recipe.training, can_tune=True) if stage.regime == "tuned"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            learner,
            recipe.training,
            batches=lambda _stage, epoch: batches(1, epoch)[:n_steps],
            validate=None,
            record=lambda values: None,
            state_folder=Path(folder) / "state",
            fingerprint="",
            show=False,
        )
        cost = trainer.run(tuned, resume=False).costs["tuned"].as_dict()
    kept = adapter_weights(encoder) if encoder.adapter_names else encoder.state_dict()
    size = sum(value.numel() * value.element_size() for value in kept.values())
    return {"row": row.name, "steps": n_steps, "kept_mb": round(size / _MB, 2), **cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--only", action="append", default=[], metavar="ROW")
    parser.add_argument(
        "--here", action="store_true", help="measure in this process: what the command starts for each row"
    )
    options = parser.parse_args()
    rows = [
        row for row in ROWS if row.name in (options.only or [row.name]) and "encoder.train=none" not in row.overrides
    ]
    for row in rows:
        if options.here:
            print(json.dumps(measure_row(row, options.steps)), flush=True)
            continue
        words = ["--steps", str(options.steps), "--only", row.name, "--here"]
        subprocess.run([sys.executable, "-m", "benchmarks.tuning.costs", *words], check=True)


if __name__ == "__main__":
    main()
