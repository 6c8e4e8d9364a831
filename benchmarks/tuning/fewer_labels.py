"""Do words need fewer labels? Tuned and frozen language model beside id-only models, with 1 %, 10 % and 100 % of the training
interactions.

    python -m benchmarks.tuning.fewer_labels [--dataset movielens-100k] [--seeds 3 | --seed 1] [--shares 0.01 0.1 1]
        [--minutes 60] [--chart]

Users are drawn at random until their events make up the share, so that histories stay whole; all others' training events are
taken away from every system. Validation and test questions, and the histories that they ask with, stay as they are. All
systems learn from the training part alone and choose (epochs, settings) on the same validation. Epochs of fewer events have
fewer steps, so what learns by gradients may take up to ten times as many of them (the first stage; validation ends it). Of two
tuned language models one has the recipe's second stage, a few steps in all; the other steps each time the towers do, in up to
ten times the five epochs of the row "longer, last 2 layers". The questions are those of `benchmarks.tuning.run`, and at 100 %
fits are taken from there. What is found is kept in benchmarks/tuning/results/DATASET/fewer-labels; the picture and the figures
in benchmarks/tuning/fewer_labels/.
"""

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.fitting import fit_once
from benchmarks.tuning.bench import FOLDER, PLAIN, Bench, seeds_asked
from benchmarks.tuning.fits import UNTUNED, read_row
from benchmarks.tuning.results import METRICS, Answers, Question, average, read_answer
from benchmarks.tuning.what_trains import HEAD_ONLY, LAST_TWO_LONGER
from lmrec.artifacts.files import write_json
from lmrec.artifacts.run import describe_environment
from lmrec.data.split import Split
from lmrec.evaluation.charts import render_png
from lmrec.evaluation.compare import bootstrap_interval, paired_difference
from lmrec.evaluation.evaluator import Evaluation, evaluate
from lmrec.models.collaborative import ALS, Popularity
from lmrec.models.shared_states import sharing_states
from lmrec.models.transitions import ItemTransitions
from lmrec.workflows.counting import log_arrays
from lmrec.workflows.idonly import train_id_only
from lmrec.workflows.judge import FROZEN, ID_ONLY, TUNED, Rival, judge_run, search_rival

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = (0.01, 0.1, 1.0)
PLM = {"tuned PLM": TUNED, "frozen PLM": FROZEN}
COUNTED: Mapping[str, Callable[[], tuple[Rival, ...]]] = {
    "item transitions": ItemTransitions.candidates,
    "ALS": ALS.candidates,
    "popularity": Popularity.candidates,
}
TUNED_LONGER = "PLM tuned longer"
SYSTEMS = (*PLM, TUNED_LONGER, ID_ONLY, *COUNTED)
_AT_ONE = {"tuned PLM": PLAIN, "frozen PLM": HEAD_ONLY, TUNED_LONGER: LAST_TWO_LONGER}
METRIC = METRICS[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="movielens-100k", choices=("movielens-100k", "amazon-scientific"))
    parser.add_argument("--seeds", type=int, default=3, help="so many of them, from 0 on")
    parser.add_argument("--seed", type=int, default=None, help="measure this one alone")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--minutes", type=float, default=None, help="begin nothing after so many")
    parser.add_argument("--small", action="store_true", help="a part of the users and few epochs; says nothing")
    parser.add_argument("--chart", action="store_true", help="measure nothing: the picture of what is there")
    options = parser.parse_args()
    until = float("inf") if options.minutes is None else time.monotonic() + 60 * options.minutes
    bench = Bench.open(options.dataset, options.small)
    if not options.chart:
        measure(bench, options.shares, seeds_asked(options), until)
    found = read_all(bench, options.shares, options.seeds)
    facts = summary(found)
    print("\n".join(lines_of(facts)))
    if not options.small and found:
        out = FOLDER / "fewer_labels"
        out.mkdir(exist_ok=True)
        write_json(out / f"{bench.data.name}.json", facts)
        draw(facts, out / f"{bench.data.name}.png")


