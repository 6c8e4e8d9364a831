"""What a row costs: `python -m benchmarks.tuning.costs`, each row in a process of its own, about 25 s of it.

Of a fit: processor seconds of an epoch of each stage (other work on the machine does not lengthen them), from some of its
batches and, in the second stage, one turn of the language model and one reading of the whole catalog; and the most memory
that the process ever held. Of a reranker: one user's list, read. What is found stands in results/DATASET/costs.json, where a
row that is there is not measured again, and the table of techniques takes its columns from there.

    python -m benchmarks.tuning.costs [--dataset movielens-100k] [--only ROW] [--again]

Rows that begin from a language model of their own, or are several fits as one, have no costs of their own.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from math import ceil
from pathlib import Path
from typing import Any

import torch

from benchmarks.tuning.bench import Bench
from benchmarks.tuning.fits import UNTUNED, same_as_plain
from benchmarks.tuning.results import unfit
from benchmarks.tuning.rows import Row
from lmrec.artifacts.files import read_json, write_json
from lmrec.artifacts.run import describe_environment
from lmrec.models.adaptation import adapter_weights
from lmrec.recipe import Recipe
from lmrec.retrieval.recommender import Recommender
from lmrec.training.batches import TrainBatch
from lmrec.training.learner import Learner
from lmrec.training.trainer import Stage, Trainer, plan_stages
from lmrec.workflows.list_times import time_reading
from lmrec.workflows.rerank import fit_reranker
from lmrec.workflows.train import batch_source, begin_learning, fit_run

_N_WARM, _N_MOST, _SECONDS = 2, 20, 4.0  # first stage: batches before it is measured, and then, and about how long
# What a reranker has learnt does not change how long it reads.
_FEW_PAIRS = ("reranker.validation_events=16", "reranker.search_cases=4", "reranker.judge_cases=4")
_MB = 2**20


class Measured(Exception):
    """What was to be measured of a stage has been."""


def measure_fit(bench: Bench, row: Row) -> dict[str, Any]:
    """Processor seconds of an epoch of each stage that the row has, and the size of what is kept of the language model."""
    recipe, prepared = bench.recipe(0, row.overrides), bench.prepared
    begun = begin_learning(recipe, prepared, show=False)
    learner, encoder = begun.learner, begun.words.encoder
    batches = batch_source(recipe, prepared.split.train)
    found: dict[str, Any] = {}
    stages = plan_stages(recipe.training, can_tune=any(p.requires_grad for p in encoder.parameters()))
    for number, stage in enumerate(stages):
        found[f"{stage.regime}_seconds"] = round(epoch_seconds(learner, recipe, stage, batches(number, 0)), 2)
    kept = adapter_weights(encoder) if encoder.adapter_names else encoder.state_dict()
    size = sum(value.numel() * value.element_size() for value in kept.values())
    return {**found, "kept_mb": round(size / _MB, 2)}


def epoch_seconds(learner: Learner, recipe: Recipe, stage: Stage, whole: Sequence[TrainBatch]) -> float:
    """The processor's seconds of an epoch of `whole`: by a part of it, after another part that fills what is kept."""
    config, tuned = recipe.training, stage.regime == "tuned"
    every = 1 if recipe.user_model.kind == "text" else config.encoder_interval
    turn = min(len(whole), config.accumulate * (every if tuned else 1))
    found: list[float] = []
    began, n_measured = 0.0, turn

    def some(_stage: int, epoch: int) -> list[TrainBatch]:
        nonlocal began, n_measured
        n_warm = max(turn, 0 if tuned else _N_WARM)
        if epoch and not tuned:
            affordable = int(_SECONDS / max(found[0] / n_warm, 1e-9)) // turn * turn
            n_measured = min(len(whole), max(turn, min(affordable, _N_MOST)))
        chosen = list(whole[: n_measured if epoch else n_warm])
        began = time.process_time()
        return chosen

    def record(_row: dict[str, Any]) -> None:
        found.append(time.process_time() - began)
        if len(found) == 2:
            raise Measured

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            learner,
            config,
            batches=some,
            validate=None,
            record=record,
            state_folder=Path(folder) / "state",
            fingerprint="",
            show=False,
        )
        with suppress(Measured):
            # Three epochs, of which two are run: AdaLoRA wants as many steps of the language model.
            trainer.run([replace(stage, n_epochs=3, n_cycles=0)], resume=False)
    began = time.process_time()
    if tuned:
        learner.refresh()
    refresh = time.process_time() - began
    n_turns = ceil(len(whole) / turn)
    return max(0.0, found[1] - refresh) / ceil(n_measured / turn) * n_turns + refresh


