"""The client for asyncio: the same as the other one, to be awaited."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from pydantic import BaseModel

from lmrec.client import calls
from lmrec.client.calls import Call
from lmrec.client.questions import (
    Asking,
    Event,
    Explaining,
    Happening,
    Likeness,
    Question,
    Ranking,
    ReviewStatus,
    Scope,
    Search,
    Searching,
)
from lmrec.client.sending import headers, load_httpx, pause_s, read_answer, request_of, unreachable
from lmrec.feedback.assignment import Mode
from lmrec.service.schemas import answers as a

if TYPE_CHECKING:
    import httpx

T = TypeVar("T", bound=BaseModel)


class AsyncClient:
    """Talks to one service; many requests may be under way. `async with AsyncClient(...) as service:` closes it.

    key: as `lmrec keys RUN add` prints it. retries: how often a request is sent again where the service is busy (429, 503;
    it says how long to wait), or where no answer came and asking twice changes nothing. http: an own httpx.AsyncClient, whose
    address, headers and closing are then yours.

    Every method raises ApiError with the service's message, or UnreachableError.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        http: "httpx.AsyncClient | None" = None,
    ) -> None:
        self._library = load_httpx()
        self._owns_http = http is None
        self._http: httpx.AsyncClient = http or self._library.AsyncClient(
            base_url=address, headers=headers(key), timeout=timeout_s
        )
        self._retries = retries

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._owns_http:
            await self._http.aclose()

    async def send(self, call: Call[T]) -> T:
        """Any call of lmrec.client.calls."""
        for attempt in range(self._retries + 1):
            response, lost = None, None
            try:
                response = await self._http.request(**request_of(call))
            except self._library.TransportError as error:
                lost = unreachable(call, str(self._http.base_url), error)
            pause = pause_s(call, attempt, self._retries, response)
            if pause is None:
                break
            await asyncio.sleep(pause)
        if response is None:
            assert lost is not None
            raise lost
        return read_answer(call, response)

    # Ask

    async def recommend(self, user_id: str | None = None, **more: Unpack[Asking]) -> a.RecommendationAnswer:
        """The best items for a user, a history, words, or all of them; for nobody in particular, what is popular now."""
        return await self.send(calls.recommend(user_id, more))

    async def recommend_many(self, questions: Sequence[Question]) -> list[a.RecommendationAnswer]:
        """Up to 100 questions in one request, answered in their order."""
        return (await self.send(calls.recommend_many(questions))).answers

    async def rank(self, candidates: Sequence[str], **more: Unpack[Ranking]) -> a.RankingAnswer:
        """Up to 1,000 items in order for a user or a history, whether they have been seen or not."""
        return await self.send(calls.rank(candidates, more))

    async def similar(self, **question: Unpack[Likeness]) -> a.FoundItems:
        """The items nearest to `item_id`, or to `text`."""
        return await self.send(calls.similar(question))

    async def similar_many(self, questions: Sequence[Likeness]) -> list[a.FoundItems]:
        """Up to 100 questions in one request, answered in their order."""
        return (await self.send(calls.similar_many(questions))).answers

    async def search(self, words: str, **more: Unpack[Searching]) -> a.FoundItems:
        """Items for words; with a user or a history, ordered by taste, too."""
        return await self.send(calls.search(words, more))

    async def search_many(self, questions: Sequence[Search]) -> list[a.FoundItems]:
        """Up to 100 questions in one request, answered in their order."""
        return (await self.send(calls.search_many(questions))).answers

    async def explain(self, item_id: str, **more: Unpack[Explaining]) -> a.ExplanationAnswer:
        """Which past items and which words moved an item's score, and what would drop it from the list."""
        return await self.send(calls.explain(item_id, more))

    # Tell

    async def send_event(self, user_id: str, item_id: str, kind: str, **more: Unpack[Happening]) -> a.EventsKept:
        """Something that a user did. Safe on disk once this returns."""
        return await self.send_events([{"user_id": user_id, "item_id": item_id, "kind": kind, **more}])

    async def send_events(self, events: Sequence[Event]) -> a.EventsKept:
        """Up to 1,000 events. One without an event_id gets one here, so that asking again counts nothing twice."""
        return await self.send(calls.send_events(events))

    # The catalog

    async def browse_items(self, query: str = "", *, offset: int = 0, limit: int = 50) -> a.ItemPage:
        return await self.send(calls.browse_items(query, offset, limit))

    async def get_items(self, item_ids: Sequence[str]) -> list[a.Item]:
        """Those of up to 200 items that there are."""
        return (await self.send(calls.get_items(item_ids))).items

    async def get_item(self, item_id: str) -> a.Item:
        return await self.send(calls.get_item(item_id))

    async def put_item(self, item_id: str, **fields: str | float | bool | None) -> a.ItemKept:
        """Add or replace an item; it can be recommended once this returns. Fields left out become null."""
        return await self.send(calls.put_item(item_id, fields))

    async def put_items(self, items: Sequence[Mapping[str, Any]]) -> a.ItemsKept:
        """Up to 500 items, each with its item_id: all of them or none."""
        return await self.send(calls.put_items(items))

    async def delete_item(self, item_id: str) -> a.ItemGone:
        return await self.send(calls.delete_item(item_id))

    async def flag_item(self, item_id: str, reason: str) -> a.Review:
        """Hold an item back until somebody decides."""
        return await self.send(calls.flag_item(item_id, reason))

    # Users' rights

    async def find_users(self, query: str = "", *, limit: int = 20) -> a.UserList:
        return await self.send(calls.find_users(query, limit))

    async def export_user(self, user_id: str) -> a.UserAnswer:
        """All that is held of a user."""
        return await self.send(calls.export_user(user_id))

    async def forget_user(self, user_id: str) -> a.UserForgotten:
        return await self.send(calls.forget_user(user_id))

    # Rules, reviews, audit

    async def list_rules(self) -> list[a.RuleAnswer]:
        return (await self.send(calls.list_rules())).rules

    async def get_rule(self, rule_id: str) -> a.RuleAnswer:
        return await self.send(calls.get_rule(rule_id))

    async def put_rule(self, rule_id: str, **rule: Any) -> a.RuleAnswer:
        """Make or replace a rule: `put_rule("hide", kind="must_not_show", item_ids=["50"])`."""
        return await self.send(calls.put_rule(rule_id, rule))

    async def delete_rule(self, rule_id: str) -> a.RuleGone:
        return await self.send(calls.delete_rule(rule_id))

    async def list_reviews(self, status: ReviewStatus = "waiting") -> list[a.Review]:
        return (await self.send(calls.list_reviews(status))).reviews

    async def decide(self, item_id: str, *, approved: bool, note: str = "") -> a.Review:
        """On a flagged item: True shows it again."""
        return await self.send(calls.decide(item_id, approved, note))

    async def audit(self, limit: int = 100) -> list[a.AuditEntry]:
        """Who decided what, newest first."""
        return (await self.send(calls.audit(limit))).entries

    # Generations and experiments

    async def generations(self) -> a.GenerationList:
        return await self.send(calls.generations())

    async def roll_back(self, why: str) -> a.RolledBack:
        """Serve again what was served before."""
        return await self.send(calls.roll_back(why))

    async def list_experiments(self, days: float = 7.0) -> a.ExperimentList:
        return await self.send(calls.list_experiments(days))

    async def start_experiment(
        self, name: str, generation: str, *, mode: Mode = "split", share: float = 0.5
    ) -> a.ExperimentAnswer:
        """What is served against `generation`, which gets `share` of the users, or is asked in their shadow."""
        return await self.send(calls.start_experiment(name, generation, mode, share))

    async def read_experiment(self, name: str) -> a.ExperimentRead:
        return await self.send(calls.read_experiment(name))

    async def end_experiment(self, name: str, why: str, *, promote: bool = False) -> a.ExperimentAnswer:
        """promote: serve the challenger to everybody."""
        return await self.send(calls.end_experiment(name, why, promote))

    # Keys and the service itself

    async def list_keys(self) -> list[a.Key]:
        return (await self.send(calls.list_keys())).keys

    async def make_key(self, name: str, scopes: Sequence[Scope]) -> a.KeyMade:
        """`secret` is shown this once."""
        return await self.send(calls.make_key(name, scopes))

    async def revoke_key(self, key_id: str) -> a.KeyGone:
        return await self.send(calls.revoke_key(key_id))

    async def stats(self) -> a.Stats:
        return await self.send(calls.stats())

    async def ready(self) -> a.Ready:
        """What is served. Raises ApiError (503) while it loads."""
        return await self.send(calls.ready())

    async def alive(self) -> a.Alive:
        return await self.send(calls.alive())
