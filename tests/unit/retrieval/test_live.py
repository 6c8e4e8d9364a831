"""A live catalog: what was put can be recommended, what was deleted never is, and answers equal the offline ones."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmrec.data.catalog import Catalog
from lmrec.data.prices import price_band
from lmrec.errors import InputError, UnknownIdError
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.lending import Loans, find_loans
from lmrec.retrieval import live_catalog
from lmrec.retrieval.codes import Codes, PackedKernel
from lmrec.retrieval.explain import explain
from lmrec.retrieval.filters import parse_filter
from lmrec.retrieval.live import LiveAnswer, LiveItem, LiveQuery, LiveRecommender
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.rules import parse_rule
from lmrec.retrieval.scorer import Scorer
from lmrec.retrieval.standing import Standing

from .conftest import N_ITEMS, MakeLive


def ids(answer: LiveAnswer | tuple[LiveItem, ...]) -> list[str]:
    items = answer.items if isinstance(answer, LiveAnswer) else answer
    return [item.item_id for item in items]


def codes_of(live: LiveRecommender) -> Codes | None:
    return live.state.snapshot.bank.codes


def ask(live: LiveRecommender, *history: str, **choices: Any) -> LiveAnswer:
    (answer,) = live.recommend([LiveQuery(history=history, **choices)])
    return answer


VARIANTS: list[dict[str, Any]] = [
    {},
    {"fused": "mixed"},
    {"head": "dot"},
    {"source": "text"},
    {"source": "id"},
    {"user_kind": "mean"},
    {"user_kind": "text"},
]


@pytest.mark.parametrize("choices", VARIANTS, ids=str)
def test_the_answer_is_that_of_the_offline_recommender(make_live: MakeLive, choices: dict[str, Any]) -> None:
    live = make_live(**choices)
    histories = [("3", "7", "11"), ("5",), tuple(str(row) for row in range(12))]
    offline = live.recommender.recommend(histories=histories, k=9)
    answers = live.recommend([LiveQuery(history=history, k=9) for history in histories])
    for answer, expected in zip(answers, offline, strict=True):
        assert ids(answer) == [item.item_id for item in expected.items]
        np.testing.assert_allclose(
            [item.score for item in answer.items], [item.score for item in expected.items], rtol=1e-4, atol=1e-5
        )
        assert answer.basis == "history"
        assert answer.n_history == expected.n_history


def test_words_are_answered_as_offline(live: LiveRecommender) -> None:
    expected = live.recommender.recommend_for_text("a film of whale sailor", k=6)
    (answer,) = live.recommend([LiveQuery(text="a film of whale sailor", k=6)])
    assert ids(answer) == [item.item_id for item in expected.items]
    assert (answer.basis, answer.n_history) == ("text", 0)


def test_what_the_words_deny_is_left_out_and_not_looked_for(live: LiveRecommender) -> None:
    plain = ask(live, text="a film of rocket", k=50)
    first = live.get_item(ids(plain)[0])
    assert first is not None
    word = first.title.split()[-1].lower()
    without = ask(live, text=f"a film of rocket, no {word}", k=50)
    assert without.unwanted == (word,)
    named = {item.item_id for item in plain.items if word in item.title.lower().split()}
    assert first.item_id in named
    assert ids(without) == [item_id for item_id in ids(plain) if item_id not in named]
    only = ask(live, "3", "5", text=f"no {word}", k=50, filter=parse_filter({"title": {"not": "x"}}, live.schema))
    assert (only.basis, only.unwanted) == ("history", (word,))
    assert not named & set(ids(only))
    assert ask(live, text=f"nothing with {word}", k=50).basis == "popular"


def test_words_beside_a_history_are_its_newest_item(live: LiveRecommender) -> None:
    """Words that are an item's very own words say what that item without its learnt part would say."""
    item = live.get_item("7")  # the one item that training has not seen: nothing but words
    assert item is not None
    spoken = ask(live, "3", "5", text=item.title, exclude_seen=False)
    assert spoken.basis == "history+text"
    template = live.recommender.checkpoint.template
    assert template.render_item({"title": item.title, "description": None}) == item.title
    live.upsert([{"item_id": "like 7", "title": item.title}])
    acted = ask(live, "3", "5", "like 7", exclude_seen=False)
    by_id = {one.item_id: one.score for one in acted.items}
    assert [one.item_id for one in spoken.items if one.item_id in by_id]
    for one in spoken.items:
        if one.item_id in by_id:
            assert one.score == pytest.approx(by_id[one.item_id], abs=1e-4)


