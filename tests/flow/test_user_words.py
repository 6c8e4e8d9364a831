"""What users are, read in words before their histories: by a model that reads histories as text, and by a reranker."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lmrec.artifacts.reranker import read_reranker
from lmrec.artifacts.run import RunFolder
from lmrec.errors import InputError, RecipeError
from lmrec.recipe import load_recipe
from lmrec.retrieval.live import LiveQuery, LiveRecommender
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.judge import judge_run
from lmrec.workflows.prepare import prepare
from lmrec.workflows.rerank import fit_reranker
from lmrec.workflows.train import fit_run, training_fingerprint

from .conftest import Invoke
from .people import N_GROUPS, TASTES, share_of_taste, updated, write_world
from .running import running, until

USER = "Likes: {interests}. Age: {age}"
AS_TEXT = ("user_model.kind=text", "item.source=text")
MANY = "|".join(f"taste {n}" for n in range(100))
PAIRS = (
    "reranker.user=Likes: {interests}", "reranker.max_tokens=90", "reranker.n_events=60", "reranker.validation_events=20",
    "reranker.search_cases=20", "reranker.judge_cases=10", "reranker.top_k=6",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(quick_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("user_words")
    write_world(made)
    fit(made, "with", [*quick_choices, *AS_TEXT, f"template.user={USER}"])
    fit(made, "silent", [*quick_choices, *AS_TEXT])
    fit(made, "plain", quick_choices, "training.frozen_epochs=1")
    return made


def fit(folder: Path, name: str, choices: Sequence[str], *more: str) -> Path:
    quick = (
        "training.frozen_epochs=20", "training.tuned_epochs=0", "training.learning_rate=2e-2", "item.id_dropout=0",
        "fusion.transitions=false", "fusion.popularity=false", "fusion.content=false", "training.patience=20",
        "encoder.max_tokens=60",
    )  # fmt: skip
    tables = (folder / f"{table}.csv" for table in ("items", "events", "users"))
    fit_run(*tables, out=folder / name, overrides=[*choices, *quick, *more], show=False)
    return folder / name


@pytest.fixture(scope="module")
def taught(folder: Path) -> Path:
    """A run whose model reads no text, and its reranker users; with a weight that is felt."""
    run = Path(shutil.copytree(folder / "plain", folder / "taught"))
    fit_reranker(run, PAIRS, show=False)
    file = run / "reranker" / "reranker.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "weight": 0.9}))
    return run


def ids(items: Sequence[object]) -> list[str]:
    return [str(item["item_id"] if isinstance(item, dict) else getattr(item, "item_id")) for item in items]  # noqa: B009


def test_words_of_users_are_learnt_and_answer_for_who_has_no_history(folder: Path) -> None:
    recommender = Recommender.load(folder / "with")
    answers = recommender.recommend([f"new {name}" for name in TASTES], k=5)
    assert {answer.basis for answer in answers} == {"profile"}
    shares = [share_of_taste(answer.items, taste) for taste, answer in enumerate(answers)]
    assert np.mean(shares) > 0.5, f"chance is 0.25: {shares}"
    assert recommender.recommend("nobody", k=5)[0].basis == "nothing"
    profiles: list[dict[str, object]] = [{"interests": name, "age": 20 + 10 * at} for at, name in enumerate(TASTES)]
    said = recommender.recommend(histories=[[]] * N_GROUPS, profiles=profiles, k=5)
    assert [ids(one.items) for one in said] == [ids(one.items) for one in answers]
    plain, blank = recommender.recommend(histories=[["i1"]] * 2, profiles=[{}, {"interests": None, "age": " "}], k=5)
    assert ids(plain.items) == ids(blank.items) == ids(recommender.recommend(histories=[["i1"]], k=5)[0].items)


def test_the_judge_reads_them(folder: Path) -> None:
    found = {}
    for name in ("with", "silent"):
        rows = judge_run(folder / name, show=False).table.rows
        (found[name],) = [row.metrics["ndcg@10"].value for row in rows if not row.is_baseline]
    assert found["with"] > found["silent"] + 0.03, found


def test_they_stay_whole_where_a_history_is_cut(folder: Path, quick_choices: list[str]) -> None:
    recommender = Recommender.load(folder / "with")
    long = [f"i{at}" for at in range(40)]
    jazz, opera = recommender.recommend(
        histories=[long[::-1]] * 2, profiles=[{"interests": "jazz"}, {"interests": "opera"}], exclude_seen=False
    )
    assert jazz.items != opera.items
    with pytest.raises(InputError, match=r"its words .* take more than the 60 tokens that are read"):
        recommender.recommend(histories=[[]], profiles=[{"interests": MANY}])
    with pytest.raises(RecipeError, match=r"words of 164 users that are longer than 24 tokens \(encoder.max_tokens\)"):
        fit(folder, "cut", [*quick_choices, *AS_TEXT, f"template.user={USER}. {USER * 3}"], "encoder.max_tokens=24")
    assert not (folder / "cut").exists()


def test_it_is_served_as_it_answers_offline(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "with", tmp_path / "run"))
    offline = Recommender.load(run)
    assert LiveRecommender(offline).reads, "each history costs a pass of the language model"
    (expected,) = offline.recommend("new opera", k=5)
    (said,) = offline.recommend(histories=[["i1"]], profiles=[{"interests": "rugby", "age": 40}], k=5)
    with running(run) as service:
        known = service.recommend(user_id="new opera", k=5)
        assert (known["basis"], ids(known["items"])) == ("profile", ids(expected.items))
        assert service.recommend(user_id="nobody", k=5)["basis"] == "popular"
        asked = {"history": ["i1"], "profile": {"interests": "rugby", "age": 40}}
        answer = service.recommend(**asked, k=5, explain=True)
        assert ids(answer["items"]) == ids(said.items)
        found = service.post("/v1/explanations", {**asked, "item_id": answer["items"][0]["item_id"]})
        assert found["base"] + sum(one["contribution"] for one in found["contributions"]) == pytest.approx(
            found["score"], abs=1e-4
        )
        assert found["place"] == 1
        for profile, reason in (({"agee": 3}, "'age'"), ({"interests": MANY}, "Say less")):
            refused = service.client.post("/v1/recommendations", json={"profile": profile})
            assert (refused.status_code, reason in refused.text) == (422, True), refused.text
        service.delete("/v1/users/new opera")
        until(lambda: service.recommend(user_id="new opera", k=5)["basis"] == "popular")


def test_an_update_reads_them_on(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "with", tmp_path / "run"))
    after = Recommender.load(updated(run))
    assert after.checkpoint.template == Recommender.load(run).checkpoint.template
    assert after.recommend("new opera", k=3)[0].basis == "profile"


def test_a_reranker_reads_users_whose_model_reads_none(taught: Path, invoke: Invoke) -> None:
    assert read_reranker(taught / "reranker").user == "Likes: {interests}"
    recommender, live = Recommender.load(taught), LiveRecommender.load(taught)
    history, lists = ("i1", "i2", "i3"), {}
    for taste in (*TASTES, ""):
        (found,) = recommender.recommend(histories=[history], profiles=[{"interests": taste}], k=8)
        (answer,) = live.recommend([LiveQuery(history=history, k=8, profile={"interests": taste})])
        lists[taste] = ids(found.items)
        assert ids(answer.items) == lists[taste]
    assert len({tuple(one) for one in lists.values()}) > 1, "words of users move what is read beside them"
    assert lists[""] == ids(recommender.recommend(histories=[history], k=8)[0].items)
    alone = json.loads(invoke("recommend", taught, "--profile", "interests=jazz", "--json").stdout)
    assert alone["basis"] == "profile"
    unread = recommender.recommend(histories=[[]], profiles=[{"interests": "jazz"}], rerank=False)
    assert unread[0].basis == "nothing"
    for asked in (
        lambda: recommender.recommend(histories=[history], profiles=[{"interests": MANY}]),
        lambda: live.recommend([LiveQuery(history=history, profile={"interests": MANY})]),
    ):
        with pytest.raises(InputError, match=r"reranker\.max_tokens is 90, .* Say less of the user"):
            asked()
    (known,) = recommender.recommend("new opera", k=8)
    (served,) = live.recommend([LiveQuery(k=8, profile={"interests": "opera"})])
    assert ids(known.items) == ids(served.items)


def test_who_is_known_is_answered_where_an_item_leaves_their_words_no_room(taught: Path, tmp_path: Path) -> None:
    """In the retriever's order: nobody who asks can make a new item shorter. Words of the question itself are refused."""
    run = Path(shutil.copytree(taught, tmp_path / "run"))
    tall = {"title": "film", "description": " ".join(f"tale {n}" for n in range(60))}
    table = pl.DataFrame([{"item_id": f"tall {n}", **tall, "title": f"film tall {n}"} for n in range(3)])
    tall_ids = table["item_id"].to_list()
    offline = Recommender.load(run).add_items(table)
    read, plain = (ids(offline.recommend("u0", k=3, filter=tall_ids, rerank=on)[0].items) for on in (True, False))
    assert read == plain
    assert len(read) == 3
    profile = {"interests": MANY}
    with pytest.raises(InputError, match="Say less of the user"):
        offline.recommend(histories=[["i1"]], profiles=[profile], k=3, filter=tall_ids)
    live, said = LiveRecommender.load(run), LiveQuery(history=("i1",), k=8, profile=profile)
    (kept,) = live.recommend([replace(said, asked_words=False)])
    with pytest.raises(InputError, match="Say less of the user"):
        live.recommend([said])
    unread = Recommender.load(run).recommend(histories=[["i1"]], k=8, rerank=False)[0]
    assert ids(kept.items) == ids(unread.items)
    with running(run) as service:
        for one in table.iter_rows(named=True):
            service.put(f"/v1/items/{one.pop('item_id')}", one)
        of_tall = {"k": 3, "filter": {"title": table["title"].to_list()}}
        known = service.recommend(user_id="u0", **of_tall)
        assert len(known["items"]) == 3
        more = service.recommend(user_id="u0", profile={"interests": "jazz|tea"}, **of_tall)
        assert ids(more["items"]) == ids(known["items"]), "the same words as the table's are no other ones"
        for who in ({"history": ["i1"]}, {"user_id": "u0"}):
            asking = {**who, **of_tall, "profile": {"interests": "chess"}}
            refused = service.client.post("/v1/recommendations", json=asking)
            assert (refused.status_code, "Say less of the user" in refused.text) == (422, True), refused.text
        assert len(service.recommend(history=["i1"], **of_tall)["items"]) == 3, (
            "no words of a user, and too long an item"
        )


