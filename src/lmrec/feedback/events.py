"""What a user did to an item, as the service hears it."""

from dataclasses import dataclass
from math import isfinite
from typing import Final, NamedTuple

from lmrec.data.weighing import plain_kind
from lmrec.errors import InputError
from lmrec.feedback.checks import check_text
from lmrec.fields import ItemId, UserId

EVENT_KINDS: Final = ("view", "click", "cart", "purchase", "rating", "dismiss", "play")
"""What every service understands; others come with a run, by its recipe or its log (`Weighing.known_kinds`)."""

DISMISS: Final = "dismiss"
LIKED_STARS: Final = 3.0

UNKNOWN_ITEM: Final = "unknown_item"
"""The flag of an event whose item nobody had put when it came."""

LEFT_OUT: Final = "left_out"
"""The flag of an event that the recipe of what is served leaves out, as it does in a table."""

IN_VAIN: Final = "nothing_bought"
"""The flag of a return that found nothing to take back when it came."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that one user did. `event_id` is made by the client and makes a retry harmless.

    `kind`, `rating` and `weight` are what the columns of those names say in a table of interactions: what it was (in small
    letters), the stars, how often or how much (at least 0). `time_ts` is UTC seconds. `request_id` names the list that the
    item was seen in. `flags` say what was odd when it came in: UNKNOWN_ITEM, "old_clock", "future_clock", LEFT_OUT,
    IN_VAIN.
    """

    event_id: str
    user_id: UserId
    item_id: ItemId
    kind: str
    time_ts: float
    rating: float | None = None
    weight: float | None = None
    request_id: str | None = None
    flags: tuple[str, ...] = ()

    @property
    def amount(self) -> float:
        """How often or how much; once, where that is not said."""
        return 1.0 if self.weight is None else self.weight


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with its place in the store. `seq` grows with every event and is never used again."""

    seq: int
    event: Event
    received_ts: float


class Tally(NamedTuple):
    """What an event counts for: when, as `happened_ts` says; `good`, as `Judging.judge` does."""

    seq: int
    item_id: ItemId
    time_ts: float
    good: bool | None
    kind: str = ""
    amount: float = 1.0
    event_id: str = ""


class Worth(NamedTuple):
    """Events that say the same of an item. worth: how many they are, each half of one after a half-life."""

    item_id: ItemId
    kind: str
    rating: float | None
    weight: float | None
    worth: float


@dataclass(frozen=True, slots=True)
class Added:
    """What became of the events of one call: new ones, and ones whose `event_id` was known already."""

    accepted: int
    duplicates: int


def happened_ts(time_ts: float, received_ts: float) -> float:
    """A client's clock may be ahead; nothing has happened after it was heard of."""
    return min(time_ts, received_ts)


def check_event(event: Event) -> None:
    """InputError unless every database keeps the event exactly as it is."""
    check_text("event_id", event.event_id)
    check_text("user_id", event.user_id)
    check_text("item_id", event.item_id)
    check_text("kind", event.kind)
    if event.kind != plain_kind(event.kind):
        raise InputError(
            f"event '{event.event_id}': kinds are kept in small letters. Write '{plain_kind(event.kind)}' for '{event.kind}'"
        )
    for name, number in (("time_ts", event.time_ts), ("rating", event.rating), ("weight", event.weight)):
        if number is not None and not isfinite(number):
            raise InputError(f"event '{event.event_id}': {name} is {number}; give a finite number")
    if event.weight is not None and event.weight < 0:
        raise InputError(
            f"event '{event.event_id}': the weight {event.weight:g} is below 0. For what was given back send a return, an "
            "event of a kind that data.return_kinds names"
        )
    if event.request_id is not None:
        check_text("request_id", event.request_id)
    for flag in event.flags:
        check_text("flag", flag)
        if "," in flag:
            raise InputError(f"event '{event.event_id}': the flag '{flag}' has a comma; flags are single words")
