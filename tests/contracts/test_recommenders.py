"""What every recommender that a user can choose owes, whatever it is made of: fitted, saved, loaded, asked and served alike.

Each is a run folder, and `Recommender` is what all of them are behind: its methods are the contract of this file.
"""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest

from lmrec.errors import InputError, UnknownIdError
from lmrec.fields import Ragged
from lmrec.retrieval.ensemble import AnyScorer, answering
from lmrec.retrieval.live import LiveAnswer, LiveQuery, LiveRecommender
from lmrec.retrieval.recommender import RankedCandidates, Recommendation, Recommender, ScoredItem
from lmrec.retrieval.rules import parse_rule
from lmrec.workflows.counting import fit_fusion
from lmrec.workflows.ensemble import ensemble_runs
from lmrec.workflows.train import fit_run

N_ITEMS = 32
PARTS = ("transitions", "als", "ease", "bm25_knn", "content", "popularity")
NO_PARTS = tuple(f"fusion.{part}=false" for part in PARTS)
UNTRAINED = ("training.frozen_epochs=0", "training.tuned_epochs=0")
TOWERS = ("training.tuned_epochs=0", "training.refit=false")
ALL = ("fusion.als=true", "fusion.bm25_knn=true", "fusion.search_cases=10", *TOWERS)

ALONE: Mapping[str, Sequence[str]] = {
    **{part: (*UNTRAINED, *NO_PARTS, f"fusion.{part}=true", "split.kind=none") for part in PARTS},
    "sequence": (*TOWERS, *NO_PARTS, "user_model.kind=transformer"),
    "mean": (*TOWERS, *NO_PARTS, "user_model.kind=mean"),
    "attention": (*TOWERS, *NO_PARTS, "user_model.kind=attention"),
    "text": ("training.frozen_epochs=0", *NO_PARTS, "user_model.kind=text", "item.source=text"),
    "weighted": (*ALL, "fusion.method=weighted"),
    "learnt": (*ALL, "fusion.method=learnt"),
    "reciprocal_rank": (*ALL, "fusion.method=reciprocal_rank"),
}
ENSEMBLES: Mapping[str, Literal["scores", "ranks"]] = {"ensemble by scores": "scores", "ensemble by ranks": "ranks"}
MEMBERS = ("mean", "weighted")
HISTORIES = [["film3", "film7", "film3"], ["film12"], [f"film{row}" for row in range(20)], ["film31"]]
NEW = {"item_id": "new", "title": "A tale of the reef", "description": "A funny tale of a reef."}


class Runs:
    """Each run is fitted once, by the first test that asks for it."""

    def __init__(self, folder: Path, world: Path, choices: Sequence[str]) -> None:
        self.folder, self.world, self.choices = folder, world, choices

    def path(self, name: str) -> Path:
        out = self.folder / name.replace(" ", "_")
        if out.exists():
            return out
        if name in ENSEMBLES:
            return ensemble_runs([self.path(member) for member in MEMBERS], out, by=ENSEMBLES[name]).path
        tables = self.world / "items.csv", self.world / "events.csv"
        return fit_run(*tables, out=out, overrides=[*self.choices, *ALONE[name]], show=False).run.path


@pytest.fixture(scope="module")
def runs(world_folder: Path, quick_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("recommenders"), world_folder, quick_choices)


