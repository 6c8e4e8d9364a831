"""The service as clients meet it: a real server on a free port, a tiny run, and httpx."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lmrec.artifacts.generation import promote, rollback
from lmrec.artifacts.run import RunFolder
from lmrec.data.dataset import Dataset
from lmrec.errors import InputError, RunFolderError
from lmrec.feedback.shown import Shown
from lmrec.feedback.store import Scope, Store
from lmrec.retrieval.live import LiveRecommender
from lmrec.service.schemas.answers import ExplanationAnswer, RecommendationAnswer, Stats, UserAnswer
from lmrec.service.security import SCOPES
from lmrec.service.serve import _config, _ending_well, _Workers, check_settings, listen, serve
from lmrec.service.settings import Limits, ServiceSettings, default_store
from lmrec.service.state import open_state

from .conftest import Invoke
from .running import NEW_ITEM, WORDS, Running, new_generation, running, until

pytestmark = pytest.mark.usefixtures("service_logs")


@pytest.fixture(scope="module")
def shared(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """For tests that leave nothing behind that would disturb another one."""
    with running(Path(shutil.copytree(fitted, tmp_path_factory.mktemp("shared") / "run"))) as service:
        yield service


@pytest.fixture
def own(run: Path) -> Iterator[Running]:
    with running(run) as service:
        yield service


# ---- health


def test_health_readiness_and_metrics(shared: Running) -> None:
    assert shared.get("/healthz") == {"status": "alive"}
    assert [shared.client.head(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
    ready = shared.get("/readyz")
    assert (ready["generation"], ready["items"], ready["store"], ready["problems"]) == ("0", 32, "sqlite", [])
    shared.recommend(k=3)
    text = shared.client.get("/metrics").text
    for line in (
        'lmrec_requests_total{method="POST",route="/v1/recommendations",status="200"}',
        "lmrec_request_seconds_bucket",
        "lmrec_waiting 0.0",
        "lmrec_generation_age_seconds",
        "lmrec_cold_share",
        "lmrec_coverage",
        "lmrec_items 32.0",
        "lmrec_ready 1.0",
        "lmrec_drift -1.0",
    ):
        assert line in text


def test_every_path_says_what_it_does_and_which_errors_it_gives(shared: Running) -> None:
    schema = shared.get("/openapi.json")
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description") or operation["summary"], (method, path)
            assert "503" in operation["responses"], (method, path)
            for status, response in operation["responses"].items():
                if status != "200":
                    assert response["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer")
    bodies = (
        "RecommendationQuestion",
        "RankingQuestion",
        "SimilarQuestion",
        "SearchQuestion",
        "ExplanationQuestion",
        "EventIn",
        "ItemBatch",
    )
    assert all(schema["components"]["schemas"][name]["examples"] for name in bodies)


def test_before_it_is_loaded_it_says_so(run: Path) -> None:
    async def scene() -> tuple[httpx.Response, httpx.Response, httpx.Response]:
        from lmrec.service.app import create_app

        state = open_state(ServiceSettings.for_run(run))
        transport = httpx.ASGITransport(create_app(state))  # runs no lifespan, so nothing loads
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answers = (
                await client.get("/readyz"),
                await client.post("/v1/recommendations", json={}),
                await client.get("/healthz"),
            )
        state.close()
        return answers

    import asyncio

    ready, recommendation, alive = asyncio.run(scene())
    for response in (ready, recommendation):
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "loading"
        assert int(response.headers["Retry-After"]) > 0
    assert alive.status_code == 200


# ---- recommend, search, explain


def test_a_known_user_gets_a_list_that_rests_on_their_history(shared: Running, world: Dataset) -> None:
    user = world.interactions.user_ids[0]
    answer = shared.recommend(user_id=user, k=5)
    RecommendationAnswer.model_validate(answer)
    assert (answer["basis"], answer["generation"], len(answer["items"])) == ("history", "0", 5)
    assert answer["n_history"] == int((world.interactions.user_idx == 0).sum())
    seen = {world.catalog.ids[item] for item in world.interactions.item_idx[world.interactions.user_idx == 0]}
    assert not seen & set(shared.shown(user_id=user))
    assert seen & set(shared.shown(user_id=user, exclude_seen=False))
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)


def test_what_was_judged_with_items_of_the_history_is_served_with_them(
    run: Path, world: Dataset, invoke: Invoke
) -> None:
    recipe = RunFolder(run).recipe_file
    said = recipe.read_text(encoding="utf-8")
    recipe.write_text(said.replace("exclude_seen = true", "exclude_seen = false"), encoding="utf-8")
    user, n_items = world.interactions.user_ids[0], world.catalog.n_items
    seen = {world.catalog.ids[item] for item in world.interactions.item_idx[world.interactions.user_idx == 0]}
    with running(run) as service:
        assert len(service.shown(user_id=user, k=n_items)) == n_items
        assert not seen & set(service.shown(user_id=user, k=n_items, exclude_seen=True))
        body = {"item_id": next(iter(seen)), "user_id": user}
        assert service.post("/v1/explanations", body)["place"] is not None
        assert service.post("/v1/explanations", {**body, "exclude_seen": True})["place"] is None
    shown = json.loads(invoke("recommend", run, "--user", user, "--k", n_items, "--json").stdout)
    assert len(shown["items"]) == n_items
    shown = json.loads(invoke("recommend", run, "--user", user, "--k", n_items, "--exclude-seen", "--json").stdout)
    assert not seen & {item["item_id"] for item in shown["items"]}
    recipe.write_text("", encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"recipe.toml is missing or damaged .*Fit the run again"):
        LiveRecommender.load(run)


@pytest.mark.parametrize(
    ("question", "basis", "n_history"),
    [
        ({}, "popular", 0),
        ({"user_id": "never heard of"}, "popular", 0),
        ({"history": ["film0", "film1"]}, "history", 2),
        ({"history": ["film0", "unknown"]}, "history", 1),
        ({"history": ["unknown"]}, "popular", 0),
        ({"text": WORDS}, "text", 0),
        ({"text": WORDS, "history": ["film0"]}, "history+text", 1),
    ],
)
def test_it_says_what_a_list_rests_on(shared: Running, question: dict[str, Any], basis: str, n_history: int) -> None:
    answer = shared.recommend(**question, k=4)
    assert (answer["basis"], answer["n_history"], len(answer["items"])) == (basis, n_history, 4)


def test_exclusions_filters_and_diversity(shared: Running) -> None:
    first = shared.shown(history=["film0"], k=3)
    assert not set(first) & set(shared.shown(history=["film0"], exclude=first))
    assert "film0" not in shared.shown(history=["film0"])
    topics = {item["item_id"]: item["fields"]["topic"] for item in shared.get("/v1/items?limit=100")["items"]}
    chosen = shared.shown(history=["film0"], filter={"topic": "sea"})
    assert {topics[item] for item in chosen} == {"sea"}
    assert {topics[item] for item in shared.shown(filter={"topic": {"not": "sea"}})} == set(topics.values()) - {"sea"}
    assert len(shared.shown(history=["film0"], k=8, diversity=0.9)) == 8


def test_candidates_come_back_in_order_for_a_user_or_a_history(shared: Running) -> None:
    wanted = ["film9", "film3", "nowhere", "film1", "film30"]
    found = shared.post("/v1/rankings", {"candidates": wanted, "history": ["film1", "film2"]})
    assert [found[name] for name in ("basis", "n_history", "unknown", "left_out")] == ["history", 2, ["nowhere"], []]
    shown = [item["item_id"] for item in found["items"]]
    whole = shared.shown(history=["film1", "film2"], exclude_seen=False)
    assert shown == [item_id for item_id in whole if item_id in wanted]
    kept = shared.state.store
    shared.state.shown.flush()
    first = kept.shown(found["request_id"])
    assert first is not None
    assert first.item_ids == tuple(shown)
    best = shared.post(
        "/v1/rankings", {"candidates": wanted, "history": ["film1", "film2"], "k": 2, "fields": ["title"]}
    )
    assert [item["item_id"] for item in best["items"]] == shown[:2]
    assert best["items"][0]["fields"] == {"title": best["items"][0]["title"]}
    nobody = shared.post("/v1/rankings", {"candidates": wanted, "user_id": "stranger"})
    assert (nobody["basis"], len(nobody["items"])) == ("popular", 4)


def test_candidates_posted_a_moment_ago_and_rules_count(own: Running) -> None:
    own.put("/v1/items/now", NEW_ITEM)
    own.post("/v1/events", {"user_id": "fresh", "item_id": "film1", "kind": "view"})
    asked = {"candidates": ["film1", "now", "film4"], "user_id": "fresh"}
    before = own.post("/v1/rankings", asked)
    assert (before["n_history"], len(before["items"]), before["unknown"]) == (1, 3, [])
    own.put("/v1/rules/hide", {"kind": "must_not_show", "item_ids": ["film4"]})
    own.post("/v1/events", {"user_id": "fresh", "item_id": "film1", "kind": "dismiss"})
    after = own.post("/v1/rankings", asked)
    assert ({item["item_id"] for item in after["items"]}, after["left_out"]) == ({"film1", "now"}, ["film4"])
    own.delete("/v1/items/now")
    assert own.post("/v1/rankings", asked)["unknown"] == ["now"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({}, 422, "candidates is missing"),
        ({"candidates": []}, 422, "at least 1 item"),
        ({"candidates": ["a"] * 1001}, 422, "at most 1000 items"),
        ({"candidates": ["film1"], "k": 0}, 422, "k is 0"),
        ({"candidates": ["film1"], "exclude_seen": True}, 422, "exclude_seen is not a field"),
        ({"candidates": ["nowhere", "never"]}, 404, "none of the 2 candidates ('nowhere', 'never')"),
    ],
)
def test_candidates_that_cannot_be_ranked(shared: Running, body: dict[str, Any], status: int, says: str) -> None:
    response = shared.client.post("/v1/rankings", json=body)
    assert response.status_code == status
    assert says in response.json()["error"]["message"]


def test_reasons_come_on_request(shared: Running) -> None:
    answer = shared.recommend(history=["film0", "film1", "film2"], k=3, explain=True)
    RecommendationAnswer.model_validate(answer)
    for item in answer["items"]:
        whole = shared.post(
            "/v1/explanations", {"item_id": item["item_id"], "history": ["film0", "film1", "film2"], "words": False}
        )
        told = {entry["item_id"]: entry["contribution"] for entry in item["reason"]["contributions"]}
        assert told == pytest.approx({e["item_id"]: e["contribution"] for e in whole["contributions"]}, abs=1e-4)
        assert item["reason"]["because"] == whole["because"]
    assert shared.recommend(k=1, explain=True)["items"][0]["reason"] == {"because": None, "contributions": []}


def test_a_batch_answers_in_order(shared: Running) -> None:
    questions = [{"history": ["film3"], "k": 2}, {"text": WORDS, "k": 3}, {"k": 1}]
    answers = shared.post("/v1/recommendations/batch", {"questions": questions})["answers"]
    assert [len(answer["items"]) for answer in answers] == [2, 3, 1]
    assert [answer["basis"] for answer in answers] == ["history", "text", "popular"]
    assert len({answer["request_id"] for answer in answers}) == 3


def test_words_that_somebody_asked_with_are_a_reason(shared: Running) -> None:
    for item in shared.recommend(text=WORDS, k=3, explain=True)["items"]:
        question = {"item_id": item["item_id"], "text": WORDS, "words": False}
        gave = shared.post("/v1/explanations", question)["text"]
        assert item["reason"] == {"because": f"because of '{WORDS}'" if gave > 0 else None, "contributions": []}
    twice = shared.recommend(history=["film0", "film1", "film0"], k=1, explain=True)["items"][0]["reason"]
    assert len({entry["item_id"] for entry in twice["contributions"]}) == len(twice["contributions"]) == 2


@pytest.mark.parametrize(
    ("path", "question"), [("similar", {"item_id": "film3", "k": 2}), ("search", {"words": WORDS, "k": 3})]
)
def test_many_questions_are_answered_as_each_alone(shared: Running, path: str, question: dict[str, Any]) -> None:
    other = {**question, "k": 1}
    answers = shared.post(f"/v1/{path}/batch", {"questions": [question, other]})["answers"]
    assert answers == [shared.post(f"/v1/{path}", one) for one in (question, other)]


def test_similar_and_search(shared: Running) -> None:
    item = shared.get("/v1/items/film5")
    similar = shared.post("/v1/similar", {"item_id": "film5", "k": 3})["items"]
    assert len(similar) == 3
    assert "film5" not in {entry["item_id"] for entry in similar}
    found = shared.post("/v1/search", {"words": item["title"], "k": 3})["items"]
    assert found[0]["item_id"] == "film5"
    assert len(shared.post("/v1/similar", {"text": WORDS, "k": 2})["items"]) == 2
    personal = shared.post("/v1/search", {"words": item["title"], "k": 3, "history": ["film0"]})["items"]
    assert "film5" in {entry["item_id"] for entry in personal}


def test_items_bring_the_columns_that_are_asked_for(shared: Running) -> None:
    ways: dict[str, dict[str, Any]] = {
        "/v1/recommendations": {"history": ["film3"]},
        "/v1/similar": {"item_id": "film3"},
        "/v1/search": {"words": WORDS},
    }
    for path, question in ways.items():
        plain = shared.post(path, {**question, "k": 3})["items"]
        assert all("fields" not in item and item["title"] for item in plain)
        for item in shared.post(path, {**question, "k": 3, "fields": ["*"]})["items"]:
            assert item["fields"] == shared.get(f"/v1/items/{item['item_id']}")["fields"]
        some = shared.post(path, {**question, "k": 3, "fields": ["description", "description"]})["items"]
        assert [list(item["fields"]) for item in some] == [["description"]] * 3
        wrong = shared.client.post(path, json={**question, "fields": ["descripton"]})
        assert wrong.status_code == 422
        assert "Did you mean 'description'?" in wrong.json()["error"]["message"]


def test_several_items_are_looked_up_at_once(shared: Running) -> None:
    found = shared.get("/v1/items", params={"item_id": ["film9", "nobody", "film2", "film9"]})
    assert [item["item_id"] for item in found["items"]] == ["film9", "film2"]
    assert found["total"] == 2
    assert shared.client.get("/v1/items", params={"item_id": "a\x00"}).status_code == 422


def test_an_explanation_adds_up(shared: Running) -> None:
    answer = shared.post("/v1/explanations", {"item_id": "film9", "history": ["film0", "film1", "film2"]})
    ExplanationAnswer.model_validate(answer)
    total = answer["base"] + sum(entry["contribution"] for entry in answer["contributions"])
    assert total == pytest.approx(answer["score"], abs=1e-3)
    assert [entry["item_id"] for entry in answer["contributions"]] == ["film0", "film1", "film2"]
    assert answer["words"]


# ---- wrong input

WRONG: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/v1/recommendations", b"{", 400, "json"),
    ("POST", "/v1/recommendations", b"\xff\xfe", 400, "json"),
    ("POST", "/v1/recommendations", b"[" * 100_000, 400, "json"),
    ("POST", "/v1/recommendations", b'{"k":' + b"9" * 5_000 + b"}", 400, "json"),
    ("POST", "/v1/recommendations", {"k": 0}, 422, "invalid"),
    ("POST", "/v1/recommendations", {"k": 5, "kk": 5}, 422, "invalid"),
    ("POST", "/v1/recommendations", {"user_id": "a\ud800"}, 422, "invalid"),
    ("POST", "/v1/recommendations", {"filter": {"yaer": 1}}, 422, "invalid"),
    ("POST", "/v1/recommendations/batch", {"questions": []}, 422, "invalid"),
    ("POST", "/v1/similar", {"item_id": "none such"}, 404, "not_found"),
    ("POST", "/v1/similar", {}, 422, "invalid"),
    ("POST", "/v1/search", {"words": ""}, 422, "invalid"),
    ("POST", "/v1/explanations", {"item_id": "none such"}, 404, "not_found"),
    ("POST", "/v1/events", {"events": [{"user_id": "u"}]}, 422, "invalid"),
    ("POST", "/v1/events", {"user_id": "u", "item_id": "i", "kind": "view", "time": 1e13}, 422, "invalid"),
    ("PUT", "/v1/items/x", {"title": "a", "colour": "red"}, 422, "invalid"),
    ("PUT", "/v1/items/x", {"title": "a", "item_id": "y"}, 422, "invalid"),
    ("PUT", "/v1/items/x", {}, 422, "invalid"),
    ("PUT", "/v1/items/", {"title": "a"}, 422, "invalid"),
    ("POST", "/v1/items", {"items": [{"item_id": "a", "title": "x"}, {"title": "y"}]}, 422, "invalid"),
    ("POST", "/v1/items", {"items": [{"item_id": "a/flag", "title": "x"}]}, 422, "invalid"),
    ("GET", "/v1/items/none-such", None, 404, "not_found"),
    ("GET", "/v1/items?limit=0", None, 422, "invalid"),
    ("POST", "/v1/items/none-such/flag", {"reason": "x"}, 404, "not_found"),
    ("POST", "/v1/reviews/film0", {"approved": True}, 404, "not_found"),
    ("PUT", "/v1/rules/r", {"kind": "boost", "item_ids": ["film0"], "factor": 0.5}, 422, "invalid"),
    ("PUT", "/v1/rules/r", {"kind": "must_not_show", "filter": {"yaer": 1}}, 422, "invalid"),
    ("DELETE", "/v1/rules/none-such", None, 404, "not_found"),
    ("GET", "/v1/rules/none-such", None, 404, "not_found"),
    ("DELETE", "/v1/keys/none-such", None, 404, "not_found"),
    ("POST", "/v1/keys", {"name": "shop", "scopes": ["read"]}, 409, "first_key"),
    ("POST", "/v1/generations/rollback", {"why": "x"}, 409, "run_folder"),
    ("GET", "/v1/experiments?days=0", None, 422, "invalid"),
    ("GET", "/v1/nothing", None, 404, "not_found"),
    ("GET", "/nothing", None, 404, "not_found"),
    ("PATCH", "/v1/items/film0", None, 405, "method"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_requests_get_the_error_shape(
    shared: Running, method: str, path: str, body: Any, status: int, code: str
) -> None:
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    response = shared.client.request(method, path, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == status, response.text
    (error,) = response.json().values()
    assert set(error) == {"code", "message"}
    assert error["code"] == code
    assert len(error["message"]) > 20
    assert response.headers["X-Request-ID"]
    if status == 405:
        assert response.headers["Allow"] == "DELETE, GET, PUT"


def test_a_body_without_its_type_is_told_how_to_come(shared: Running) -> None:
    response = shared.client.post("/v1/recommendations", content=b"{}")
    assert response.status_code == 422
    assert "Content-Type: application/json" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        ("recommendations", {"k": 1}, {"k": 1, "filter": {"none such": 1}}),
        ("search", {"words": "reef"}, {"words": "reef", "filter": {"none such": 1}}),
        ("similar", {"item_id": "film1"}, {"item_id": "nowhere"}),
    ],
)
def test_a_question_of_a_batch_that_does_not_fit_is_named(
    shared: Running, path: str, right: dict[str, Any], wrong: dict[str, Any]
) -> None:
    response = shared.client.post(f"/v1/{path}/batch", json={"questions": [right, wrong, right]})
    assert response.status_code == (404 if path == "similar" else 422)
    assert response.json()["error"]["message"].startswith("questions.1: ")


def test_a_blank_text_is_refused_in_words(shared: Running) -> None:
    response = shared.client.post("/v1/recommendations", json={"text": "   "})
    assert "it is blank or has a NUL character. Give a few words" in response.json()["error"]["message"]


def test_one_wrong_question_of_a_batch_is_named(shared: Running) -> None:
    response = shared.client.post("/v1/recommendations/batch", json={"questions": [{"k": 1}, {"k": 0}]})
    assert "questions.1.k is 0" in response.json()["error"]["message"]


def test_a_fault_of_ours_is_500_without_internals(own: Running, service_logs: io.StringIO) -> None:
    def defect(item_id: str) -> bool:
        raise KeyError("secret user")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(own.state.serving, "has_item", defect)
        response = own.client.post("/v1/events", json=event("e1", "film0", user_id="secret user"))
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "secret" not in response.text
    request_id = response.headers["X-Request-ID"]
    assert request_id in response.json()["error"]["message"]
    failures = [json.loads(line) for line in service_logs.getvalue().splitlines() if '"failure"' in line]
    assert any(line["request_id"] == request_id and line["error"] == "KeyError" for line in failures)
    assert "secret user" not in service_logs.getvalue()


# ---- items


def test_a_new_item_can_be_recommended_once_put_answers_and_never_once_deleted(own: Running) -> None:
    own.put("/v1/items/new", NEW_ITEM)
    assert own.get("/v1/items/new")["title"] == WORDS
    assert "new" in own.shown(history=["film0"])
    assert own.shown(text=f"{WORDS}. {NEW_ITEM['description']}", k=3).count("new") == 1
    assert own.get(f"/v1/items?query={WORDS}")["total"] == 1
    assert own.delete("/v1/items/new") == {"item_id": "new", "deleted": True}
    assert own.delete("/v1/items/new") == {"item_id": "new", "deleted": False}
    assert "new" not in own.shown(history=["film0"])
    assert own.client.get("/v1/items/new").status_code == 404


def test_a_changed_text_changes_what_an_item_is_like(own: Running) -> None:
    film1 = own.get("/v1/items/film1")["fields"]
    own.put("/v1/items/new", NEW_ITEM)
    before = own.post("/v1/similar", {"item_id": "film1", "k": 1})["items"][0]
    own.put("/v1/items/new", {"title": film1["title"], "description": film1["description"]})
    after = own.post("/v1/similar", {"item_id": "film1", "k": 40})["items"]
    scores = {item["item_id"]: item["score"] for item in after}
    assert scores["new"] != pytest.approx(before["score"] if before["item_id"] == "new" else -1)
    own.put("/v1/items/new", NEW_ITEM)
    again = {item["item_id"]: item["score"] for item in own.post("/v1/similar", {"item_id": "film1", "k": 40})["items"]}
    assert scores["new"] > again["new"]


def test_many_items_at_once_all_or_none(own: Running) -> None:
    batch = [{"item_id": f"n{at}", **NEW_ITEM} for at in range(20)]
    assert own.post("/v1/items", {"items": batch})["accepted"] == 20
    assert own.get("/readyz")["items"] == 52
    wrong = own.client.post(
        "/v1/items", json={"items": [{"item_id": "m1", **NEW_ITEM}, {"item_id": "m2", "colour": 1}]}
    )
    assert wrong.status_code == 422
    assert own.get("/readyz")["items"] == 52


def test_ids_may_hold_slashes_and_signs(own: Running) -> None:
    for item_id in ("a/b", "a b", "ä?#%", "50%2F"):
        path = f"/v1/items/{httpx.QueryParams({'x': item_id})}".replace("x=", "").replace("+", "%20")
        own.put(path, NEW_ITEM)
        assert own.get(path)["item_id"] == item_id
        assert item_id in own.shown()


# ---- events and users


def event(event_id: str, item_id: str, **more: Any) -> dict[str, Any]:
    return {"event_id": event_id, "user_id": "ann", "item_id": item_id, "kind": "click", **more}


def test_an_event_changes_the_next_recommendation_and_a_retry_counts_once(own: Running) -> None:
    assert own.recommend(user_id="ann", k=5)["basis"] == "popular"
    body = {"events": [event("e1", "film0"), event("e2", "film1"), event("e1", "film0")]}
    answer = own.post("/v1/events", body)
    assert (answer["accepted"], answer["duplicates"], answer["flagged"]) == (2, 1, {})
    assert (own.post("/v1/events", body)["accepted"], own.post("/v1/events", body)["duplicates"]) == (0, 3)
    now = own.recommend(user_id="ann", k=5)
    assert (now["basis"], now["n_history"]) == ("history", 2)
    assert now["items"] == own.recommend(history=["film0", "film1"], k=5)["items"]
    other = own.post("/v1/events", event("e3", "film7"))
    assert other["event_ids"] == ["e3"]
    assert own.recommend(user_id="ann", k=5)["items"] != now["items"]


def test_a_low_rating_ends_an_items_place_in_the_history(own: Running) -> None:
    own.post("/v1/events", event("e1", "film5"))
    assert own.get("/v1/users/ann")["history"] == ["film5"]
    own.post("/v1/events", {**event("e2", "film5", kind="rating"), "rating": 1})
    assert own.get("/v1/users/ann")["history"] == []
    assert "film5" not in own.shown(user_id="ann", exclude_seen=False)
    own.post("/v1/events", {**event("e3", "film5", kind="rating"), "rating": 5})
    assert "film5" in own.get("/v1/users/ann")["history"]


def test_a_weight_below_0_is_refused_with_what_to_send(own: Running) -> None:
    refused = own.client.post("/v1/events", json={**event("e1", "film5", kind="purchase"), "weight": -3})
    assert refused.status_code == 422
    assert "the weight -3 is below 0" in refused.json()["error"]["message"]
    assert "data.return_kinds" in refused.json()["error"]["message"]
    assert own.get("/v1/users/ann")["events"] == []


def test_old_lists_go_while_it_serves(run: Path) -> None:
    with running(run, keep_lists_days=2.0) as service:
        now = time.time()
        for request_id, age_days in (("old", 2.1), ("new", 1.9)):
            shown = Shown(request_id, "ann", "0", ("film1",), now - 86_400 * age_days, {})
            service.state.store.add_shown(shown)
        until(lambda: service.state.store.shown("old") is None)
        assert service.state.store.shown("new") is not None
        assert service.get("/v1/experiments?days=90")["since"] == pytest.approx(now - 2 * 86_400, abs=60)


def test_a_dismissed_item_is_not_shown_to_that_user(own: Running) -> None:
    own.post("/v1/events", event("e1", "film0"))
    own.post("/v1/events", event("e2", "film9", kind="dismiss"))
    assert "film9" not in own.shown(user_id="ann", exclude_seen=False)
    assert "film9" in own.shown(user_id="bob")


def test_another_worker_never_shows_what_is_deleted(run: Path) -> None:
    """Long before it looks for itself what has changed."""
    with running(run, workers=2, watch_s=600) as one, running(run, workers=2, watch_s=600) as other:
        for item in ("film1", "film2", "film3"):
            assert item in other.shown()
            one.delete(f"/v1/items/{item}")
            assert item not in other.shown()
            other.put(f"/v1/items/{item}", NEW_ITEM)
            assert one.post("/v1/similar", {"item_id": item, "k": 1})["items"]
        one.put("/v1/items/fresh", NEW_ITEM)
        assert other.post("/v1/events", event("e1", "fresh"))["flagged"] == {}
        one.put("/v1/items/fresher", NEW_ITEM)
        other.post("/v1/items/fresher/flag", {"reason": "look"})
        one.put("/v1/rules/r", {"kind": "must_not_show", "item_ids": ["film4"]})
        one.post("/v1/items/film5/flag", {"reason": "look"})
        assert not {"film4", "film5"} & set(other.shown())


def test_who_decides_at_the_same_time_as_another_is_answered(own: Running) -> None:
    def decide(approved: bool) -> list[int]:
        found = []
        for _ in range(15):
            own.client.post("/v1/items/film6/flag", json={"reason": "look"})
            answer = own.client.post("/v1/reviews/film6", json={"approved": approved})
            assert answer.status_code != 200 or answer.json()["status"] == ("approved" if approved else "rejected")
            found.append(answer.status_code)
        return found

    with ThreadPoolExecutor(3) as pool:
        assert {status for statuses in pool.map(decide, (True, False, True)) for status in statuses} == {200}


def test_odd_events_are_kept_and_flagged(own: Running) -> None:
    now = time.time()
    answer = own.post(
        "/v1/events",
        {
            "events": [
                event("e1", "unheard of"),
                event("e2", "film0", time=now - 40 * 86_400),
                event("e3", "film0", time="2099-01-01T00:00:00Z"),
            ]
        },
    )
    assert answer["accepted"] == 3
    assert answer["flagged"] == {"unknown_item": 1, "old_clock": 1, "future_clock": 1}
    assert own.get("/v1/users?query=nn") == {"user_ids": ["ann"], "total": 1}, "who came after the fit is found too"
    flags = {entry["event_id"]: entry["flags"] for entry in own.get("/v1/users/ann")["events"]}
    assert flags == {"e1": ["unknown_item"], "e2": ["old_clock"], "e3": ["future_clock"]}


def test_what_is_popular_follows_events(run: Path) -> None:
    with running(run, popularity_s=0.02) as service:
        loved = service.shown()[-1]
        for start in range(0, 2_000, 1_000):
            events = [event(f"e{start + at}", loved, user_id=f"u{start + at}") for at in range(1_000)]
            service.post("/v1/events", {"events": events})
        until(lambda: service.shown()[0] == loved)
        learnt = new_generation(run, "has learnt these events")
        update = {"store_seq": service.state.store.last_seq(), "items_version": 0}
        RunFolder(run / "generations" / learnt).update_record(update=update)
        promote(run, learnt, "test")
        until(lambda: service.get("/v1/generations")["serving"] == learnt)
        assert service.shown()[0] != loved, "its log says how popular they are (here, a copy: not at all)"


def test_all_that_is_held_of_a_user_is_shown_and_deleted(own: Running, world: Dataset) -> None:
    user = world.interactions.user_ids[0]
    own.post("/v1/events", event("e1", "film0", user_id=user))
    request_id = own.recommend(user_id=user, k=2, context={"page": "home"})["request_id"]
    until(lambda: bool(own.get(f"/v1/users/{user}")["shown"]))
    held = own.get(f"/v1/users/{user}")
    UserAnswer.model_validate(held)
    assert [entry["event_id"] for entry in held["events"]] == ["e1"]
    assert held["shown"][0]["request_id"] == request_id
    assert held["shown"][0]["context"]["page"] == "home"
    assert len(held["training_log"]) == int((world.interactions.user_idx == 0).sum())
    assert own.get(f"/v1/users?query={user}")["user_ids"][0] == user
    assert own.delete(f"/v1/users/{user}") == {"user_id": user, "events_removed": 1}
    gone = own.get(f"/v1/users/{user}")
    assert (gone["events"], gone["shown"], gone["training_log"], gone["history"]) == ([], [], [], [])
    assert gone["forgotten"] is not None
    assert own.recommend(user_id=user, k=2)["basis"] == "popular"


# ---- rules and reviews


def test_rules_are_in_force_as_soon_as_they_are_answered(own: Running) -> None:
    first = own.shown(history=["film0"])
    own.put("/v1/rules/hide", {"kind": "must_not_show", "item_ids": [first[0]]})
    assert first[0] not in own.shown(history=["film0"])
    own.put("/v1/rules/top", {"kind": "pin", "item_id": first[-1], "place": 1})
    pinned = own.recommend(history=["film0"], k=3)["items"][0]
    assert (pinned["item_id"], pinned["rule"]) == (first[-1], "top")
    own.put("/v1/rules/children", {"kind": "must_not_show", "item_ids": [first[1]], "segment": "children"})
    assert first[1] in own.shown(history=["film0"])
    assert first[1] not in own.shown(history=["film0"], segment="children")
    assert [rule["rule_id"] for rule in own.get("/v1/rules")["rules"]] == ["hide", "top", "children"]
    assert own.get("/v1/rules/hide")["rule"] == {"kind": "must_not_show", "item_ids": [first[0]]}
    for rule_id in ("hide", "top", "children"):
        own.delete(f"/v1/rules/{rule_id}")
    assert own.shown(history=["film0"]) == first
    actions = [entry["action"] for entry in own.get("/v1/audit")["entries"]]
    assert actions == ["delete_rule"] * 3 + ["put_rule"] * 3


def test_a_rules_file_is_read_again_and_a_broken_one_keeps_what_it_was(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[[rules]]\nid = "a"\nkind = "must_not_show"\nitem_ids = ["film1"]\n')
    with running(run, rules=file) as service:
        assert "film1" not in service.shown()
        assert service.client.put("/v1/rules/a", json={"kind": "in_stock", "field": "title"}).status_code == 409
        file.write_text('[[rules]]\nid = "a"\nkind = "must_not_show"\nitem_ids = ["film2", "film3"]\n')
        until(lambda: not {"film2", "film3"} & set(service.shown()) and "film1" in service.shown())
        file.write_text("nonsense")
        until(lambda: bool(service.get("/readyz")["problems"]))
        assert "film2" not in service.shown()
        file.write_text('[[rules]]\nid = "a"\nkind = "must_not_show"\nitem_ids = ["film4", "film5", "film6"]\n')
        until(lambda: not service.get("/readyz")["problems"])


def test_a_rule_of_the_file_stays_in_force_beside_one_of_its_name(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[[rules]]\nid = "b"\nkind = "must_not_show"\nitem_ids = ["film2"]\n')
    with running(run, rules=file) as service:
        service.client.put("/v1/rules/a", json={"kind": "must_not_show", "item_ids": ["film4"]}).raise_for_status()
        file.write_text('[[rules]]\nid = "a"\nkind = "must_not_show"\nitem_ids = ["film1"]\n')
        until(lambda: "film1" not in service.shown() and "film4" in service.shown())
        assert any("['a']" in problem for problem in service.get("/readyz")["problems"])
        service.delete("/v1/rules/a")
        until(lambda: not service.get("/readyz")["problems"])
        assert "film1" not in service.shown()
        assert service.client.delete("/v1/rules/a").status_code == 409


def test_rules_that_hide_everything_are_said(run: Path) -> None:
    with running(run) as service:
        everything = {"kind": "must_not_show", "item_ids": [f"film{n}" for n in range(32)]}
        service.put("/v1/rules/all", everything)
        assert service.shown() == []
        (problem,) = service.get("/readyz")["problems"]
        assert problem.startswith("every item is hidden")
        service.delete("/v1/rules/all")
        assert service.get("/readyz")["problems"] == []


def test_an_approval_goes_with_its_item(own: Running) -> None:
    """Other words under the same id are looked at again."""
    own.put("/v1/rules/words", {"kind": "block_words", "words": ["gore"], "review": True})
    own.put("/v1/items/film1", {"title": "a little gore"})
    own.post("/v1/reviews/film1", {"approved": True})
    everything = {"k": 200, "exclude_seen": False}
    assert "film1" in own.shown(**everything)
    own.delete("/v1/items/film1")
    own.put("/v1/items/film1", {"title": "killer whale gore"})
    assert "film1" not in own.shown(**everything)
    own.post("/v1/items/film2/flag", {"reason": "look"})
    own.delete("/v1/items/film2")
    own.post("/v1/reviews/film2", {"approved": True})  # of an item that is gone
    own.put("/v1/items/film2", {"title": "more gore"})
    assert "film2" not in own.shown(**everything)
    assert [row["status"] for row in own.get("/v1/reviews")["reviews"]] == ["waiting"] * 2


def test_flagged_items_wait_until_somebody_decides(own: Running) -> None:
    review = own.post("/v1/items/film3/flag", {"reason": "have a look"})
    assert (review["status"], review["flagged_by"]) == ("waiting", "local")
    assert "film3" not in own.shown()
    assert [entry["item_id"] for entry in own.get("/v1/reviews")["reviews"]] == ["film3"]
    own.post("/v1/reviews/film3", {"approved": False, "note": "no"})
    assert "film3" not in own.shown()
    decided = own.post("/v1/reviews/film3", {"approved": True, "note": "fine"})
    assert (decided["status"], decided["note"], decided["decided_by"]) == ("approved", "fine", "local")
    assert "film3" in own.shown()
    assert own.get("/v1/reviews")["reviews"] == []
    actions = [entry["action"] for entry in own.get("/v1/audit")["entries"]]
    assert actions == ["approve_item", "reject_item", "flag_item"]


def test_items_that_a_rule_holds_back_join_the_queue(own: Running) -> None:
    own.put("/v1/rules/words", {"kind": "block_words", "words": ["reef"], "review": True})
    own.put("/v1/items/new", NEW_ITEM)
    waiting = {entry["item_id"]: entry["flagged_by"] for entry in own.get("/v1/reviews")["reviews"]}
    assert waiting["new"] == "rule words"
    assert "new" not in own.shown()
    own.post("/v1/reviews/new", {"approved": True})
    assert "new" in own.shown()


def test_an_approval_is_of_the_words_and_the_rules_of_its_time(own: Running) -> None:
    own.put("/v1/rules/words", {"kind": "block_words", "words": ["reef"], "review": True})
    own.put("/v1/items/new", NEW_ITEM)
    own.post("/v1/reviews/new", {"approved": True})
    own.put("/v1/items/new", NEW_ITEM)
    assert "new" in own.shown(), "the same words"
    own.put("/v1/items/new", {**NEW_ITEM, "title": "Another reef"})
    assert "new" not in own.shown()
    own.post("/v1/reviews/new", {"approved": True})
    own.put("/v1/rules/vines", {"kind": "block_words", "words": ["vine"], "review": True})
    assert "new" not in own.shown(), "who approved it knew no rule of vines"
    assert {"new": "rule vines"}.items() <= queue(own).items()


def test_a_decision_made_while_the_queue_is_looked_through_stands(
    own: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reading of what was decided and the queueing of what a rule holds back, a person approves."""
    serving = own.state.serving
    own.put("/v1/rules/words", {"kind": "block_words", "words": ["reef"], "review": True})
    own.put("/v1/items/new", NEW_ITEM)
    read = serving._held

    def approved_meanwhile() -> dict[str, str]:
        monkeypatch.undo()
        held = read()
        own.state.store.decide_item("new", True, "eve", "")
        return held

    monkeypatch.setattr(serving, "_held", approved_meanwhile)
    serving.sync_reviews()
    until(lambda: own.state.store.reviews("approved") != [])
    serving.sync_reviews()
    assert "new" in own.shown()
    assert "new" not in queue(own)