def test_a_new_item_can_be_recommended_at_once(live: LiveRecommender) -> None:
    (encoded,) = live.upsert([{"item_id": "new", "title": "violin choir 99", "description": "a film of violin choir"}])
    assert encoded.fields["genre"] is None
    assert encoded.text_vec.shape == (32,)
    assert live.n_items == N_ITEMS + 1
    assert "new" in ids(ask(live, "3", k=N_ITEMS + 1))
    assert ids(live.similar(item_id="3", k=N_ITEMS + 1)).count("new") == 1
    assert ids(live.search("violin choir 99", k=1)) == ["new"]
    assert ask(live, "new").basis == "history"


def test_a_new_price_is_said_in_words_as_the_catalog_says_its_own(live: LiveRecommender) -> None:
    catalog = live.recommender.catalog
    band = price_band(pl.col("price")).alias("price_band")

    def among(said: pl.Expr) -> LiveRecommender:
        attributes = (*catalog.attribute_columns, "price_band")
        banded = Catalog(catalog.frame.with_columns(said), catalog.text_columns, attributes)
        return LiveRecommender(replace(live.recommender, catalog=banded))

    items: list[dict[str, Any]] = [
        {"item_id": "n1", "title": "rocket", "price": 19.0},
        {"item_id": "n2", "title": "rocket", "price": 0.5},
        {"item_id": "n3", "title": "rocket", "price": 0.5, "price_band": "high"},
        {"item_id": "n4", "title": "rocket"},
    ]

    def bands(live: LiveRecommender) -> list[Any]:
        return [item.fields["price_band"] for item in live.encode_items(items)]

    assert bands(among(band)) == ["very high", "very low", "high", None]
    own_words = pl.col("price").cast(pl.String).alias("price_band")
    assert bands(among(own_words)) == [None, None, "high", None], "what those words would be nobody knows"


@pytest.mark.parametrize("fused", ["mixed", "all"])
def test_a_new_item_of_a_fused_model_borrows_as_it_would_offline(make_live: MakeLive, fused: str) -> None:
    live = make_live(fused=fused)
    # It reads as item 2 does, which is in fashion.
    new = {"item_id": "new", "title": "chef bakery 99", "description": "a film of chef bakery"}
    offline = live.recommender.add_items(pl.DataFrame([new]))
    (expected,) = offline.recommend(histories=[["3", "1"]], k=N_ITEMS)
    live.upsert([{**new, "title": "whale sailor"}])
    live.upsert([new])

    def check() -> None:
        answer = ask(live, "3", "1", k=N_ITEMS)
        assert ids(answer) == [item.item_id for item in expected.items]
        scores = [item.score for item in answer.items], [item.score for item in expected.items]
        np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-4)

    check()
    snapshot = live.state.snapshot
    row = snapshot.row_of("new")
    followers = live.scorer.followers(snapshot, [3, 1])
    assert followers is not None
    assert followers[1][followers[0] == row].sum() > 0.1  # something was lent, and to the row that lives
    live.compact()
    check()
    live.delete(["new"])
    assert "new" not in ids(ask(live, "3", "1", k=100))


