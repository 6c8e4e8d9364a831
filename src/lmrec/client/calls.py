"""Every call of the API as a value: what is sent, what comes back, and whether it may be sent twice. Knows no network."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from lmrec.client.questions import Asking, Event, Explaining, Likeness, Question, Ranking, Search, Searching
from lmrec.service.schemas import answers as a

T = TypeVar("T", bound=BaseModel)
Method = Literal["GET", "POST", "PUT", "DELETE"]


@dataclass(frozen=True)
class Call(Generic[T]):
    """`template` is the path as the OpenAPI writes it, `path` the one to ask. is_safe_twice: a lost answer may be asked for
    again, because the second time changes nothing."""

    method: Method
    template: str
    answer: type[T]
    body: Any = None
    query: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    is_safe_twice: bool = True

    @property
    def path(self) -> str:
        path = self.template
        for name, value in self.names.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return path

    def read(self, content: bytes) -> T:
        """Names that this client does not know are passed over, so that a newer service can be asked."""
        return self.answer.model_validate_json(content, extra="ignore")


def recommend(user_id: str | None, more: Asking) -> Call[a.RecommendationAnswer]:
    return Call("POST", "/v1/recommendations", a.RecommendationAnswer, _said({"user_id": user_id, **more}))


def recommend_many(questions: Sequence[Question]) -> Call[a.RecommendationBatchAnswer]:
    body = {"questions": [_said(question) for question in questions]}
    return Call("POST", "/v1/recommendations/batch", a.RecommendationBatchAnswer, body)


def rank(candidates: Sequence[str], more: Ranking) -> Call[a.RankingAnswer]:
    return Call("POST", "/v1/rankings", a.RankingAnswer, _said({"candidates": list(candidates), **more}))


def similar(question: Likeness) -> Call[a.FoundItems]:
    return Call("POST", "/v1/similar", a.FoundItems, _said(question))


def similar_many(questions: Sequence[Likeness]) -> Call[a.FoundItemsBatch]:
    body = {"questions": [_said(question) for question in questions]}
    return Call("POST", "/v1/similar/batch", a.FoundItemsBatch, body)


def search(words: str, more: Searching) -> Call[a.FoundItems]:
    return Call("POST", "/v1/search", a.FoundItems, _said({"words": words, **more}))


def search_many(questions: Sequence[Search]) -> Call[a.FoundItemsBatch]:
    body = {"questions": [_said(question) for question in questions]}
    return Call("POST", "/v1/search/batch", a.FoundItemsBatch, body)


def explain(item_id: str, more: Explaining) -> Call[a.ExplanationAnswer]:
    return Call("POST", "/v1/explanations", a.ExplanationAnswer, _said({"item_id": item_id, **more}))


def send_events(events: Sequence[Event]) -> Call[a.EventsKept]:
    """An event without an id gets one here, so that sending again counts nothing twice."""
    named = [_said({"event_id": f"client-{uuid.uuid4().hex}", **_said(event)}) for event in events]
    return Call("POST", "/v1/events", a.EventsKept, {"events": named})


def browse_items(query: str, offset: int, limit: int) -> Call[a.ItemPage]:
    return Call("GET", "/v1/items", a.ItemPage, query={"query": query, "offset": offset, "limit": limit})


def get_items(item_ids: Sequence[str]) -> Call[a.ItemPage]:
    return Call("GET", "/v1/items", a.ItemPage, query={"item_id": list(item_ids)})


def get_item(item_id: str) -> Call[a.Item]:
    return Call("GET", "/v1/items/{item_id}", a.Item, names={"item_id": item_id})


def put_item(item_id: str, fields: Mapping[str, Any]) -> Call[a.ItemKept]:
    return Call("PUT", "/v1/items/{item_id}", a.ItemKept, dict(fields), names={"item_id": item_id})


def put_items(items: Sequence[Mapping[str, Any]]) -> Call[a.ItemsKept]:
    return Call("POST", "/v1/items", a.ItemsKept, {"items": [dict(item) for item in items]})


def delete_item(item_id: str) -> Call[a.ItemGone]:
    return Call("DELETE", "/v1/items/{item_id}", a.ItemGone, names={"item_id": item_id})


def flag_item(item_id: str, reason: str) -> Call[a.Review]:
    return Call("POST", "/v1/items/{item_id}/flag", a.Review, {"reason": reason}, names={"item_id": item_id})


def find_users(query: str, limit: int) -> Call[a.UserList]:
    return Call("GET", "/v1/users", a.UserList, query={"query": query, "limit": limit})


def export_user(user_id: str) -> Call[a.UserAnswer]:
    return Call("GET", "/v1/users/{user_id}", a.UserAnswer, names={"user_id": user_id})


def forget_user(user_id: str) -> Call[a.UserForgotten]:
    return Call("DELETE", "/v1/users/{user_id}", a.UserForgotten, names={"user_id": user_id})


def list_rules() -> Call[a.RuleList]:
    return Call("GET", "/v1/rules", a.RuleList)


def get_rule(rule_id: str) -> Call[a.RuleAnswer]:
    return Call("GET", "/v1/rules/{rule_id}", a.RuleAnswer, names={"rule_id": rule_id})


def put_rule(rule_id: str, rule: Mapping[str, Any]) -> Call[a.RuleAnswer]:
    return Call("PUT", "/v1/rules/{rule_id}", a.RuleAnswer, dict(rule), names={"rule_id": rule_id})


def delete_rule(rule_id: str) -> Call[a.RuleGone]:
    return Call("DELETE", "/v1/rules/{rule_id}", a.RuleGone, names={"rule_id": rule_id})


def list_reviews(status: str) -> Call[a.ReviewList]:
    return Call("GET", "/v1/reviews", a.ReviewList, query={"status": status})


def decide(item_id: str, approved: bool, note: str) -> Call[a.Review]:
    body = {"approved": approved, "note": note}
    return Call("POST", "/v1/reviews/{item_id}", a.Review, body, names={"item_id": item_id})


def audit(limit: int) -> Call[a.AuditList]:
    return Call("GET", "/v1/audit", a.AuditList, query={"limit": limit})


def generations() -> Call[a.GenerationList]:
    return Call("GET", "/v1/generations", a.GenerationList)


def roll_back(why: str) -> Call[a.RolledBack]:
    """A second one goes one further back."""
    return Call("POST", "/v1/generations/rollback", a.RolledBack, {"why": why}, is_safe_twice=False)


def list_experiments(days: float) -> Call[a.ExperimentList]:
    return Call("GET", "/v1/experiments", a.ExperimentList, query={"days": days})


def start_experiment(name: str, generation: str, mode: str, share: float) -> Call[a.ExperimentAnswer]:
    body = {"name": name, "generation": generation, "mode": mode, "share": share}
    return Call("POST", "/v1/experiments", a.ExperimentAnswer, body, is_safe_twice=False)


def read_experiment(name: str) -> Call[a.ExperimentRead]:
    return Call("GET", "/v1/experiments/{name}", a.ExperimentRead, names={"name": name})


def end_experiment(name: str, why: str, promote: bool) -> Call[a.ExperimentAnswer]:
    body = {"why": why, "promote": promote}
    names = {"name": name}
    return Call("POST", "/v1/experiments/{name}/end", a.ExperimentAnswer, body, names=names, is_safe_twice=False)


def list_keys() -> Call[a.KeyList]:
    return Call("GET", "/v1/keys", a.KeyList)


def make_key(name: str, scopes: Sequence[str]) -> Call[a.KeyMade]:
    return Call("POST", "/v1/keys", a.KeyMade, {"name": name, "scopes": list(scopes)}, is_safe_twice=False)


def revoke_key(key_id: str) -> Call[a.KeyGone]:
    return Call("DELETE", "/v1/keys/{key_id}", a.KeyGone, names={"key_id": key_id})


def stats() -> Call[a.Stats]:
    return Call("GET", "/v1/stats", a.Stats)


def ready() -> Call[a.Ready]:
    return Call("GET", "/readyz", a.Ready)


def alive() -> Call[a.Alive]:
    return Call("GET", "/healthz", a.Alive)


def _said(body: Mapping[str, Any]) -> dict[str, Any]:
    """What is None is not said."""
    return {name: value for name, value in body.items() if value is not None}
