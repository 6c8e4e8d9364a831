"""How sharply an item without events should borrow from the items that it reads like, how much, and how popular it counts.

    python -m benchmarks.fusing.lending NAME RUN [--cases 4000]

A run as for `benchmarks.fusing`. In each of two draws a tenth of the items with training events is taken as having none, as
`lmrec fit` does to choose `FusionWeights.borrowed` and `newcomer`; where validation mostly asks for new items
(split.kind=cold_items) they are asked for as they are. The weights are those that the run found; what varies is, first, the
power of the cosine that shares are made by and the factor of what is borrowed, then, with the power of the product and the
run's own factor, how popular new items count. NDCG@10 of validation cases: all, those that ask for a known item, those that
ask for a new one, and these once more where new items alone are ranked. Nothing of test is read. What was found lies in
benchmarks/fusing/results/lending-NAME.json.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fusing.halves import METRIC, judging_of
from benchmarks.fusing.runs import keep, open_towers
from lmrec.evaluation.evaluator import evaluate
from lmrec.fields import BoolArray, FloatArray, Ragged
from lmrec.models import lending
from lmrec.models.fusion import PARTS
from lmrec.retrieval.scorer import Scorer
from lmrec.workflows.counting import Counted
from lmrec.workflows.fuse import worlds_of

POWERS = (4, 8, 16, 32)
FACTORS = (0.0, 1.0, 1.5, 2.0, 3.0)
NEWCOMER = (0.0, 0.5, 1.0, 2.0, 4.0)
_N_DRAWS = 2
_POPULARITY = 0.1  # where the run has none
_LINE = (
    "{what}, cosine^{power}, {borrowed:g} borrowed, newcomers {newcomer:g}: all {all:.4f}, known {known:.4f}, new {new:.4f}, "
    "among new {among_new:.4f}"
)


@dataclass(frozen=True)
class AmongNew:
    """The same scores, of new items alone."""

    scorer: Scorer
    is_new: BoolArray

    @property
    def name(self) -> str:
        return self.scorer.name

    def score(self, history: Ragged) -> FloatArray:
        return np.where(self.is_new, self.scorer.score(history), -np.inf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("run", type=Path)
    parser.add_argument("--cases", type=int, default=4000)
    options = parser.parse_args()
    rows = []
    for row in answer(options.run, options.cases):
        rows.append(row)
        print(_LINE.format(**row), flush=True)
    told = [{name: None if value != value else value for name, value in row.items()} for row in rows]  # JSON has no NaN
    keep(f"lending-{options.name}", options.name, {"rows": told})


def answer(path: Path, n_cases: int) -> Iterator[dict[str, Any]]:
    recommender, recipe, split, towers = open_towers(path)
    weights = recommender.checkpoint.fusion
    cases, judging = split.validation.sample(n_cases, 0), judging_of(recipe)
    counted = Counted.of(split.train, towers.bank.n_items).weighed_by(weights)
    worlds = worlds_of(towers, counted, cases, recipe.training.seed, _N_DRAWS)

    def row(power: int, change: Mapping[str, float], what: str = "fused") -> dict[str, Any]:
        chosen, means = weights.model_copy(update=change), []
        for one, known in worlds:
            fused = one.fused(known.fusion(chosen))
            known.remember(fused.fusion)
            whole = evaluate(fused, cases, towers.bank.n_items, judging).metrics[METRIC]
            asks_new = np.maximum.reduceat(known.is_new[cases.relevant.values], cases.relevant.offsets[:-1])
            of_new = cases.take(np.flatnonzero(asks_new))
            among = evaluate(AmongNew(fused, known.is_new), of_new, towers.bank.n_items, judging).metrics[METRIC]
            means.append([_mean(whole), _mean(whole[~asks_new]), _mean(whole[asks_new]), _mean(among)])
        names = ("all", "known", "new", "among_new")
        said = {"what": what, "power": power, "borrowed": chosen.borrowed, "newcomer": chosen.newcomer}
        return {**said, **dict(zip(names, np.mean(means, axis=0).round(5).tolist(), strict=True))}

    def with_power(power: int) -> None:
        lending.POWER = power
        for _, known in worlds:
            known.loans.clear()

    usual = lending.POWER
    yield row(usual, {**dict.fromkeys(PARTS, 0.0), "content": 1.0}, "words alone")
    for power in POWERS:
        with_power(power)
        for factor in FACTORS:
            yield row(power, {"borrowed": factor, "newcomer": 0.0})
    with_power(usual)
    for newcomer in NEWCOMER:
        yield row(usual, {"newcomer": newcomer, "popularity": weights.popularity or _POPULARITY})


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


if __name__ == "__main__":
    main()