def test_what_no_rule_holds_back_any_more_waits_no_longer(own: Running) -> None:
    own.put("/v1/items/new", NEW_ITEM)
    own.post("/v1/items/film3/flag", {"reason": "have a look"})
    everything = set(own.shown())
    own.put("/v1/rules/words", {"kind": "block_words", "words": ["tale", "reef"], "review": True})
    assert len(queue(own)) > 2
    own.put("/v1/items/new", {"title": "Something else", "description": "quite harmless"})
    assert "new" in own.shown()
    own.delete("/v1/rules/words")
    assert set(own.shown()) == everything
    assert queue(own) == {"film3": "local"}, "what a person flagged, a person decides on"
    assert "release_item" in {entry["action"] for entry in own.get("/v1/audit")["entries"]}


def queue(own: Running) -> dict[str, str]:
    return {entry["item_id"]: entry["flagged_by"] for entry in own.get("/v1/reviews")["reviews"]}


def test_rules_of_a_segment_hold_wherever_items_are_asked_for(own: Running) -> None:
    words = own.get("/v1/items/film5")["title"]
    own.put("/v1/rules/kids", {"kind": "must_not_show", "item_ids": ["film5"], "segment": "kids"})
    for path, question in (("/v1/search", {"words": words}), ("/v1/similar", {"text": words})):
        for segment, there in ((None, True), ("kids", False)):
            found = own.post(path, {**question, "k": 40, "segment": segment})["items"]
            assert ("film5" in {item["item_id"] for item in found}) == there
    question = {"item_id": "film5", "history": ["film0"], "words": False}
    assert own.post("/v1/explanations", question)["place"] is not None
    assert own.post("/v1/explanations", {**question, "segment": "kids"})["place"] is None