def thin(split: Split, share: float, seed: int) -> Split:
    """The split with the training events of users drawn at random, as many as come nearest to `share` of all events."""
    if share >= 1:
        return split
    log = split.train
    counts = np.bincount(log.user_idx, minlength=log.n_users)
    order = np.random.default_rng(seed).permutation(log.n_users)
    within = int(np.abs(np.cumsum(counts[order]) - share * log.n_events).argmin()) + 1
    few = log.select(np.isin(log.user_idx, order[:within]))
    return replace(split, train=few, train_and_validation=few)


@sharing_states()
def measure(bench: Bench, shares: list[float], seeds: Iterable[int], until: float) -> None:
    """What is not there yet, the smallest share first, for it is the cheapest."""
    for seed in seeds:
        for share in sorted(shares):
            for system in SYSTEMS:
                if answer_of(bench, system, share, seed) is not None:
                    continue
                if time.monotonic() > until:
                    print("time is over; the same command goes on from here", flush=True)
                    return
                began = time.monotonic()
                for name, evaluation in judged(bench, system, share, seed):
                    keep(bench, name, share, seed, evaluation, time.monotonic() - began)
                print(f"seed {seed}, {share:.0%}, {system}: {time.monotonic() - began:.0f} s", flush=True)


def judged(bench: Bench, system: str, share: float, seed: int) -> Iterator[tuple[str, Evaluation]]:
    """Learn and judge; both stages of the language model come from one fit."""
    recipe = bench.recipe(seed, learning(bench, system, share))
    n_items = bench.prepared.dataset.catalog.n_items
    split = thin(bench.prepared.split, share, seed)
    if system in (*PLM, TUNED_LONGER):
        path = bench.runs / f"fewer-{'longer-' * (system == TUNED_LONGER)}{share:g}-{seed}"
        run = fit_once(path, recipe, replace(bench.prepared, split=split), show=False)
        found = judge_run(run.path, ["baselines.names=[]"], show=False).evaluations
        stages = {TUNED_LONGER: TUNED} if system == TUNED_LONGER else PLM
        yield from ((name, found[stage]) for name, stage in stages.items())
        shutil.rmtree(run.path)
        return
    if system == ID_ONLY:
        scorer: Any = train_id_only(recipe, bench.prepared.dataset.catalog, split, False, ID_ONLY)
    else:
        rival, _ = search_rival(COUNTED[system](), split, n_items, recipe, False)
        scorer = rival.fit(log_arrays(split.train, n_items))
    yield system, evaluate(scorer, split.test, n_items, recipe.evaluation)


def longer(bench: Bench, share: float) -> tuple[str, ...]:
    """More epochs where an epoch has fewer steps: up to ten times the recipe's, until ten in a row bring nothing."""
    if share >= 1 or bench.small:
        return ()
    epochs = bench.recipe(0).training.frozen_epochs
    return (f"training.frozen_epochs={round(epochs * min(10.0, 1 / share))}", "training.patience=10")


def learning(bench: Bench, system: str, share: float) -> tuple[str, ...]:
    """What a system that learns by gradients has beside the common recipe."""
    if system != TUNED_LONGER:
        return longer(bench, share)
    epochs = 1 if bench.small else round(5 * min(10.0, 1 / share))
    return (*longer(bench, share), *LAST_TWO_LONGER.overrides, f"training.tuned_epochs={epochs}")


def question_of(bench: Bench, system: str, share: float, seed: int) -> Question:
    learnt = () if system in COUNTED else learning(bench, system, share)
    asked = bench.question(f"{system} {share:g}", seed, (f"share of the training interactions={share:g}", *learnt))
    return replace(asked, row=asked.row.replace(".", "_"))


def keep(bench: Bench, system: str, share: float, seed: int, found: Evaluation, seconds: float) -> None:
    question = question_of(bench, system, share, seed)
    facts = {**question.as_dict(), "seconds": round(seconds, 1), **describe_environment()}
    facts["made"] = time.strftime("%Y-%m-%d", time.gmtime())
    Answers.of(found, facts).save(question.file(bench.results / "fewer-labels"))


