"""The clients against a real service and against its OpenAPI."""

import asyncio
import inspect
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import httpx
import pytest

from lmrec.client import ApiError, AsyncClient, Client, UnreachableError, calls, questions
from lmrec.client.calls import Call
from lmrec.feedback.keys import SCOPES
from lmrec.feedback.reviews import ReviewStatus
from lmrec.service.settings import Limits

from .running import NEW_ITEM, WORDS, Running, new_generation, running

pytestmark = pytest.mark.usefixtures("service_logs")

ENDED_BY_PROMETHEUS = {("GET", "/metrics")}  # read by other programs than this client


@pytest.fixture(scope="module")
def service(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    run = Path(shutil.copytree(fitted, tmp_path_factory.mktemp("asked") / "run"))
    new_generation(run)
    with running(run) as found:
        yield found


@pytest.fixture
def client(service: Running) -> Iterator[Client]:
    with Client(str(service.client.base_url)) as found:
        yield found


def test_a_shop_recommends_and_tells_what_followed(client: Client) -> None:
    answer = client.recommend("visitor", history=["film1", "film2"], k=4, fields=["*"], context={"page": "home"})
    assert (len(answer.items), answer.basis, answer.n_history) == (4, "history", 2)
    assert answer.items[0].fields is not None
    kept = client.send_event("visitor", answer.items[0].item_id, "click", request_id=answer.request_id)
    assert (kept.accepted, kept.duplicates) == (1, 0)
    again = client.send_events(
        [{"event_id": kept.event_ids[0], "user_id": "visitor", "item_id": "film1", "kind": "view"}]
    )
    assert (again.accepted, again.duplicates) == (0, 1)
    assert client.recommend("visitor", k=1).basis == "history"
    ranked = client.rank(["film7", "film3", "gone"], user_id="visitor", context={"page": "home"})
    assert ({item.item_id for item in ranked.items}, ranked.unknown) == ({"film7", "film3"}, ["gone"])
    first, second = client.recommend_many([{"text": WORDS, "k": 2}, {"user_id": "visitor", "explain": True}])
    assert first.basis == "text"
    assert second.items[0].reason is not None
    held = client.export_user("visitor")
    assert [event.event_id for event in held.events] == kept.event_ids
    assert client.forget_user("visitor").events_removed == 1


def test_likeness_search_and_reasons(client: Client) -> None:
    assert len(client.similar(item_id="film1", k=3).items) == 3
    assert len(client.similar(text=WORDS, k=2).items) == 2
    title = client.get_item("film5").title
    pair = client.similar_many([{"item_id": "film1", "k": 1}, {"text": WORDS, "k": 2}])
    assert [len(found.items) for found in pair] == [1, 2]
    assert client.search_many([{"words": title, "k": 1}])[0].items[0].item_id == "film5"
    assert client.search(title, k=2).items[0].item_id == "film5"
    found = client.explain("film9", history=["film0", "film1"], words=False)
    assert found.base + sum(entry.contribution for entry in found.contributions) == pytest.approx(found.score, abs=1e-4)
    asked = client.explain("film9", text=WORDS)
    assert asked.base + (asked.text or 0) == pytest.approx(asked.score, abs=1e-4)
    assert [entry.word for entry in asked.text_words] == WORDS.split()


def test_the_catalog_rules_reviews_and_the_audit(client: Client) -> None:
    assert client.put_item("a/b", **NEW_ITEM).item_id == "a/b"
    assert client.get_items(["a/b", "nobody"])[0].title == WORDS
    assert client.put_items([{"item_id": "n1", **NEW_ITEM}, {"item_id": "n2", **NEW_ITEM}]).accepted == 2
    assert client.browse_items(WORDS, limit=2).total == 3
    assert client.flag_item("n1", "odd").status == "waiting"
    assert [review.item_id for review in client.list_reviews()] == ["n1"]
    assert client.decide("n1", approved=True, note="fine").status == "approved"
    assert client.put_rule("hide", kind="must_not_show", item_ids=["n2"]).rule["item_ids"] == ["n2"]
    assert client.get_rule("hide").source == "api"
    assert [rule.rule_id for rule in client.list_rules()] == ["hide"]
    assert client.delete_rule("hide").deleted
    assert client.delete_item("a/b").deleted
    assert [entry.action for entry in client.audit(2)] == ["delete_item", "delete_rule"]


def test_generations_experiments_and_numbers(client: Client) -> None:
    assert [one.name for one in client.generations().generations] == ["0", "0001"]
    assert client.start_experiment("first", "0001", share=0.3).in_force
    assert client.read_experiment("first").split is not None
    assert not client.end_experiment("first", "enough", promote=True).running
    assert client.ready().generation == "0001"
    assert client.roll_back("no better").generation == "0"
    assert [one.name for one in client.list_experiments().experiments] == ["first"]
    assert client.stats().items > 0
    assert client.alive().status == "alive"
    assert client.find_users(limit=3).total > 3


def test_asyncio_has_the_same_methods_and_many_under_way(service: Running) -> None:
    async def scene() -> list[int]:
        async with AsyncClient(str(service.client.base_url)) as client:
            asked = (client.recommend(history=["film1"], k=k) for k in range(1, 9))
            with pytest.raises(ApiError, match="no item"):
                await client.get_item("nobody")
            return [len(answer.items) for answer in await asyncio.gather(*asked)]

    assert asyncio.run(scene()) == list(range(1, 9))
    waits, awaits = (
        {name: get_type_hints(method) for name, method in _methods(kind)} for kind in (Client, AsyncClient)
    )
    assert waits == awaits


def test_refusals_have_the_services_words(client: Client, service: Running) -> None:
    with pytest.raises(ApiError, match="'nobody'") as refused:
        client.get_item("nobody")
    assert (refused.value.status, refused.value.code) == (404, "not_found")
    assert refused.value.request_id
    with pytest.raises(ApiError, match="k is 0") as wrong:
        client.recommend(k=0)
    assert wrong.value.status == 422
    with (
        pytest.raises(UnreachableError, match="Is the service running there"),
        Client("http://127.0.0.1:9", retries=0) as off,
    ):
        off.alive()


def test_keys_are_sent(fitted: Path, tmp_path: Path) -> None:
    with running(Path(shutil.copytree(fitted, tmp_path / "run"))) as service:
        address = str(service.client.base_url)
        with Client(address) as first:
            secret = first.make_key("ops", ["admin"]).secret
        with Client(address) as stranger, pytest.raises(ApiError) as refused:
            stranger.recommend(k=1)
        assert refused.value.status == 401
        with Client(address, key=secret) as ops:
            shop = ops.make_key("shop", ["read"])
            assert {key.name for key in ops.list_keys()} == {"ops", "shop"}
            with Client(address, key=shop.secret) as reader, pytest.raises(ApiError, match="scope"):
                reader.delete_item("film1")
            assert ops.revoke_key(shop.key_id).revoked


def test_busy_is_waited_for_and_lost_answers_are_asked_for_again(fitted: Path, tmp_path: Path) -> None:
    """A network that loses the first answer of everything, and a service that is full once."""

    class Losing(httpx.HTTPTransport):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[str] = []

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            self.asked.append(request.url.path)
            response = super().handle_request(request)
            if self.asked.count(request.url.path) == 1:
                response.read()
                raise httpx.ReadTimeout("the answer was lost on its way", request=request)
            return response

    limits = Limits(rate_per_s=2.0, rate_burst=3)
    with running(Path(shutil.copytree(fitted, tmp_path / "run")), limits=limits) as service:
        transport = Losing()
        http = httpx.Client(base_url=service.client.base_url, transport=transport)
        client = Client(http=http)
        kept = client.send_event("ann", "film1", "click")
        assert (kept.accepted, kept.duplicates) == (0, 1), "it was counted the first time, and once"
        assert len(client.export_user("ann").events) == 1
        assert transport.asked == ["/v1/events"] * 2 + ["/v1/users/ann"] * (len(transport.asked) - 2)
        for _ in range(4):
            client.export_user("ann")  # beyond the rate: told to wait, and waits
        with pytest.raises(UnreachableError):
            client.roll_back("asking twice would go back twice")
        http.close()


def test_every_operation_and_every_word_of_the_api_is_there(service: Running) -> None:
    schema = service.get("/openapi.json")
    described = {(method.upper(), path) for path, all_ in schema["paths"].items() for method in all_}
    made = {(call.method, call.template) for call in _every_call()}
    assert made == described - ENDED_BY_PROMETHEUS
    named: dict[str, tuple[Any, set[str]]] = {
        "RecommendationQuestion": (questions.Question, set()),
        "RankingQuestion": (questions.Ranking, {"candidates"}),
        "SimilarQuestion": (questions.Likeness, set()),
        "SearchQuestion": (questions.Searching, {"words"}),
        "ExplanationQuestion": (questions.Explaining, {"item_id"}),
        "EventIn": (questions.Event, set()),
    }
    for name, (kind, first) in named.items():
        assert set(get_type_hints(kind)) | first == set(schema["components"]["schemas"][name]["properties"]), name
    assert get_args(questions.Scope) == SCOPES
    assert get_args(questions.ReviewStatus) == get_args(ReviewStatus)


def test_the_page_about_it_is_true(service: Running, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block.replace("http://127.0.0.1:8000", str(service.client.base_url)), {})
    said = capsys.readouterr().out
    assert "404 not_found" in said
    assert "['popular', 'popular', 'popular']" in said or "history" in said


def test_answers_of_a_newer_service_can_be_read() -> None:
    body = b'{"items": [], "request_id": "r", "generation": "0", "basis": "popular", "n_history": 0, "mood": "sunny"}'
    assert calls.recommend(None, {}).read(body).request_id == "r"


def _methods(kind: type) -> list[tuple[str, Any]]:
    """Those of a client that ask something; the types of `send` are its own variables."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return [(name, method) for name, method in found if name[0] != "_" and name != "send"]


def _every_call() -> list[Call[Any]]:
    """Each function of lmrec.client.calls, called with values of the right kinds."""
    values = {"str": "x", "str | None": "x", "int": 1, "float": 1.0, "bool": True}
    made = []
    for name, function in inspect.getmembers(calls, inspect.isfunction):
        if function.__module__ == calls.__name__ and name[0] != "_":
            kinds = [parameter.annotation for parameter in inspect.signature(function).parameters.values()]
            texts = [kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind)) for kind in kinds]
            made.append(function(*(values.get(text, {}) for text in texts)))
    return made
