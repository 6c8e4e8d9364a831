"""What the store owes on every database. The service, and whoever trains on its events, rely on exactly this."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from lmrec.data.weighing import PLAIN, Weighing
from lmrec.errors import InputError, UnknownIdError
from lmrec.feedback import migrations
from lmrec.feedback.assignment import Experiment
from lmrec.feedback.checks import JsonScalar
from lmrec.feedback.events import EVENT_KINDS, LIKED_STARS, UNKNOWN_ITEM
from lmrec.feedback.judging import PLAIN_JUDGING, Judging
from lmrec.feedback.migrations import VERSION_TABLE
from lmrec.feedback.outcomes import Lists
from lmrec.feedback.store import (
    Added,
    Event,
    ItemPut,
    RuleRow,
    Shown,
    Store,
    StoredEvent,
    StoreError,
)
from lmrec.feedback.tables import METADATA

from .conftest import NewUrl

NOW = 1_700_000_000.0


class Clock:
    """Goes on by one second at every look."""

    def __init__(self) -> None:
        self.ts = NOW

    def __call__(self) -> float:
        self.ts += 1.0
        return self.ts


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    make: NewUrl = request.getfixturevalue("new_postgresql_url")
    return make()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url, clock=Clock()) as opened:
        yield opened


def make_event(event_id: str, user_id: str = "ann", item_id: str = "i1", time_ts: float = NOW) -> Event:
    return Event(event_id, user_id, item_id, "view", time_ts)


def make_shown(request_id: str, user_id: str | None = "ann", time_ts: float = NOW) -> Shown:
    return Shown(request_id, user_id, "0001", ("i2", "i1"), time_ts, {"arm": "b", "words": "rainy days"})


def worths(store: Store, after_seq: int, upto_seq: int, weighing: Weighing = PLAIN) -> dict[str, float]:
    """By item, with a half-life of 30 days."""
    found: dict[str, float] = {}
    for one in store.worth(after_seq, upto_seq, NOW, 30 * 86_400.0, weighing):
        found[one.item_id] = found.get(one.item_id, 0.0) + one.worth
    return found


def all_events(store: Store, page: int = 1000) -> list[StoredEvent]:
    found: list[StoredEvent] = []
    while some := store.events_after(found[-1].seq if found else 0, page):
        found += some
    return found


# Tables


def test_migrations_make_the_tables_that_the_code_reads(store: Store, url: str) -> None:
    engine = create_engine(url)
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []
    engine.dispose()


def test_the_tables_of_a_newer_lmrec_are_left_alone(store: Store, url: str) -> None:
    store.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreError, match=r"tables of version '9999'.* Install that version, or restore a backup"):
        Store.open(url)


def test_several_may_open_a_new_store_at_once(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: Store.open(url), range(4)))
    for place, store in enumerate(stores):
        assert store.add_events([make_event(f"e{place}")]) == Added(1, 0)
    assert stores[0].count_events() == 4
    for store in stores:
        store.close()


# Events


def test_an_event_comes_back_as_it_was(store: Store) -> None:
    plain = [Event(f"e{kind}", "ann", f"i{kind}", kind, NOW) for kind in EVENT_KINDS]
    rich = Event(
        "é-\U0001f3ac", "ü ser", "it,em", "rating", NOW + 0.123456, 4.5, 0.5, "r1", ("unknown_item", "old_clock")
    )
    assert store.add_events([*plain, rich]) == Added(len(plain) + 1, 0)
    stored = store.events_after(0, 100)
    assert [one.event for one in stored] == [*plain, rich]
    assert {one.received_ts for one in stored} == {NOW + 1}
    assert [one.item_id for one in store.history("ü ser", 10)] == ["it,em"]


def test_events_are_worth_less_with_age_and_nothing_once_faded(store: Store) -> None:
    day = 86_400.0
    told = [("a", 0.0), ("a", -30.0), ("b", -60.0), ("c", -3_001.0), ("c", -NOW / day), ("d", 9.0)]
    events = [Event(f"e{n}", "ann", item, "click", NOW + days * day) for n, (item, days) in enumerate(told)]
    bad = [
        Event("no", "ann", "a", "dismiss", NOW),
        Event("low", "ann", "a", "rating", NOW, 1.0),
        Event("who", "ann", "x", "view", NOW, flags=("old_clock", UNKNOWN_ITEM)),
    ]
    store.add_events([*events, *bad])
    assert worths(store, 0, store.last_seq()) == pytest.approx({"a": 1.5, "b": 0.25, "d": 1.0})
    assert worths(store, 1, 3) == pytest.approx({"a": 0.5, "b": 0.25})
    assert worths(store, store.last_seq(), store.last_seq()) == {}


WEIGHINGS = [
    Weighing(),
    Weighing(weight_from="rating"),
    Weighing(min_rating=2.0),
    Weighing(min_rating=4.0, weight_from="rating"),
    Weighing(kind_weights={"view": 0, "rating": 0, "dismiss": 0}),
    Weighing(kind_weights={"dismiss": 0.5}, return_kinds={"return": "purchase"}),
]


def test_the_database_judges_events_as_python_does(store: Store) -> None:
    stars = (None, 1.0, 2.0, 3.0, 4.5)
    events = [
        Event(f"e {kind} {rating}", "ann", f"i {kind} {rating}", kind, NOW, rating, weight=2.0)
        for kind in (*EVENT_KINDS, "return", "browse")
        for rating in stars
    ]
    store.add_events(events)
    for weighing in WEIGHINGS:
        judging = Judging.of(weighing)
        judged = {event.item_id: judging.judge(event.kind, event.rating) for event in events}
        yes = {item for item, said in judged.items() if said}
        assert {one.item_id for one in store.worth(0, len(events), NOW, 1e6, weighing)} == yes
        assert {one.item_id: one.good for one in store.history("ann", 100, weighing=weighing)} == judged
        lasting = [one for one in store.history("ann", 1, 100, weighing)[:-1] if one.kind not in ("return", "purchase")]
        assert {one.item_id for one in lasting} == {item for item, said in judged.items() if said is False}


def test_what_was_bought_and_returned_long_ago_comes_with_the_newest(store: Store) -> None:
    """All of it, or a return whose purchase is too old would take back another one."""
    told = [("a", "purchase"), ("b", "purchase"), ("a", "view"), ("a", "return"), ("c", "view"), ("c", "view")]
    store.add_events([Event(f"e{n}", "ann", item, kind, NOW - 9 + n, weight=n) for n, (item, kind) in enumerate(told)])
    store.add_events([Event("other", "bob", "b", "return", NOW)])
    found = store.history("ann", 2, 10, Weighing(return_kinds={"return": "purchase"}))
    assert [(one.item_id, one.kind, one.amount) for one in found] == [
        ("a", "purchase", 0.0), ("a", "return", 3.0), ("c", "view", 4.0), ("c", "view", 5.0),
    ]  # fmt: skip


def test_values_of_an_older_store_become_stars_and_weights(url: str) -> None:
    engine = create_engine(url)
    insert = (
        "INSERT INTO lmrec_events (event_id, user_id, item_id, kind, time_ts, value, flags, received_ts) "
        "VALUES (:kind, 'ann', 'i1', :kind, 1, :value, '', 1)"
    )
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
        with Operations.context(context):
            for step in reversed(list(scripts.iterate_revisions("0003", "base"))):
                step.module.upgrade()
                context.stamp(scripts, step.revision)
        for kind, value in (("rating", -1.0), ("purchase", 3.0), ("play", 200.0), ("view", None)):
            connection.execute(text(insert), {"kind": kind, "value": value})
    engine.dispose()
    with Store.open(url) as store:
        assert {one.event.kind: (one.event.rating, one.event.weight) for one in all_events(store)} == {
            "rating": (-1.0, None), "purchase": (None, 3.0), "play": (None, None), "view": (None, None),
        }  # fmt: skip


def test_an_event_counts_once_however_often_it_comes(store: Store) -> None:
    first, second = make_event("e1"), make_event("e2")
    assert store.add_events([first, second, first]) == Added(2, 1)
    assert store.add_events([second, replace(first, user_id="bob")]) == Added(0, 2)
    assert [one.event for one in all_events(store)] == [first, second]
    assert store.count_events() == 2


def test_only_stars_may_be_below_0(store: Store) -> None:
    assert store.add_events([Event("e1", "ann", "i1", "rating", NOW, rating=-3.0)]) == Added(1, 0)
    with pytest.raises(InputError, match=r"the weight -3 is below 0\. For what was given back send a return"):
        store.add_events([make_event("fine"), Event("e2", "ann", "i1", "purchase", NOW, weight=-3.0)])
    assert store.count_events() == 1


def test_nothing_to_add_is_no_error(store: Store) -> None:
    assert store.add_events([]) == Added(0, 0)
    assert (store.last_seq(), store.count_events(), store.events_after(0, 10), store.history("ann", 10)) == (
        0,
        0,
        [],
        [],
    )


def test_each_call_is_told_its_own_counts_when_many_commit_together(store: Store, url: str) -> None:
    """Sixteen callers, through two stores on one database, send overlapping events all at once."""
    n_callers, n_events = 16, 60
    batches = [
        [make_event(f"e{(7 * caller + place) % 200}") for place in range(n_events)] for caller in range(n_callers)
    ]
    start = threading.Barrier(n_callers)
    with Store.open(url) as other, ThreadPoolExecutor(n_callers) as pool:

        def send(caller: int) -> list[Added]:
            start.wait()
            target = (store, other)[caller % 2]
            return [target.add_events(batches[caller][first : first + 5]) for first in range(0, n_events, 5)]

        answers = [added for many in pool.map(send, range(n_callers)) for added in many]
    assert all(added.accepted + added.duplicates == 5 for added in answers)
    known = {event.event_id for batch in batches for event in batch}
    assert sum(added.accepted for added in answers) == len(known)
    assert sorted(one.event.event_id for one in all_events(store)) == sorted(known)


def test_a_reader_who_goes_on_from_the_last_number_misses_no_event(store: Store, url: str) -> None:
    """Numbers appear in the order of commits, also from several writers at once."""
    n_writers, n_events = 6, 40
    seen: list[StoredEvent] = []
    with Store.open(url) as other, ThreadPoolExecutor(n_writers) as pool:

        def send(writer: int) -> None:
            for place in range(n_events):
                (store, other)[writer % 2].add_events([make_event(f"w{writer}-{place}")])

        running = [pool.submit(send, writer) for writer in range(n_writers)]
        while True:
            finished = all(future.done() for future in running)
            seen += store.events_after(seen[-1].seq if seen else 0, 7)
            if finished and (not seen or seen[-1].seq == store.last_seq()):
                break
        for future in running:
            future.result()
    assert len({one.event.event_id for one in seen}) == len(seen) == n_writers * n_events


def test_history_is_the_newest_events_of_one_user_oldest_first(store: Store) -> None:
    times = [5.0, 1.0, 3.0, 3.0, 2.0, 9.0]
    events = [make_event(f"e{place}", time_ts=NOW - 10 + time) for place, time in enumerate(times)]
    store.add_events([*events, make_event("other", user_id="bob", time_ts=NOW - 1)])
    in_order = [2, 5, 3, 4, 1, 6]  # equal times: as they came in
    assert [one.seq for one in store.history("ann", 100)] == in_order
    assert [one.seq for one in store.history("ann", 4)] == in_order[-4:]
    assert store.history("ann", 0) == []
    assert store.history("nobody", 5) == []


def test_an_event_is_in_the_history_as_soon_as_it_was_acknowledged(store: Store) -> None:
    for place in range(30):
        event = make_event(f"e{place}", time_ts=NOW + place)
        store.add_events([event])
        assert store.history("ann", 1)[0].seq == place + 1


def test_what_a_clock_that_is_ahead_says_happened_when_it_was_heard(store: Store) -> None:
    store.add_events([make_event("e1", time_ts=NOW + 1e6)])
    store.add_events([replace(make_event("e2", time_ts=NOW + 1), kind="dismiss")])
    first, second = store.history("ann", 10)
    assert (first.seq, second.seq, second.good) == (1, 2, False)
    assert first.time_ts <= second.time_ts == NOW + 1
    ahead = [make_event(f"a{n}", user_id="bob", time_ts=NOW + 1e5 - n) for n in range(3)]
    store.add_events([*ahead, make_event("a3", user_id="bob", time_ts=NOW)])
    assert [one.seq for one in store.history("bob", 10)] == [6, 5, 4, 3], "theirs tells the order of one moment"
    assert [one.seq for one in store.history("bob", 2)] == [4, 3]


def test_what_was_acknowledged_is_there_after_opening_again(store: Store, url: str) -> None:
    store.add_events([make_event("e1")])
    version = store.put_items([ItemPut("i1", {"title": "One"})])
    store.close()
    with Store.open(url) as again:
        assert again.add_events([make_event("e1"), make_event("e2")]) == Added(1, 1)
        assert [one.event.event_id for one in all_events(again)] == ["e1", "e2"]
        assert again.items_version() == version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"event_id": ""}, "event_id is empty"),
        ({"user_id": "a\x00b"}, "has a NUL character"),
        ({"item_id": "\ud800"}, "half character"),
        ({"request_id": "\x00"}, "has a NUL character"),
        ({"kind": ""}, "kind is empty"),
        ({"kind": " View"}, "Write 'view' for ' View'"),
        ({"time_ts": float("nan")}, "time_ts is nan; give a finite number"),
        ({"rating": float("inf")}, "rating is inf; give a finite number"),
        ({"weight": float("nan")}, "weight is nan; give a finite number"),
        ({"flags": ("a,b",)}, "flags are single words"),
    ],
)
def test_an_event_that_cannot_be_kept_is_refused_with_its_whole_call(
    store: Store, change: dict[str, object], message: str
) -> None:
    bad = replace(make_event("bad"), **change)  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        store.add_events([make_event("good"), bad])
    assert message in str(caught.value)
    assert store.count_events() == 0


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.history("a\x00b", 5),
        lambda store: store.history("\udfff", 5),
        lambda store: store.history("ann", -1),
        lambda store: store.events_after(2**63, 5),
        lambda store: store.shown("\x00"),
        lambda store: store.export_user(""),
        lambda store: store.item_changes(-1),
    ],
)
def test_questions_that_no_database_understands_are_wrong_input(store: Store, read: Callable[[Store], object]) -> None:
    with pytest.raises(InputError):
        read(store)


# Items


def test_an_item_change_is_the_latest_state_in_order_of_versions(store: Store) -> None:
    vec = bytes(range(256)) * 6
    fields: dict[str, JsonScalar] = {"title": "Über", "year": 1999, "price": 1.5, "new": True, "genre": None}
    first = store.put_items([ItemPut("i1", fields, vec, "abc"), ItemPut("i2", {"title": "Two"})])
    second = store.put_items([ItemPut("i1", {"title": "One"}), ItemPut("i3", {}, vec, "abc")])
    assert 0 < first < second == store.items_version()
    changes = store.item_changes(0)
    assert [change.item_id for change in changes] == ["i2", "i1", "i3"]
    assert [change.version for change in changes] == sorted({change.version for change in changes})
    assert (changes[0].fields, changes[0].text_vec, changes[0].fingerprint) == ({"title": "Two"}, None, "")
    assert (changes[1].fields, changes[1].text_vec) == ({"title": "One"}, None)
    assert (changes[2].text_vec, changes[2].fingerprint) == (vec, "abc")
    assert [change.item_id for change in store.item_changes(first)] == ["i1", "i3"]
    assert store.item_changes(second) == []


def test_fields_of_an_item_come_back_as_they_were(store: Store) -> None:
    fields: dict[str, JsonScalar] = {
        "title": 'a "\\" \u2028 é \x00',
        "year": 2**60,
        "price": 0.1,
        "new": False,
        "genre": None,
        "": "",
    }
    store.put_items([ItemPut("i1", fields)])
    assert store.item_changes(0)[0].fields == fields


def test_of_an_item_that_is_named_twice_the_later_one_counts(store: Store) -> None:
    store.put_items([ItemPut("i1", {"n": 1}), ItemPut("i2", {"n": 2}), ItemPut("i1", {"n": 3})])
    assert [(change.item_id, change.fields) for change in store.item_changes(0)] == [
        ("i2", {"n": 2}),
        ("i1", {"n": 3}),
    ]


def test_a_deleted_item_stays_deleted_until_it_is_put_again(store: Store, url: str) -> None:
    store.put_items([ItemPut("i1", {"title": "One"}, b"\x00" * 4, "abc")])
    version = store.delete_items(["i1", "only-in-the-run", "i1"])
    assert version == store.items_version() == 3
    store.close()
    with Store.open(url) as again:
        assert [(change.item_id, change.fields, change.text_vec) for change in again.item_changes(0)] == [
            ("i1", None, None),
            ("only-in-the-run", None, None),
        ]
        again.put_items([ItemPut("i1", {"title": "Back"})])
        assert [(change.item_id, change.fields) for change in again.item_changes(version)] == [
            ("i1", {"title": "Back"})
        ]


def test_items_are_written_all_or_none(store: Store) -> None:
    with pytest.raises(InputError, match="fields of item 'i2' cannot be written as JSON"):
        store.put_items([ItemPut("i1", {}), ItemPut("i2", {"price": float("nan")})])
    assert store.put_items([]) == store.delete_items([]) == store.items_version() == 0


def test_versions_are_never_given_twice(store: Store, url: str) -> None:
    with Store.open(url) as other, ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda n: (store, other)[n % 2].put_items([ItemPut(f"i{n % 3}", {})]), range(40)))
    assert sorted(versions) == list(range(1, 41))


# Shown lists


def test_a_shown_list_comes_back_by_its_request(store: Store) -> None:
    named, unnamed = make_shown("r1"), make_shown("r2", user_id=None)
    store.add_shown(named)
    store.queue_shown([unnamed]).result()
    assert (store.shown("r1"), store.shown("r2"), store.shown("r3")) == (named, unnamed, None)


def test_a_request_id_keeps_its_first_list(store: Store) -> None:
    store.add_shown(make_shown("r1"))
    store.add_shown(replace(make_shown("r1"), generation="0002"))
    assert store.shown("r1") == make_shown("r1")


def test_pages_of_shown_lists_leave_none_out(store: Store) -> None:
    times = [1.0, 2.0, 2.0, 2.0, 3.0, 4.0]
    for place, time in enumerate(times):
        store.add_shown(make_shown(f"r{place}", time_ts=NOW + time))
    page = store.shown_after(NOW, 2)
    assert [one.request_id for one in page] == ["r0", "r1", "r2", "r3"]  # three were shown at the time of the last
    assert [one.request_id for one in store.shown_after(page[-1].time_ts, 2)] == ["r4", "r5"]
    assert store.shown_after(NOW + 4, 2) == []


# What came of shown lists


def test_what_came_of_lists_is_counted_as_python_would(store: Store) -> None:
    """Every kind of event with every sort of value, each on a list of its own; and lists by arm, experiment and page."""
    values = (None, 0.0, LIKED_STARS - 0.5, LIKED_STARS, 5.0)
    events = [
        Event(f"e {kind} {value}", "ann", 'i"1', kind, NOW, value, request_id=f"r {kind} {value}")
        for kind in EVENT_KINDS
        for value in values
    ]
    store.add_events(events)
    for event in events:
        assert event.request_id is not None
        store.add_shown(Shown(event.request_id, "ann", "0", ("i2", 'i"1'), NOW + 1, {"experiment": "x"}))
    liked = {event.request_id for event in events if PLAIN_JUDGING.says_yes(event)}
    of_purchases = {f"r purchase {value}" for value in values}
    others_weigh_0 = Weighing(kind_weights=dict.fromkeys(set(EVENT_KINDS) - {"purchase"}, 0), min_rating=5)
    assert 0 < len(liked) < len(events)
    assert {one.request_id for one in store.list_outcomes(Lists(NOW)) if one.succeeded} == liked
    assert store.generation_outcomes(NOW) == [("0", len(events), len(liked))]
    assert store.generation_outcomes(NOW + 1) == []
    assert {one.request_id for one in store.list_outcomes(Lists(NOW), others_weigh_0) if one.succeeded} == of_purchases
    assert sorted(store.followed_items(NOW, NOW + 1)) == sorted((name, 'i"1') for name in liked if name)
    clicked = store.clicked_items(NOW, 0, store.last_seq())
    assert sorted(clicked) == sorted((name, 'i"1', NOW + 1) for name in liked if name)
    assert len(store.clicked_items(NOW, 0, store.last_seq(), others_weigh_0)) == len(of_purchases)
    assert store.followed_items(NOW - 1, NOW) == store.followed_items(NOW + 1, NOW + 2) == []


def test_what_a_return_goes_by_is_read_by_user_and_item(store: Store) -> None:
    weighing = Weighing(return_kinds={"return": "purchase"})
    said = [(user, item, kind) for kind in ("return", "click", "purchase") for user in ("ann", "bob") for item in "xyz"]
    store.add_events([Event(f"e{n}", user, item, kind, NOW - n % 7) for n, (user, item, kind) in enumerate(said)])
    pairs = {("ann", "x"), ("bob", "y"), ("carl", "x")}
    found = store.returnables(pairs, weighing)
    assert sorted((user, tally.item_id, tally.kind) for user, tally in found) == [
        ("ann", "x", "purchase"), ("ann", "x", "return"), ("bob", "y", "purchase"), ("bob", "y", "return")
    ]  # fmt: skip
    for user, item in pairs:
        history = [one for one in store.history(user, 99, 0, weighing) if one.item_id == item and one.kind != "click"]
        assert [tally for who, tally in found if who == user] == history
    assert store.returnables(set(), weighing) == []


def test_lists_are_read_by_arm_experiment_and_page(store: Store) -> None:
    contexts: list[dict[str, JsonScalar]] = [
        {"experiment": "x", "arm": "a"},
        {"experiment": "x"},
        {"experiment": "y", "arm": "b"},
        {"arm": 7, "page": "home"},
        {"experiment": "x", "arm": "a", "page": "console"},
        {"page": None},
    ]
    for place, context in enumerate(contexts):
        user_id = "ann" if place else None
        store.add_shown(Shown(f"r{place}", user_id, "0001", ("i1", "i2"), NOW + place, context))
    clicks = [("r0", "i1"), ("r0", "i2"), ("r0", "i2"), ("r1", "i3"), ("r3", "i1"), ("r4", "i1"), ("r9", "i1")]
    store.add_events(
        [
            Event(f"e{place}", "bob", item_id, "click", NOW, request_id=request_id)
            for place, (request_id, item_id) in enumerate(clicks)
        ]
    )
    every = store.list_outcomes(Lists(NOW - 1))
    assert every == [
        ("r0", None, "a", NOW, True),
        ("r1", "ann", "0001", NOW + 1, False),
        ("r2", "ann", "b", NOW + 2, False),
        ("r3", "ann", "7", NOW + 3, True),
        ("r5", "ann", "0001", NOW + 5, False),
    ]
    assert store.list_outcomes(Lists(NOW - 1, "x")) == every[:2]
    assert store.list_outcomes(Lists(NOW - 1, "x", with_arm=True)) == every[:1]
    assert store.list_outcomes(Lists(NOW, "x", with_arm=True)) == []
    assert store.generation_outcomes(NOW - 1) == [("0001", 5, 2)]
    assert sorted(store.followed_items(NOW - 1, NOW + 1)) == [("r0", "i1"), ("r0", "i2"), ("r1", "i3")]
    last = store.last_seq()
    clicked = store.clicked_items(NOW - 1, 0, last)
    assert clicked == [("r0", "i1", NOW), ("r0", "i2", NOW), ("r3", "i1", NOW + 3)]  # once, and not the console's
    assert store.clicked_items(NOW - 1, last - len(clicks) + 2, last) == [("r3", "i1", NOW + 3)]  # "i2" again is none
    assert store.clicked_items(NOW, 0, last) == [("r3", "i1", NOW + 3)]
    assert store.clicked_items(NOW - 1, 0, last, request_ids=["r0", "r4", "r8"]) == clicked[:2]
    assert store.clicked_items(NOW - 1, 0, last, request_ids=[]) == []
    assert sorted(store.shown_ids(NOW, NOW + 2)) == ["r1", "r2"]
    assert store.clicked_items(NOW - 1, last, last) == []
    assert store.newest_lists(Lists(NOW - 1), 5) == (Lists(NOW - 1), 0)
    assert store.newest_lists(Lists(NOW - 1), 3) == (Lists(NOW + 1), 2)
    assert store.newest_shows(Lists(NOW - 1), 10) == Lists(NOW - 1)  # 5 lists of 2, without the console's
    assert store.newest_shows(Lists(NOW - 1), 9) == Lists(NOW)
    assert store.newest_shows(Lists(NOW - 1), 5) == Lists(NOW + 2)
    assert store.newest_shows(Lists(NOW - 1), 1) == Lists(NOW + 5)
    assert store.newest_lists(Lists(NOW - 1, "x"), 1) == (Lists(NOW, "x"), 1)


# How long lists are kept


def test_old_lists_go_a_few_at_a_time_the_oldest_first(store: Store, url: str) -> None:
    for place in range(6):
        store.add_shown(make_shown(f"r{place}", time_ts=NOW + (place * 5) % 6))
    store.add_events([make_event("e1")])
    left = NOW + 4
    assert store.drop_old_lists(left, limit=3) == 3
    assert [one.time_ts for one in store.shown_after(0, 10)] == [NOW + 3, NOW + 4, NOW + 5]
    assert (store.drop_old_lists(left, limit=3), store.drop_old_lists(left, limit=3)) == (1, 0)
    with Store.open(url) as again:
        assert [one.time_ts for one in again.shown_after(0, 10)] == [NOW + 4, NOW + 5]
        assert again.count_events() == 1
    assert store.drop_old_lists(0.0) == 0


def test_lists_of_a_running_experiment_stay_and_an_ended_one_says_what_is_gone(store: Store) -> None:
    def lists_from(name: str) -> float | None:
        return next(row.lists_from_ts for row in store.experiments() if row.experiment.name == name)

    store.start_experiment(Experiment.of_two("first", "0", "0001", 0.5))  # at NOW + 1
    for place, time_ts in enumerate((NOW - 9, NOW + 0.5, NOW + 2, NOW + 9)):
        store.add_shown(make_shown(f"r{place}", time_ts=time_ts))
    assert store.drop_old_lists(NOW + 100) == 1, "the one from before it"
    assert store.drop_old_lists(NOW + 100) == 0
    assert lists_from("first") is None
    store.end_experiment("first", "enough")
    assert store.drop_old_lists(NOW + 1.5) == 1
    assert lists_from("first") == NOW + 1.5
    store.start_experiment(Experiment.of_two("second", "0", "0001", 0.5))
    assert store.drop_old_lists(NOW + 9) == 0
    store.end_experiment("second", "enough")
    ended_ts = next(row.ended_ts for row in store.experiments() if row.experiment.name == "first")
    assert ended_ts is not None
    assert store.drop_old_lists(NOW + 100) == 2
    gone = lists_from("first")
    assert gone is not None
    assert gone > ended_ts
    store.add_shown(make_shown("late", time_ts=NOW + 101))
    assert store.drop_old_lists(NOW + 200) == 1
    assert lists_from("first") == gone, "all of its lists were gone before"


# Rules, reviews, audit


def test_rules_are_put_replaced_and_deleted_and_the_version_tells(store: Store) -> None:
    versions = [store.rules_version()]
    early, late = (
        RuleRow("a", "pin", {"item_ids": ["i1"], "place": 1}, NOW),
        RuleRow("b", "boost", {"factor": 2.0}, NOW + 1),
    )
    for rule, by in ((late, "eve"), (early, "system"), (replace(late, spec={"factor": 3.0}), "system")):
        store.put_rule(rule, by=by)
        versions.append(store.rules_version())
    assert store.rules() == [early, replace(late, spec={"factor": 3.0})]
    assert (store.delete_rule("b", by="eve"), store.delete_rule("b"), store.delete_rule("none")) == (True, False, False)
    versions.append(store.rules_version())
    assert store.rules() == [early]
    assert versions == sorted(set(versions))
    assert [(row.actor, row.action, row.target) for row in store.audit(10)] == [
        ("eve", "delete_rule", "b"),
        ("system", "put_rule", "b"),
        ("system", "put_rule", "a"),
        ("eve", "put_rule", "b"),
    ]
    store.put_rule(late)
    assert store.rules() == [early, late]
    assert store.rules_version() > versions[-1]


def test_a_flagged_item_is_held_back_until_it_is_approved(store: Store) -> None:
    store.flag_item("i1", "word 'x'", by="rule 7")
    store.flag_item("i2", "a person asked", by="eve")
    assert store.waiting_items() == {"i1", "i2"}
    store.decide_item("i1", True, by="eve", note="fine")
    store.decide_item("i2", False, by="eve")
    assert store.waiting_items() == {"i2"}
    assert store.reviews() == []
    (approved,) = store.reviews("approved")
    assert (approved.item_id, approved.reason, approved.flagged_by) == ("i1", "word 'x'", "rule 7")
    assert (approved.decided_by, approved.note) == ("eve", "fine")
    assert approved.decided_ts is not None
    assert [row.item_id for row in store.reviews("rejected")] == ["i2"]
    store.decide_item("i2", True, by="eve", note="changed my mind")
    store.flag_item("i1", "again", by="bob")
    assert store.waiting_items() == {"i1"}
    (waiting,) = store.reviews("waiting")
    assert (waiting.reason, waiting.decided_by, waiting.decided_ts, waiting.note) == ("again", None, None, "")
    actions = [row.action for row in store.audit(100)]
    assert actions == ["flag_item", "approve_item", "reject_item", "approve_item", "flag_item", "flag_item"]


def test_a_decision_that_fails_leaves_no_trace(store: Store) -> None:
    with pytest.raises(UnknownIdError, match="item 'i1' was never flagged.* Flag it first"):
        store.decide_item("i1", True, by="eve", note="")
    assert store.audit(10) == []


def test_one_experiment_runs_at_a_time_and_no_name_is_used_twice(store: Store, url: str) -> None:
    first = Experiment.of_two("first", "0", "0001", 0.1)
    assert store.running_experiment() is None
    store.start_experiment(first, by="ann")
    running = store.running_experiment()
    assert running is not None
    assert (running.experiment, running.started_by, running.is_running) == (first, "ann", True)
    with pytest.raises(InputError, match="'first' is running"):
        store.start_experiment(Experiment.of_two("second", "0", "0001", 0.5, "shadow"))
    assert not store.end_experiment("second", "never was")
    assert store.end_experiment("first", "no difference", by="bob")
    assert not store.end_experiment("first", "again")
    with pytest.raises(InputError, match="already"):
        store.start_experiment(first)
    second = Experiment.of_two("second", "0", "0001", 1.0, "shadow")
    store.start_experiment(second)
    with Store.open(url) as again:
        found = again.experiments()
    assert [(row.experiment, row.is_running, row.ended_by, row.why) for row in found] == [
        (second, True, None, ""),
        (first, False, "bob", "no difference"),
    ]
    assert [row.action for row in store.audit(3)] == ["start_experiment", "end_experiment", "start_experiment"]


def test_the_audit_tells_the_newest_decisions_first(store: Store) -> None:
    for place in range(5):
        store.add_audit("eve", "rollback", f"generation {place}", {"from": place, "why": "é"})
    newest = store.audit(2)
    assert [row.target for row in newest] == ["generation 4", "generation 3"]
    assert newest[0].detail == {"from": 4, "why": "é"}
    assert newest[0].time_ts == NOW + 5
    assert len(store.audit(100)) == 5


# Keys


def test_a_key_opens_until_it_is_revoked(store: Store) -> None:
    assert not store.has_keys()
    secret = store.add_key("shop", ["events", "read", "read"], by="eve")
    other = store.add_key("boss", ["admin"])
    assert secret.startswith("lmrec_")
    assert len(secret) >= len("lmrec_") + 43  # 32 bytes
    key = store.check_key(secret)
    assert key is not None
    assert (key.name, key.scopes, key.revoked_ts) == ("shop", ("read", "events"), None)
    assert store.check_key(secret + "x") is store.check_key("") is store.check_key("\x00\ud800") is None
    assert store.revoke_key(key.key_id)
    assert not store.revoke_key(key.key_id)
    assert not store.revoke_key("key_none")
    assert store.check_key(secret) is None
    assert store.check_key(other) is not None
    rows = store.keys()
    assert [(row.name, row.revoked_ts is None) for row in rows] == [("shop", False), ("boss", True)]
    assert [row.action for row in store.audit(10)] == ["revoke_key", "add_key", "add_key"]


def test_revoking_the_last_key_does_not_open_the_door(store: Store) -> None:
    store.add_key("shop", ["read"])
    store.revoke_key(store.keys()[0].key_id)
    assert store.has_keys()


def test_a_key_needs_a_name_and_known_scopes(store: Store) -> None:
    with pytest.raises(InputError, match="scope 'event' is unknown. Did you mean 'events'?"):
        store.add_key("shop", ["event"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="key 'shop' has no scope"):
        store.add_key("shop", [])
    with pytest.raises(InputError, match="name of a key is empty"):
        store.add_key("", ["read"])


def test_nobody_can_read_a_key_out_of_the_database(store: Store, url: str) -> None:
    secret = store.add_key("shop", ["read"])
    engine = create_engine(url)
    with engine.connect() as connection:
        texts = [str(row) for table in METADATA.sorted_tables for row in connection.execute(table.select())]
    engine.dispose()
    assert any("shop" in row for row in texts)
    assert not any(secret in row or secret.removeprefix("lmrec_") in row for row in texts)


# Users' rights


def test_an_export_has_everything_of_the_user_and_nothing_of_others(store: Store) -> None:
    own = [make_event("e1", time_ts=NOW + 5), make_event("e3", time_ts=NOW)]
    store.add_events([own[0], make_event("e2", user_id="bob"), own[1]])
    store.add_shown(make_shown("r1"))
    store.add_shown(make_shown("r2", user_id="bob"))
    export = store.export_user("ann")
    assert [one.event for one in export.events] == own
    assert (export.shown, export.forgotten_ts) == ([make_shown("r1")], None)
    nobody = store.export_user("nobody")
    assert (nobody.events, nobody.shown, nobody.forgotten_ts) == ([], [], None)


def test_a_forgotten_user_is_gone_and_others_are_not(store: Store, url: str) -> None:
    store.add_events([make_event("e1"), make_event("e2", user_id="bob"), make_event("e3")])
    store.add_shown(make_shown("r1"))
    store.add_shown(make_shown("r2", user_id="bob"))
    assert store.forget_user("ann", by="eve") == 2
    store.close()
    with Store.open(url) as again:
        assert again.history("ann", 10) == []
        assert [one.event.event_id for one in all_events(again)] == ["e2"]
        assert again.shown("r1") == replace(make_shown("r1"), user_id=None, context={})
        assert again.shown("r2") == make_shown("r2", user_id="bob")
        forgotten_ts = again.is_forgotten("ann")
        assert forgotten_ts is not None
        assert again.is_forgotten("bob") is None
        assert again.forgotten_users() == {"ann": forgotten_ts}
        export = again.export_user("ann")
        assert (export.events, export.shown, export.forgotten_ts) == ([], [], forgotten_ts)
        (row,) = again.audit(10)
        assert (row.actor, row.action, row.target, row.detail) == ("eve", "forget_user", "ann", {"events": 2})


def test_a_retry_does_not_bring_a_forgotten_event_back_but_new_events_count(store: Store) -> None:
    old = [make_event("e1"), make_event("e2")]
    store.add_events(old)
    store.forget_user("ann")
    assert store.add_events([*old, make_event("e3"), make_event("e1", user_id="bob")]) == Added(2, 2)
    assert [(one.event.user_id, one.event.event_id) for one in all_events(store)] == [("ann", "e3"), ("bob", "e1")]
    assert len(store.history("ann", 10)) == len(store.history("bob", 10)) == 1


def test_forgetting_twice_and_forgetting_a_stranger(store: Store) -> None:
    store.add_events([make_event("e1")])
    assert (store.forget_user("ann"), store.forget_user("ann"), store.forget_user("stranger")) == (1, 0, 0)
    assert list(store.forgotten_users()) == ["ann", "stranger"]


def test_the_number_of_a_forgotten_event_is_not_given_again(store: Store) -> None:
    store.add_events([make_event("e1", user_id="bob"), make_event("e2")])
    read_up_to = store.last_seq()
    store.forget_user("ann")
    store.add_events([make_event("e3", user_id="bob")])
    assert [one.event.event_id for one in store.events_after(read_up_to, 10)] == ["e3"]


# All together


def test_a_write_that_fails_does_not_take_others_with_it(store: Store) -> None:
    """Good and bad writes are queued at once, so that they meet in one group."""
    with ThreadPoolExecutor(12) as pool:
        good = [pool.submit(store.add_events, [make_event(f"e{n}")]) for n in range(30)]
        bad = [pool.submit(store.decide_item, f"i{n}", True) for n in range(30)]
    assert [future.result() for future in good] == [Added(1, 0)] * 30
    assert all(isinstance(future.exception(), UnknownIdError) for future in bad)
    assert store.count_events() == 30


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed; open it again"):
        store.add_events([make_event("e1")])
    with pytest.raises(StoreError, match="is closed; open it again"):
        store.history("ann", 1)


def test_ping_says_nothing_while_all_is_well(store: Store) -> None:
    store.ping()


def test_a_lost_connection_to_the_server_heals(new_postgresql_url: NewUrl) -> None:
    url = new_postgresql_url()
    with Store.open(f"{url}&application_name=doomed") as store:
        store.add_events([make_event("e1")])
        assert store.count_events() == 1
        engine = create_engine(url)
        with engine.connect() as connection:
            kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'doomed'"
            connection.execute(text(kill))
        engine.dispose()
        assert store.add_events([make_event("e1"), make_event("e2")]) == Added(1, 1)
        assert store.count_events() == 2
