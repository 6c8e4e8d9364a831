"""Evaluation: every item ranked for 100,000 users x 50,000 items, d = 128, by the judge's own code.

The reference is the same job the plain way, on a tenth of the users: a block of scores, what is seen at -inf, a stable
sort of the best by argpartition, the rank by comparison of the whole block.
"""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.speed.figure import Figure
from lmrec.data.history import Cases
from lmrec.evaluation.evaluator import EvaluationConfig, evaluate
from lmrec.fields import Ragged

WIDTH = 128
K = 10


@dataclass(frozen=True, eq=False)
class Product:
    """A scorer: the product of a user's vector, made of the history, and every item's."""

    item_vec: npt.NDArray[np.float32]
    name: str = "product"

    def score(self, history: Ragged) -> npt.NDArray[np.float32]:
        user_vec = np.add.reduceat(self.item_vec[history.values], history.offsets[:-1])
        scores: npt.NDArray[np.float32] = user_vec @ self.item_vec.T
        return scores


def main(small: bool) -> list[Figure]:
    n_users, n_items = (10_000, 10_000) if small else (100_000, 50_000)
    rng = np.random.default_rng(0)
    scorer = Product(rng.normal(size=(n_items, WIDTH)).astype(np.float32))
    cases = make_cases(n_users, n_items, rng)
    before = peak_mb()
    config = EvaluationConfig(ks=(K,), metric=f"ndcg@{K}")
    ours, busy = seconds_of(lambda: evaluate(scorer, cases, n_items, config))
    grown = peak_mb() - before
    some = cases.take(np.arange(n_users // 10))
    plain, _ = seconds_of(lambda: measure_plainly(scorer, some))
    size = f"{n_users:,} users x {n_items:,} items x {WIDTH}, NDCG, recall, MRR@{K}"
    return [
        Figure("evaluation", ours, 30.0, "s", "limit", f"{size}; {busy:.0f} s of processor time"),
        Figure("evaluation, memory over inputs", grown, 1000.0, "MB", "limit", size),
        Figure("evaluation, users", n_users / ours, len(some) / plain, "rows/s", "plain numpy", size),
    ]


def make_cases(n_users: int, n_items: int, rng: np.random.Generator) -> Cases:
    """Histories of 5 to 34 items and one relevant item each, all different within a case."""
    lengths = rng.integers(6, 36, n_users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    start = np.repeat(rng.integers(n_items, size=n_users), lengths)
    stride = np.repeat(rng.integers(1, n_items // 40, size=n_users), lengths)
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    items = (start + stride * place) % n_items
    is_last = place == np.repeat(lengths, lengths) - 1
    history = Ragged(items[~is_last], np.concatenate([[0], np.cumsum(lengths - 1)]))
    relevant = Ragged(items[is_last], np.arange(n_users + 1))
    return Cases(np.arange(n_users, dtype=np.int32), np.zeros(n_users), history, relevant)


def measure_plainly(scorer: Product, cases: Cases, block: int = 320) -> float:
    """The mean NDCG@10, as most evaluation loops compute it."""
    total = 0.0
    for start in range(0, len(cases), block):
        history, relevant = cases.history.slice(start, start + block), cases.relevant.slice(start, start + block)
        scores = scorer.score(history)
        scores[history.row_of_value, history.values] = -np.inf
        top = np.argpartition(-scores, K, axis=1)[:, :K]
        order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1, kind="stable")
        top = np.take_along_axis(top, order, axis=1)
        hits = top == relevant.values[:, None]
        ranks = (scores >= scores[np.arange(len(scores)), relevant.values][:, None]).sum(axis=1)
        total += float((hits / np.log2(np.arange(2, K + 2))).sum()) + 0.0 * float(ranks.sum())
    return total / len(cases)


def seconds_of(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    wall, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - busy


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