@pytest.fixture(scope="module", params=(*ALONE, *ENSEMBLES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def recommender(name: str, runs: Runs) -> Recommender:
    return Recommender.load(runs.path(name))


@pytest.fixture(scope="module")
def served(recommender: Recommender) -> LiveRecommender:
    """For questions alone; who changes it loads its own."""
    return LiveRecommender(recommender)


@pytest.fixture
def changed(recommender: Recommender) -> Iterator[LiveRecommender]:
    """One of a test's own."""
    live = LiveRecommender(recommender)
    yield live
    live.wait_for_compaction()


def ids_of(answer: Recommendation | RankedCandidates | LiveAnswer) -> list[str]:
    return [item.item_id for item in answer.items]


def assert_alike(
    answer: Recommendation | RankedCandidates | LiveAnswer, expected: Recommendation | RankedCandidates
) -> None:
    """The same items with the same scores; in the same order but where scores are as good as equal."""
    ours, theirs = ({item.item_id: item.score for item in one.items} for one in (answer, expected))
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    assert [theirs[item_id] for item_id in ids_of(answer)] == pytest.approx(
        [item.score for item in expected.items], rel=1e-4, abs=1e-5
    )


def assert_in_order(items: Sequence[ScoredItem]) -> None:
    scores = [item.score for item in items]
    assert all(math.isfinite(score) for score in scores)
    assert scores == sorted(scores, reverse=True)
    assert len({item.item_id for item in items}) == len(items)


def test_known_and_new_users_histories_and_no_history_are_answered(recommender: Recommender) -> None:
    user = recommender.interactions.user_ids[0]
    known, new = recommender.recommend(users=[user, "nobody"], k=5)
    *given, empty = recommender.recommend(histories=[*HISTORIES, []], k=5)
    for answer in (known, new, *given, empty):
        assert len(answer.items) == 5
        assert_in_order(answer.items)
        assert all(item.title for item in answer.items)
    assert (known.user_id, known.basis, new.user_id, new.basis, empty.basis) == (
        user, "history", "nobody", "nothing", "nothing",
    )  # fmt: skip
    assert [answer.n_history for answer in given] == [len(history) for history in HISTORIES]
    assert_alike(new, empty)
    assert not set(ids_of(known)) & {
        recommender.catalog.ids[row]
        for row in recommender.interactions.item_idx[recommender.interactions.user_idx == 0]
    }


def test_k_is_honoured_as_far_as_there_are_items(recommender: Recommender) -> None:
    whole = recommender.recommend(histories=HISTORIES, k=N_ITEMS + 1)
    for k in (1, 7):
        for short, long in zip(recommender.recommend(histories=HISTORIES, k=k), whole, strict=True):
            assert short.items == long.items[:k]
    with pytest.raises(InputError, match="k is 0"):
        recommender.recommend(histories=HISTORIES, k=0)


def test_items_of_the_history_are_left_out_unless_asked_for(recommender: Recommender) -> None:
    hidden = recommender.recommend(histories=HISTORIES, k=N_ITEMS)
    shown = recommender.recommend(histories=HISTORIES, k=N_ITEMS, exclude_seen=False)
    for history, without, all_of in zip(HISTORIES, hidden, shown, strict=True):
        assert set(ids_of(without)) == set(recommender.catalog.ids) - set(history)
        assert set(ids_of(all_of)) == set(recommender.catalog.ids)
        assert [item for item in all_of.items if item.item_id not in history] == list(without.items)


def test_candidates_are_put_in_the_order_that_lists_have(recommender: Recommender) -> None:
    user, wanted = recommender.interactions.user_ids[0], [f"film{row}" for row in (9, 0, 31, 5, 1)]
    for name, history in ((user, None), ("nobody", None), (None, HISTORIES[0]), (None, [])):
        found = recommender.rank([*wanted, "film9", "elsewhere"], name, history, rerank=False)
        assert (set(ids_of(found)), len(found.items), found.unknown) == (set(wanted), len(wanted), ("elsewhere",))
        (whole,) = recommender.recommend(
            None if name is None else [name],
            None if history is None else [history],
            k=N_ITEMS,
            exclude_seen=False,
            filter=wanted,
            rerank=False,
        )
        assert_alike(found, whole)
        assert (found.user_id, found.basis, found.n_history) == (whole.user_id, whole.basis, whole.n_history)


def test_filters_leave_the_order_of_what_they_let_through(recommender: Recommender) -> None:
    allowed = ["film1", "film7", "film20", "film30"]
    expression = pl.col("item_id").is_in(allowed)
    whole = recommender.recommend(histories=HISTORIES, k=N_ITEMS)
    by_ids = recommender.recommend(histories=HISTORIES, k=N_ITEMS, filter=allowed)
    assert by_ids == recommender.recommend(histories=HISTORIES, k=N_ITEMS, filter=expression)
    for chosen, every in zip(by_ids, whole, strict=True):
        assert chosen.items == tuple(item for item in every.items if item.item_id in allowed)


def test_what_does_not_exist_is_refused(recommender: Recommender) -> None:
    with pytest.raises(UnknownIdError, match="film99"):
        recommender.recommend(histories=[["film99"]])
    with pytest.raises(InputError, match="either users or histories"):
        recommender.recommend()


def test_answers_are_the_same_again_and_from_a_copy_elsewhere(recommender: Recommender, tmp_path: Path) -> None:
    first = recommender.recommend(histories=[*HISTORIES, []], k=N_ITEMS)
    assert recommender.recommend(histories=[*HISTORIES, []], k=N_ITEMS) == first
    copy = Recommender.load(shutil.copytree(recommender.run.path, tmp_path / "copy"))
    assert copy.recommend(histories=[*HISTORIES, []], k=N_ITEMS) == first
    # One question at a time may be added up in another order.
    for history, expected in zip(HISTORIES, first, strict=False):
        (alone,) = copy.recommend(histories=[history], k=N_ITEMS)
        assert_alike(alone, expected)


def test_words_are_answered_in_order_or_as_a_newcomers(recommender: Recommender, tmp_path: Path) -> None:
    """By who reads words; of others it is the list of somebody of whom nothing is known, and says so."""
    found = recommender.recommend_for_text("a funny tale of a reef", k=5)
    assert len(found.items) == 5
    assert_in_order(found.items)
    if not recommender.reads_words:
        assert found.basis == "nothing"
        assert_alike(found, recommender.recommend(histories=[[]], k=5)[0])
    copy = Recommender.load(shutil.copytree(recommender.run.path, tmp_path / "copy"))
    assert_alike(copy.recommend_for_text("a funny tale of a reef", k=5), found)
    allowed = ["film1", "film7", "film20", "film30"]
    assert set(ids_of(recommender.recommend_for_text("a reef", k=5, filter=allowed))) == set(allowed)


def test_what_is_like_an_item_or_words_is_told_by_what_they_say(recommender: Recommender, tmp_path: Path) -> None:
    near = recommender.similar("film3", k=5)
    assert_in_order(near)
    assert (len(near), "film3" in {one.item_id for one in near}) == (5, False)
    (said,) = recommender.similar(text=recommender.texts[3], k=1)
    assert said.item_id == "film3"  # by its own words
    copy = Recommender.load(shutil.copytree(recommender.run.path, tmp_path / "copy"))
    assert [one.item_id for one in copy.similar("film3", k=5)] == [one.item_id for one in near]
    with pytest.raises(UnknownIdError, match="film99"):
        recommender.similar("film99")


def test_the_audience_of_an_item_is_in_order_and_refused_of_ranks(recommender: Recommender) -> None:
    if recommender.by_ranks:
        with pytest.raises(InputError, match="an audience compares users by"):
            recommender.audience(item="film3")
        return
    found = recommender.audience(item="film3", k=5)
    scores = [user.score for user in found]
    assert len(found) == 5
    assert scores == sorted(scores, reverse=True)
    assert {user.user_id for user in found} <= set(recommender.interactions.user_ids)


def test_added_items_stand_in_lists_and_change_no_old_ones_words(recommender: Recommender) -> None:
    more = recommender.add_items(pl.DataFrame([NEW]))
    assert more.catalog.ids == [*recommender.catalog.ids, "new"]
    for history, answer in zip(HISTORIES, more.recommend(histories=HISTORIES, k=N_ITEMS + 1), strict=True):
        assert set(ids_of(answer)) == {*recommender.catalog.ids, "new"} - set(history)
    assert [one.item_id for one in more.similar("film3", k=N_ITEMS)].count("new") == 1
    assert len(recommender.recommend(histories=[[]], k=N_ITEMS + 1)[0].items) == N_ITEMS  # which is as it was


def test_what_was_saved_is_what_counting_again_makes(recommender: Recommender) -> None:
    if recommender.ensemble is not None:
        members = [member.list_scorer for member in recommender.ensemble.members]
        made: AnyScorer = recommender.ensemble.scorer(members)
    else:
        counted = fit_fusion(recommender.fusion.weights, recommender.interactions, recommender.catalog.n_items)
        made = answering(recommender.towers_scorer.fused(counted))
    rows = [[recommender.catalog.index_of(item) for item in history] for history in HISTORIES]
    histories = Ragged.from_rows([*rows, []])
    np.testing.assert_allclose(recommender.list_scorer.score(histories), made.score(histories), rtol=1e-5, atol=1e-6)


def test_served_lists_are_the_offline_ones(recommender: Recommender, served: LiveRecommender) -> None:
    allowed = [f"film{row}" for row in range(0, N_ITEMS, 3)]
    only = served.read_filter({"item_id": allowed})
    for exclude_seen in (True, False):
        for chosen in (None, allowed):
            expected = recommender.recommend(histories=HISTORIES, k=N_ITEMS, exclude_seen=exclude_seen, filter=chosen)
            queries = [
                LiveQuery(tuple(one), k=N_ITEMS, exclude_seen=exclude_seen, filter=only if chosen else None)
                for one in HISTORIES
            ]
            for answer, offline in zip(served.recommend(queries), expected, strict=True):
                assert_alike(answer, offline)
                assert answer.basis == offline.basis
    (three,) = served.recommend([LiveQuery(tuple(HISTORIES[0]), k=3)])
    assert ids_of(three) == ids_of(recommender.recommend(histories=HISTORIES[:1], k=3)[0])
    (popular,) = served.recommend([LiveQuery(k=4)])
    assert (popular.basis, len(popular.items)) == ("popular", 4)


def test_served_candidates_have_the_offline_order(recommender: Recommender, served: LiveRecommender) -> None:
    wanted = ["film9", "elsewhere", *HISTORIES[0], "film31"]
    queries = [LiveQuery(tuple(one), candidates=tuple(wanted), k=9, exclude_seen=False) for one in HISTORIES]
    for answer, history in zip(served.recommend([*queries, LiveQuery(k=9)]), HISTORIES, strict=False):
        offline = recommender.rank(wanted, history=history)
        assert_alike(answer, offline)
        assert (answer.unknown, answer.left_out) == (offline.unknown, ()) == (("elsewhere",), ())


def test_an_item_that_comes_is_served_as_it_would_be_offline(
    recommender: Recommender, changed: LiveRecommender
) -> None:
    offline = recommender.add_items(pl.DataFrame([NEW]))
    changed.upsert([NEW])
    histories = [*HISTORIES, ["film3", "new"]]
    expected = offline.recommend(histories=histories, k=N_ITEMS + 1)
    answers = changed.recommend([LiveQuery(tuple(one), k=N_ITEMS + 1) for one in histories])
    for answer, one in zip(answers, expected, strict=True):
        assert_alike(answer, one)
    # Put again with other words, then as it was: rows that were replaced are no part of any answer.
    changed.upsert([{**NEW, "title": "A lighthouse"}])
    changed.upsert([NEW])
    changed.compact()
    for answer, one in zip(
        changed.recommend([LiveQuery(tuple(one), k=N_ITEMS + 1) for one in histories]), expected, strict=True
    ):
        assert_alike(answer, one)
    changed.delete(["new", "film5"])
    (after,) = changed.recommend([LiveQuery(tuple(HISTORIES[0]), k=N_ITEMS + 1)])
    assert set(ids_of(after)) == set(recommender.catalog.ids) - {"film5", *HISTORIES[0]}


def test_rules_work_on_what_is_served(recommender: Recommender, changed: LiveRecommender) -> None:
    query = LiveQuery(tuple(HISTORIES[0]), k=N_ITEMS)
    (before,) = changed.recommend([query])
    last = ids_of(before)[-1]
    changed.set_rules(
        {
            "more": parse_rule({"kind": "boost", "factor": 1000, "filter": {"item_id": last}}),
            "never": parse_rule({"kind": "must_not_show", "item_ids": [ids_of(before)[0]]}),
            "third": parse_rule({"kind": "pin", "item_id": ids_of(before)[9], "place": 3}),
        }
    )
    (after,) = changed.recommend([query])
    shown = ids_of(after)
    assert ids_of(before)[0] not in shown
    assert shown[2] == ids_of(before)[9]
    assert shown.index(last) < len(shown) - 1
    boosted = next(item for item in after.items if item.item_id == last)
    assert boosted.rule == "more"
    factor = np.log(1000) + before.items[-1].score if not recommender.by_ranks else 1000 * before.items[-1].score
    assert boosted.score == pytest.approx(factor, rel=1e-4)
