"""How sharply an item without events should borrow from the items that it reads like, and how much.

    python -m benchmarks.fusing.lending NAME RUN [--cases 4000]

A run as for `benchmarks.fusing`. In each of two draws a tenth of the items with training events is taken as having none, as
`lmrec fit` does to choose `FusionWeights.borrowed`; where validation mostly asks for new items (split.kind=cold_items) they
are asked for as they are. The weights are those that the run found; what varies is the power of the cosine that shares are
made by and the factor. NDCG@10 of validation cases: all, those that ask for a known item, those that ask for a new one.
Nothing of test is read. What was found lies in benchmarks/fusing/results/lending-NAME.json.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.fusing.__main__ import RESULTS
from benchmarks.fusing.halves import METRIC, judging_of, learnt_towers
from lmrec.artifacts.run import describe_environment, open_run
from lmrec.data.split import split_interactions
from lmrec.evaluation.evaluator import evaluate
from lmrec.fields import FloatArray
from lmrec.models import lending
from lmrec.models.fusion import FusionWeights
from lmrec.recipe import load_fitted
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.counting import Counted
from lmrec.workflows.fuse import worlds_of

POWERS = (4, 8, 16, 32, 64)
FACTORS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
_N_DRAWS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("run", type=Path)
    parser.add_argument("--cases", type=int, default=4000)
    options = parser.parse_args()
    rows = []
    for row in answer(options.run, options.cases):
        rows.append(row)
        print("cosine^{power} x {factor}: all {all:.4f}, known {known:.4f}, new {new:.4f}".format(**row), flush=True)
    about = {"data": options.name, **describe_environment(), "made": time.strftime("%Y-%m-%d", time.gmtime())}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"lending-{options.name}.json"
    path.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def answer(path: Path, n_cases: int) -> Iterator[dict[str, float]]:
    run, recommender = open_run(path), Recommender.load(path)
    recipe = load_fitted(run.recipe_file)
    split = split_interactions(recommender.interactions, recommender.catalog.n_items, recipe.split)
    towers = learnt_towers(recommender, split)
    found = {name: value for name, value in run.read_record()["fusion"].items() if name in FusionWeights.model_fields}
    weights = FusionWeights.model_validate(found)
    cases, judging = split.validation.sample(n_cases, 0), judging_of(recipe)
    counted = Counted.of(split.train, towers.bank.n_items)
    for kind in weights.collaborative:
        counted = counted.having(kind, weights.fit_of(kind))
    worlds = worlds_of(towers, counted, cases, recipe.training.seed, _N_DRAWS)
    for power in POWERS:
        lending.POWER = power
        for _, known in worlds:
            known.loans.clear()
        for factor in FACTORS:
            chosen = weights.model_copy(update={"borrowed": factor, "newcomer": 1.0})
            means = []
            for one, known in worlds:
                fused = one.fused(known.fusion(chosen))
                values = evaluate(fused, cases, towers.bank.n_items, judging).metrics[METRIC]
                known.remember(fused.fusion)
                asks_new = np.maximum.reduceat(known.is_new[cases.relevant.values], cases.relevant.offsets[:-1])
                means.append([_mean(values), _mean(values[~asks_new]), _mean(values[asks_new])])
            every, of_known, of_new = np.mean(means, axis=0)
            yield {"power": power, "factor": factor, "all": every, "known": of_known, "new": of_new}


def _mean(values: FloatArray) -> float:
    return round(float(values.mean()), 5) if len(values) else float("nan")


if __name__ == "__main__":
    main()
