"""Which way of finding a fusion's weights is best, and which parts are worth asking for.

    python -m benchmarks.fusing NAME RUN [RUN ...] [--ways weighted learnt ...] [--cases 4000]

Runs of one data set and protocol, such as runs/bench-peers/CELL/lmrec/FORM-SEED (their settings: `training.tuned_epochs=0`).
The towers of each run are those that learnt from training alone. Validation is dealt into two halves by user: each way
searches its weights on one half and is judged on the other, and the reverse, so that nobody is judged on what chose. Nothing
of test is read. Differences are to the way that stands first, paired by case, over the runs' mean; intervals redraw users.
What was found lies in benchmarks/fusing/results/NAME.json.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fusing.halves import answer_halves
from benchmarks.fusing.runs import keep, open_towers
from lmrec.data.history import Cases
from lmrec.evaluation.compare import paired_difference
from lmrec.fields import FloatArray
from lmrec.models.fusion import COLLABORATIVE

_KINDS = tuple(kind for kind in COLLABORATIVE if kind != "transitions")
# A way: what it sets of `fusion.*` beside the run's recipe.
WAYS: Mapping[str, Mapping[str, Any]] = {
    "weighted": {"method": "weighted"},
    "learnt": {"method": "learnt"},
    **{f"{method} with {kind}": {"method": method, kind: True} for method in ("weighted", "learnt") for kind in _KINDS},
    **{f"{method} with all": {"method": method, **dict.fromkeys(_KINDS, True)} for method in ("weighted", "learnt")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["weighted", "learnt"])
    parser.add_argument("--cases", type=int, default=4000, help="validation cases of a run at most, both halves")
    options = parser.parse_args()
    found: list[dict[str, FloatArray]] = []
    facts: dict[str, Any] = {way: [] for way in options.ways}
    for path in options.runs:
        cases, values = answer_run(path, options.ways, options.cases, facts)
        found.append(values)
        print(show(options.ways, found, cases.user_idx, facts), flush=True)
        write(options, found, cases, facts)


def answer_run(path: Path, ways: list[str], n_cases: int, facts: dict[str, Any]) -> tuple[Cases, dict[str, FloatArray]]:
    """(B,) the metric of each case for each way, whose weights that case had no say in."""
    _, recipe, split, towers = open_towers(path)
    cases = split.validation.sample(n_cases, 0)
    values: dict[str, FloatArray] = {}
    for way in ways:
        began = time.process_time()
        values[way], weights = answer_halves(towers, split, cases, recipe, WAYS[way])
        facts[way].append({"weights": weights, "cpu_seconds": round(time.process_time() - began, 1)})
    return cases, values


def show(ways: list[str], found: list[dict[str, FloatArray]], users: np.ndarray, facts: dict[str, Any]) -> str:
    lines = [f"{len(found)} run(s), {len(users)} cases of {len(np.unique(users))} users, ndcg@10 of validation"]
    for way, row in table(ways, found, users).items():
        gap = "" if row["difference"] is None else "  {:+.4f} [{:+.4f}, {:+.4f}]".format(*row["difference"])
        lines.append(f"  {way:24} {row['ndcg@10']:.4f}{gap}  {facts[way][-1]['weights']}")
    return "\n".join(lines)


def table(ways: list[str], found: list[dict[str, FloatArray]], users: np.ndarray) -> dict[str, dict[str, Any]]:
    """Each way's mean over runs and cases, and its difference to the first with its interval."""
    means = {way: np.mean([values[way] for values in found], axis=0) for way in ways}
    rows: dict[str, dict[str, Any]] = {}
    for way in ways:
        gap = paired_difference(means[way], means[ways[0]], users)
        difference = None if way == ways[0] else [round(one, 5) for one in (gap.mean, gap.low, gap.high)]
        by_run = [round(float(values[way].mean()), 5) for values in found]
        rows[way] = {"ndcg@10": round(float(means[way].mean()), 5), "difference": difference, "by run": by_run}
    return rows


def write(options: argparse.Namespace, found: list[dict[str, FloatArray]], cases: Cases, facts: dict[str, Any]) -> None:
    rows = table(options.ways, found, cases.user_idx)
    result = {
        "runs": [str(path) for path in options.runs[: len(found)]],
        "cases": len(cases),
        "ways": {way: {**rows[way], "runs": facts[way]} for way in options.ways},
    }
    keep(options.name, options.name, result)


if __name__ == "__main__":
    main()