def test_the_judge_of_a_reranker_reads_them(taught: Path) -> None:
    judged = judge_run(taught, show=False)
    assert judged.reranking is not None
    assert judged.reranking.table.form.n_cases == 10


def test_the_likelihood_of_items_is_asked_after_words_of_the_user(
    folder: Path, quick_choices: list[str], tiny_gpt: Path
) -> None:
    run = Path(shutil.copytree(folder / "plain", folder / "likely"))
    untrained = [choice for choice in PAIRS if "n_events" not in choice]
    fit_reranker(run, [*untrained, "reranker.form=likelihood", f"reranker.name={tiny_gpt}"], show=False)
    reranker = Recommender.load(run).reranker
    assert reranker is not None
    # So small a model tells nothing apart, which its calibration knows; its own numbers differ.
    reranker = replace(reranker, description=replace(reranker.description, center=0.0, spread=1.0))
    texts = [["film 1", "film 2"]]
    plain, jazz = (reranker.score([["film 3"]], texts, [said])[0] for said in ("", "Likes: jazz"))
    assert not np.allclose(plain, jazz)
    np.testing.assert_allclose(reranker.score([["film 3"]], texts)[0], plain)


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        (
            [f"template.user={USER}"],
            "template.user is .* nothing would come of it without histories that are read as text",
        ),
        ([*AS_TEXT, "template.user={interest}"], "template.user names 'interest', which users lack. Did you mean"),
        ([*AS_TEXT, "template.user={age"], "is not a template"),
        ([*AS_TEXT, "template.user=old"], "names no column"),
        ([*AS_TEXT, "template.user={age:.2f}"], "says how 'age' is to look, which is not read. Write {age} alone"),
        (
            [*AS_TEXT, f"template.user={USER}", f"reranker.user={USER}"],
            "reranker.user is .* without another user_model.kind than 'text'",
        ),
        (["reranker.user=old"], "reranker.user 'old' names no column"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(
    folder: Path, quick_choices: list[str], choices: list[str], reason: str
) -> None:
    with pytest.raises(RecipeError, match=reason):
        fit(folder, "wrong", [*quick_choices, *choices])
    assert not RunFolder(folder / "wrong").path.exists()


def test_words_of_users_need_a_table_of_them(folder: Path, quick_choices: list[str], tmp_path: Path) -> None:
    items, events = folder / "items.csv", folder / "events.csv"
    with pytest.raises(RecipeError, match="template.user names 'age', and there is no user table"):
        prepare(items, events, None, load_recipe(None, [*quick_choices, *AS_TEXT, "template.user={age}"]))
    run = Path(shutil.copytree(folder / "plain", tmp_path / "run"))
    with pytest.raises(RecipeError, match="reranker.user names 'town', which users lack"):
        fit_reranker(run, [*PAIRS, "reranker.user={town}"], show=False)
    (run / "data" / "users.parquet").unlink()
    with pytest.raises(RecipeError, match="reranker.user names 'interests', and there is no user table"):
        fit_reranker(run, PAIRS, show=False)


def test_the_longest_words_of_a_user_must_leave_room_for_the_longest_item(folder: Path, tmp_path: Path) -> None:
    """Whoever is drawn for training: the one with long words would be refused when they ask."""
    run = Path(shutil.copytree(folder / "plain", tmp_path / "run"))
    table = run / "data" / "users.parquet"
    users = pl.read_parquet(table)
    wordy = pl.when(pl.col("user_id") == users["user_id"][0]).then(pl.lit("film " * 80)).otherwise(pl.col("interests"))
    users.with_columns(wordy.alias("interests")).write_parquet(table)
    with pytest.raises(RecipeError, match=r"the user's words \d+, .* neither is ever cut"):
        fit_reranker(run, PAIRS, show=False)


def test_a_resume_tells_another_user_table(folder: Path, quick_choices: list[str]) -> None:
    items, events, users = folder / "items.csv", folder / "events.csv", pl.read_csv(folder / "users.csv")
    older = users.with_columns(pl.col("age") + 1)
    for pattern, matters in ((USER, True), ("", False)):
        recipe = load_recipe(None, [*quick_choices, *AS_TEXT, f"template.user={pattern}"])
        first, second = (
            training_fingerprint(recipe, prepare(items, events, table, recipe)) for table in (users, older)
        )
        assert (first != second) == matters