def measure_reading(bench: Bench, row: Row) -> dict[str, Any]:
    """One user's list, read by the row's reranker, on a run whose towers learnt for an epoch."""
    run, copy = bench.runs / "costs-run", bench.runs / "costs-reranker"
    if not (run / "run.json").exists():
        shutil.rmtree(run, ignore_errors=True)
        quick = bench.recipe(0, ("training.frozen_epochs=1", "training.tuned_epochs=0"))
        fresh = run.with_name("costs-run-new")
        shutil.rmtree(fresh, ignore_errors=True)
        fit_run(None, None, out=fresh, recipe=quick, prepared=bench.prepared, show=False)
        fresh.rename(run)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy)
    learns = () if "reranker.form=likelihood" in row.overrides else ("reranker.n_events=16",)
    fit_reranker(copy, (*row.overrides, *_FEW_PAIRS, *learns), show=False)
    recommender = Recommender.load(copy)
    assert recommender.reranker is not None, "it was taught above"
    found = {"k": recommender.reranker.description.top_k, **asdict(time_reading(recommender))}
    shutil.rmtree(copy)
    return {"list_read": found}


def measured(bench: Bench, row: Row) -> dict[str, Any]:
    """A row's costs with what they are of, in this process."""
    found = (measure_reading if row in bench.reranker_rows else measure_fit)(bench, row)
    question = bench.question(row.name, 0, row.asked).as_dict()
    facts = {
        **describe_environment(),
        "threads": torch.get_num_threads(),
        "made": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    return {**question, **found, "peak_mb": most_memory_mb(), **facts}


def most_memory_mb() -> float | None:
    """The most memory that this process ever held, by the kernel's own count; None where it keeps none."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = (line.split() for line in status.read_text().splitlines())
    return next((round(int(words[1]) / 1024, 1) for words in lines if words[:1] == ["VmHWM:"]), None)


def has_costs(bench: Bench, row: Row) -> bool:
    """Whether a row is one fit of the common language models, or a reranker."""
    if row.pretrain or row.distil or row.name == UNTUNED.name or row.mix not in ("", "snapshots"):
        return False
    return not same_as_plain(bench, row)


def costs_file(bench: Bench) -> Path:
    return bench.results / "costs.json"


def read_costs(bench: Bench, rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """What is kept of these rows and still answers the question, by name."""
    file = costs_file(bench)
    kept: Mapping[str, dict[str, Any]] = read_json(file) if file.exists() else {}
    asked = {row.name: bench.question(row.name, 0, row.asked) for row in rows if row.name in kept}
    return {name: kept[name] for name, question in asked.items() if not unfit(file, kept[name], question)}


def keep_costs(bench: Bench, row: Row, found: dict[str, Any]) -> None:
    file = costs_file(bench)
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = read_json(file) if file.exists() else {}
    write_json(file, dict(sorted({**kept, row.name: found}.items())))


def measure_all(
    bench: Bench, rows: Sequence[Row], again: bool, in_process: Callable[[Row], dict[str, Any] | None]
) -> None:
    """Row by row; what is kept is not asked again unless `again`."""
    known = {} if again else read_costs(bench, rows)
    for row in rows:
        if row.name in known or not has_costs(bench, row):
            continue
        began = time.monotonic()
        found = in_process(row)
        if found is not None:
            keep_costs(bench, row, found)
        print(f"{row.name}: {'refused' if found is None else 'done'}, {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    from benchmarks.tuning.run import ROWS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="movielens-100k", choices=("movielens-100k", "amazon-scientific"))
    parser.add_argument("--only", action="append", default=[], metavar="ROW")
    parser.add_argument("--small", action="store_true", help="on a part of the users, to see that every row runs")
    parser.add_argument("--again", action="store_true", help="also what is there")
    parser.add_argument("--here", metavar="ROW", help="measure in this process: what the command starts for each row")
    options = parser.parse_args()
    bench = Bench.open(options.dataset, options.small)
    every = (*ROWS, *bench.reranker_rows)
    if options.here:
        row = next(row for row in every if row.name == options.here)
        print(f"\n{json.dumps(measured(bench, row))}", flush=True)
        return
    chosen = [row for row in every if row.name in (options.only or [row.name])]

    def elsewhere(row: Row) -> dict[str, Any] | None:
        words = [*("--dataset", options.dataset), *(["--small"] if options.small else []), *("--here", row.name)]
        ended = subprocess.run(
            [sys.executable, "-m", "benchmarks.tuning.costs", *words], stdout=subprocess.PIPE, text=True, check=False
        )
        if ended.returncode:
            return None
        found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return found

    measure_all(bench, chosen, options.again, elsewhere)


if __name__ == "__main__":
    main()
