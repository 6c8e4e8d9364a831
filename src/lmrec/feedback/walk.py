"""A store's events and lists one after the other, read in pages, so that a long log never lies in memory whole."""

from collections.abc import Iterator
from typing import Final

from lmrec.feedback.events import StoredEvent, is_positive
from lmrec.feedback.shown import Shown
from lmrec.feedback.store import Store
from lmrec.fields import ItemId

_PAGE: Final = 5_000


def walk_events(store: Store, after_seq: int = 0) -> Iterator[StoredEvent]:
    """In order of arrival, up to the last one at the time of asking for the next."""
    while page := store.events_after(after_seq, _PAGE):
        yield from page
        after_seq = page[-1].seq


def walk_shown(store: Store, after_ts: float) -> Iterator[Shown]:
    """In order of time."""
    while page := store.shown_after(after_ts, _PAGE):
        yield from page
        after_ts = page[-1].time_ts


def walk_followed(store: Store, after_seq: int = 0) -> Iterator[tuple[str, ItemId]]:
    """(request id, item) of the positive events that name a list."""
    for stored in walk_events(store, after_seq):
        if stored.event.request_id is not None and is_positive(stored.event):
            yield stored.event.request_id, stored.event.item_id
