"""Any order of calls, with reopening in between, against a model in plain dicts; on every database."""

import tempfile
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from lmrec.errors import UnknownIdError
from lmrec.feedback.checks import JsonScalar
from lmrec.feedback.events import EVENT_KINDS
from lmrec.feedback.judging import PLAIN_JUDGING
from lmrec.feedback.store import Added, Event, ItemPut, ReviewStatus, RuleRow, Shown, Store

from .conftest import NewUrl

# Few ids, so that the calls meet: the same event again, an item that was deleted, a user who was forgotten.
event_ids = st.integers(0, 25).map(lambda n: f"e{n}")
user_ids = st.sampled_from(["ann", "bob", "Ünal"])
item_ids = st.sampled_from(["i1", "i2", "i3", "i4"])
times = st.integers(0, 6).map(float)  # few, so that many are equal
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=5)
scalars: st.SearchStrategy[JsonScalar] = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), texts
)
events = st.builds(
    Event,
    event_id=event_ids,
    user_id=user_ids,
    item_id=item_ids,
    kind=st.sampled_from(EVENT_KINDS),
    time_ts=times,
    rating=st.none() | st.floats(0, 5),
    weight=st.none() | st.floats(0, 9),
    request_id=st.none() | st.sampled_from(["r1", "r2"]),
    flags=st.sampled_from([(), ("unknown_item",), ("unknown_item", "old_clock")]),
)
item_puts = st.builds(
    ItemPut,
    item_id=item_ids,
    fields=st.dictionaries(texts, scalars, max_size=3),
    text_vec=st.none() | st.binary(min_size=4, max_size=8),
    fingerprint=st.sampled_from(["", "abc"]),
)


