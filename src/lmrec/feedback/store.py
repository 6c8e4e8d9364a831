"""The store: what the service must not forget. Every method may be called from any thread.

A write returns after its commit: what was acknowledged outlives a kill, a full disk and a power cut. Events have ids, so a
call that failed, or whose answer was lost, is simply made again. Reads see every write that returned before them.
All methods raise StoreError where the database cannot be used, StoreBusyError where the same call may be made
again, and InputError for values that cannot be kept.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, Final, Self, TypeVar

from sqlalchemy import Connection, text

from lmrec.data.weighing import PLAIN, Weighing
from lmrec.feedback import (
    audit,
    eventlog,
    experiments,
    items,
    keys,
    outcomes,
    retention,
    reviews,
    rulebook,
    shown,
    users,
)
from lmrec.feedback.assignment import Experiment
from lmrec.feedback.audit import AuditRow
from lmrec.feedback.checks import check_count, check_text
from lmrec.feedback.database import Database, parse_address
from lmrec.feedback.errors import StoreBusyError, StoreError
from lmrec.feedback.events import Added, Event, StoredEvent, Tally, Worth, check_event
from lmrec.feedback.experiments import ExperimentRow
from lmrec.feedback.items import ItemChange, ItemPut
from lmrec.feedback.judging import Judging
from lmrec.feedback.keys import KeyRow, Scope
from lmrec.feedback.migrations import migrate
from lmrec.feedback.outcomes import ClickedItem, GenerationOutcome, ListOutcome, Lists
from lmrec.feedback.reviews import ReviewRow, ReviewStatus
from lmrec.feedback.rulebook import RuleRow
from lmrec.feedback.shown import Shown
from lmrec.feedback.users import UserExport
from lmrec.feedback.writer import GroupWriter, Write
from lmrec.fields import ItemId, UserId

__all__ = [
    "Added", "AuditRow", "Event", "ExperimentRow", "ItemChange", "ItemPut", "KeyRow", "ReviewRow", "ReviewStatus",
    "RuleRow", "Scope", "Shown", "Store", "StoreBusyError", "StoreError", "StoredEvent", "Tally", "UserExport", "Worth",
]  # fmt: skip

T = TypeVar("T")

WRITE_WAIT_S: Final = 30.0
SYSTEM: Final = "system"
"""Who decided, where the caller names nobody."""


class Store:
    """Made by `Store.open`; `with Store.open(url) as store:` closes it at the end."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._writer = GroupWriter(database)

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], float] = time.time) -> Self:
        """Open or make the store at `sqlite:///path/file.db` or `postgresql+psycopg://user:password@host/database`, and
        bring its tables up to date. `clock` gives UTC seconds. InputError for a URL that is no store."""
        store = cls(Database(parse_address(url)), clock)
        try:
            store._writer.submit(lambda connection: migrate(connection, store.where)).result()  # however long it takes
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Commit what waits, and let go of the database. To close twice does no harm."""
        self._writer.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def where(self) -> str:
        """The address, without a password."""
        return self._database.where

    @property
    def n_waiting_rows(self) -> int:
        """Rows of writes that wait for their commit."""
        return self._writer.n_waiting_rows

    def ping(self) -> None:
        """StoreError unless the database answers and is the one that was opened."""
        self._database.check_in_place()
        with self._database.read() as connection:
            connection.execute(text("SELECT 1"))

    # Events

    def add_events(self, events: Sequence[Event]) -> Added:
        """Store each event once; an id that is known, from earlier or from this very call, counts as a duplicate."""
        return self._wait(self.queue_events(events))

    def queue_events(self, events: Sequence[Event]) -> "Future[Added]":
        """As `add_events`, for who has something to do until the commit (`asyncio.wrap_future`)."""
        for event in events:
            check_event(event)
        kept, received_ts = tuple(events), self._clock()
        return self._writer.submit(
            lambda connection: eventlog.add_events(connection, kept, received_ts), n_rows=max(1, len(kept))
        )

    def history(self, user_id: UserId, limit: int, older: int = 0, weighing: Weighing = PLAIN) -> list[Tally]:
        """What the newest `limit` events of a user count for, all kinds, oldest first by when they happened (at equal times
        what was heard first, then by the client's clock). Before them stand, of the newest `older` of these, older dismissals
        and low ratings, returns and what those may have taken back."""
        check_text("user_id", user_id)
        check_count("limit", limit)
        check_count("older", older)
        with self._database.read() as connection:
            return eventlog.history(connection, user_id, limit, older, weighing)

    def returnables(
        self, pairs: Collection[tuple[UserId, ItemId]], weighing: Weighing = PLAIN
    ) -> list[tuple[UserId, Tally]]:
        """What a return of these items by these users goes by: their returns and what those may take back, ordered as in
        `history`."""
        with self._database.read() as connection:
            return eventlog.returnables(connection, pairs, weighing)

    @property
    def write_trouble(self) -> str | None:
        """Why the newest write failed, as by a full disk, without the store's address; None once one has succeeded."""
        trouble = self._writer.trouble
        return None if trouble is None else trouble.removeprefix(f"the store {self.where}").lstrip(": ")

    def changes_mark(self) -> tuple[int, int]:
        """The numbers of the last event and of the last decision (to forget somebody, such as). While both stay as they are,
        so does every `history`; where only the first has grown, so have the histories of those events' users."""
        with self._database.read() as connection:
            return eventlog.changes_mark(connection)

    def events_after(self, seq: int, limit: int) -> list[StoredEvent]:
        """The first `limit` events with a number above `seq`, in order. Who goes on from the last number misses none."""
        check_count("seq", seq)
        check_count("limit", limit)
        with self._database.read() as connection:
            return eventlog.events_after(connection, seq, limit)

    def worth(
        self, after_seq: int, upto_seq: int, now: float, half_life_s: float, weighing: Weighing = PLAIN
    ) -> list[Worth]:
        """The sums of 2^(-age / half_life_s) over the events numbered after_seq + 1 to upto_seq that say yes, of items that
        were known when they came, by what they say. The age is counted from `now` (UTC seconds), and 0 for what a fast clock
        puts later."""
        check_count("after_seq", after_seq)
        check_count("upto_seq", upto_seq)
        with self._database.read() as connection:
            return eventlog.worth(connection, after_seq, upto_seq, now, half_life_s, Judging.of(weighing))

    def last_seq(self) -> int:
        """The highest number of an event, 0 without events."""
        with self._database.read() as connection:
            return eventlog.last_seq(connection)

    def count_events(self) -> int:
        with self._database.read() as connection:
            return eventlog.count_events(connection)

    # Items

    def put_items(self, items_: Sequence[ItemPut], *, reworded: Collection[ItemId] = (), by: str = SYSTEM) -> int:
        """Make or replace items, each with a version of its own; return the newest version. All of them or none.

        reworded: those of them whose words are others now, which ends their approvals.
        """
        rows = items.item_rows(items_)

        def write(connection: Connection) -> int:
            now = self._clock()
            reviews.end_approvals(connection, reworded, "its words have changed", by, now)
            return items.write_items(connection, rows, now)

        return self._write(write, n_rows=len(rows) + len(reworded))

    def delete_items(self, item_ids: Collection[ItemId], *, by: str = SYSTEM) -> int:
        """Mark items as deleted, also ones that the store never saw; return the newest version. All of them or none."""
        rows = items.tombstone_rows(item_ids)

        def write(connection: Connection) -> int:
            now = self._clock()
            for row in rows:
                audit.add_audit(connection, by, "delete_item", row["item_id"], {}, now)
            # Who puts it again may put other words, which nobody here could compare with those that were approved.
            reviews.end_approvals(connection, item_ids, "it was deleted", by, now)
            return items.write_items(connection, rows, now)

        return self._write(write, n_rows=2 * len(rows))

    def item_changes(self, after_version: int) -> list[ItemChange]:
        """The latest state of each item that changed after that version, in order of versions. Tombstones stay."""
        check_count("after_version", after_version)
        with self._database.read() as connection:
            return items.item_changes(connection, after_version)

    def catalog_mark(self) -> tuple[int, int, int]:
        """The versions of items and of rules, and the number of the last decision: while all stay as they are, so does what
        may be shown."""
        with self._database.read() as connection:
            return items.catalog_mark(connection)

    def items_version(self) -> int:
        """The version of the last change of an item, 0 without one."""
        with self._database.read() as connection:
            return items.items_version(connection)

    # Shown lists

    def add_shown(self, shown_: Shown) -> None:
        """Keep a list that was shown. A request id that is known keeps its first list."""
        self._wait(self.queue_shown([shown_]))

    def queue_shown(self, lists: Sequence[Shown]) -> "Future[None]":
        """As `add_shown`, several at once, for who need not wait for the commit before answering."""
        rows = [shown.shown_row(one) for one in lists]
        return self._writer.submit(lambda connection: shown.add_shown(connection, rows), n_rows=max(1, len(rows)))

    def shown(self, request_id: str) -> Shown | None:
        check_text("request_id", request_id)
        with self._database.read() as connection:
            return shown.shown(connection, request_id)

    def shown_after(self, ts: float, limit: int) -> list[Shown]:
        """Lists shown later than `ts`, in order of time: `limit` of them, and all that share the time of the last."""
        check_count("limit", limit)
        with self._database.snapshot() as connection:
            return shown.shown_after(connection, ts, limit)

    def shown_ids(self, after_ts: float, until_ts: float) -> list[str]:
        """Request ids of the lists shown after `after_ts` and until `until_ts`."""
        with self._database.read() as connection:
            return shown.shown_ids(connection, after_ts, until_ts)

    def drop_old_lists(self, before_ts: float, limit: int = 1_000) -> int:
        """Delete up to `limit` of the lists shown before `before_ts`, the oldest first, but none that the running
        experiment needs; return how many. Without such lists nothing is written."""
        check_count("limit", limit)
        with self._database.snapshot() as connection:
            if not retention.has_old_lists(connection, before_ts):
                return 0
        return self._write(lambda connection: retention.drop_old_lists(connection, before_ts, limit), n_rows=limit)

    # What came of them

    # Which events are an answer to a list is a question of the recipe, as in all that follows.

    def generation_outcomes(self, after_ts: float, weighing: Weighing = PLAIN) -> list[GenerationOutcome]:
        """Lists shown later than `after_ts` and those that led to something, by generation."""
        with self._database.read() as connection:
            return outcomes.generation_outcomes(connection, after_ts, Judging.of(weighing).of_lists)

    def newest_lists(self, lists: Lists, limit: int) -> tuple[Lists, int]:
        """`lists`, or the newest `limit` of them, and how many that leaves out."""
        check_count("limit", limit)
        with self._database.snapshot() as connection:
            return outcomes.newest_lists(connection, lists, limit)

    def newest_shows(self, lists: Lists, limit: int) -> Lists:
        """`lists`, or the newest of them that have no more than `limit` items together."""
        check_count("limit", limit)
        with self._database.read() as connection:
            return outcomes.newest_shows(connection, lists, limit)

    def list_outcomes(self, lists: Lists, weighing: Weighing = PLAIN) -> list[ListOutcome]:
        """Each list and whether it led to something, in order of time."""
        with self._database.read() as connection:
            return outcomes.list_outcomes(connection, lists, Judging.of(weighing).of_lists)

    def followed_items(self, after_ts: float, until_ts: float, weighing: Weighing = PLAIN) -> list[tuple[str, ItemId]]:
        """(request id, item) of the positive events that name a list shown after `after_ts` and until `until_ts`."""
        with self._database.read() as connection:
            return outcomes.followed_items(connection, after_ts, until_ts, Judging.of(weighing).of_lists)

    def clicked_items(
        self,
        after_ts: float,
        after_seq: int,
        upto_seq: int,
        weighing: Weighing = PLAIN,
        request_ids: Collection[str] | None = None,
    ) -> list[ClickedItem]:
        """Of the positive events of these numbers that name a list shown after `after_ts`, one of `request_ids` where given,
        and an item of it, each item of a list once."""
        judging = Judging.of(weighing).of_lists
        with self._database.read() as connection:
            return outcomes.clicked_items(connection, after_ts, after_seq, upto_seq, judging, request_ids)

    # Rules

    def put_rule(self, rule: RuleRow, *, by: str = SYSTEM) -> None:
        """Make a rule, or replace the one with its id."""
        self._write(lambda connection: rulebook.put_rule(connection, rule, by, self._clock()))

    def delete_rule(self, rule_id: str, *, by: str = SYSTEM) -> bool:
        """Delete a rule; False where there is none with this id."""
        check_text("rule_id", rule_id)
        return self._write(lambda connection: rulebook.delete_rule(connection, rule_id, by, self._clock()))

    def rules(self) -> list[RuleRow]:
        """The rules in force, oldest first."""
        with self._database.read() as connection:
            return rulebook.rules(connection)

    def rules_version(self) -> int:
        """Grows with every change of a rule; 0 before the first."""
        with self._database.read() as connection:
            return rulebook.rules_version(connection)

    # Reviews

    def flag_item(self, item_id: ItemId, reason: str, by: str = SYSTEM) -> ReviewRow:
        """Hold an item back until somebody decides; also one that was approved before. Returns what was written."""
        return self._write(lambda connection: reviews.flag_item(connection, item_id, reason, by, self._clock()))

    def queue_items(
        self, reasons: Mapping[ItemId, str], *, approvals: Mapping[ItemId, float], by: str = SYSTEM
    ) -> None:
        """Flag items, item -> reason, that nobody has flagged or decided on, or only approved as in approvals, item ->
        `decided_ts`: who decides while a program looks for what to flag is not overruled."""
        self._write(
            lambda connection: reviews.queue_items(connection, reasons, approvals, by, self._clock()),
            n_rows=2 * len(reasons),
        )

    def release_items(self, rows: Collection[reviews.ReviewRow], why: str, by: str = SYSTEM) -> None:
        """Take items out of the queue as if they had never been flagged, where they still are as in rows."""
        self._write(
            lambda connection: reviews.release_items(connection, rows, why, by, self._clock()),
            n_rows=2 * len(rows),
        )

    def decide_item(self, item_id: ItemId, approved: bool, by: str = SYSTEM, note: str = "") -> ReviewRow:
        """Approve or reject a flagged item; returns what was written. UnknownIdError where it was never flagged."""
        check_text("item_id", item_id)
        return self._write(
            lambda connection: reviews.decide_item(connection, item_id, approved, by, note, self._clock())
        )

    def reviews(self, status: ReviewStatus = "waiting") -> list[ReviewRow]:
        """Items with this status, the one flagged first at the top."""
        with self._database.read() as connection:
            return reviews.reviews(connection, status)

    def waiting_items(self) -> set[ItemId]:
        """Items that are not to be shown: flagged and not approved."""
        with self._database.read() as connection:
            return reviews.waiting_items(connection)

    # Experiments

    def start_experiment(self, experiment: Experiment, *, by: str = SYSTEM) -> None:
        """InputError where another one runs, or where one had this name."""
        self._write(lambda connection: experiments.start_experiment(connection, experiment, by, self._clock()))

    def end_experiment(self, name: str, why: str, *, by: str = SYSTEM) -> bool:
        """Whether it was running."""
        return self._write(lambda connection: experiments.end_experiment(connection, name, by, why, self._clock()))

    def running_experiment(self) -> ExperimentRow | None:
        with self._database.read() as connection:
            return experiments.running_experiment(connection)

    def experiments(self) -> list[ExperimentRow]:
        """All of them, the newest first."""
        with self._database.read() as connection:
            return experiments.experiments(connection)

    # Audit

    def add_audit(self, actor: str, action: str, target: str, detail: dict[str, Any]) -> None:
        """Note a decision that is made elsewhere, such as a rollback. Decisions of this class note themselves."""
        self._write(lambda connection: audit.add_audit(connection, actor, action, target, detail, self._clock()))

    def note_done(self, actor: str, action: str, target: str, detail: dict[str, Any]) -> StoreError | None:
        """`add_audit` of what is done already and must not look undone: the error, where it could not be noted."""
        try:
            self.add_audit(actor, action, target, detail)
        except StoreError as error:
            return error
        return None

    def audit(self, limit: int) -> list[AuditRow]:
        """The newest `limit` decisions, newest first."""
        check_count("limit", limit)
        with self._database.read() as connection:
            return audit.audit(connection, limit)

    # Keys

    def add_key(self, name: str, scopes: Sequence[Scope], *, by: str = SYSTEM) -> str:
        """Make a key and return its secret: the only time that anybody sees it."""
        key = keys.make_key(name, scopes)
        self._write(lambda connection: keys.add_key(connection, key, by, self._clock()))
        return key.secret

    def check_key(self, secret: str) -> KeyRow | None:
        """The key with this secret; None where there is none in force."""
        with self._database.read() as connection:
            return keys.check_key(connection, secret)

    def revoke_key(self, key_id: str, *, by: str = SYSTEM) -> bool:
        """Put a key out of force; False where there is none in force with this id."""
        check_text("key_id", key_id)
        return self._write(lambda connection: keys.revoke_key(connection, key_id, by, self._clock()))

    def keys(self) -> list[KeyRow]:
        """All keys, also revoked ones, oldest first."""
        with self._database.read() as connection:
            return keys.keys(connection)

    def has_keys(self) -> bool:
        """Whether a key was ever made, revoked ones included."""
        with self._database.read() as connection:
            return keys.has_keys(connection)

    # Users

    def find_users(self, query: str) -> list[UserId]:
        """Users with events whose id holds `query`, upper and lower case told apart."""
        with self._database.read() as connection:
            return users.find_users(connection, query)

    # Users' rights

    def export_user(self, user_id: UserId) -> UserExport:
        """Everything that is held of a user, as of one moment."""
        check_text("user_id", user_id)
        with self._database.snapshot() as connection:
            return users.export_user(connection, user_id)

    def forget_user(self, user_id: UserId, *, by: str = SYSTEM) -> int:
        """Remove a user's events and the user's name from shown lists; return the number of events removed."""
        check_text("user_id", user_id)
        n_events = self._write(lambda connection: users.forget_user(connection, user_id, by, self._clock()))
        self._database.clean()
        return n_events

    def is_forgotten(self, user_id: UserId) -> float | None:
        """When the user was last forgotten, UTC seconds; None for never."""
        check_text("user_id", user_id)
        with self._database.read() as connection:
            return users.is_forgotten(connection, user_id)

    def forgotten_users(self) -> dict[UserId, float]:
        """All users who were forgotten, with the time of the last time."""
        with self._database.read() as connection:
            return users.forgotten_users(connection)

    def _write(self, write: Write[T], *, n_rows: int = 1) -> T:
        return self._wait(self._writer.submit(write, n_rows=max(1, n_rows)))

    def _wait(self, future: "Future[T]") -> T:
        try:
            return future.result(WRITE_WAIT_S)
        except TimeoutError:
            if future.cancel():
                raise StoreBusyError(
                    f"the store {self.where} did not come to this write in {WRITE_WAIT_S:g} s, and nothing of it was "
                    "stored. Try again"
                ) from None
            if future.done():
                return future.result()
            raise StoreBusyError(
                f"the store {self.where} did not finish this write in {WRITE_WAIT_S:g} s; it may still be stored. Try "
                "again: an event that is known is not counted twice"
            ) from None
        except CancelledError:
            raise StoreError(f"this write to the store {self.where} was cancelled; make it again") from None


def note_done(url: str, actor: str, action: str, target: str, detail: dict[str, Any]) -> StoreError | None:
    """`Store.note_done` of a store that is not open. Raises InputError for a URL that is no store."""
    try:
        with Store.open(url) as store:
            return store.note_done(actor, action, target, detail)
    except StoreError as error:
        return error