def answer_of(bench: Bench, system: str, share: float, seed: int) -> Answers | None:
    """What is kept; of the whole training part what the table of techniques knows."""
    found, unused = read_answer(bench.results / "fewer-labels", question_of(bench, system, share, seed))
    if found is None and share >= 1 and system in _AT_ONE:
        found, unused = read_row(bench, _AT_ONE[system], seed)
    if unused:
        print(unused)
    return found


def read_all(bench: Bench, shares: list[float], n_seeds: int) -> dict[str, dict[float, list[Answers]]]:
    """system -> share -> seeds; and the un-tuned language model, which learns from no share."""
    found: dict[str, dict[float, list[Answers]]] = {}
    for system in SYSTEMS:
        for share in sorted(shares):
            seeds = [one for seed in range(n_seeds) if (one := answer_of(bench, system, share, seed)) is not None]
            if seeds:
                found.setdefault(system, {})[share] = seeds
    untuned, _ = read_row(bench, UNTUNED, 0)
    if untuned is not None:
        found[UNTUNED.name] = {share: [untuned] for share in sorted(shares)}
    return found


def summary(found: Mapping[str, Mapping[float, list[Answers]]]) -> dict[str, Any]:
    """Plain values: each point with its interval, and how far either tuned language model is above it at that share."""
    points: dict[str, dict[str, Any]] = {}
    for system, by_share in found.items():
        for share, seeds in by_share.items():
            values, groups = average(seeds, METRIC), seeds[0].groups
            low, high = bootstrap_interval(values, groups)
            point: dict[str, Any] = {"value": float(values.mean()), "low": low, "high": high, "seeds": len(seeds)}
            for own in ("tuned PLM", TUNED_LONGER):
                ours = found.get(own, {}).get(share)
                if ours and system != own and len(ours) == len(seeds):
                    gap = paired_difference(average(ours, METRIC), values, groups)
                    point[f"{own} above it"] = (gap.mean, gap.low, gap.high)
            points.setdefault(system, {})[f"{share:g}"] = point
    facts = [one.facts for by_share in found.values() for seeds in by_share.values() for one in seeds]
    made = {key: sorted({str(one.get(key)) for one in facts}) for key in ("commit", "machine", "data", "made")}
    return {"metric": METRIC, **made, "points": points}


def lines_of(facts: Mapping[str, Any]) -> list[str]:
    """The figures as a table in markdown."""
    shares = sorted({float(share) for points in facts["points"].values() for share in points})
    lines = ["| |" + "".join(f" {share:.0%} |" for share in shares), "|---|" + "---|" * len(shares)]
    for system, points in facts["points"].items():
        cells = [points.get(f"{share:g}") for share in shares]
        shown = ["" if one is None else f"{one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]" for one in cells]
        lines.append(f"| {system} | " + " | ".join(shown) + " |")
    return lines


def draw(facts: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: the metric over the share, a line a system, with intervals."""

    def on(figure: "Figure") -> None:
        axes = figure.add_axes((0.12, 0.16, 0.6, 0.78))
        for place, (system, points) in enumerate(facts["points"].items()):
            shares = sorted(points, key=float)
            values = np.array([[points[share][name] for name in ("value", "low", "high")] for share in shares])
            spread = np.abs(values[:, 1:] - values[:, :1]).T
            at = [float(share) * (1 + 0.03 * (place - 3)) for share in shares]
            axes.errorbar(
                at, values[:, 0], spread, label=system, color=f"C{place}", marker="o", markersize=4, capsize=2
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.xaxis.set_minor_formatter(lambda share, _: "")
        axes.set_xlabel("share of the training interactions")
        axes.set_ylabel(facts["metric"])
        axes.grid(axis="y")
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))

    render_png(on, 3.6, path, 7.0)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
