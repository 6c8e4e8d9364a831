"""MovieLens-100K, time split, several seeds: the table in README and in benchmarks/RESULTS.md.

Each seed is a whole fit and a whole judgement by the product's own workflows, in both forms of the question:
`next` (each later event from the history strictly before it) and `window` (everything later from the history before the
cut). A row's value is the mean over seeds; its interval redraws users of the seeds' mean for each case.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.fitting import fit_once
from lmrec.artifacts.pretrained import cache_folder
from lmrec.artifacts.run import describe_environment
from lmrec.data.sources.movielens import read_movielens_100k
from lmrec.data.sources.registry import fetch_dataset
from lmrec.evaluation.evaluator import Evaluation
from lmrec.evaluation.slices import slices_of
from lmrec.evaluation.table import JudgementTable, build_table
from lmrec.recipe import Recipe, load_recipe
from lmrec.workflows.judge import FROZEN, FUSED, TUNED, Judgement, judge_run
from lmrec.workflows.prepare import Prepared, prepare_dataset

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("next", "window")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bench-movielens")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "movielens")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    source = fetch_dataset("movielens-100k", cache_folder() / "data")
    judged: dict[str, list[Judgement]] = {target: [] for target in TARGETS}
    seconds: list[float] = []
    stages: list[str] = []
    for seed in range(options.seeds):
        recipe = load_recipe(ROOT / "recipes" / "movielens-100k.toml", [*options.set, f"training.seed={seed}"])
        prepared = prepare_dataset(read_movielens_100k(source), recipe)
        run = fit_once(options.runs / f"seed-{seed}", recipe, prepared)
        training = run.read_record()["training"]
        seconds.append(training["seconds"])
        stages.append(training["best_stage"])
        for target in TARGETS:
            judged[target].append(judge_run(run.path, [f"split.target={target}"]))
    for target in TARGETS:
        table = average_seeds(judged[target], recipe, prepared)
        facts = {
            "seeds": options.seeds,
            "fit_seconds": seconds,
            "best_stages": stages,
            "data_fingerprint": prepared.dataset.fingerprint,
            "made": time.strftime("%Y-%m-%d", time.gmtime()),
            "command": "make bench-movielens",
            **describe_environment(),
        }
        per_seed = {
            name: [answers_of(judgement, name).aggregate[table.metric] for judgement in judged[target]]
            for name in row_names(judged[target])
        }
        result = {"facts": facts, "table": table.as_dict(), "per_seed": per_seed}
        (options.out / f"{target}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"\n## target '{target}'\n\n{table.form.sentence}\n\n{markdown(table, per_seed)}\n")


def average_seeds(judgements: Sequence[Judgement], recipe: Recipe, prepared: Prepared) -> JudgementTable:
    """One table whose every case holds the mean of its values over seeds."""
    first = judgements[0]
    means = [_mean_of([answers_of(judgement, name) for judgement in judgements]) for name in row_names(judgements)]
    baselines = {row.name for row in first.table.rows if row.is_baseline}
    slices = slices_of(first.cases, prepared.split.train_and_validation, prepared.dataset.catalog.n_items)
    return build_table(means, baselines, first.table.form, recipe.evaluation, slices)


def row_names(judgements: Sequence[Judgement]) -> list[str]:
    return list(dict.fromkeys(name for judgement in judgements for name in judgement.evaluations))


def answers_of(judgement: Judgement, name: str) -> Evaluation:
    """A row of one seed. Where a seed has no such row, because fusing or tuning gave nothing there, its towers stand in."""
    found = judgement.evaluations
    stand_ins = {FUSED: (TUNED, FROZEN), TUNED: (FROZEN,)}
    there = next(known for known in (name, *stand_ins.get(name, ())) if known in found)
    return replace(found[there], name=name)


def _mean_of(evaluations: Sequence[Evaluation]) -> Evaluation:
    names = evaluations[0].metrics
    return replace(
        evaluations[0],
        metrics={name: np.mean([evaluation.metrics[name] for evaluation in evaluations], axis=0) for name in names},
        aggregate={
            name: float(np.mean([evaluation.aggregate[name] for evaluation in evaluations]))
            for name in evaluations[0].aggregate
        },
    )


def markdown(table: JudgementTable, per_seed: dict[str, list[float]]) -> str:
    """The table as README shows it."""
    best = table.best_baseline
    lines = [
        f"| | NDCG@10 [95 %] | difference to {best} [95 %] | recall@10 | MRR@10 | seeds, lowest to highest |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.rows:
        main, difference = row.metrics[table.metric], row.differences.get(table.metric)
        apart = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]" if difference else ""
        seeds = f"{min(per_seed[row.name]):.4f} to {max(per_seed[row.name]):.4f}"
        lines.append(
            f"| {row.name} | {main.value:.4f} [{main.low:.4f}, {main.high:.4f}] | {apart} "
            f"| {row.metrics['recall@10'].value:.4f} | {row.metrics['mrr@10'].value:.4f} | {seeds} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
