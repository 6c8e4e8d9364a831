"""The client for programs that wait for each answer."""

import time
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


class Client:
    """Talks to one service; may be used by several threads. `with Client(...) as service:` closes it.

    key: as `lmrec keys RUN add` prints it. retries: how often a request is sent again where the service is busy (429, 503;
    it says how long to wait), or where no answer came and asking twice changes nothing. http: an own httpx.Client, whose
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
        http: "httpx.Client | None" = None,
    ) -> None:
        self._library = load_httpx()
        self._owns_http = http is None
        self._http: httpx.Client = http or self._library.Client(
            base_url=address, headers=headers(key), timeout=timeout_s
        )
        self._retries = retries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._owns_http:
            self._http.close()

    def send(self, call: Call[T]) -> T:
        """Any call of lmrec.client.calls."""
        for attempt in range(self._retries + 1):
            response, lost = None, None
            try:
                response = self._http.request(**request_of(call))
            except self._library.TransportError as error:
                lost = unreachable(call, str(self._http.base_url), error)
            pause = pause_s(call, attempt, self._retries, response)
            if pause is None:
                break
            time.sleep(pause)
        if response is None:
            assert lost is not None
            raise lost
        return read_answer(call, response)

    # Ask

    def recommend(self, user_id: str | None = None, **more: Unpack[Asking]) -> a.RecommendationAnswer:
        """The best items for a user, a history, words, or all of them; for nobody in particular, what is popular now."""
        return self.send(calls.recommend(user_id, more))

    def recommend_many(self, questions: Sequence[Question]) -> list[a.RecommendationAnswer]:
        """Up to 100 questions in one request, answered in their order."""
        return self.send(calls.recommend_many(questions)).answers

    def rank(self, candidates: Sequence[str], **more: Unpack[Ranking]) -> a.RankingAnswer:
        """Up to 1,000 items in order for a user or a history, whether they have been seen or not."""
        return self.send(calls.rank(candidates, more))

    def similar(self, **question: Unpack[Likeness]) -> a.FoundItems:
        """The items nearest to `item_id`, or to `text`."""
        return self.send(calls.similar(question))

    def similar_many(self, questions: Sequence[Likeness]) -> list[a.FoundItems]:
        """Up to 100 questions in one request, answered in their order."""
        return self.send(calls.similar_many(questions)).answers

    def search(self, words: str, **more: Unpack[Searching]) -> a.FoundItems:
        """Items for words; with a user or a history, ordered by taste, too."""
        return self.send(calls.search(words, more))

    def search_many(self, questions: Sequence[Search]) -> list[a.FoundItems]:
        """Up to 100 questions in one request, answered in their order."""
        return self.send(calls.search_many(questions)).answers

    def explain(self, item_id: str, **more: Unpack[Explaining]) -> a.ExplanationAnswer:
        """Which past items and which words moved an item's score, and what would drop it from the list."""
        return self.send(calls.explain(item_id, more))

    # Tell

    def send_event(self, user_id: str, item_id: str, kind: str, **more: Unpack[Happening]) -> a.EventsKept:
        """Something that a user did. Safe on disk once this returns."""
        return self.send_events([{"user_id": user_id, "item_id": item_id, "kind": kind, **more}])

    def send_events(self, events: Sequence[Event]) -> a.EventsKept:
        """Up to 1,000 events. One without an event_id gets one here, so that asking again counts nothing twice."""
        return self.send(calls.send_events(events))

    # The catalog

    def browse_items(self, query: str = "", *, offset: int = 0, limit: int = 50) -> a.ItemPage:
        return self.send(calls.browse_items(query, offset, limit))

    def get_items(self, item_ids: Sequence[str]) -> list[a.Item]:
        """Those of up to 200 items that there are."""
        return self.send(calls.get_items(item_ids)).items

    def get_item(self, item_id: str) -> a.Item:
        return self.send(calls.get_item(item_id))

    def put_item(self, item_id: str, **fields: str | float | bool | None) -> a.ItemKept:
        """Add or replace an item; it can be recommended once this returns. Fields left out become null."""
        return self.send(calls.put_item(item_id, fields))

    def put_items(self, items: Sequence[Mapping[str, Any]]) -> a.ItemsKept:
        """Up to 500 items, each with its item_id: all of them or none."""
        return self.send(calls.put_items(items))

    def delete_item(self, item_id: str) -> a.ItemGone:
        return self.send(calls.delete_item(item_id))

    def flag_item(self, item_id: str, reason: str) -> a.Review:
        """Hold an item back until somebody decides."""
        return self.send(calls.flag_item(item_id, reason))

    # Users' rights

    def find_users(self, query: str = "", *, limit: int = 20) -> a.UserList:
        return self.send(calls.find_users(query, limit))

    def export_user(self, user_id: str) -> a.UserAnswer:
        """All that is held of a user."""
        return self.send(calls.export_user(user_id))

    def forget_user(self, user_id: str) -> a.UserForgotten:
        return self.send(calls.forget_user(user_id))

    # Rules, reviews, audit

    def list_rules(self) -> list[a.RuleAnswer]:
        return self.send(calls.list_rules()).rules

    def get_rule(self, rule_id: str) -> a.RuleAnswer:
        return self.send(calls.get_rule(rule_id))

    def put_rule(self, rule_id: str, **rule: Any) -> a.RuleAnswer:
        """Make or replace a rule: `put_rule("hide", kind="must_not_show", item_ids=["50"])`."""
        return self.send(calls.put_rule(rule_id, rule))

    def delete_rule(self, rule_id: str) -> a.RuleGone:
        return self.send(calls.delete_rule(rule_id))

    def list_reviews(self, status: ReviewStatus = "waiting") -> list[a.Review]:
        return self.send(calls.list_reviews(status)).reviews

    def decide(self, item_id: str, *, approved: bool, note: str = "") -> a.Review:
        """On a flagged item: True shows it again."""
        return self.send(calls.decide(item_id, approved, note))

    def audit(self, limit: int = 100) -> list[a.AuditEntry]:
        """Who decided what, newest first."""
        return self.send(calls.audit(limit)).entries

    # Generations and experiments

    def generations(self) -> a.GenerationList:
        return self.send(calls.generations())

    def roll_back(self, why: str) -> a.RolledBack:
        """Serve again what was served before."""
        return self.send(calls.roll_back(why))

    def list_experiments(self, days: float = 7.0) -> a.ExperimentList:
        return self.send(calls.list_experiments(days))

    def start_experiment(
        self, name: str, generation: str, *, mode: Mode = "split", share: float = 0.5
    ) -> a.ExperimentAnswer:
        """What is served against `generation`, which gets `share` of the users, or is asked in their shadow."""
        return self.send(calls.start_experiment(name, generation, mode, share))

    def read_experiment(self, name: str) -> a.ExperimentRead:
        return self.send(calls.read_experiment(name))

    def end_experiment(self, name: str, why: str, *, promote: bool = False) -> a.ExperimentAnswer:
        """promote: serve the challenger to everybody."""
        return self.send(calls.end_experiment(name, why, promote))

    # Keys and the service itself

    def list_keys(self) -> list[a.Key]:
        return self.send(calls.list_keys()).keys

    def make_key(self, name: str, scopes: Sequence[Scope]) -> a.KeyMade:
        """`secret` is shown this once."""
        return self.send(calls.make_key(name, scopes))

    def revoke_key(self, key_id: str) -> a.KeyGone:
        return self.send(calls.revoke_key(key_id))

    def stats(self) -> a.Stats:
        return self.send(calls.stats())

    def ready(self) -> a.Ready:
        """What is served. Raises ApiError (503) while it loads."""
        return self.send(calls.ready())

    def alive(self) -> a.Alive:
        return self.send(calls.alive())
