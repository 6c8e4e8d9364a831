"""The evaluator: the same answer whatever the block, everything asked once, wrong answers refused."""

import tracemalloc

import numpy as np
import pytest
from pydantic import ValidationError

from lmrec.data.history import Cases
from lmrec.errors import InputError
from lmrec.evaluation.evaluator import Evaluation, EvaluationConfig, block_size, evaluate
from lmrec.fields import FloatArray, IntArray, Ragged

from .conftest import N_ITEMS, PlannedScorer, no_items


def test_the_size_of_the_block_changes_nothing(cases: Cases) -> None:
    whole, parts = (
        evaluate(PlannedScorer("s", 1.0), cases, N_ITEMS, EvaluationConfig(block_size=size)) for size in (60, 7)
    )
    assert whole.aggregate == parts.aggregate
    np.testing.assert_array_equal(whole.top, parts.top)
    for name, values in whole.metrics.items():
        np.testing.assert_array_equal(values, parts.metrics[name])


def test_every_case_is_asked_once_and_progress_is_told(cases: Cases) -> None:
    scorer, told = PlannedScorer("s", 1.0), list[tuple[int, int]]()
    evaluate(scorer, cases, N_ITEMS, EvaluationConfig(block_size=25), lambda done, total: told.append((done, total)))
    assert scorer.asked == [25, 25, 10]
    assert told == [(25, 60), (50, 60), (60, 60)]


def test_a_scorer_that_knows_is_perfect_and_its_lists_show_it(cases: Cases) -> None:
    found = evaluate(PlannedScorer("knows", 100.0), cases, N_ITEMS, EvaluationConfig())
    assert found.aggregate["ndcg@10"] == found.aggregate["auc"] == 1.0
    np.testing.assert_array_equal(found.top[:, 0], cases.relevant.values)


def test_seen_items_are_shown_only_where_they_may_be(cases: Cases) -> None:
    def shows_seen(exclude_seen: bool) -> bool:
        config = EvaluationConfig(exclude_seen=exclude_seen)
        top = evaluate(PlannedScorer("s", 0.0), cases, N_ITEMS, config).top
        return bool((top == cases.history.values[:, None]).any())

    assert shows_seen(exclude_seen=False)
    assert not shows_seen(exclude_seen=True)


def test_a_sample_of_cases_is_the_same_for_every_scorer(cases: Cases) -> None:
    config = EvaluationConfig(max_cases=20, seed=4)
    one, two = (evaluate(PlannedScorer(name, 0.0), cases, N_ITEMS, config) for name in ("one", "other"))
    assert len(one.cases) == len(one.metrics["auc"]) == 20
    np.testing.assert_array_equal(one.cases.instants, two.cases.instants)


def test_novelty_needs_counts(evaluations: list[Evaluation], cases: Cases) -> None:
    assert "novelty@10" in evaluations[0].aggregate
    assert "novelty@10" not in evaluate(PlannedScorer("s", 0.0), cases, N_ITEMS, EvaluationConfig()).aggregate


def test_an_answer_of_the_wrong_shape_is_refused(cases: Cases) -> None:
    with pytest.raises(InputError, match=r"\(60, 49\)"):
        evaluate(PlannedScorer("s", 0.0, n_items=49 + 1), cases, 49, EvaluationConfig())


def test_no_cases_are_refused() -> None:
    with pytest.raises(InputError, match="no case to judge"):
        evaluate(PlannedScorer("s", 0.0), Cases.empty(), N_ITEMS, EvaluationConfig())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"metric": "ndgc@10"}, "Did you mean 'ndcg@10'"),
        ({"metric": "ndcg@7"}, "not measured at ks"),
        ({"ks": ()}, "at least one length"),
        ({"ks": (0, 10)}, "each 1 or more"),
        ({"sampled": 100}, "Extra inputs"),
    ],
)
def test_a_wrong_config_is_refused_with_the_way_out(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EvaluationConfig.model_validate(wrong)


def test_lengths_are_put_in_order() -> None:
    assert EvaluationConfig(ks=(20, 10, 10)).ks == (10, 20)


def test_a_block_is_about_64_megabytes_of_scores() -> None:
    assert block_size(50_000) * 50_000 * 4 <= 64_000_000
    assert block_size(10) == 1_600_000


class FlatScorer:
    """A cheap answer for a large catalog."""

    name = "flat"

    def __init__(self, n_items: int) -> None:
        self.scores = np.random.default_rng(0).random(n_items, np.float32)

    def score(self, history: Ragged) -> FloatArray:
        return np.tile(self.scores, (len(history), 1))


def test_memory_is_flat_in_the_number_of_cases() -> None:
    n_items = 20_000

    def peak(n_cases: int) -> int:
        rows: list[IntArray] = [np.array([item % n_items]) for item in range(n_cases)]
        asked = Cases(
            np.arange(n_cases, dtype=np.int32),
            np.zeros(n_cases),
            no_items(n_cases),
            Ragged.from_rows(rows),
        )
        tracemalloc.start()
        evaluate(FlatScorer(n_items), asked, n_items, EvaluationConfig(block_size=100))
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(1600) < 1.2 * peak(400)