class StoreModel(RuleBasedStateMachine):
    url: str

    @initialize()
    def start(self) -> None:
        self.store = Store.open(self.url)
        self.events: dict[str, Event] = {}
        self.forgotten: set[tuple[str, str]] = set()
        self.forgotten_users: set[str] = set()
        self.items: dict[str, ItemPut | None] = {}  # in the order of the last change; None: deleted
        self.n_versions = 0
        self.shown: dict[str, Shown] = {}
        self.rulebook: dict[str, RuleRow] = {}
        self.reviews: dict[str, ReviewStatus] = {}
        self.n_decisions = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store.open(self.url)

    @rule(batch=st.lists(events, max_size=8))
    def add_events(self, batch: list[Event]) -> None:
        accepted = 0
        for event in batch:
            if event.event_id not in self.events and (event.user_id, event.event_id) not in self.forgotten:
                self.events[event.event_id] = event
                accepted += 1
        assert self.store.add_events(batch) == Added(accepted, len(batch) - accepted)

    @rule(user_id=user_ids, limit=st.integers(0, 10), denials=st.integers(0, 3))
    def read_history(self, user_id: str, limit: int, denials: int) -> None:
        own = [event for event in self.events.values() if event.user_id == user_id]
        in_order = sorted(own, key=lambda event: event.time_ts)  # stable: equal times as they came in
        newest = in_order[max(0, len(in_order) - limit) :]
        said_no = [event for event in in_order if not PLAIN_JUDGING.says_yes(event)][-denials:] if denials else []
        wanted = [*(event for event in said_no if event not in newest), *newest]
        found = self.store.history(user_id, limit, denials)
        assert [(one.item_id, one.time_ts, one.good) for one in found] == [
            (event.item_id, event.time_ts, PLAIN_JUDGING.says_yes(event)) for event in wanted
        ]

    @rule(page=st.integers(1, 9))
    def read_all_events(self, page: int) -> None:
        seen: list[Event] = []
        seq = 0
        while some := self.store.events_after(seq, page):
            assert len(some) <= page
            numbers = [seq, *(one.seq for one in some)]
            assert numbers == sorted(set(numbers))
            seq = numbers[-1]
            seen += [one.event for one in some]
        assert seen == list(self.events.values())

    @rule(user_id=user_ids)
    def forget(self, user_id: str) -> None:
        own = [event_id for event_id, event in self.events.items() if event.user_id == user_id]
        assert self.store.forget_user(user_id) == len(own)
        for event_id in own:
            del self.events[event_id]
            self.forgotten.add((user_id, event_id))
        for request_id, one in self.shown.items():
            if one.user_id == user_id:
                self.shown[request_id] = Shown(request_id, None, one.generation, one.item_ids, one.time_ts, {})
        self.forgotten_users.add(user_id)
        self.n_decisions += 1

    @rule(puts=st.lists(item_puts, max_size=4))
    def put_items(self, puts: list[ItemPut]) -> None:
        for put in puts:
            self.items.pop(put.item_id, None)
            self.items[put.item_id] = put
        names = {put.item_id for put in puts}
        self.n_versions += len(names)
        assert self.store.put_items(puts, reworded=names) == self.n_versions
        for item_id in names:
            if self.reviews.get(item_id) == "approved":
                del self.reviews[item_id]
                self.n_decisions += 1

    @rule(ids=st.lists(item_ids, max_size=3))
    def delete_items(self, ids: list[str]) -> None:
        for item_id in dict.fromkeys(ids):
            self.items.pop(item_id, None)
            self.items[item_id] = None
            if self.reviews.get(item_id) == "approved":
                del self.reviews[item_id]
                self.n_decisions += 1
        self.n_versions += len(set(ids))
        self.n_decisions += len(set(ids))
        assert self.store.delete_items(ids) == self.n_versions

    @rule(after=st.integers(0, 30))
    def read_items(self, after: int) -> None:
        changes = self.store.item_changes(0)
        assert [change.item_id for change in changes] == list(self.items)
        for change in changes:
            put = self.items[change.item_id]
            assert change.fields == (None if put is None else put.fields)
            assert change.text_vec == (None if put is None else put.text_vec)
            assert change.fingerprint == ("" if put is None else put.fingerprint)
        assert self.store.item_changes(after) == [change for change in changes if change.version > after]

    @rule(
        request_id=st.integers(0, 9).map(lambda n: f"r{n}"),
        user_id=st.none() | user_ids,
        ids=st.lists(item_ids, max_size=3),
        time_ts=times,
    )
    def show(self, request_id: str, user_id: str | None, ids: list[str], time_ts: float) -> None:
        one = Shown(request_id, user_id, "0001", tuple(ids), time_ts, {"arm": "a"})
        self.store.add_shown(one)
        self.shown.setdefault(request_id, one)

    @rule(after=times, limit=st.integers(1, 4))
    def read_shown(self, after: float, limit: int) -> None:
        later = [one for one in self.shown.values() if one.time_ts > after]
        later.sort(key=lambda one: (one.time_ts, one.request_id))
        page = self.store.shown_after(after, limit)
        assert page == later[: len(page)]
        assert len(page) >= min(limit, len(later))
        assert len(page) == len(later) or later[len(page)].time_ts > page[-1].time_ts

    @rule(rule_id=st.sampled_from(["a", "b"]), spec=st.dictionaries(texts, scalars, max_size=2), created_ts=times)
    def put_rule(self, rule_id: str, spec: dict[str, JsonScalar], created_ts: float) -> None:
        one = RuleRow(rule_id, "boost", cast(dict[str, object], spec), created_ts)
        before = self.store.rules_version()
        self.store.put_rule(one)
        assert self.store.rules_version() > before
        self.rulebook[rule_id] = one
        self.n_decisions += 1

    @rule(rule_id=st.sampled_from(["a", "b"]))
    def delete_rule(self, rule_id: str) -> None:
        before = self.store.rules_version()
        known = self.rulebook.pop(rule_id, None) is not None
        assert self.store.delete_rule(rule_id) == known
        assert (self.store.rules_version() > before) == known
        self.n_decisions += known

    @rule(item_id=item_ids, reason=texts)
    def flag(self, item_id: str, reason: str) -> None:
        self.store.flag_item(item_id, reason, "eve")
        self.reviews[item_id] = "waiting"
        self.n_decisions += 1

    @rule(reasons=st.dictionaries(item_ids, texts, max_size=3), up_to_date=st.booleans())
    def queue_many(self, reasons: dict[str, str], up_to_date: bool) -> None:
        """Who does not know of an approval does not undo it."""
        approvals = {row.item_id: row.decided_ts or 0.0 for row in self.store.reviews("approved")} if up_to_date else {}
        self.store.queue_items(reasons, approvals=approvals, by="rule a")
        news = [item for item in reasons if item not in self.reviews or item in approvals]
        self.reviews.update(dict.fromkeys(news, "waiting"))
        self.n_decisions += len(news)

    @rule(ids=st.sets(item_ids, max_size=3), decided=st.booleans())
    def release(self, ids: set[str], decided: bool) -> None:
        rows = [row for row in self.store.reviews("waiting") if row.item_id in ids]
        if decided:
            for row in rows:
                self.store.decide_item(row.item_id, True, "eve", "")
                self.reviews[row.item_id] = "approved"
            self.n_decisions += len(rows)
        self.store.release_items(rows, "no reason any more")
        if not decided:
            for row in rows:
                del self.reviews[row.item_id]
            self.n_decisions += len(rows)

    @rule(item_id=item_ids, approved=st.booleans())
    def decide(self, item_id: str, approved: bool) -> None:
        if item_id not in self.reviews:
            with pytest.raises(UnknownIdError):
                self.store.decide_item(item_id, approved, "eve", "")
            return
        self.store.decide_item(item_id, approved, "eve", "")
        self.reviews[item_id] = "approved" if approved else "rejected"
        self.n_decisions += 1

    @invariant()
    def counts_and_decisions_agree(self) -> None:
        assert self.store.count_events() == len(self.events)
        assert self.store.items_version() == self.n_versions
        assert {row.rule_id: row for row in self.store.rules()} == self.rulebook
        assert self.store.waiting_items() == {item for item, status in self.reviews.items() if status != "approved"}
        assert set(self.store.forgotten_users()) == self.forgotten_users
        assert len(self.store.audit(10_000)) == self.n_decisions
        assert all(self.store.shown(request_id) == one for request_id, one in self.shown.items())


def play(new_url: NewUrl, n_examples: int) -> None:
    class Machine(StoreModel):
        def __init__(self) -> None:
            super().__init__()
            self.url = new_url()

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=n_examples,
            stateful_step_count=40,
            derandomize=True,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_sqlite_agrees_with_the_model(tmp_path: Path) -> None:
    play(lambda: f"sqlite:///{tempfile.mkdtemp(dir=tmp_path)}/store.db", 12)


def test_postgresql_agrees_with_the_model(new_postgresql_url: NewUrl) -> None:
    play(new_postgresql_url, 5)