def test_deletes_are_in_the_audit(own: Running) -> None:
    own.delete("/v1/items/film3")
    newest = own.get("/v1/audit")["entries"][0]
    assert (newest["action"], newest["target"], newest["actor"]) == ("delete_item", "film3", "local")


# ---- keys


def key(run: Path, *scopes: Scope) -> dict[str, str]:
    with Store.open(default_store(run)) as store:
        return {"Authorization": f"Bearer {store.add_key('test', scopes)}"}


def test_keys_have_scopes(run: Path) -> None:
    keys = {scope: key(run, scope) for scope in SCOPES}
    asks: list[tuple[str, str, Any, set[str]]] = [
        ("POST", "/v1/recommendations", {"k": 1}, {"read", "admin"}),
        ("GET", "/v1/items/film0", None, {"read", "admin"}),
        ("GET", "/metrics", None, {"read", "admin"}),
        ("GET", "/v1/stats", None, {"read", "admin"}),
        ("POST", "/v1/events", event("e1", "film0"), {"events", "admin"}),
        ("PUT", "/v1/items/x", NEW_ITEM, {"admin"}),
        ("GET", "/v1/users/ann", None, {"admin"}),
        ("GET", "/v1/rules", None, {"admin"}),
        ("GET", "/v1/audit", None, {"admin"}),
        ("GET", "/v1/keys", None, {"admin"}),
    ]
    with running(run) as service:
        for method, path, body, allowed in asks:
            for scope, header in keys.items():
                response = service.client.request(method, path, json=body, headers=header)
                assert response.status_code == (200 if scope in allowed else 403), (path, scope, response.text)
            for headers in ({}, {"Authorization": "Bearer lmrec_wrong"}, {"Authorization": "Basic abc"}):
                response = service.client.request(method, path, json=body, headers=headers)
                assert response.status_code in (401, 429), path
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert service.client.get(path).status_code == 200