def test_nobody_looks_for_lenders_of_typed_words(make_live: MakeLive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words stand in nobody's list, so how popular they might be is nothing to find out; of an item that is put it is."""
    live = make_live(fused="all")
    asked: list[int] = []

    def count(text_vec: FloatArray, lending_vec: FloatArray, lending: IntArray) -> Loans:
        asked.append(len(text_vec))
        return find_loans(text_vec, lending_vec, lending)

    monkeypatch.setattr("lmrec.retrieval.scorer.find_loans", count)
    live.search("whale sailor", k=3)
    live.similar(text="whale sailor", k=3)
    live.recommend([LiveQuery(history=("3",), text="whale sailor", k=3)])
    live.upsert([{"item_id": "3", "title": "chef bakery"}])
    assert not asked
    live.upsert([{"item_id": "new", "title": "chef bakery"}])
    assert 1 <= len(asked) <= 2


def test_a_changed_text_changes_the_vector_and_the_old_one_is_gone(live: LiveRecommender) -> None:
    live.upsert([{"item_id": "x", "title": "rocket galaxy", "description": "a film of rocket galaxy"}])
    before = ids(live.similar(item_id="x", k=5))
    live.upsert([{"item_id": "x", "title": "chef bakery", "description": "a film of chef bakery"}])
    after = ids(live.similar(item_id="x", k=5))
    assert before != after
    everything = ids(ask(live, "3", k=100, exclude_seen=False))
    assert sorted(everything) == sorted([*(str(row) for row in range(N_ITEMS)), "x"])
    (found,) = [item for item in ask(live, "3", k=100).items if item.item_id == "x"]
    assert (found.title, found.fields["description"]) == ("chef bakery", "a film of chef bakery")


def test_a_trained_item_of_a_fused_model_changes_like_any_other(make_live: MakeLive) -> None:
    """Its row holds the bare words beside the towers' vector, and its transitions stay."""
    live = make_live(fused="mixed")
    before = {item.item_id: item.score for item in ask(live, "1", k=N_ITEMS).items}
    live.upsert([{"item_id": "2", "title": "chef bakery", "description": "a film of chef bakery"}])
    after = {item.item_id: item.score for item in ask(live, "1", k=N_ITEMS).items}
    assert after.pop("2") != before.pop("2")
    assert after == pytest.approx(before)
    snapshot, row = live.state.snapshot, live.state.snapshot.row_of("2")
    assert row is not None
    changed = snapshot.bank.take(np.array([row]))
    words = torch.nn.functional.normalize(changed.text_vec, dim=1)
    torch.testing.assert_close(changed.matrix[:, -words.shape[1] :], words)


def test_what_was_learnt_of_an_item_stays_as_far_as_its_words_stay(live: LiveRecommender) -> None:
    """Item 4 keeps its id residual when only a price changes; put to another use it becomes what a new item would be."""

    def vector(item_id: str) -> torch.Tensor:
        snapshot = live.state.snapshot
        row = snapshot.row_of(item_id)
        assert row is not None
        return snapshot.bank.take(np.array([row])).item_vec[0]

    item = live.get_item("4")
    assert item is not None
    trained = vector("4")
    live.upsert([{"item_id": "4", **item.fields, "price": 99.0}])
    torch.testing.assert_close(vector("4"), trained, rtol=1e-4, atol=1e-4)
    words = {"title": "whale", "description": "violin choir harbour"}
    live.upsert([{"item_id": "4", **words}, {"item_id": "fresh", **words}])
    kept = vector("4") - vector("fresh")
    text_vec = live.recommender.vectors.text_vec
    (put,) = live.encode_items([{"item_id": "4", **words}])
    alike = float(torch.nn.functional.cosine_similarity(text_vec[4], torch.from_numpy(put.text_vec), dim=0))
    residual = live.recommender.vectors.item_vec[4] - live.recommender.towers.item_tower.project(text_vec[4]).detach()
    torch.testing.assert_close(kept, residual * max(alike, 0.0), rtol=1e-3, atol=1e-3)


def test_words_that_have_not_changed_are_never_encoded_again(
    live: LiveRecommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = live.upsert([{"item_id": "x", "title": "rocket"}])
    encoded: list[str] = []
    monkeypatch.setattr(type(live.recommender), "encode_texts", lambda self, texts: encoded.append(*texts))
    (again,) = live.upsert([{"item_id": "x", "title": "rocket", "price": 3}])
    item = live.get_item("5")
    assert item is not None
    live.upsert([{"item_id": "5", **item.fields, "stock": 77}])
    live.delete(["5"])
    live.upsert([{"item_id": "5", **item.fields}])  # the generation remembers the words
    assert encoded == []
    np.testing.assert_array_equal(first.text_vec, again.text_vec)


def test_putting_what_is_there_already_adds_no_row(live: LiveRecommender) -> None:
    item = live.get_item("5")
    assert item is not None
    live.upsert([{"item_id": "5", **item.fields}])
    assert live.state.snapshot.n_rows == N_ITEMS


def test_a_deleted_item_is_nowhere(live: LiveRecommender) -> None:
    assert live.delete(["7", "no such item", "11"]) == 2
    assert live.n_items == N_ITEMS - 2
    gone = {"7", "11"}
    assert not gone & set(ids(ask(live, "3", k=100)))
    assert not gone & set(ids(ask(live, k=100)))
    assert not gone & set(ids(live.similar(item_id="3", k=100)))
    assert not gone & set(ids(live.search("violin choir", k=100, history=("3",))))
    assert not gone & {item.item_id for item in live.browse("", 0, 100)[0]}
    assert live.get_item("7") is None
    with pytest.raises(UnknownIdError, match="there is no item '7' among the 38 of the catalog"):
        live.similar(item_id="7")
    assert ask(live, "7", "11").basis == "popular"
    live.upsert([{"item_id": "7", "title": "back again"}])
    assert "7" in ids(ask(live, "3", k=100))


def test_ids_that_nobody_knows_are_passed_over(live: LiveRecommender) -> None:
    assert ids(ask(live, "no such", "3", "nor this")) == ids(ask(live, "3"))
    assert ask(live, "no such", "3").n_history == 1


def test_exclusions(live: LiveRecommender) -> None:
    best = ids(ask(live, "3"))
    assert "3" not in ids(ask(live, "3", k=100))
    assert "3" in ids(ask(live, "3", k=100, exclude_seen=False))
    assert ids(ask(live, "3", exclude=[*best[:2], "no such"])) == ids(ask(live, "3", k=12))[2:]


def test_candidates_are_ordered_whatever_was_seen_and_rules_hold(live: LiveRecommender) -> None:
    wanted = ("3", "20", "31", "8", "gone", "15", "3")
    plain = ask(live, "3", "7", candidates=wanted, k=9, exclude_seen=False)
    assert (set(ids(plain)), plain.unknown, plain.left_out) == ({"3", "20", "31", "8", "15"}, ("gone",), ())
    whole = ask(live, "3", "7", k=N_ITEMS, exclude_seen=False)
    assert ids(plain) == [item_id for item_id in ids(whole) if item_id in wanted]
    assert ids(ask(live, "3", "7", candidates=wanted, k=2, exclude_seen=False)) == ids(plain)[:2]
    first, last = ids(plain)[0], ids(plain)[-1]
    live.set_rules(
        {
            "top": parse_rule({"kind": "pin", "item_id": last, "place": 1}),
            "elsewhere": parse_rule({"kind": "pin", "item_id": "2", "place": 1}),
            "never": parse_rule({"kind": "must_not_show", "item_ids": [first]}),
        }
    )
    ruled = ask(live, "3", "7", candidates=wanted, k=9, exclude_seen=False)
    assert (ids(ruled), ruled.left_out) == ([last, *ids(plain)[1:-1]], (first,))
    live.set_rules({})
    only = parse_filter({"item_id": ["8", "15"]}, live.schema)
    filtered = ask(live, "3", candidates=wanted, k=9, exclude_seen=False, filter=only)
    assert (set(ids(filtered)), set(filtered.left_out)) == ({"8", "15"}, {"3", "20", "31"})


def test_candidates_for_nobody_stand_by_what_is_popular_and_new_ones_at_once(live: LiveRecommender) -> None:
    answer = ask(live, candidates=("1", "4", "2"), k=3)
    assert (ids(answer), answer.basis) == (["2", "4", "1"], "popular")
    live.upsert([{"item_id": "new", "title": "rocket galaxy 0", "description": "a film of rocket galaxy"}])
    found = ask(live, "0", "4", candidates=("new", "1"), k=3)
    assert (set(ids(found)), found.unknown) == ({"new", "1"}, ())
    live.delete(["new"])
    assert ask(live, "0", candidates=("new", "1"), k=3).unknown == ("new",)


@pytest.mark.parametrize(
    ("candidates", "error", "message"),
    [
        ((), InputError, "there are 0 candidates; give 1 to 1,000"),
        (("1",) * 1001, InputError, "there are 1,001 candidates"),
        (("x", "y"), UnknownIdError, r"none of the 2 candidates \('x', 'y'\). Check the ids"),
        ("50,181", InputError, "a list of item ids"),
    ],
)
def test_candidates_that_cannot_be_ordered(
    live: LiveRecommender, candidates: tuple[str, ...], error: type[InputError], message: str
) -> None:
    with pytest.raises(error, match=message):
        ask(live, candidates=candidates)
    with pytest.raises(error, match=message):
        live.recommender.rank(candidates, history=["1"])


def test_filters_are_exact(live: LiveRecommender) -> None:
    wanted = parse_filter({"genre": ["Rocket", "Chef"], "stock": {"min": 3}}, live.schema)
    found = ask(live, "3", k=100, filter=wanted)
    expected = {str(row) for row in range(N_ITEMS) if row % 4 in (0, 2) and row % 5 >= 3}
    assert set(ids(found)) == expected
    assert set(ids(live.similar(item_id="3", k=100, filter=wanted))) == expected
    assert set(ids(live.search("choir", k=100, filter=wanted))) == expected
    live.upsert([{"item_id": "n1", "genre": "Chef", "stock": 9}, {"item_id": "n2", "genre": "Chef", "stock": 0}])
    assert set(ids(ask(live, "3", k=100, filter=wanted))) == expected | {"n1"}
    live.upsert([{"item_id": "n1", "genre": "Chef", "stock": 1}])
    assert set(ids(ask(live, "3", k=100, filter=wanted))) == expected


def test_who_is_unknown_gets_what_is_popular_now(live: LiveRecommender) -> None:
    answer = ask(live, k=4)
    assert (answer.basis, answer.n_history) == ("popular", 0)
    assert ids(answer) == ["2", "3", "4", "1"]  # 30 events of item 1, but nearly three years before the others
    assert answer.items[0].score == pytest.approx(10, rel=1e-3)
    live.set_popularity({"20": 50.0, "no such": 9.0})
    assert ids(ask(live, k=2)) == ["20", "2"]
    live.set_popularity({})
    assert ids(ask(live, k=1)) == ["2"]
    assert ask(live, popular=False) == LiveAnswer((), "popular", 0)


def test_live_popularity_reaches_items_put_later(live: LiveRecommender) -> None:
    live.set_popularity({"new": 70.0})
    live.upsert([{"item_id": "new", "title": "rocket"}])
    assert ids(ask(live, k=1)) == ["new"]


def test_a_batch_answers_as_one_by_one(live: LiveRecommender) -> None:
    wanted = parse_filter({"adult": False}, live.schema)
    queries = [
        LiveQuery(history=("3", "9")),
        LiveQuery(),
        LiveQuery(text="rocket", k=3),
        LiveQuery(history=("8",), text="chef", filter=wanted, diversity=0.4),
        LiveQuery(history=tuple(str(row) for row in range(15)), k=2),
    ]
    together = live.recommend(queries)
    for query, answer in zip(queries, together, strict=True):
        (alone,) = live.recommend([query])
        assert ids(alone) == ids(answer)
        assert (alone.basis, alone.n_history) == (answer.basis, answer.n_history)
    assert live.recommend([]) == []


@given(seed=st.integers(0, 10_000), n=st.integers(0, 40), k=st.integers(1, 45), n_values=st.integers(1, 50))
def test_the_best_rows_are_those_of_a_stable_sort(seed: int, n: int, k: int, n_values: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(n_values, size=(3, n)).astype(np.float32)
    scores[rng.random((3, n)) < 0.3] = -np.inf
    expected = [[int(at) for at in np.argsort(-row, kind="stable")[:k] if row[at] > -np.inf] for row in scores]
    assert [Standing.of(own).best(k)[0] for own in scores] == expected


def test_more_than_there_is_gives_all_there_is(live: LiveRecommender) -> None:
    assert len(ask(live, "3", k=1000).items) == N_ITEMS - 1
    live.delete([str(row) for row in range(N_ITEMS)])
    assert ask(live, "3", k=5).items == ()
    assert live.search("rocket") == ()
    live.upsert([{"item_id": "first", "title": "rocket"}])
    assert ids(ask(live, k=5)) == ["first"]


def test_diversity_spreads_the_list(live: LiveRecommender) -> None:
    def spread(answer: LiveAnswer) -> float:
        snapshot = live.state.snapshot
        rows = np.array([snapshot.rows[item] for item in ids(answer)])
        units = torch.nn.functional.normalize(snapshot.bank.take(rows).item_vec, dim=1)
        return float((units @ units.T).mean())

    plain, varied = ask(live, "3", "7"), ask(live, "3", "7", diversity=0.8)
    assert spread(varied) < spread(plain)
    assert ids(varied)[0] == ids(plain)[0]
    assert ids(ask(live, "3", "7", diversity=1e-9)) == ids(plain)


def test_compaction_changes_nothing_that_can_be_seen(live: LiveRecommender) -> None:
    wanted = parse_filter({"stock": {"min": 1}}, live.schema)
    live.upsert([{"item_id": "a", "title": "rocket"}, {"item_id": "3", "title": "whale", "stock": 4}])
    live.delete([str(row) for row in range(20, 32)])
    before = [ask(live, "3", "a", k=100, filter=wanted), ask(live, k=100), ask(live, text="chef", k=50)]
    shown = live.browse("", 0, 100)
    live.compact()
    assert live.state.snapshot.n_rows == live.n_items
    after = [ask(live, "3", "a", k=100, filter=wanted), ask(live, k=100), ask(live, text="chef", k=50)]
    for first, second in zip(before, after, strict=True):
        assert [item.item_id for item in first.items] == [item.item_id for item in second.items]
        np.testing.assert_allclose(
            [item.score for item in first.items], [item.score for item in second.items], rtol=1e-4, atol=1e-5
        )
    assert live.browse("", 0, 100) == shown
    live.upsert([{"item_id": "b", "title": "violin"}])
    assert "b" in ids(ask(live, "a", k=100))


def test_codes_come_after_the_first_answers_and_change_none(
    live: LiveRecommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_catalog, "quickest_codes", lambda rows: Codes.of(rows, PackedKernel))
    queries = [LiveQuery(history=("3", "7"), k=8), LiveQuery(history=("12",), k=8)]
    assert codes_of(live) is None
    before = live.recommend(queries)
    live.warm_up()
    assert codes_of(live) is not None
    for answer, earlier in zip(live.recommend(queries), before, strict=True):
        assert [item.item_id for item in answer.items] == [item.item_id for item in earlier.items]
        assert [item.score for item in answer.items] == pytest.approx([item.score for item in earlier.items], rel=1e-5)
    live.upsert([{"item_id": "later", "title": "a quiet harbour"}])
    assert codes_of(live) is not None

    found = live._catalog.find_codes()
    assert found is not None
    live.compact()
    own = codes_of(live)
    assert live._catalog.put_codes(*found).bank.codes is own, "codes of rows that are gone are not taken"


def test_many_changes_are_compacted_by_themselves(live: LiveRecommender) -> None:
    for place in range(150):
        live.upsert([{"item_id": "x", "title": "rocket", "price": place}])
    live.wait_for_compaction()
    assert live.state.snapshot.n_rows <= N_ITEMS + 1 + 66
    item = live.get_item("x")
    assert item is not None
    assert item.fields["price"] == 149.0


@dataclass(frozen=True, eq=False)
class WithNeighbours(Scorer):
    """A model with a sparse part: whoever had item i is given 50 for item i + 1, if training knew both."""

    def sparse(self, history: Ragged, n_items: int) -> sp.csr_matrix:
        known = history.values < N_ITEMS - 1
        cells = (np.full(known.sum(), 50.0, np.float32), (history.row_of_value[known], history.values[known] + 1))
        return sp.csr_matrix(cells, shape=(len(history), n_items))

    def followers(self, history: IntArray) -> tuple[IntArray, npt.NDArray[np.float32]]:
        found = self.sparse(Ragged.from_rows([history]), N_ITEMS).tocoo()
        return found.col, found.data


def test_a_sparse_part_follows_its_items(run_folder: Path) -> None:
    """Rows move when items change and when the catalog is compacted; what training knew of them moves along."""
    recommender = Recommender.load(run_folder)
    vars(recommender)["_fused_scorer"] = WithNeighbours(**vars(recommender._fused_scorer))
    live = LiveRecommender(recommender)
    offline = recommender.recommend(histories=[["3", "12"]], k=6)[0]
    assert ids(ask(live, "3", "12", k=6)) == [item.item_id for item in offline.items]
    assert set(ids(ask(live, "3", "12", k=2))) == {"4", "13"}
    live.upsert([{"item_id": "4", "title": "whale"}, {"item_id": "3", "title": "chef"}, {"item_id": "n", "title": "x"}])
    assert set(ids(ask(live, "3", "12", "n", k=2))) == {"4", "13"}
    live.delete(["0", "1", "13"])
    live.compact()
    assert ids(ask(live, "3", "12", "n", k=1)) == ["4"]
    found = explain(live, LiveQuery(history=("3", "12", "n")), "4", words=False)
    assert found.score == pytest.approx(ask(live, "3", "12", "n", k=1).items[0].score, abs=1e-3)
    assert found.contributions[0].contribution > 20
    assert found.place == 1


@dataclass(frozen=True)
class Change:
    version: int
    item_id: str
    fields: dict[str, Any] | None
    text_vec: bytes | None = None
    fingerprint: str | None = None


def test_a_store_is_replayed_without_encoding(live: LiveRecommender, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items encoded by one process are taken up by another one of the same checkpoint as they are."""
    items = [{"item_id": "a", "title": "whale 1"}, {"item_id": "b", "title": "whale 2", "price": "3.5"}]
    encoded = live.encode_items(items)
    assert live.n_items == N_ITEMS
    changes = [
        Change(3 + place, one.item_id, one.fields, one.text_vec.astype("<f4").tobytes(), live.fingerprint)
        for place, one in enumerate(encoded)
    ]
    other = LiveRecommender(live.recommender)
    monkeypatch.setattr(type(live.recommender), "encode_texts", lambda self, texts: pytest.fail(f"encoded {texts}"))
    assert other.apply_changes([*changes, Change(9, "5", None)]) == 3
    assert other.version == 9
    assert other.n_items == N_ITEMS + 1
    item = other.get_item("b")
    assert item is not None
    assert item.fields["price"] == 3.5
    snapshot = other.state.snapshot
    torch.testing.assert_close(
        snapshot.bank.take(np.array([snapshot.rows["a"]])).text_vec[0], torch.from_numpy(encoded[0].text_vec)
    )
    assert other.apply_changes(changes) == 0


@pytest.mark.parametrize("text_vec", [None, b"", b"\x00" * 127, np.full(32, np.nan, "<f4").tobytes()])
def test_vectors_that_cannot_be_trusted_are_made_anew(live: LiveRecommender, text_vec: bytes | None) -> None:
    (expected,) = live.encode_items([{"item_id": "a", "title": "whale"}])
    live.apply_changes([Change(1, "a", {"title": "whale"}, text_vec, live.fingerprint)])
    live.apply_changes([Change(2, "b", {"title": "whale"}, np.ones(32, "<f4").tobytes(), "another checkpoint")])
    snapshot = live.state.snapshot
    for item_id in ("a", "b"):
        stored = snapshot.bank.take(np.array([snapshot.rows[item_id]])).text_vec[0]
        torch.testing.assert_close(stored, torch.from_numpy(expected.text_vec))


def test_an_older_change_never_undoes_a_newer_one(live: LiveRecommender) -> None:
    live.apply_changes([Change(7, "a", {"title": "new words"})])
    assert live.apply_changes([Change(5, "a", {"title": "old words"}), Change(6, "a", None)]) == 0
    item = live.get_item("a")
    assert item is not None
    assert item.title == "new words"
    assert live.apply_changes([Change(8, "a", None)]) == 1
    assert live.get_item("a") is None
    assert live.version == 8


def test_a_stored_item_that_fits_no_longer_never_stops_a_start(live: LiveRecommender) -> None:
    live.apply_changes([Change(1, "a", {"title": "whale", "price": "cheap", "shelf": "B4"})])
    item = live.get_item("a")
    assert item is not None
    assert item.fields["price"] is None
    assert "shelf" not in item.fields


def test_a_run_that_knows_no_words_takes_new_attributes_and_no_new_items(make_live: MakeLive) -> None:
    live = make_live(source="id")
    live.upsert([{"item_id": "3", "title": "other words", "price": 5}])
    item = live.get_item("3")
    assert item is not None
    assert (item.title, item.fields["price"]) == ("other words", 5.0)
    assert ids(ask(live, "5", k=100)) == [
        one.item_id for one in live.recommender.recommend(histories=[["5"]], k=100)[0].items
    ]
    with pytest.raises(InputError, match="knows no words"):
        live.upsert([{"item_id": "new", "title": "x"}])
    with pytest.raises(InputError, match="knows no words"):
        ask(live, text="rocket")


def test_search_finds_titles_and_meaning(live: LiveRecommender) -> None:
    assert ids(live.search("Violin Choir 15", k=1)) == ["15"]
    assert all(int(item) % 4 == 1 for item in ids(live.search("whale sailor", k=5)))
    personal = live.search("whale sailor", k=5, history=("1", "5"))
    assert all(int(item) % 4 == 1 for item in ids(personal))
    history_order = ids(ask(live, "1", "5", k=100, exclude_seen=False))
    assert history_order.index(ids(personal)[0]) < len(history_order) / 2


def test_browse_pages_through_the_catalog(live: LiveRecommender) -> None:
    page, total = live.browse("", 10, 5)
    assert ([item.item_id for item in page], total) == (["10", "11", "12", "13", "14"], N_ITEMS)
    page, total = live.browse("WHALE", 2, 3)
    assert ([item.item_id for item in page], total) == (["9", "13", "17"], 10)
    page, total = live.browse("17", 0, 50)
    assert ([item.item_id for item in page], total) == (["17"], 1)
    assert live.browse("", 1000, 5) == ([], N_ITEMS)


def test_items_carry_their_fields_as_json_has_them(live: LiveRecommender) -> None:
    item = live.get_item("8")
    assert item is not None
    assert item.title == "rocket galaxy 8"
    assert item.fields == {
        "title": "rocket galaxy 8", "description": "a film of rocket galaxy", "genre": "Rocket", "year": "1988",
        "rating": "FSK 0", "price": 4.0, "stock": 3, "adult": False, "added": "2024-01-09",
    }  # fmt: skip
    item.fields["genre"] = "changed by a caller"
    again = live.get_item("8")
    assert again is not None
    assert again.fields["genre"] == "Rocket"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (LiveQuery(history=("3",), k=0), "k is 0; ask for at least 1"),
        (LiveQuery(text="  "), "the text is blank"),
        (LiveQuery(text="x" * 5000), "at most 4,000"),
        (LiveQuery(text="\ud800"), "half a character"),
        (LiveQuery(diversity=1.5), "diversity is 1.5"),
        (LiveQuery(diversity=float("nan")), "diversity is nan"),
    ],
)
def test_questions_that_cannot_be_answered(live: LiveRecommender, query: LiveQuery, message: str) -> None:
    with pytest.raises(InputError, match=message):
        live.recommend([query])


def test_similar_wants_one_thing(live: LiveRecommender) -> None:
    with pytest.raises(InputError, match="either item_id or text"):
        live.similar()
    with pytest.raises(InputError, match="either item_id or text"):
        live.similar(item_id="3", text="rocket")
    expected = live.recommender.similar(item="3", k=7)
    assert ids(live.similar(item_id="3", k=7)) == [item.item_id for item in expected]
    expected = live.recommender.similar(text="a film of chef", k=7)
    assert ids(live.similar(text="a film of chef", k=7)) == [item.item_id for item in expected]
