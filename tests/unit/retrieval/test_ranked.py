"""Sums of ranks over the rows of a service: who has a rank, and what a boost does to it."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lmrec.retrieval.live import LiveQuery, LiveRecommender
from lmrec.retrieval.ranked import Ranking, sums_of_ranks
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.rules import parse_rule
from lmrec.retrieval.scorer import Scorer
from lmrec.retrieval.standing import Standing

from .conftest import N_ITEMS, make_run


@pytest.fixture(scope="module")
def by_ranks(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender.load(make_run(tmp_path_factory.mktemp("ranked") / "run", tiny_bert, fused="ranks"))


def test_rows_that_are_gone_take_no_rank() -> None:
    rankings = [Ranking(None, slice(0), slice(0), weight) for weight in (1.0, 2.0)]  # type: ignore[arg-type]
    scores = np.array([[9.0, 3.0, 2.0, 1.0], [9.0, 1.0, 2.0, 3.0]], np.float32)
    found = sums_of_ranks(rankings, scores, np.array([1, 2, 3]))
    expected = [0.0, 1 / 61 + 2 / 63, 1 / 62 + 2 / 62, 1 / 63 + 2 / 61]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_boost_multiplies_a_sum_of_ranks_and_is_added_to_a_logit() -> None:
    scores, boost = np.array([0.03, 0.02], np.float32), np.log(np.array([1.0, 2.0], np.float32))
    rows = np.array([0, 1])
    summed, logit = Standing.of(scores, by_ranks=True).lifted(boost), Standing.of(scores).lifted(boost)
    np.testing.assert_allclose(summed.exact(rows), [0.03, 0.04], rtol=1e-6)
    np.testing.assert_allclose(summed.rough, summed.exact(rows))
    np.testing.assert_allclose(logit.exact(rows), [0.03, 0.02 + math.log(2)], rtol=1e-6)


def test_a_boost_of_what_is_served_moves_that_item_alone(by_ranks: Recommender) -> None:
    live = LiveRecommender(by_ranks)
    query = LiveQuery(("3", "7"), k=N_ITEMS)
    (before,) = live.recommend([query])
    item = before.items[5]
    live.set_rules({"up": parse_rule({"kind": "boost", "factor": 1.5, "filter": {"item_id": item.item_id}})})
    (after,) = live.recommend([query])
    (moved,) = (one for one in after.items if one.item_id == item.item_id)
    assert moved.score == pytest.approx(1.5 * item.score, rel=1e-5)
    assert [one for one in after.items if one is not moved] == [one for one in before.items if one is not item]


def test_no_codes_are_made_of_what_is_sorted_whole(by_ranks: Recommender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmrec.retrieval.live_catalog.quickest_codes", lambda rows: pytest.fail("codes were made"))
    live = LiveRecommender(by_ranks)
    live.warm_up()
    live.compact()
    assert live.recommend([LiveQuery(("3",), k=3)])[0].items


def test_columns_of_parts_are_those_that_the_parts_add(by_ranks: Recommender) -> None:
    whole = by_ranks.parts_scorer
    assert isinstance(whole, Scorer)
    columns = whole.columns
    covered = sorted((part.start, part.stop) for part in columns.values() if part.stop > part.start)
    assert covered[0][0] == 0
    assert covered[-1][1] == whole.bank.matrix.shape[1]
    assert all(end == start for (_, end), (start, _) in pairwise(covered))