def test_guessing_keys_is_slowed_down(run: Path) -> None:
    good = key(run, "read")
    with running(run) as service:
        codes = [
            service.client.get("/v1/stats", headers={"Authorization": f"Bearer {at}"}).status_code for at in range(30)
        ]
        assert codes[:10] == [401] * 10
        assert 429 in codes
        until(lambda: service.client.get("/v1/stats", headers=good).status_code == 200)


def test_keys_are_made_listed_and_revoked_by_the_api(own: Running) -> None:
    admin = own.post("/v1/keys", {"name": "boss", "scopes": ["admin"]})
    assert own.client.get("/v1/keys").status_code == 401, "from the first key on, everybody needs one"
    header = {"Authorization": f"Bearer {admin['secret']}"}
    shop = own.post("/v1/keys", {"name": "shop", "scopes": ["read"]}, headers=header)
    shop_header = {"Authorization": f"Bearer {shop['secret']}"}
    assert own.client.get("/v1/items", headers=shop_header).status_code == 200
    listed = own.get("/v1/keys", headers=header)["keys"]
    assert [(entry["name"], entry["scopes"]) for entry in listed] == [("boss", ["admin"]), ("shop", ["read"])]
    assert admin["secret"] not in json.dumps(listed)
    assert own.client.delete(f"/v1/keys/{shop['key_id']}", headers=header).json()["revoked"] is True
    assert own.client.get("/v1/items", headers=shop_header).status_code == 401


