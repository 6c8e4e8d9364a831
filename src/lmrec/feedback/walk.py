"""A store's events and lists one after the other, read in pages, so that a long log never lies in memory whole."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from lmrec.data.weighing import PLAIN, Weighing
from lmrec.feedback.events import StoredEvent
from lmrec.feedback.shown import Shown
from lmrec.feedback.store import Store
from lmrec.fields import ItemId

_PAGE: Final = 5_000


def walk_events(store: Store, after_seq: int = 0) -> Iterator[StoredEvent]:
    """In order of arrival, up to the last one at the time of asking for the next."""
    while page := store.events_after(after_seq, _PAGE):
        yield from page
        after_seq = page[-1].seq


def walk_outcomes(
    store: Store, after_ts: float, weighing: Weighing = PLAIN
) -> Iterator[tuple[Shown, frozenset[ItemId]]]:
    """Lists in order of time, each with those of its items that a positive event followed."""
    while page := store.shown_after(after_ts, _PAGE):
        followed: dict[str, set[ItemId]] = defaultdict(set)
        for request_id, item_id in store.followed_items(after_ts, page[-1].time_ts, weighing):
            followed[request_id].add(item_id)
        for shown in page:
            yield shown, frozenset(followed[shown.request_id].intersection(shown.item_ids))
        after_ts = page[-1].time_ts
