"""`make bench-tuning`: one row a technique, each a fit of its own that differs from the common recipe in that alone.

    python -m benchmarks.tuning.run [--dataset movielens-100k] [--seeds 3] [--small] [--only ROW]

What is judged are the towers by themselves (nothing fused, nothing learnt again from validation): those of the second
stage, where a row has one. Every fit is kept as its cases' values (runs/bench-tuning/), so the same command goes on where
it was stopped, and a fit that fails is named in the table. Differences are to the row "plain" on the same cases, the mean
of the seeds for each case, users redrawn. `--small`: a part of the users and few epochs, to see that every row runs; its
numbers say nothing.
"""

import argparse
import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks.peers.cells import DATA, Data
from benchmarks.tuning import how_it_trains, what_trains, words
from benchmarks.tuning.rows import Row
from lmrec.artifacts.run import describe_environment
from lmrec.errors import LmrecError
from lmrec.evaluation.compare import bootstrap_interval, paired_difference
from lmrec.fields import FloatArray, IntArray
from lmrec.recipe import Recipe, load_recipe
from lmrec.workflows.judge import FROZEN, TUNED, judge_run
from lmrec.workflows.prepare import Prepared, prepare_dataset
from lmrec.workflows.train import fit_run

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
PLAIN = Row("plain", (), "the common recipe: towers, then the two top layers of the language model")
UNTUNED = Row(
    "un-tuned PLM", (), "the language model as it came, cosine to the mean of the last items; nothing is trained"
)
COMMON = (
    "training.refit=false",
    "fusion.transitions=false",
    "fusion.content=false",
    "fusion.popularity=false",
    'baselines.names=["untuned"]',
)
SMALL = (
    "training.frozen_epochs=2",
    "training.tuned_epochs=1",
    "training.validation_cases=200",
    "baselines.search_cases=200",
    "training.max_encoded_items=64",
    "training.tuned_batch_events=500",
)
_SMALL_USERS = 60
_PRETRAIN_EPOCHS = {True: 1, False: 3}