def test_without_keys_a_stranger_by_name_is_refused(shared: Running) -> None:
    response = shared.client.get("/v1/items", headers={"Host": "shop.example"})
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "no_keys"
    assert "access-control-allow-origin" not in shared.client.get("/v1/items", headers={"Origin": "http://x"}).headers


# ---- bounds


def test_too_large_and_too_fast(run: Path) -> None:
    with running(run, limits=Limits(max_body_bytes=2_000, rate_per_s=0.01, rate_burst=5)) as service:
        response = service.client.post("/v1/recommendations", json={"history": ["film0"] * 900})
        assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")
        codes = [service.client.get("/v1/items/film0").status_code for _ in range(8)]
        assert codes == [200] * 4 + [429] * 4
        assert int(service.client.get("/v1/items/film0").headers["Retry-After"]) > 1
        assert service.client.get("/healthz").status_code == 200


def test_when_full_it_says_so_and_recovers(run: Path) -> None:
    with running(run, limits=Limits(max_in_flight=4, max_waiting=2)) as service:
        answers = at_once(24, lambda: service.client.post("/v1/recommendations", json={"text": WORDS, "explain": True}))
        codes = {response.status_code for response in answers}
        assert 200 in codes
        assert codes <= {200, 503}
        assert all("Retry-After" in response.headers for response in answers if response.status_code == 503)
        assert service.recommend(k=1)["items"]


