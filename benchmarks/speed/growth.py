"""Growth: ten times the items, the users or the events of a planted world, and what each step of the arc then takes.

Each step runs in a process of its own: `prepare` (tables to split histories), `fit` (two epochs of the first stage), `judge`
(the whole catalog ranked, against counted rivals) and `index` (a sketch over the fitted item vectors). The
language model has one layer, 32 wide, and never learnt anything: a real one would hide all other growth behind its
own, which is that of the number of different texts and nothing else (the figure `encode`). Seconds are of the processor; memory
is the process's peak over what it held when its work began. Linear is ten times the first world's; what is above that is named.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.alone import measure_alone, peak_mb
from benchmarks.speed.figure import Figure

STEPS = ("prepare", "fit", "judge", "index")
AXES = ("items", "users", "events")
_OVERRIDES = (
    "template.item={title}. {description}",
    "encoder.train=none",
    "training.frozen_epochs=2",
    "training.tuned_epochs=0",
    "training.refit=false",
    "training.precision=fp32",
    "fusion.search_cases=500",
    'baselines.names=["popularity", "recent_popularity", "item_knn", "transitions"]',
)


@dataclass(frozen=True)
class World:
    """events: of each user."""

    items: int
    users: int
    events: int

    def times(self, axis: str, factor: int) -> "World":
        return World(**{**asdict(self), axis: factor * getattr(self, axis)})


@dataclass(frozen=True)
class Cost:
    """Processor seconds, and the peak of memory over the start, in MB."""

    seconds: float
    grown_mb: float


Costs = dict[str, Cost]  # step -> what it took


def main(small: bool) -> list[Figure]:
    from benchmarks.speed.run import results_folder

    base = World(items=256, users=200, events=6) if small else World(items=640, users=2_000, events=20)
    factors = (10,) if small else (3, 10)
    first = measure_world(base)
    grown = {axis: {factor: measure_world(base.times(axis, factor)) for factor in factors} for axis in AXES}
    folder = results_folder(small)
    kept = {
        "world": asdict(base),
        "first": {step: asdict(cost) for step, cost in first.items()},
        "grown": {
            axis: {str(factor): {step: asdict(cost) for step, cost in costs.items()} for factor, costs in of.items()}
            for axis, of in grown.items()
        },
    }
    (folder / "growth_sizes.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    draw(folder, base, first, grown)
    return [figure for axis in AXES for figure in figures_of(axis, base, first, grown[axis][10])]


def figures_of(axis: str, base: World, first: Costs, grown: Costs) -> list[Figure]:
    size = f"{getattr(base, axis):,} to {10 * getattr(base, axis):,} {axis}{' a user' if axis == 'events' else ''}"
    return [
        Figure(
            f"growth, {axis} x10: {step}",
            grown[step].seconds,
            10 * first[step].seconds,
            "s",
            "10x the first",
            f"{size}; memory on top {first[step].grown_mb:.0f} to {grown[step].grown_mb:.0f} MB",
        )
        for step in STEPS
    ]


def draw(folder: Path, base: World, first: Costs, grown: dict[str, dict[int, Costs]]) -> None:
    from benchmarks.speed.pictures import draw_growth

    for axis in AXES:
        start = getattr(base, axis)
        worlds = {1: first, **grown[axis]}
        series = {
            step: {float(factor * start): costs[step].seconds for factor, costs in worlds.items()} for step in STEPS
        }
        what = f"{axis}{' a user' if axis == 'events' else ''}"
        draw_growth(folder / f"growth_{axis}.png", series, what, "seconds of one processor", f"Growth with {what}")


def measure_world(world: World) -> Costs:
    with tempfile.TemporaryDirectory() as folder:
        write_world(world, Path(folder))
        costs = {step: Cost(**measure_alone("benchmarks.speed.growth", step, folder)) for step in STEPS}
    print(world, costs, flush=True)
    return costs


def write_world(world: World, folder: Path) -> None:
    from benchmarks.speed.worlds import tables_of
    from lmrec.data.sources.synthetic import planted_world

    made = planted_world(world.users, world.items, world.events)
    items, events = tables_of(made)
    items.write_parquet(folder / "items.parquet")
    events.write_parquet(folder / "interactions.parquet")
    write_language_model(folder / "encoder")


def write_language_model(folder: Path) -> None:
    """One layer, 32 wide, random: words become random vectors, which is enough to tell them apart."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    from lmrec.artifacts.pretrained import locate_pretrained

    tokenizer = AutoTokenizer.from_pretrained(locate_pretrained("all-MiniLM-L6-v2"))
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=96,
    )
    BertModel(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def begin(step: str, folder: Path) -> Callable[[], Any]:
    """What the step needs, loaded: the work that is measured."""
    tables = folder / "items.parquet", folder / "interactions.parquet"
    if step == "index":
        from lmrec.retrieval.ann import IndexConfig, build_index

        matrix = np.load(folder / "matrix.npy")
        return lambda: build_index(matrix, IndexConfig(kind="sketch"))
    from lmrec.recipe import load_recipe
    from lmrec.workflows.prepare import prepare

    recipe = load_recipe(None, (*_OVERRIDES, f"encoder.name={folder / 'encoder'}"))
    if step == "prepare":
        return lambda: prepare(*tables, None, recipe)
    if step == "fit":
        from lmrec.workflows.train import fit_run

        prepared = prepare(*tables, None, recipe)
        return lambda: fit_run(*tables, out=folder / "run", recipe=recipe, prepared=prepared, show=False)
    from lmrec.retrieval.recommender import Recommender
    from lmrec.workflows.judge import judge_run

    np.save(folder / "matrix.npy", Recommender.load(folder / "run").towers_scorer.bank.matrix.detach().numpy())
    return lambda: judge_run(folder / "run", show=False)


def measure_here(step: str, folder: Path) -> Cost:
    work = begin(step, folder)
    before, began = peak_mb(), time.process_time()
    work()
    return Cost(time.process_time() - began, peak_mb() - before)


if __name__ == "__main__":
    if sys.argv[1] not in STEPS:
        raise SystemExit(f"'{sys.argv[1]}' is no step; there are {', '.join(STEPS)}")
    print(json.dumps(asdict(measure_here(sys.argv[1], Path(sys.argv[2])))))
