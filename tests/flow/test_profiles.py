"""Users whose attributes say what they will choose: learnt, judged, and answered for somebody without a history."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lmrec.artifacts.run import RunFolder
from lmrec.errors import InputError, RecipeError
from lmrec.fields import Profile, Ragged
from lmrec.recipe import load_recipe
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.ensemble import ensemble_runs
from lmrec.workflows.judge import judge_run
from lmrec.workflows.prepare import prepare
from lmrec.workflows.train import fit_run, training_fingerprint

from .conftest import Invoke
from .people import N_GROUPS, TASTES, share_of_taste, updated, write_world
from .running import running, until


@pytest.fixture(scope="module")
def folder(quick_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("profiles")
    write_world(made)
    for name, profile in (("with", '["interests", "age"]'), ("without", "[]")):
        fit(made, name, [*quick_choices, f"user_model.profile={profile}"])
    return made


def fit(folder: Path, name: str, choices: Sequence[str]) -> Path:
    quick = (
        "training.frozen_epochs=6", "training.tuned_epochs=0", "training.learning_rate=2e-2", "item.id_dropout=0",
        "fusion.transitions=false", "fusion.popularity=false", "fusion.content=false", "training.patience=6",
    )  # fmt: skip
    tables = (folder / f"{table}.csv" for table in ("items", "events", "users"))
    fit_run(*tables, out=folder / name, overrides=[*choices, *quick], show=False)
    return folder / name


def test_the_run_says_whom_attributes_reach(folder: Path) -> None:
    notes = RunFolder(folder / "with").read_record()["notes"]
    assert sum("users who have one" in note for note in notes) == 2, notes
    assert not any("users who have one" in note for note in RunFolder(folder / "without").read_record()["notes"])


def test_attributes_are_learnt_and_judged(folder: Path) -> None:
    found = {}
    for name in ("with", "without"):
        rows = judge_run(folder / name, show=False).table.rows
        (found[name],) = [row.metrics["ndcg@10"].value for row in rows if row.name.startswith("lmrec")][-1:]
    assert found["with"] > found["without"] + 0.03, found


def test_who_has_no_history_is_answered_by_attributes(folder: Path) -> None:
    recommender = Recommender.load(folder / "with")
    answers = recommender.recommend([f"new {name}" for name in TASTES], k=5)
    shares = [share_of_taste(answer.items, taste) for taste, answer in enumerate(answers)]
    assert np.mean(shares) > 0.8, shares
    assert {answer.basis for answer in answers} == {"profile"}
    (stranger,) = recommender.recommend("nobody", k=5)
    assert stranger.basis == "nothing"
    profiles: list[dict[str, object]] = [{"interests": name} for name in TASTES]
    said = recommender.recommend(histories=[[]] * N_GROUPS, profiles=profiles, k=5)
    assert np.mean([share_of_taste(one.items, taste) for taste, one in enumerate(said)]) > 0.5, "chance is 0.25"
    (plain, blank, unknown) = recommender.recommend(
        histories=[["i1"]] * 3, profiles=[{}, {"interests": None}, {"interests": "golf"}], k=5
    )
    assert plain.items == blank.items == unknown.items, "unknown values add nothing"
    with pytest.raises(InputError, match="'age'"):
        recommender.recommend(histories=[[]], profiles=[{"agee": 30}])
    with pytest.raises(InputError, match="2 profiles for 1"):
        recommender.recommend(histories=[[]], profiles=[{}, {}])


def test_the_command_line_takes_a_profile(folder: Path, invoke: Invoke) -> None:
    run, recommender = folder / "with", Recommender.load(folder / "with")
    for words, history in (((), []), (("--history", "i1,i2"), ["i1", "i2"])):
        said = invoke("recommend", run, *words, "--profile", "interests=opera|golf, age=55", "--k", "5", "--json")
        (expected,) = recommender.recommend(histories=[history], profiles=[{"interests": "opera", "age": 55}], k=5)
        answer = json.loads(said.stdout)
        assert [item["item_id"] for item in answer["items"]] == [item.item_id for item in expected.items]
        assert answer["basis"] == expected.basis == ("history" if history else "profile")
    assert "newcomer" in invoke("recommend", run, "--profile", "interests=golf", "--k", "3").stderr
    assert "beside a history" in invoke("recommend", run, "--user", "new jazz", "--k", "3").stderr


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        ("with", ("--profile", "agee=3"), "Did you mean 'age'? What was: 'interests', 'age'"),
        ("with", ("--profile", "shoe=3"), "nothing was learnt of 'shoe'. What was: 'interests', 'age'"),
        ("with", ("--profile", "old"), "is not column=value"),
        ("with", ("--profile", ""), "is not column=value"),
        ("with", ("--profile", "age=3,age=4"), "names 'age' twice"),
        ("with", ("--profile", "age=3", "--user", "u1"), "stands alone or beside --history, not beside --user"),
        ("without", ("--profile", "age=3"), 'user_model.profile=["age"]'),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused(
    folder: Path, invoke: Invoke, name: str, words: tuple[str, ...], reason: str
) -> None:
    assert reason in " ".join(invoke("recommend", folder / name, *words, code=2).stderr.split())


def test_a_run_without_attributes_knows_none(folder: Path) -> None:
    recommender = Recommender.load(folder / "without")
    assert recommender.recommend("new jazz", k=3)[0].basis == "nothing"
    with pytest.raises(InputError, match="nothing was learnt of 'interests'"):
        recommender.recommend(histories=[[]], profiles=[{"interests": "jazz"}])
    with pytest.raises(InputError, match="another profile of users"):
        ensemble_runs([folder / "with", folder / "without"], folder / "both")


def test_it_is_saved_and_loaded_with_equal_scores(folder: Path) -> None:
    first, second = Recommender.load(folder / "with"), Recommender.load(folder / "with")
    vocabulary = first.checkpoint.configs.profile
    known = Profile(Ragged.from_rows([vocabulary.ids_of({"interests": "opera"}), [1]]))
    asked = Ragged.from_rows([[1, 2], []]).of(known)
    np.testing.assert_array_equal(first.scorer.score(asked), second.scorer.score(asked))
    assert not np.allclose(first.scorer.score(asked), first.scorer.score(asked.of(None)))


def test_it_is_served_as_it_answers_offline(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "with", tmp_path / "run"))
    offline = Recommender.load(run)
    (expected,) = offline.recommend("new opera", k=5)
    with running(run) as service:
        known = service.recommend(user_id="new opera", k=5)
        assert known["basis"] == "profile"
        assert [item["item_id"] for item in known["items"]] == [item.item_id for item in expected.items]
        assert service.recommend(user_id="nobody", k=5)["basis"] == "popular"
        (said,) = offline.recommend(histories=[["i1"]], profiles=[{"interests": "rugby", "age": 40}], k=5)
        asked = {"history": ["i1"], "profile": {"interests": "rugby", "age": 40}}
        answer = service.recommend(**asked, k=5, explain=True)
        assert [item["item_id"] for item in answer["items"]] == [item.item_id for item in said.items]
        alone = {"profile": {"interests": "rugby"}}
        first = service.recommend(**alone, k=5)["items"][0]
        for question, item_id in ((asked, answer["items"][0]["item_id"]), (alone, first["item_id"])):
            found = service.post("/v1/explanations", {**question, "item_id": item_id})
            given = sum(one["contribution"] for one in found["contributions"])
            assert found["base"] + given == pytest.approx(found["score"], abs=1e-4)
            assert found["place"] == 1
        assert found["score"] == pytest.approx(first["score"], abs=1e-4)
        refused = service.client.post("/v1/recommendations", json={"profile": {"agee": 3}})
        assert refused.status_code == 422, refused.text
        assert "'age'" in refused.text
        service.delete("/v1/users/new opera")
        until(lambda: service.recommend(user_id="new opera", k=5)["basis"] == "popular")


def test_an_update_keeps_what_is_known_of_users(folder: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(folder / "with", tmp_path / "run"))
    after = Recommender.load(updated(run))
    before = Recommender.load(run)
    assert after.checkpoint.configs.profile == before.checkpoint.configs.profile
    assert after.recommend("new opera", k=3)[0].basis == "profile"


def test_a_column_that_users_lack_is_refused_before_anything_is_written(folder: Path, quick_choices: list[str]) -> None:
    with pytest.raises(RecipeError, match="'interests'"):
        fit(folder, "wrong", [*quick_choices, 'user_model.profile=["interest"]'])
    assert not RunFolder(folder / "wrong").path.exists()


def test_a_resume_tells_another_user_table_where_it_matters(folder: Path, quick_choices: list[str]) -> None:
    items, events = folder / "items.csv", folder / "events.csv"
    users = pl.read_csv(folder / "users.csv")
    older = users.with_columns(pl.col("age") + 1)
    for profile, matters in (('["age"]', True), ("[]", False)):
        recipe = load_recipe(None, [*quick_choices, f"user_model.profile={profile}"])
        first, second = (
            training_fingerprint(recipe, prepare(items, events, table, recipe)) for table in (users, older)
        )
        assert (first != second) == matters