def test_a_full_service_is_alive_all_the_same(run: Path) -> None:
    """Sockets that promise a body and never send it take all places, and none of those that ask whether it lives."""
    with running(run, limits=Limits(max_in_flight=3, body_timeout_s=60.0)) as service:
        port = service.client.base_url.port
        head = b"POST %s HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
        with ExitStack() as stack:

            def promise(path: bytes) -> None:
                one = stack.enter_context(socket.create_connection(("127.0.0.1", int(port or 0))))
                one.sendall(head % path)

            for n in range(3):
                promise(b"/v1/events")
                until(lambda n=n: service.state.in_flight.count == n + 1)  # type: ignore[misc]
            for path in (b"/healthz", b"/") * 5:
                promise(path)
            assert service.client.get("/v1/items/film0").status_code == 503
            assert service.client.get("/healthz").status_code == 200
            assert service.get("/readyz")["status"] == "ready"


def at_once(n: int, ask: Callable[[], httpx.Response]) -> list[httpx.Response]:
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(ask())) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# ---- faults, restarts, generations


def test_a_restart_keeps_events_items_deletes_rules_and_reviews(run: Path) -> None:
    with running(run) as service:
        service.put("/v1/items/new", NEW_ITEM)
        service.delete("/v1/items/film1")
        service.post("/v1/events", {"events": [event("e1", "film0"), event("e2", "new")]})
        service.put("/v1/rules/hide", {"kind": "must_not_show", "item_ids": ["film2"]})
        service.post("/v1/items/film3/flag", {"reason": "look"})
        before = service.recommend(user_id="ann", k=20)
    with running(run) as service:
        after = service.recommend(user_id="ann", k=20)
        assert [item["item_id"] for item in after["items"]] == [item["item_id"] for item in before["items"]]
        assert after["n_history"] == 2
        assert "new" in service.shown()
        assert not {"film1", "film2", "film3"} & set(service.shown())
        assert service.client.get("/v1/items/film1").status_code == 404
        assert service.post("/v1/events", event("e1", "film0"))["duplicates"] == 1