@dataclass(frozen=True)
class Answers:
    """values: (B,) the metric of each case. users: (B,) whom cases belong to. untuned: (B,) of the un-tuned model."""

    values: FloatArray
    users: IntArray
    untuned: FloatArray
    cost: dict[str, Any]

    def save(self, file: Path) -> None:
        fresh = file.with_suffix(".new.npz")
        np.savez(fresh, values=self.values, users=self.users, untuned=self.untuned, cost=json.dumps(self.cost))
        fresh.replace(file)

    @classmethod
    def load(cls, file: Path) -> Self:
        with np.load(file, allow_pickle=False) as held:
            return cls(held["values"], held["users"], held["untuned"], json.loads(str(held["cost"])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="movielens-100k", choices=("movielens-100k", "amazon-scientific"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="every row on a part of the users, in about 25 minutes")
    parser.add_argument("--only", action="append", default=[], metavar="ROW")
    options = parser.parse_args()
    data = DATA[options.dataset]
    name = f"{data.name}-small" if options.small else data.name
    kept = ROOT / "runs" / "bench-tuning" / name
    kept.mkdir(parents=True, exist_ok=True)
    common = (*COMMON, *(SMALL if options.small else ()))
    recipe = load_recipe(ROOT / "recipes" / f"{data.recipe}.toml", common)
    prepared = prepare(data, recipe, options.small)
    words.build_encoders(prepared, recipe, kept / "encoders", _PRETRAIN_EPOCHS[options.small])
    rows = [PLAIN, *what_trains.ROWS, *how_it_trains.ROWS, *words.ROWS, *words.pretrained_rows(kept / "encoders")]
    chosen = [row for row in rows if not options.only or row.name in (*options.only, PLAIN.name)]
    n_seeds = 1 if options.small else options.seeds
    answers: dict[str, list[Answers]] = {}
    failed: dict[str, str] = {}
    for row in chosen:
        began = time.monotonic()
        try:
            answers[row.name] = [answer(row, seed, prepared, data, common, kept) for seed in range(n_seeds)]
        except LmrecError as error:
            failed[row.name] = str(error).splitlines()[0]
        print(f"{row.name}: {failed.get(row.name, 'done')}, {time.monotonic() - began:.0f} s", flush=True)
    text = table(chosen, answers, failed, n_seeds, prepared, options)
    print(f"\n{text}")
    if not options.small and not options.only:
        (FOLDER / f"{data.name}.md").write_text(text + "\n", encoding="utf-8")


def prepare(data: Data, recipe: Recipe, small: bool) -> Prepared:
    prepared = data.prepare(recipe)
    if not small:
        return prepared
    log = prepared.dataset.interactions
    few = np.random.default_rng(0).permutation(len(log.user_ids))[:_SMALL_USERS]
    part = replace(prepared.dataset, interactions=log.select(np.isin(log.user_idx, few)))
    return prepare_dataset(part, recipe)


def answer(row: Row, seed: int, prepared: Prepared, data: Data, common: tuple[str, ...], kept: Path) -> Answers:
    """Fit and judge, or what was kept of that."""
    slug = row.name.replace(" ", "-").replace(",", "")
    file = kept / f"{slug}-{seed}.npz"
    if file.exists():
        return Answers.load(file)
    recipe = load_recipe(ROOT / "recipes" / f"{data.recipe}.toml", (*common, f"training.seed={seed}", *row.overrides))
    run = kept / f"{slug}-{seed}"
    fitted = fit_run(
        None, None, out=run, recipe=recipe, prepared=prepared, resume=(run / "run.json").exists(), show=False
    ).run
    judged = judge_run(run, show=False)
    found = judged.evaluations
    (untuned,) = (one.name for one in judged.table.rows if one.is_baseline)
    own = next(name for name in (TUNED, FROZEN, *found) if name in found and name != untuned)
    values, as_it_came = (found[name].metrics[recipe.evaluation.metric] for name in (own, untuned))
    result = Answers(values, judged.cases.user_idx, as_it_came, what_trains.cost_cells(fitted))
    result.save(file)
    shutil.rmtree(run)  # hundreds of megabytes that nobody asks for
    return result


def table(
    rows: list[Row],
    answers: dict[str, list[Answers]],
    failed: dict[str, str],
    n_seeds: int,
    prepared: Prepared,
    options: argparse.Namespace,
) -> str:
    """The table in markdown, under the line that says what it was made from."""
    place = describe_environment()
    command = f"python -m benchmarks.tuning.run --dataset {options.dataset} --seeds {n_seeds}"
    lines = [
        f"`{command}`, commit {place['commit'][:7]}, {place['machine']}, data {prepared.dataset.fingerprint}, "
        f"{n_seeds} seed(s), {time.strftime('%Y-%m-%d', time.gmtime())}",
        "",
        "| technique | NDCG@10 [95 %] | difference to plain [95 %] | seeds, lowest to highest | PLM parameters that learn "
        "| s an epoch | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]
    plain = answers.get(PLAIN.name)
    if plain:
        lines.append(_line(UNTUNED.name, [replace(one, values=one.untuned, cost={}) for one in plain], plain))
    for row in rows:
        if row.name in answers:
            lines.append(_line(row.name, answers[row.name], plain if row is not PLAIN else None))
        else:
            lines.append(f"| {row.name} | refused: {failed[row.name]} | | | | | |")
    return "\n".join(lines)


def _line(name: str, seeds: list[Answers], plain: list[Answers] | None) -> str:
    values = np.mean([one.values for one in seeds], axis=0)
    users = seeds[0].users
    low, high = bootstrap_interval(values, users)
    apart = ""
    if plain is not None:
        gap = paired_difference(values, np.mean([one.values for one in plain], axis=0), users)
        apart = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]{' *' if gap.is_clear else ''}"
    means = [float(one.values.mean()) for one in seeds]
    cost = [seeds[0].cost.get(key) for key in _COSTS]
    cells = ["" if value is None else f"{value:,.0f}" for value in cost]
    spread = f"{min(means):.4f} to {max(means):.4f}"
    return f"| {name} | {values.mean():.4f} [{low:.4f}, {high:.4f}] | {apart} | {spread} | {' | '.join(cells)} |"


_COSTS = ("trainable parameters of the language model", "seconds an epoch", "peak memory, MB")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
