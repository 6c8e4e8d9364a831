"""A run of ALS, EASE and BM25 kNN alone, from the command line to the service and an update, and beside trained towers."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lmrec.artifacts.run import RunFolder
from lmrec.data.sources.synthetic import planted_world
from lmrec.feedback.events import Event
from lmrec.feedback.store import Store
from lmrec.models import ease as ease_module
from lmrec.models.fusion import FusionConfig
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.judge import FUSED, read_table_of
from lmrec.workflows.update import update_run

from .conftest import WORLD, Invoke, shared
from .running import NEW_ITEM, running

RECIPE = Path(__file__).parents[2] / "recipes" / "collaborative.toml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("collaborative")
    shared().write_tables(planted_world(**WORLD), made)
    return made


@pytest.fixture(scope="module")
def overrides(learning_choices: list[str]) -> list[str]:
    quick = ("fusion.search_cases=60", 'baselines.names=["popularity"]', "evaluation.max_cases=200")
    kept = (one for one in learning_choices if not one.startswith("training.") or "precision" in one)
    return [word for one in (*kept, *quick) for word in ("--set", one)]


def fit(invoke: Invoke, folder: Path, run: str, *more: object, code: int = 0) -> Any:
    tables = ("--items", folder / "items.csv", "--interactions", folder / "events.csv")
    return invoke("fit", *tables, "--recipe", RECIPE, "--out", folder / run, *more, code=code)


@pytest.fixture(scope="module")
def run(invoke: Invoke, folder: Path, overrides: list[str]) -> Path:
    fit(invoke, folder, "run", *overrides)
    return folder / "run"


def test_words_that_nothing_reads_are_not_said_to_be_answered(run: Path, invoke: Invoke) -> None:
    recommender = Recommender.load(run)
    (newcomer,) = recommender.recommend(histories=[[]], k=4)
    answers = [recommender.recommend_for_text(text, k=4) for text in ("a tiger in the jungle", "a rocket in orbit")]
    assert [answer.basis for answer in answers] == ["nothing", "nothing"]
    assert {answer.items for answer in answers} == {newcomer.items}
    shown = invoke("recommend", run, "--text", "a tiger in the jungle", "--k", 4)
    assert "note: nothing that counts in this run reads words" in shown.stderr
    assert "fusion.content=true" in shown.stderr
    assert "from your words" not in shown.output
    assert json.loads(invoke("recommend", run, "--text", "tiger", "--json").stdout)["basis"] == "nothing"
    assert "the text is blank" in invoke("recommend", run, "--text", " ", code=2).stderr
    assert recommender.similar(text=recommender.catalog.titles[0], k=3), "what is like words is found by words"
    ids, named = recommender.catalog.ids, max(recommender.catalog.titles[1].split(), key=len)
    with running(run) as service:
        for history, basis in (([], "popular"), (ids[:2], "history")):
            answer = service.recommend(history=history, text="a tiger in the jungle", k=4, explain=True)
            assert (answer["basis"], answer["text_read"]) == (basis, False)
            plain = service.recommend(history=history, k=4)
            assert "text_read" not in plain
            assert [item["item_id"] for item in answer["items"]] == [item["item_id"] for item in plain["items"]]
            assert not any("tiger" in (item["reason"]["because"] or "") for item in answer["items"])
            asked = {"history": history, "text": "a tiger in the jungle", "item_id": answer["items"][0]["item_id"]}
            found = service.post("/v1/explanations", asked)
            assert (found["text_read"], found["text"], found["place"]) == (False, None, 1)
        refused = service.recommend(text=f"no {named}", k=4)
        assert "text_read" not in refused, "all that it wants is that something is left out, and it is"
        assert refused["not_wanted"] == [named.lower()]


def test_whom_a_text_is_for_is_told_by_what_it_reads_like(
    run: Path, folder: Path, overrides: list[str], invoke: Invoke
) -> None:
    recommender, text = Recommender.load(run), "a tiger in the jungle"
    assert recommender.fusion.borrows, "new items are carried by what they read like"
    found = recommender.audience(text=text, k=5)
    grown = recommender.add_items(pl.DataFrame({"item_id": ["new"], recommender.catalog.text_columns[0]: [text]}))
    asked = grown.audience(item="new", k=5)
    assert [user.user_id for user in found] == [user.user_id for user in asked]
    assert len({user.score for user in found}) > 1
    alone = ("fusion.ease=false", "fusion.bm25_knn=false", "fusion.new_items=false")
    fit(invoke, folder, "als", *overrides, *(word for one in alone for word in ("--set", one)), "--no-judge")
    refused = invoke("audience", folder / "als", "--text", text, code=2).stderr
    assert "no words tell its users apart. Give an item" in refused


def test_what_is_counted_alone_is_fitted_judged_served_and_updated(run: Path, invoke: Invoke) -> None:
    weights = RunFolder(run).read_record()["fusion"]
    assert weights["als"] + weights["ease"] + weights["bm25_knn"] > 0
    assert weights["popularity"] > 0, "who has no history is answered too"
    assert weights["towers"] == weights["transitions"] == weights["content"] == 0
    table = read_table_of(RunFolder(run))
    assert table is not None
    of = {row.name: row.metrics["ndcg@10"].value for row in table.rows}
    assert of[FUSED] > 2 * of["popularity"]
    assert " x " in next(row.note for row in table.rows if row.name == FUSED)
    recommender = Recommender.load(run)
    ids = recommender.catalog.ids
    shown = invoke("recommend", run, "--user", recommender.interactions.user_ids[0], "--k", 3)
    assert any(title[:12] in shown.output for title in recommender.catalog.titles)
    with running(run) as service:
        (offline,) = recommender.recommend(histories=[ids[:3]], k=8)
        assert service.shown(history=ids[:3], k=8) == [item.item_id for item in offline.items]
        service.put("/v1/items/new", NEW_ITEM)
        assert service.recommend(history=["new", *ids[:3]], k=5)["basis"] == "history"
        service.delete(f"/v1/items/{offline.items[0].item_id}")
        assert offline.items[0].item_id not in service.shown(history=ids[:3])
    events = [Event(f"e{n}", f"new-{n % 40}", ids[(n // 40) % 6], "click", 1_750_000_000.0 + n) for n in range(240)]
    with Store.open(f"sqlite:///{run / 'service' / 'store.db'}") as store:
        store.add_events(events)
    result = update_run(run, show=False)
    assert result.status in ("promoted", "kept"), result
    after = Recommender.load(run / "generations" / str(result.generation))
    assert after.recommend(histories=[ids[:1]], k=3)[0].items


def test_it_stands_beside_trained_towers_too(invoke: Invoke, folder: Path, learning_choices: list[str]) -> None:
    chosen = [word for one in learning_choices for word in ("--set", one)]
    quick = ("training.tuned_epochs=0", "training.frozen_epochs=2", "fusion.search_cases=40", "fusion.ease=false")
    fit(invoke, folder, "towers", *chosen, *(word for one in quick for word in ("--set", one)), "--no-judge")
    record = RunFolder(folder / "towers").read_record()["fusion"]
    assert record["towers"] == 1
    assert Recommender.load(folder / "towers").fusion.weights.model_dump(mode="json") == {
        name: value for name, value in record.items() if name != "validation"
    }


def test_without_validation_all_count_moderately(invoke: Invoke, folder: Path, overrides: list[str]) -> None:
    fit(invoke, folder, "unsplit", *overrides, "--set", "split.kind=none", "--no-judge")
    weights = Recommender.load(folder / "unsplit").fusion.weights
    assert min(weights.als, weights.ease, weights.bm25_knn, weights.popularity) > 0


def test_what_cannot_be_counted_is_refused_before_anything_is_written(
    invoke: Invoke, folder: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ease_module, "MAX_ITEMS", 10)
    refused = fit(invoke, folder, "large", *overrides, code=2)
    assert "bm25_knn" in refused.output
    assert not (folder / "large").exists()
    FusionConfig(als=True, bm25_knn=True).check_fits(10**9)