def test_a_store_that_is_gone_is_503_and_nothing_is_acknowledged(own: Running, run: Path) -> None:
    file = run / "service" / "store.db"
    file.rename(file.with_name("away.db"))
    for response in (
        own.client.post("/v1/events", json=event("e1", "film0")),
        own.client.put("/v1/items/new", json=NEW_ITEM),
        own.client.get("/readyz"),
    ):
        assert response.status_code == 503
        assert str(run) not in response.text
    assert "new" not in own.shown()
    assert not file.exists(), "nobody made an empty store in its place, which would share the log of the old one"
    file.with_name("away.db").rename(file)
    assert own.post("/v1/events", event("e1", "film0"))["accepted"] == 1
    assert own.get("/readyz")["status"] == "ready"


def test_generations_are_swapped_under_load_without_a_failed_request(own: Running, run: Path) -> None:
    own.put("/v1/items/new", NEW_ITEM)
    name = new_generation(run)
    stop = threading.Event()
    failures: list[str] = []
    served: set[str] = set()

    def load() -> None:
        with httpx.Client(base_url=own.client.base_url, timeout=30) as client:
            while not stop.is_set():
                response = client.post("/v1/recommendations", json={"history": ["film0"], "k": 40})
                if response.status_code != 200 or "new" not in response.text:
                    failures.append(response.text)
                else:
                    served.add(response.json()["generation"])

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: "0" in served)
        for _ in range(3):
            promote(run, name, "better")
            until(lambda: own.recommend(k=1)["generation"] == name)
            answer = own.post("/v1/generations/rollback", {"why": "it was not"})
            assert answer == {"generation": "0", "before": name}
            assert own.recommend(k=1)["generation"] == "0", "in force once it is answered"
        until(lambda: served == {"0", name})
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert own.get("/v1/audit")["entries"][0]["action"] == "rollback"
    generations = own.get("/v1/generations")["generations"]
    assert [(entry["name"], entry["serving"]) for entry in generations] == [("0", True), (name, False)]


def test_a_broken_generation_is_not_served_and_is_reported(own: Running, run: Path) -> None:
    name = new_generation(run)
    weights = run / "generations" / name / "checkpoint" / "towers.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    promote(run, name, "damaged on its way")
    until(lambda: own.get("/v1/generations")["problem"] is not None)
    assert own.recommend(k=3)["generation"] == "0"
    assert own.get("/readyz")["problems"]
    rollback(run, "by hand")
    until(lambda: own.get("/v1/generations")["problem"] is None)


def test_experiments_count_lists_that_led_to_something(own: Running) -> None:
    ids = [own.recommend(history=["film0"], k=3) for _ in range(4)]
    own.post("/v1/events", event("e1", ids[0]["items"][0]["item_id"], request_id=ids[0]["request_id"]))
    until(lambda: own.get("/v1/experiments")["generations"][0]["lists"] == 4)
    (found,) = own.get("/v1/experiments")["generations"]
    assert (found["generation"], found["lists_with_success"], found["rate"]) == ("0", 1, 0.25)


def test_stats_for_the_console(own: Running) -> None:
    own.recommend(k=3)
    stats = own.get("/v1/stats")
    Stats.model_validate(stats)
    assert (stats["items"], stats["users_in_log"], stats["cold_share"]) == (32, 60, 1.0)
    assert "title" in stats["columns"]
    assert any(entry["route"] == "POST /v1/recommendations" for entry in stats["times"])
    assert not any("/readyz" in entry["route"] for entry in stats["times"])  # which was asked while it loaded


def test_logs_hold_no_personal_data(own: Running, service_logs: io.StringIO) -> None:
    own.post("/v1/events", event("ev-secret", "film0", user_id="user-secret"))
    own.recommend(user_id="user-secret", text="text secret words", k=1)
    own.get("/v1/users/user-secret")
    own.client.get("/v1/items?query=query-secret")
    text = service_logs.getvalue()
    assert '"/v1/users/{user_id}"' in text
    assert "secret" not in text.replace("secret user", "")


# ---- the command


@contextmanager
def served_by_command(run: Path, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    command = [sys.executable, "-m", "lmrec.cli.app", "serve", str(run), "--port", "0", *more]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    said = run / "said.txt"
    with said.open("wb") as stream:
        process = subprocess.Popen(command, stderr=stream, env=environment)

    def address() -> str:
        assert process.poll() is None, said.read_text()
        first = said.read_text().partition("\n")
        return first[0].removeprefix(f"Serving {run} at ") if first[1] else ""

    def ready() -> bool:
        return bool(address()) and httpx.get(f"{address()}/readyz", timeout=60).status_code == 200

    try:
        until(ready, 60)
        yield process, address()
    finally:
        process.kill()
        process.wait(10)


def test_a_kill_loses_nothing_acknowledged_and_a_stop_drains(run: Path) -> None:
    with served_by_command(run) as (process, address):
        with httpx.Client(base_url=address, timeout=60) as client:
            events = [event(f"e{at}", f"film{at}") for at in range(20)]
            assert client.post("/v1/events", json={"events": events}).json()["accepted"] == 20
            assert client.put("/v1/items/new", json=NEW_ITEM).status_code == 200
            assert client.delete("/v1/items/film30").status_code == 200
        process.kill()
        process.wait(10)
    with served_by_command(run) as (process, address):
        with httpx.Client(base_url=address, timeout=60) as client:
            held = client.get("/v1/users/ann").json()
            assert {entry["event_id"] for entry in held["events"]} == {f"e{at}" for at in range(20)}
            assert client.get("/v1/items/new").status_code == 200
            assert client.get("/v1/items/film30").status_code == 404
            words = {"text": WORDS, "k": 1}  # until the language model is loaded, which a busy machine takes long for
            until(lambda: client.post("/v1/recommendations", json=words).status_code == 200, 60)
        questions = {"questions": [{"text": f"{WORDS} {at}", "k": 5, "explain": True} for at in range(24)]}
        answers: list[int] = []
        asking = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{address}/v1/recommendations/batch", json=questions, timeout=60).status_code
            )
        )
        asking.start()
        until(lambda: "lmrec_in_flight 2.0" in httpx.get(f"{address}/metrics").text or bool(answers))
        process.send_signal(signal.SIGTERM)
        asking.join(60)
        assert answers == [200], "what was begun is finished"
        assert process.wait(30) == 0


