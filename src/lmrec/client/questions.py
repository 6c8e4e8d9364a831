"""What a question may say beyond its first argument, once for both clients. A test holds these to the OpenAPI."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

Scope: TypeAlias = Literal["read", "events", "admin"]
ReviewStatus: TypeAlias = Literal["waiting", "approved", "rejected"]


class Asking(TypedDict, total=False):
    """`recommend`."""

    history: Sequence[str] | None
    text: str | None
    k: int
    filter: Mapping[str, Any] | None
    exclude: Sequence[str] | None
    exclude_seen: bool | None
    diversity: float
    segment: str | None
    profile: Mapping[str, str | int | float | bool | None] | None
    context: Mapping[str, str | int | float | bool | None] | None
    explain: bool
    fields: Sequence[str] | None


class Question(Asking, total=False):
    """One of `recommend_many`."""

    user_id: str | None


class Ranking(TypedDict, total=False):
    """`rank`."""

    user_id: str | None
    history: Sequence[str] | None
    k: int | None
    filter: Mapping[str, Any] | None
    segment: str | None
    profile: Mapping[str, str | int | float | bool | None] | None
    context: Mapping[str, str | int | float | bool | None] | None
    fields: Sequence[str] | None


class Likeness(TypedDict, total=False):
    """`similar`: one of item_id and text."""

    item_id: str | None
    text: str | None
    k: int
    filter: Mapping[str, Any] | None
    segment: str | None
    fields: Sequence[str] | None


class Searching(TypedDict, total=False):
    """`search`."""

    k: int
    filter: Mapping[str, Any] | None
    user_id: str | None
    history: Sequence[str] | None
    segment: str | None
    fields: Sequence[str] | None


class Search(Searching):
    """One of `search_many`."""

    words: str


class Explaining(TypedDict, total=False):
    """`explain`."""

    user_id: str | None
    history: Sequence[str] | None
    text: str | None
    k: int
    filter: Mapping[str, Any] | None
    exclude: Sequence[str] | None
    exclude_seen: bool | None
    words: bool
    segment: str | None
    profile: Mapping[str, str | int | float | bool | None] | None


class Happening(TypedDict, total=False):
    """`send_event`."""

    event_id: str | None
    time: float | str | None
    rating: float | None
    weight: float | None
    request_id: str | None


class Event(Happening):
    """One of `send_events`."""

    user_id: str
    item_id: str
    kind: str
