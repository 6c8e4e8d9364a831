"""Asks a scorer every question of a part of the data and measures the answers, block by block in flat memory.

A block holds as many cases as make about 64 MB of scores (cases x items x 4 bytes), so 100,000 users x 50,000 items
(20 GB of scores) pass through a few hundred MB. What stays is one number a case and metric, and the lists shown.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lmrec.data.history import Cases
from lmrec.errors import InputError, nearest
from lmrec.evaluation.metrics import Ranks, coverage, gini, measure_ranks, metric_names, novelty
from lmrec.evaluation.ranking import rank_relevant
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.progress import Progress
from lmrec.topk import top_k

BLOCK_BYTES: Final = 64_000_000


class Scorer(Protocol):
    """Anything that can answer: for each history, one score for each item of the catalog."""

    @property
    def name(self) -> str: ...

    def score(self, history: Ragged) -> FloatArray:
        """(b, N) float32, higher is better, for histories of ItemIdx, oldest first. An empty history has an answer."""
        ...


class EvaluationConfig(BaseModel):
    """How the judge works. What it measures is in `lmrec.evaluation.metrics`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ks: tuple[int, ...] = Field(default=(5, 10, 20, 50), description="The list lengths at which metrics are taken.")
    exclude_seen: bool = Field(default=True, description="Whether items of the history are no candidates.")
    block_size: int | None = Field(
        default=None, ge=1, description="Cases scored at once; unset: about 64 MB of scores."
    )
    max_cases: int | None = Field(
        default=None, ge=1, description="Judge a random sample of the cases; unset: all of them."
    )
    n_bootstrap: int = Field(default=1000, ge=1, description="How often users are redrawn for the intervals.")
    confidence: float = Field(default=0.95, gt=0.0, lt=1.0, description="The probability mass of the intervals.")
    seed: int = Field(default=0, description="Seed of the sample of cases and of the redraws.")
    metric: str = Field(default="ndcg@10", description="The metric that decides: best baseline, differences, verdict.")

    @field_validator("ks")
    @classmethod
    def _ordered_ks(cls, ks: tuple[int, ...]) -> tuple[int, ...]:
        if not ks or min(ks) < 1:
            raise ValueError(f"ks is {ks}; it needs at least one length, each 1 or more, such as (10,)")
        return tuple(sorted(set(ks)))

    @model_validator(mode="after")
    def _known_metric(self) -> Self:
        names = metric_names(self.ks)
        if self.metric not in names:
            raise ValueError(
                f"metric is '{self.metric}', which is not measured at ks={self.ks}. {nearest(self.metric, names)}"
            )
        return self


@dataclass(frozen=True)
class Evaluation:
    """What a scorer's answers were worth.

    ranks: where the relevant items of each case stood; every metric at every k follows from them.
    metrics: name -> (B,) one value for each case, in the order of `cases`.
    top: (B, max(ks)) int32, what would have been shown, best first; -1 where a place stayed empty.
    aggregate: name -> mean over cases, and coverage@k, gini@k and (given item counts) novelty@k of the lists.
    cases: the questions that were asked: all of them, or the sample that `max_cases` drew.
    """

    name: str
    ranks: Ranks
    metrics: dict[str, FloatArray]
    top: npt.NDArray[np.int32]
    aggregate: dict[str, float]
    cases: Cases
    n_items: int

    @property
    def groups(self) -> IntArray:
        """(B,) the user of each case, the unit that intervals redraw."""
        return self.cases.user_idx


def evaluate(
    scorer: Scorer,
    cases: Cases,
    n_items: int,
    config: EvaluationConfig,
    progress: Progress | None = None,
    item_counts: IntArray | None = None,
) -> Evaluation:
    """Ranks the whole catalog for every case and measures where the relevant items stand.

    progress: called after each block with (cases done, cases in all).
    item_counts: (N,) events of each item in training and validation; given, the lists' novelty is measured too.
    Raises InputError where there is no case, or the scorer's answer is not (b, n_items) or holds NaN.
    """
    asked = select_cases(cases, config)
    n_cases = len(asked)
    if n_cases == 0:
        raise InputError(
            "There is no case to judge; an evaluation needs at least one. Choose a split with a larger test part."
        )
    size = config.block_size or block_size(n_items)
    per_block: list[Ranks] = []
    top = np.empty((n_cases, max(config.ks)), np.int32)

    def measure(start: int, history: Ragged, relevant: Ragged, scores: FloatArray) -> None:
        per_block.append(rank_relevant(scores, history, relevant, config.exclude_seen))
        top[start : start + len(scores)] = top_k(scores, top.shape[1], history if config.exclude_seen else None)

    # One block is scored while the one before it is measured.
    with ThreadPoolExecutor(max_workers=1) as beside:
        measuring: Future[None] | None = None
        for start in range(0, n_cases, size):
            stop = min(start + size, n_cases)
            history, relevant = asked.history.slice(start, stop), asked.relevant.slice(start, stop)
            scores = _score_block(scorer, history, n_items)
            if measuring is not None:
                measuring.result()
            measuring = beside.submit(measure, start, history, relevant, scores)
            if progress is not None:
                progress(stop, n_cases)
        if measuring is not None:
            measuring.result()
    ranks = Ranks.join(per_block)
    metrics = measure_ranks(ranks, config.ks)
    aggregate = {name: float(values.mean()) for name, values in metrics.items()}
    aggregate |= measure_lists(top, n_items, config.ks, item_counts)
    return Evaluation(scorer.name, ranks, metrics, top, aggregate, asked, n_items)


def measure_lists(top: IntArray, n_items: int, ks: tuple[int, ...], item_counts: IntArray | None) -> dict[str, float]:
    """Coverage, Gini and (given item counts) novelty of the first k places of the lists, for every k."""
    found: dict[str, float] = {}
    for k in ks:
        found[f"coverage@{k}"] = coverage(top[:, :k], n_items)
        found[f"gini@{k}"] = gini(top[:, :k], n_items)
        if item_counts is not None:
            found[f"novelty@{k}"] = novelty(top[:, :k], item_counts)
    return found


def select_cases(cases: Cases, config: EvaluationConfig) -> Cases:
    """The cases that `evaluate` asks: the same ones for every scorer, by `config.seed`."""
    if config.max_cases is None or len(cases) <= config.max_cases:
        return cases
    return cases.sample(config.max_cases, config.seed)


def block_size(n_items: int) -> int:
    """How many cases make about 64 MB of scores.

    >>> block_size(50_000), block_size(1_000_000_000)
    (320, 1)
    """
    return max(1, BLOCK_BYTES // (4 * max(n_items, 1)))


def _score_block(scorer: Scorer, history: Ragged, n_items: int) -> FloatArray:
    scores = scorer.score(history)
    if scores.shape != (len(history), n_items):
        raise InputError(
            f"'{scorer.name}' answered {len(history)} histories with scores of shape {scores.shape}; "
            f"({len(history)}, {n_items}) is needed. Was it fitted on another catalog?"
        )
    return scores