def test_a_rollback_that_cannot_be_noted_or_followed_is_done_all_the_same(
    run: Path, service_logs: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that was told otherwise would go one further back."""
    promote(run, new_generation(run, "one"), "better")
    promote(run, new_generation(run, "two"), "better still")
    with running(run, retry_s=0.1) as service:
        store = Path(service.state.store.where.removeprefix("sqlite:///"))
        monkeypatch.setattr(service.state.keys, "knows_whether_keys", lambda: False)  # else it is asked, and is away
        store.rename(store.with_name("away.db"))
        service.state.store._database._reads.dispose()  # what is open already would still read the file that was moved
        answer = service.post("/v1/generations/rollback", {"why": "worse"})
        assert (answer["before"], answer["generation"]) == ("0002", "0001")
        assert "was moved, deleted or replaced" in service_logs.getvalue()
        store.with_name("away.db").rename(store)
        until(lambda: service.get("/v1/generations")["serving"] == "0001")


def test_workers_share_what_is_known_and_one_that_dies_comes_again(run: Path) -> None:
    with served_by_command(run, "--workers", "2") as (process, address):

        def ask(method: str, path: str, body: Any = None) -> Any:
            """By a connection of its own, which either worker may take; one that loads still is asked again."""
            while (answer := httpx.request(method, f"{address}{path}", json=body, timeout=60)).status_code == 503:
                time.sleep(0.1)
            return answer.raise_for_status().json()

        def children() -> list[int]:
            tasks = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            return [int(one) for one in tasks if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]

        until(lambda: len(children()) == 2)
        everything = {"k": 200, "exclude_seen": False}
        for item in ("film1", "film2"):
            ask("DELETE", f"/v1/items/{item}")
            for _ in range(6):
                shown = ask("POST", "/v1/recommendations", everything)["items"]
                assert item not in {one["item_id"] for one in shown}
        first = children()
        os.kill(first[0], signal.SIGKILL)
        until(lambda: len(now := children()) == 2 and now != first, 120)  # a minute, where it died while it was asked
        assert ask("POST", "/v1/recommendations", {"k": 1})["items"]
        until(lambda: "died" in (run / "said.txt").read_text())  # lines are written a moment later
        left = children()
        process.kill()

    def lives(pid: int) -> bool:
        try:
            return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # nothing of one that nobody has asked after
        except FileNotFoundError:
            return False

    until(lambda: not any(map(lives, left)), 60)


def test_a_parent_that_stops_lets_nobody_in_any_more(run: Path) -> None:
    """Its workers have closed their ends; at its own one who comes late would wait for nobody until all have drained."""
    with _ending_well(), listen("127.0.0.1", 0) as listening:
        address = listening.getsockname()
        parent = _Workers(_config("lmrec.service.serve:worker_app", ServiceSettings.for_run(run)), sockets=[listening])
        socket.create_connection(address).close()
        parent.terminate_all()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)


def test_what_cannot_be_served_is_said_before_listening(run: Path, tmp_path: Path) -> None:
    settings = ServiceSettings.for_run(run)
    with pytest.raises(InputError, match="lmrec keys RUN add"):
        check_settings(settings.model_copy(update={"host": "0.0.0.0"}))
    with pytest.raises(RunFolderError, match="no run folder"):
        check_settings(ServiceSettings.for_run(tmp_path / "none"))
    with pytest.raises(InputError, match="is no URL"):
        check_settings(ServiceSettings.for_run(run, "nonsense"))
    key(run, "read")
    check_settings(settings.model_copy(update={"host": "0.0.0.0"}))
    with (
        listen("127.0.0.1", 0) as taken,
        pytest.raises(InputError, match="cannot be listened at"),
        listen("127.0.0.1", taken.getsockname()[1]),
    ):
        pytest.fail("the port was taken")


def test_a_generation_that_cannot_be_loaded_ends_the_command_with_the_reason(run: Path) -> None:
    weights = run / "checkpoint" / "towers.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    said: list[str] = []
    with pytest.raises(RunFolderError, match="towers.safetensors"):
        serve(ServiceSettings.for_run(run, port=0), said.append)
    assert said[0].startswith("http://127.0.0.1:")
    for thread in threading.enumerate():
        if thread.name == "lmrec-last-resort":  # cancelled, it ends at its next look; else it would end whoever called
            thread.join(5)
            assert not thread.is_alive()


def test_keys_generations_and_rollback_by_command(run: Path) -> None:
    from typer.testing import CliRunner

    from lmrec.cli.app import app

    def invoke(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == code, result.output
        return result.output

    assert "only this machine" in invoke("keys", str(run), "list")
    made = invoke("keys", str(run), "add", "shop", "--scope", "read", "--scope", "events")
    assert "lmrec_" in made
    (row,) = json.loads(invoke("keys", str(run), "list", "--json"))["keys"]
    assert (row["name"], row["scopes"], row["revoked"]) == ("shop", ["read", "events"], None)
    assert "reed" in invoke("keys", str(run), "add", "x", "--scope", "reed", code=2)
    invoke("keys", str(run), "revoke", row["key_id"])
    invoke("keys", str(run), "revoke", row["key_id"], code=2)
    assert "(revoked)" in invoke("keys", str(run), "list")

    invoke("rollback", str(run), code=2)
    name = new_generation(run, "better by a mile")
    promote(run, name, "better")
    assert f"{name} (served)" in invoke("generations", str(run))
    assert "generation 0 is served" in invoke("rollback", str(run), "--why", "worse")
    with Store.open(default_store(run)) as store:
        (note,) = [row for row in store.audit(10) if row.action == "rollback"]
    assert (note.actor, note.target, note.detail) == ("command line", "0", {"why": "worse"})
    promote(run, name, "better")
    away = f"sqlite:///{run / 'no' / 'such' / 'store.db'}"
    invoke("rollback", str(run), "--store", away, code=2)
    assert f"{name} (served)" in invoke("generations", str(run)), "nothing has changed"
    invoke("rollback", str(run))
    listed = json.loads(invoke("generations", str(run), "--json"))["generations"]
    assert [entry["serving"] for entry in listed] == [True, False]


def test_all_scopes_are_the_stores(fitted: Path) -> None:
    from lmrec.feedback.keys import SCOPES as KEPT

    known: Sequence[str] = KEPT
    assert tuple(SCOPES) == tuple(known)
