"""Metrics against ir-measures, against a slow reading of their formulas, and at their edges."""

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, RR, Measure, P, R, Success, nDCG

from lmrec.errors import InputError
from lmrec.evaluation import metrics
from lmrec.evaluation.metrics import Ranks
from lmrec.evaluation.ranking import rank_relevant
from lmrec.fields import FloatArray, Ragged

from .conftest import no_items

N_ITEMS = 60
KS = (1, 5, 10, 20)


@pytest.fixture(scope="module")
def judged() -> tuple[Ranks, FloatArray, list[list[int]]]:
    """Forty cases without ties, with 1 to 14 relevant items: more than the smaller k."""
    rng = np.random.default_rng(3)
    scores = np.stack([rng.permutation(N_ITEMS) for _ in range(40)]).astype(np.float32)
    relevant = [rng.choice(N_ITEMS, size=rng.integers(1, 15), replace=False).tolist() for _ in range(40)]
    return rank_relevant(scores, no_items(40), Ragged.from_rows(relevant), exclude_seen=False), scores, relevant


def ask_ir_measures(measure: Measure, scores: FloatArray, relevant: list[list[int]]) -> FloatArray:
    qrels = {str(case): {str(item): 1 for item in items} for case, items in enumerate(relevant)}
    run = {str(case): {str(item): float(score) for item, score in enumerate(row)} for case, row in enumerate(scores)}
    found = {result.query_id: result.value for result in ir_measures.iter_calc([measure], qrels, run)}
    return np.array([found[str(case)] for case in range(len(relevant))])


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize(
    ("name", "measure"), [("ndcg", nDCG), ("recall", R), ("precision", P), ("mrr", RR), ("hit", Success)]
)
def test_values_equal_ir_measures(
    judged: tuple[Ranks, FloatArray, list[list[int]]], name: str, measure: Measure, k: int
) -> None:
    ranks, scores, relevant = judged
    ours = metrics.METRICS_AT_K[name](ranks, k)
    np.testing.assert_allclose(ours, ask_ir_measures(measure @ k, scores, relevant), atol=1e-9)


@pytest.mark.parametrize("k", KS)
def test_average_precision_is_trec_eval_with_the_divisor_min_k_n_relevant(
    judged: tuple[Ranks, FloatArray, list[list[int]]], k: int
) -> None:
    ranks, scores, relevant = judged
    theirs = ask_ir_measures(AP @ k, scores, relevant) * ranks.n_relevant / np.minimum(ranks.n_relevant, k)
    np.testing.assert_allclose(metrics.map_at(ranks, k), theirs, atol=1e-9)


def test_auc_is_the_share_of_pairs_in_the_right_order(judged: tuple[Ranks, FloatArray, list[list[int]]]) -> None:
    ranks, scores, relevant = judged
    slow = []
    for row, items in zip(scores, relevant, strict=True):
        others = np.setdiff1d(np.arange(N_ITEMS), items)
        slow.append(np.mean(row[items][:, None] > row[others][None, :]))
    np.testing.assert_allclose(metrics.auc(ranks), slow)


def test_f1_is_the_harmonic_mean_of_precision_and_recall(judged: tuple[Ranks, FloatArray, list[list[int]]]) -> None:
    ranks = judged[0]
    precision, recall = metrics.precision_at(ranks, 10), metrics.recall_at(ranks, 10)
    both = np.where(precision + recall > 0, precision + recall, 1.0)
    np.testing.assert_allclose(metrics.f1_at(ranks, 10), 2 * precision * recall / both)


def test_a_perfect_ranking_scores_one() -> None:
    perfect = Ranks.from_rows([[1], [1, 2, 3], list(range(1, 31))], n_candidates=50)
    for name in ("ndcg", "hit", "mrr", "map"):
        np.testing.assert_allclose(metrics.METRICS_AT_K[name](perfect, 10), 1.0, err_msg=name)
    np.testing.assert_allclose(metrics.auc(perfect), 1.0)


def test_auc_of_a_case_where_everything_is_relevant_is_one() -> None:
    assert metrics.auc(Ranks.from_rows([[1, 2]], n_candidates=2)).tolist() == [1.0]


def test_no_cases_give_no_values() -> None:
    empty = Ranks(Ragged.from_rows([]), np.zeros(0, np.int64), np.zeros(0, np.int64))
    assert {name: len(values) for name, values in metrics.measure_ranks(empty, (5,)).items()} == dict.fromkeys(
        metrics.metric_names((5,)), 0
    )


def test_a_list_without_places_is_refused() -> None:
    with pytest.raises(InputError, match="k is 0"):
        metrics.recall_at(Ranks.from_rows([[1]], n_candidates=2), 0)


def test_empty_places_count_for_nothing_in_list_metrics() -> None:
    top = np.array([[0, -1], [-1, -1]])
    assert metrics.coverage(top, 4) == 0.25
    assert metrics.gini(top, 4) == 0.75
    assert metrics.gini(np.array([[-1]]), 4) == 0.0
    assert metrics.novelty(np.array([[-1]]), np.array([1, 1])) == 0.0


def test_an_item_without_events_is_the_most_novel() -> None:
    counts = np.array([100, 10, 0])
    bits = [metrics.novelty(np.array([[item]]), counts) for item in range(3)]
    assert bits == sorted(bits)
    assert np.isfinite(bits).all()
