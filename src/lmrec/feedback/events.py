"""What a user did to an item, as the service hears it."""

from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from lmrec.errors import InputError, nearest
from lmrec.feedback.checks import check_text
from lmrec.fields import ItemId, UserId

EventKind: TypeAlias = Literal["view", "click", "cart", "purchase", "rating", "dismiss", "play"]
EVENT_KINDS: Final[tuple[EventKind, ...]] = get_args(EventKind)

POSITIVE_KINDS: Final = frozenset[EventKind](EVENT_KINDS) - {"dismiss"}
"""Kinds that say something good about an item, and so belong to a history; a rating only from LIKED_STARS on."""

LIKED_STARS: Final = 3.0

UNKNOWN_ITEM: Final = "unknown_item"
"""The flag of an event whose item nobody had put when it came."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that one user did. `event_id` is made by the client and makes a retry harmless.

    `time_ts` is UTC seconds. `value` is stars of a rating, seconds of a play, or a quantity; below 0
    only for a rating. `request_id` names the
    list that the item was seen in. `flags` say what was odd when it came in: UNKNOWN_ITEM, "old_clock",
    "future_clock".
    """

    event_id: str
    user_id: UserId
    item_id: ItemId
    kind: EventKind
    time_ts: float
    value: float | None = None
    request_id: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with its place in the store. `seq` grows with every event and is never used again."""

    seq: int
    event: Event
    received_ts: float


class Tally(NamedTuple):
    """What an event counts for: when, as `happened_ts` says; `good`, as `is_positive` does."""

    seq: int
    item_id: ItemId
    time_ts: float
    good: bool


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the events of one call: new ones, and ones whose `event_id` was known already."""

    accepted: int
    duplicates: int


def happened_ts(time_ts: float, received_ts: float) -> float:
    """A client's clock may be ahead; nothing has happened after it was heard of."""
    return min(time_ts, received_ts)


def is_positive(event: Event) -> bool:
    """Whether the event counts as history.

    >>> is_positive(Event("e1", "u", "i", "rating", 0.0, value=2.0)), is_positive(Event("e2", "u", "i", "rating", 0.0))
    (False, True)
    """
    return counts_as_good(event.kind, event.value)


def counts_as_good(kind: str, value: float | None) -> bool:
    """`is_positive` of an event that is not put together."""
    if kind == "rating":
        return value is None or value >= LIKED_STARS
    return kind in POSITIVE_KINDS


def check_event(event: Event) -> None:
    """InputError unless every database keeps the event exactly as it is."""
    check_text("event_id", event.event_id)
    check_text("user_id", event.user_id)
    check_text("item_id", event.item_id)
    if event.kind not in EVENT_KINDS:
        raise InputError(
            f"event '{event.event_id}': kind '{event.kind}' is unknown. {nearest(event.kind, EVENT_KINDS)}"
        )
    for name, number in (("time_ts", event.time_ts), ("value", event.value)):
        if number is not None and not isfinite(number):
            raise InputError(f"event '{event.event_id}': {name} is {number}; give a finite number")
    if event.value is not None and event.value < 0 and event.kind != "rating":
        raise InputError(
            f"event '{event.event_id}': a {event.kind} has the value {event.value:g}, and only a rating may be below 0. Leave "
            "the value out; for what was given back send an event of the kind 'dismiss'"
        )
    if event.request_id is not None:
        check_text("request_id", event.request_id)
    for flag in event.flags:
        check_text("flag", flag)
        if "," in flag:
            raise InputError(f"event '{event.event_id}': the flag '{flag}' has a comma; flags are single words")
