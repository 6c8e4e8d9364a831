"""The history at request time: the log, then the store, without what was dismissed or forgotten."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from lmrec.data.history import HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.data.weighing import Weighing
from lmrec.feedback.events import Event, Tally
from lmrec.feedback.judging import PLAIN_JUDGING
from lmrec.feedback.store import Store
from lmrec.service.popularity import LiveCounts
from lmrec.service.returns import Returnable
from lmrec.service.users import KeptHistories, TrainingLog, UserHistory, Users, join_history

DAY = 86_400.0


@pytest.fixture
def log() -> TrainingLog:
    """ann: a, b at days 1, 3; bob: c at day 2."""
    events = Interactions.from_arrays(["ann", "bob"], [0, 0, 1], [0, 1, 2], [DAY, 3 * DAY, 2 * DAY])
    return TrainingLog({"ann": 0, "bob": 1}, ["a", "b", "c"], HistoryIndex.from_interactions(events), True)


def event(item_id: str, kind: str = "click", day: float = 4, user: str = "ann", rating: float | None = None) -> Event:
    return Event(f"{user}-{item_id}-{kind}-{day}", user, item_id, kind, day * DAY, rating)


def heard(events: list[Event]) -> list[Tally]:
    """What they count for, heard in this order."""
    return [
        Tally(n, one.item_id, one.time_ts, PLAIN_JUDGING.judge(one.kind, one.rating)) for n, one in enumerate(events)
    ]


def test_the_log_and_the_store_join_by_time(log: TrainingLog, store: Store) -> None:
    users = Users(log, store, max_history=10)
    assert users.history("ann").positive == ("a", "b")
    store.add_events([event("c", day=2), event("d", day=9)])
    assert users.history("ann").positive == ("a", "c", "b", "d")
    assert users.history("bob").positive == ("c",)
    assert users.history("nobody") == UserHistory()


def test_without_times_the_log_comes_first(log: TrainingLog, store: Store) -> None:
    users = Users(replace(log, has_times=False), store, max_history=10)
    store.add_events([event("c", day=0.5)])
    assert users.history("ann").positive == ("a", "b", "c")


def test_the_newest_count() -> None:
    history = join_history([(float(at), str(at)) for at in range(20)], [], max_history=3)
    assert history.positive == ("17", "18", "19")
    assert len(history.seen) == 20, "what is too old for the history was seen all the same"


@pytest.mark.parametrize(
    ("events", "positive", "dismissed"),
    [
        ([event("b", "dismiss")], ("a",), {"b"}),
        ([event("b", "dismiss", 4), event("b", "purchase", 5)], ("a", "b", "b"), set()),
        ([event("x", "rating", rating=2.0)], ("a", "b"), {"x"}),
        ([event("b", "rating", rating=1.0)], ("a",), {"b"}),
        ([event("x", day=4), event("x", "rating", 5, rating=1.0)], ("a", "b"), {"x"}),
        ([event("b", "rating", 4, rating=1.0), event("b", "rating", 5, rating=4.0)], ("a", "b", "b"), set()),
        ([event("b", "dismiss", day=2)], ("a", "b"), set()),  # the log has it at day 3, after that
        ([event("b", "dismiss", 4), event("b", "rating", 5, rating=1.0)], ("a",), {"b"}),
        ([event("x", "rating", rating=5.0)], ("a", "b", "x"), set()),
    ],
)
def test_dismissals_and_low_stars(events: list[Event], positive: tuple[str, ...], dismissed: set[str]) -> None:
    history = join_history([(DAY, "a"), (3 * DAY, "b")], heard(events), 10)
    assert history.positive == positive
    assert history.dismissed == dismissed
    assert history.seen == {"a", "b", *(one.item_id for one in events)}


def test_a_forgotten_user_has_no_log_and_begins_anew(log: TrainingLog, store: Store) -> None:
    users = Users(log, store, max_history=10)
    store.add_events([event("c")])
    store.forget_user("ann")
    users.refresh_forgotten()
    assert users.history("ann") == UserHistory()
    assert users.logged("ann") == []
    assert users.find("", 10) == (["bob"], 1)
    store.add_events([event("d", day=9)])
    assert users.history("ann").positive == ("d",)
    assert Users(log, store, 10).history("ann").positive == ("d",), "also after a restart"


def test_what_is_not_wanted_is_known_however_much_came_after(log: TrainingLog, store: Store) -> None:
    users = Users(log, store, max_history=5)
    store.add_events([event("x", "dismiss", 5), event("w", "rating", 5.5, rating=1.0)])
    store.add_events([event(f"i{n}", day=6 + n / 1_000) for n in range(600)])
    store.add_events([event("y", "purchase", 8)])
    store.add_events([event(f"i{n}", day=9 + n / 1_000) for n in range(600, 1_500)])
    history = users.history("ann")
    assert history.dismissed == {"x", "w"}
    assert "y" in history.seen
    assert history.positive[-1] == "i1499"
    assert len(history.positive) == 5


@pytest.fixture
def purchases() -> TrainingLog:
    """ann: bought 2 of a at day 1 and 1 of a at day 2, viewed b at day 3; bob: bought c at day 2."""
    weighing = Weighing(return_kinds={"return": "purchase"}, kind_weights={"view": 0.1, "purchase": 3, "noise": 0})
    events = Interactions.from_arrays(
        ["ann", "bob"], [0, 1, 0, 0], [0, 2, 0, 1], [DAY, 2 * DAY, 2 * DAY, 3 * DAY],
        kind=["purchase", "Purchase", "PURCHASE", "view"], amount=[2, 1, 1, 1],
    )  # fmt: skip
    index, returnable = HistoryIndex.from_interactions(events), Returnable.of(events, weighing)
    return TrainingLog({"ann": 0, "bob": 1}, ["a", "b", "c"], index, True, weighing=weighing, returnable=returnable)


def test_a_return_takes_back_one_purchase_at_once(purchases: TrainingLog, store: Store) -> None:
    users = Users(purchases, store, max_history=10)
    assert users.history("ann").positive == ("a", "a", "b")
    told = [event("a", "return", 4), event("b", "return", 5), event("d", "purchase", 6), event("d", "return", 7)]
    assert users.returned_in_vain(told, 10 * DAY) == {told[1].event_id}, "a view is no purchase"
    store.add_events(told)
    assert users.returned_in_vain(told, 10 * DAY) == {told[1].event_id}, "a retry is told the same, and takes nothing"
    history = users.history("ann")
    assert (history.positive, history.dismissed) == (("a", "b"), frozenset())
    assert history.seen == {"a", "b", "d"}, "what was sent back was had in hand"
    store.add_events([event("a", "return", 8)])
    assert users.history("ann").positive == ("a", "b"), "one of two is left"
    store.add_events([event("a", "return", 9), event("c", "return", 9)])
    assert users.history("ann").positive == ("b",)
    assert users.history("bob").positive == ("c",)
    assert users.returned_in_vain([event("a", "return", 10)], 11 * DAY) == {"ann-a-return-10"}


def test_returns_of_many_are_told_together_as_one_by_one(purchases: TrainingLog, store: Store) -> None:
    users, rng, who = Users(purchases, store, max_history=10), np.random.default_rng(0), ["ann", "bob", "new"]
    told = [
        event(str(rng.choice(list("abcd"))), str(rng.choice(["return", "purchase", "view"])), 1 + n / 8, who[n % 3])
        for n in range(90)
    ]
    store.add_events(told[:45])
    together = users.returned_in_vain(told[30:], 20 * DAY)
    apart = [users.returned_in_vain([one for one in told[30:] if one.user_id == user], 20 * DAY) for user in who]
    assert together == frozenset().union(*apart)
    assert sum(map(bool, apart)) >= 2
    store.add_events(told[45:])
    assert users.returned_in_vain(told[30:], 20 * DAY) == together
    assert len(together) < sum(one.kind == "return" for one in told[30:])
    assert users.returned_in_vain([event("a")], 20 * DAY) == frozenset()


def test_what_the_recipe_leaves_out_was_seen_and_says_nothing(purchases: TrainingLog, store: Store) -> None:
    users = Users(purchases, store, max_history=10)
    store.add_events([event("x", "noise"), event("b", "dismiss", 5), event("b", "noise", 6)])
    history = users.history("ann")
    assert history.positive == ("a", "a")
    assert history.seen == {"a", "b", "x"}
    assert history.dismissed == {"b"}


def test_a_return_takes_only_of_what_was_before_it(purchases: TrainingLog, store: Store) -> None:
    store.add_events([event("a", "return", 1.5)])
    assert Users(purchases, store, max_history=10).history("ann").positive == ("a", "a", "b"), (
        "one of the first two pieces"
    )
    untimed = Users(replace(purchases, has_times=False), store, max_history=10)
    assert untimed.history("ann").positive == ("a", "b"), "a log without times is before all that is heard"


def test_popularity_counts_what_events_weigh(store: Store) -> None:
    weighing = Weighing(kind_weights={"view": 0.1, "purchase": 3, "noise": 0}, return_kinds={"return": "purchase"})
    told = [
        ("a", "view", None),
        ("a", "purchase", 3.0),
        ("b", "click", 3.0),
        ("c", "noise", None),
        ("a", "return", None),
    ]
    store.add_events(
        [Event(f"e{n}", "ann", item, kind, DAY, weight=amount) for n, (item, kind, amount) in enumerate(told)]
    )

    def counted(weighing: Weighing) -> Mapping[str, float]:
        counts = LiveCounts(store, clock=lambda: DAY, weighing=weighing)
        counts.update()
        return counts.weights()

    assert counted(weighing) == pytest.approx({"a": 9.1, "b": 3.0})
    assert counted(weighing.model_copy(update={"weight_scale": "log"})) == pytest.approx({"a": 6.1, "b": 2.0})
    assert counted(weighing.model_copy(update={"weight_from": "rating", "unrated": 0.5})) == pytest.approx(
        {"a": 1.55, "b": 0.5}
    )


def test_users_are_found_by_part_of_their_id(store: Store) -> None:
    index = HistoryIndex(np.zeros(4, np.int64), np.zeros(0, np.int32), np.zeros(0), np.zeros(0, np.float32))
    users = Users(TrainingLog({"x10": 0, "10": 1, "100": 2}, [], index, True), store, 10)
    assert users.find("10", 2) == (["10", "100"], 3)


def test_popularity_starts_after_what_the_generation_has_learnt(store: Store) -> None:
    store.add_events([event("a"), event("b")])
    counts = LiveCounts(store, store.last_seq(), clock=lambda: 4 * DAY)
    store.add_events([event("c")])
    assert counts.update() is True
    assert counts.weights() == pytest.approx({"c": 1.0})


def test_popularity_counts_positive_events_once_and_fades(store: Store) -> None:
    now = [100 * DAY]
    counts = LiveCounts(store, clock=lambda: now[0])
    assert counts.update() is False
    unknown = replace(event("x", day=100), flags=("unknown_item",))
    store.add_events(
        [event("a", day=100), event("a", "dismiss", 100), event("b", day=70), event("c", day=500), unknown]
    )
    assert counts.update() is True
    assert counts.update() is False
    assert counts.weights() == pytest.approx({"a": 1.0, "b": 0.5, "c": 1.0}), "half after 30 days; the future is now"
    now[0] = 130 * DAY
    assert counts.weights()["a"] == pytest.approx(0.5)
    now[0] = 1_000 * DAY
    assert counts.weights() == {}


def test_histories_are_kept_until_something_is_heard_of_their_users(
    log: TrainingLog, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = Users(log, store, max_history=10)
    read: list[str] = []
    whole = store.history

    def noting(user_id: str, *more: Any) -> list[Tally]:
        read.append(user_id)
        return whole(user_id, *more)

    monkeypatch.setattr(store, "history", noting)
    assert users.histories(["ann", None, "bob"])[1] == UserHistory()
    users.histories(["bob", "ann", "ann"])
    assert read == ["ann", "bob"]
    with Store.open(store.where) as other_process:
        other_process.add_events([event("d", day=9)])
    assert users.history("ann").positive == ("a", "b", "d")
    users.history("bob")
    assert read == ["ann", "bob", "ann"]
    store.forget_user("bob")
    users.refresh_forgotten()
    assert [entry.positive for entry in users.histories(["ann", "bob"])] == [("a", "b", "d"), ()]


def test_of_an_older_store_nothing_newer_is_remembered(log: TrainingLog, store: Store, tmp_path: Path) -> None:
    """A store restored under a running service shows as a mark that went back."""
    with Store.open(f"sqlite:///{tmp_path / 'older.db'}") as older:
        store.add_events([event("d", day=9), event("c", day=8)])
        older.add_events([event("c", day=9)])
        kept = KeptHistories(store)
        current = store

        def read(user_id: str) -> UserHistory:
            return join_history([], current.history(user_id, 10), 10)

        assert kept.read(["ann"], read)[0].positive == ("c", "d")
        current = kept._store = older
        assert kept.read(["ann"], read)[0].positive == ("c",)


def test_histories_that_are_asked_for_while_events_come_are_never_stale(log: TrainingLog, store: Store) -> None:
    users = Users(log, store, max_history=1_000)
    told: list[int] = []

    def listen() -> None:
        for n in range(60):
            store.add_events([event(f"i{n}", day=4 + n)])
            told.append(n)

    writer = Thread(target=listen)
    writer.start()
    readers = [Thread(target=lambda: [users.history("ann") for _ in range(200)]) for _ in range(2)]
    for reader in readers:
        reader.start()
    while writer.is_alive():
        acknowledged = len(told)
        assert len(users.history("ann").positive) >= 2 + acknowledged
    for reader in readers:
        reader.join()
    assert len(users.history("ann").positive) == 2 + 60
