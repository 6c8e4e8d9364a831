"""What is served and what the store has heard since, as one data set.

Forgotten users are left out altogether: their events of the old log, those that came later, their row in the table of
users, their name. Deleted items go, with their events. Only positive events of items that exist are learnt from; what a user
did with an item before dismissing it or rating it low is taken back, as it is in the history that the service reads. An event
weighs what it would have weighed in the table that the run was fitted on, and a return takes back what it would there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile

import numpy as np
import numpy.typing as npt
import polars as pl

from lmrec.data.catalog import Catalog
from lmrec.data.dataset import Dataset
from lmrec.data.interactions import Interactions
from lmrec.data.users import UserTable
from lmrec.data.weighing import Weighing
from lmrec.errors import InputError
from lmrec.feedback.events import Event, happened_ts
from lmrec.feedback.items import ItemChange
from lmrec.feedback.store import Store
from lmrec.feedback.walk import walk_events
from lmrec.fields import ITEM_ID, TIMESTAMP, USER_ID, BoolArray, IntArray, ItemId, UserId
from lmrec.retrieval.casting import column_of, fitting_fields
from lmrec.workflows.hearing import Said, last_words, settle_returns, sort_out, weigh_together


@dataclass(frozen=True)
class Heard:
    """What a store has to tell beyond a generation. `seq` and `items_version`: how far it was read.

    events: (time, event) in order of arrival, the time never later than when the event came in.
    """

    events: tuple[tuple[float, Event], ...]
    changes: tuple[ItemChange, ...]
    forgotten: frozenset[UserId]
    seq: int
    items_version: int


@dataclass(frozen=True)
class MergeCounts:
    """How much of what was heard is used, and what was left out and why."""

    heard_events: int = 0
    new_events: int = 0
    negative_events: int = 0
    taken_back_events: int = 0  # positive, of an item that their user did not want later
    events_of_unknown_items: int = 0
    events_of_forgotten_users: int = 0
    left_out_events: int = 0  # by the recipe: of kinds that weigh 0, or rated below data.min_rating
    returns: int = 0  # they take back, and are not learnt from themselves
    returns_in_vain: int = 0  # of these, those that found nothing to take back
    returned_events: int = 0  # positive, wholly taken back by returns
    unnamed_events: int = 0  # new ones of kinds that data.kind_weights does not name, which weigh 1
    new_users: int = 0
    new_items: int = 0
    changed_items: int = 0
    deleted_items: int = 0
    forgotten_users: int = 0  # of the old log
    dropped_old_events: int = 0  # of forgotten users and deleted items, and those taken back or returned

    def as_dict(self) -> dict[str, int]:
        return asdict(self)

    def sentence(self) -> str:
        """
        >>> MergeCounts(heard_events=12, new_events=9, negative_events=3, new_items=1).sentence()
        '9 new events of 12 heard (3 negative), 1 new, 0 changed and 0 deleted items, 0 forgotten users'
        """
        left_out = [
            f"{count:,} {words}"
            for count, words in (
                (self.negative_events, "negative"),
                (self.taken_back_events, "taken back by those"),
                (self.events_of_unknown_items, "of unknown items"),
                (self.events_of_forgotten_users, "of forgotten users"),
                (self.left_out_events, "left out by the recipe"),
                (self.returned_events, "returned"),
                (self.returns, "returns"),
                (self.returns_in_vain, "of them of nothing that was bought"),
            )
            if count
        ]
        why = f" ({', '.join(left_out)})" if left_out else ""
        if self.unnamed_events:
            why += f", {self.unnamed_events:,} of kinds that data.kind_weights does not name"
        return (
            f"{self.new_events:,} new events of {self.heard_events:,} heard{why}, {self.new_items:,} new, "
            f"{self.changed_items:,} changed and {self.deleted_items:,} deleted items, {self.forgotten_users:,} forgotten "
            "users"
        )


@dataclass(frozen=True, eq=False)
class Merged:
    """old_rows: (N,) the row that each item had in the served catalog, -1 for new ones. is_new: (E,) heard from the store.

    when_ts: (E,) UTC seconds of each event; -inf for old events that have an order but no time.
    """

    dataset: Dataset
    old_rows: IntArray
    is_new: BoolArray
    when_ts: npt.NDArray[np.float64]
    counts: MergeCounts


def hear(store: Store, seq: int, items_version: int) -> Heard:
    """All that the store has after event `seq` and item version `items_version`, up to now."""
    last_seq = store.last_seq()
    changes = tuple(store.item_changes(items_version))
    return Heard(
        events=tuple(_events(store, seq, last_seq)),
        changes=changes,
        forgotten=frozenset(store.forgotten_users()),
        seq=max(seq, last_seq),
        items_version=max([items_version, *(change.version for change in changes)]),
    )


def merge(old: Dataset, heard: Heard) -> Merged:
    """Raises InputError where nothing is left of items or events."""
    catalog = merge_catalog(old.catalog, heard.changes)
    if not catalog.n_items:
        raise InputError("all items were deleted, so there is nothing to learn. Put items first")
    new_row = np.array([catalog.indices.get(item_id, -1) for item_id in old.catalog.ids], np.int64)
    old_rows = np.full(catalog.n_items, -1, np.int64)
    old_rows[new_row[new_row >= 0]] = np.flatnonzero(new_row >= 0)

    log, gone, weighing = old.interactions, heard.forgotten, old.weighing
    stays = np.array([user not in gone for user in log.user_ids], np.bool_)
    said, counts = sort_out(heard.events, catalog.indices.keys(), gone, weighing)
    kept = log.select(stays[log.user_idx] & (new_row[log.item_idx] >= 0)) if len(log) else log
    kept, said, returned = settle_returns(kept, old, said)
    words = last_words(said)
    if len(kept):
        kept = kept.select(~_taken_back(kept, old.catalog, words))
    good = [one for one in said if one.is_good]
    usable = [one for one in good if words[one.pair].is_good]
    users = [user for user, stay in zip(log.user_ids, stays, strict=True) if stay]
    user_rows = {user: row for row, user in enumerate(users)}
    renumbered = np.cumsum(stays) - 1
    for one in usable:
        user_rows.setdefault(one.event.user_id, len(user_rows))
    unnamed = [one for one in usable if weighing.kind_weights and one.event.kind not in weighing.kind_weights]
    counts = {
        **counts,
        **returned,
        "new_events": len(usable),
        "taken_back_events": len(good) - len(usable),
        "unnamed_events": len(unnamed),
        "new_users": len(user_rows) - len(users),
        "forgotten_users": int((~stays).sum()),
        "dropped_old_events": len(log) - len(kept),
        **_count_items(old.catalog, heard.changes),
    }
    joined, is_new, when_ts, weighing = _join(
        kept, renumbered[kept.user_idx], new_row[kept.item_idx], usable, user_rows, catalog.indices, weighing
    )
    users_table = old.users
    if users_table is not None:
        users_table = UserTable(users_table.frame.filter(~pl.col(USER_ID).is_in(sorted(gone))))
    dataset = Dataset(catalog, joined, users_table, source=old.source, weighing=weighing)
    return Merged(dataset, old_rows, is_new, when_ts, MergeCounts(**counts))


def merge_catalog(catalog: Catalog, changes: Sequence[ItemChange]) -> Catalog:
    """Untouched items in their order, then those put. Fields that the catalog lacks, or that do not fit, are left out,
    as the service does when it loads a generation."""
    touched = [change.item_id for change in changes]
    schema = catalog.frame.schema
    puts = [(change.item_id, fitting_fields(change.fields, schema)) for change in changes if change.fields is not None]
    given = [{ITEM_ID: item_id, **fields} for item_id, fields in puts]
    fresh = pl.DataFrame([column_of(name, [one[name] for one in given], dtype) for name, dtype in schema.items()])
    frame = catalog.frame.filter(~pl.col(ITEM_ID).is_in(touched)).vstack(fresh).rechunk()
    return Catalog(frame, catalog.text_columns, catalog.attribute_columns)


def _events(store: Store, seq: int, last_seq: int) -> Iterator[tuple[float, Event]]:
    for stored in takewhile(lambda stored: stored.seq <= last_seq, walk_events(store, seq)):
        yield happened_ts(stored.event.time_ts, stored.received_ts), stored.event


def _taken_back(log: Interactions, catalog: Catalog, words: Mapping[tuple[UserId, ItemId], Said]) -> BoolArray:
    """(E,) the events of the old log whose user said no to the item later. A log without times is before all that is heard."""
    user_rows = {user_id: row for row, user_id in enumerate(log.user_ids)}
    until = {
        user_rows[user_id] * catalog.n_items + catalog.indices[item_id]: word.when_ts
        for (user_id, item_id), word in words.items()
        if not word.is_good and user_id in user_rows and item_id in catalog.indices
    }
    pairs = log.user_idx.astype(np.int64) * catalog.n_items + log.item_idx
    gone = np.isin(pairs, np.fromiter(until, np.int64, len(until)))
    if log.time_kind == TIMESTAMP:
        places = np.flatnonzero(gone)
        gone[places] = [until[int(pairs[place])] >= log.time_ts[place] for place in places]
    return gone


def _count_items(catalog: Catalog, changes: Sequence[ItemChange]) -> dict[str, int]:
    known = [change.item_id in catalog.indices for change in changes]
    gone = [change.fields is None for change in changes]
    return {
        "new_items": sum(not is_known and not is_gone for is_known, is_gone in zip(known, gone, strict=True)),
        "changed_items": sum(is_known and not is_gone for is_known, is_gone in zip(known, gone, strict=True)),
        "deleted_items": sum(is_known and is_gone for is_known, is_gone in zip(known, gone, strict=True)),
    }


def _join(
    old: Interactions,
    old_users: IntArray,
    old_items: IntArray,
    said: Sequence[Said],
    user_rows: Mapping[UserId, int],
    item_rows: Mapping[str, int],
    weighing: Weighing,
) -> tuple[Interactions, BoolArray, npt.NDArray[np.float64], Weighing]:
    """One log in order of time; for each event whether it is new and when it was; and what all are weighed by."""
    events = [one.event for one in said]
    users = np.array([user_rows[event.user_id] for event in events], np.int64)
    new_when = np.array([one.when_ts for one in said], np.float64)
    timed = old.time_kind == TIMESTAMP
    times = new_when if timed else _next_positions(old_users, old.time_ts, users, len(user_rows))
    all_times = np.concatenate([old.time_ts, times])
    order = np.argsort(all_times, kind="stable")
    weight, weighing = weigh_together(old, said, weighing)
    rating = kind = amount = None
    if old.rating is not None:
        stars = [np.nan if event.rating is None else event.rating for event in events]
        rating = np.concatenate([old.rating, np.array(stars, np.float32)])[order]
    if old.kind is not None or weighing.return_kinds:  # else nothing goes by kinds
        kinds = np.full(len(old), "", object) if old.kind is None else old.kind
        kind = np.concatenate([kinds, np.array([event.kind for event in events], object)])[order]
    if old.amount is not None or any(one.amount != 1 for one in said):
        amounts = np.ones(len(old), np.float32) if old.amount is None else old.amount
        amount = np.concatenate([amounts, np.array([one.amount for one in said], np.float32)])[order]
    joined = Interactions.from_arrays(
        list(user_rows),
        np.concatenate([old_users, users])[order],
        np.concatenate([old_items, np.array([item_rows[event.item_id] for event in events], np.int64)])[order],
        all_times[order],
        time_kind=old.time_kind,
        weight=weight.to_numpy()[order],
        rating=rating,
        kind=kind,
        amount=amount,
    )
    is_new = np.concatenate([np.zeros(len(old), np.bool_), np.ones(len(events), np.bool_)])[order]
    when = np.concatenate([old.time_ts if timed else np.full(len(old), -np.inf), new_when])[order]
    return joined, is_new, when, weighing


def _next_positions(
    old_users: IntArray, positions: npt.NDArray[np.float64], users: IntArray, n_users: int
) -> npt.NDArray[np.float64]:
    """(M,) the places of new events, already in order, after each user's last one."""
    last = np.full(n_users, -1.0)
    np.maximum.at(last, old_users, positions)
    places = np.empty(len(users), np.float64)
    for event, user in enumerate(users):
        last[user] += 1.0
        places[event] = last[user]
    return places
