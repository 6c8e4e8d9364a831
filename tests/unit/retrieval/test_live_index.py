"""A catalog that is asked through an index gives the very lists that scoring it whole gives, whatever changes."""

from threading import Thread
from typing import Any

import faiss
import numpy as np
import pytest
import torch

from lmrec.retrieval import index as index_module
from lmrec.retrieval.ann import IndexConfig, build_index
from lmrec.retrieval.filters import parse_filter
from lmrec.retrieval.live import LiveAnswer, LiveQuery, LiveRecommender
from lmrec.retrieval.rules import Rule, parse_rule

from .conftest import N_ITEMS, MakeLive

CONFIG = IndexConfig(kind="lists")
VARIANTS: list[dict[str, Any]] = [
    {},
    {"fused": "mixed"},
    {"fused": "als"},
    {"fused": "all"},
    {"head": "dot"},
    {"user_kind": "text"},
]


@pytest.fixture(autouse=True, params=["lists", "graph", "sketch"])
def small_is_searched(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """These catalogs are so small that the index would score them outright."""
    monkeypatch.setattr(index_module, "_SELECTIVE", 0)
    monkeypatch.setattr(f"{__name__}.CONFIG", IndexConfig(kind=request.param))


def pair(make_live: MakeLive, choices: dict[str, Any]) -> tuple[LiveRecommender, LiveRecommender]:
    """The same recommender asked through an index and scored whole."""
    whole = make_live(**choices)
    assert whole.state.snapshot.index is None
    recommender = make_live(**choices).recommender
    matrix = recommender.scorer.bank.matrix.numpy()
    vars(recommender)["index"] = build_index(matrix, CONFIG)
    return LiveRecommender(recommender), whole


def questions(live: LiveRecommender) -> list[LiveQuery]:
    wanted = parse_filter({"stock": {"min": 1}}, live.schema)
    return [
        LiveQuery(history=("3", "7", "11"), k=9),
        LiveQuery(history=("5",), k=60, exclude_seen=False),
        LiveQuery(history=("5", "1"), k=7, filter=wanted, exclude=("2", "6")),
        LiveQuery(text="a film of whale sailor", k=12),
        LiveQuery(history=("12",), text="chef bakery", k=5, diversity=0.5),
        LiveQuery(k=6),
        LiveQuery(history=("9", "30"), k=4, segment="kids"),
    ]


def assert_same(first: list[LiveAnswer], second: list[LiveAnswer]) -> None:
    for one, other in zip(first, second, strict=True):
        assert [item.item_id for item in one.items] == [item.item_id for item in other.items]
        assert [item.rule for item in one.items] == [item.rule for item in other.items]
        np.testing.assert_allclose(
            [item.score for item in one.items], [item.score for item in other.items], rtol=1e-4, atol=1e-5
        )


RULES: dict[str, Rule] = {
    "pin": parse_rule({"kind": "pin", "item_id": "21", "place": 2}),
    "never": parse_rule({"kind": "must_not_show", "item_ids": ["4", "13"]}),
    "boost": parse_rule({"kind": "boost", "filter": {"genre": "Chef"}, "factor": 2.5}),
    "demote": parse_rule({"kind": "demote", "item_ids": ["8", "10", "2"], "factor": 3.0}),
    "kids": parse_rule({"kind": "age_rating", "field": "stock", "max": 2, "segment": "kids"}),
}


@pytest.mark.parametrize("choices", VARIANTS, ids=str)
def test_the_lists_are_the_same(make_live: MakeLive, choices: dict[str, Any]) -> None:
    indexed, whole = pair(make_live, choices)
    for live in (indexed, whole):
        live.set_rules(RULES)
    assert_same(indexed.recommend(questions(indexed)), whole.recommend(questions(whole)))


def test_they_stay_the_same_while_items_come_change_and_go(make_live: MakeLive) -> None:
    indexed, whole = pair(make_live, {"fused": "mixed"})
    for live in (indexed, whole):
        live.set_rules(RULES)
        live.upsert([{"item_id": f"n{at}", "title": f"chef bakery {at}", "stock": at % 3} for at in range(6)])
        live.upsert([{"item_id": "3", "title": "violin choir", "stock": 2}])
        live.delete(["6", "n2", "30"])
    assert_same(indexed.recommend(questions(indexed)), whole.recommend(questions(whole)))
    indexed.compact()
    snapshot = indexed.state.snapshot
    assert snapshot.index is not None
    assert snapshot.index.n_rows == snapshot.n_rows == N_ITEMS + 6 - 3
    assert_same(indexed.recommend(questions(indexed)), whole.recommend(questions(whole)))


def test_changes_during_a_compaction_are_carried_over(make_live: MakeLive) -> None:
    indexed, whole = pair(make_live, {"fused": "mixed"})
    indexed.upsert([{"item_id": "a", "title": "rocket galaxy"}])
    catalog = indexed._catalog
    made = catalog.start_compaction()
    indexed.upsert([{"item_id": "a", "title": "chef bakery"}, {"item_id": "b", "title": "violin choir"}])
    indexed.delete(["5", "7"])
    with indexed._writing:
        indexed._publish(catalog.finish_compaction(made))
    whole.upsert([{"item_id": "a", "title": "chef bakery"}, {"item_id": "b", "title": "violin choir"}])
    whole.delete(["5", "7"])
    assert indexed.n_items == whole.n_items == N_ITEMS
    asked = [LiveQuery(history=("3", "a"), k=50), LiveQuery(text="violin", k=50)]
    assert_same(indexed.recommend(asked), whole.recommend(asked))
    assert indexed.get_item("5") is None


def test_the_offline_lists_are_the_same(make_live: MakeLive) -> None:
    indexed, whole = (live.recommender for live in pair(make_live, {"fused": "mixed"}))
    histories = [["3", "7", "11"], [], [str(row) for row in range(12)]]
    allowed = [str(row) for row in range(0, N_ITEMS, 2)]
    for choices in ({"k": 9}, {"k": 60, "exclude_seen": False}, {"k": 5, "filter": allowed}):
        for one, other in zip(
            indexed.recommend(histories=histories, **choices),
            whole.recommend(histories=histories, **choices),
            strict=True,
        ):
            assert [item.item_id for item in one.items] == [item.item_id for item in other.items]
            np.testing.assert_allclose(
                [item.score for item in one.items], [item.score for item in other.items], rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_search_takes_as_many_threads_as_torch_may_in_whatever_thread_it_runs(
    make_live: MakeLive, n_threads: int
) -> None:
    searched, _ = pair(make_live, {})
    before, found = torch.get_num_threads(), []

    def ask() -> None:
        faiss.omp_set_num_threads(7)  # as a thread begins that was told nothing, on a machine of seven cores
        searched.recommend([LiveQuery(history=("3",), k=5)])
        found.append(faiss.omp_get_max_threads())

    torch.set_num_threads(n_threads)
    try:
        thread = Thread(target=ask)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert found == [n_threads]
