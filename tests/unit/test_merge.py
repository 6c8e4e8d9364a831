"""One data set out of a log and what a store has heard: order, roles and numbers stay right."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lmrec.data.catalog import Catalog
from lmrec.data.dataset import Dataset
from lmrec.data.interactions import Interactions
from lmrec.data.users import UserTable
from lmrec.data.weighing import Weighing
from lmrec.errors import InputError
from lmrec.feedback.events import Event, Tally
from lmrec.feedback.items import ItemChange
from lmrec.feedback.store import Store
from lmrec.fields import TimeKind
from lmrec.service.users import join_history
from lmrec.workflows.merge import Heard, hear, merge
from lmrec.workflows.update import hold_out

CATALOG = Catalog(
    pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["A", "B", "C"], "year": [1, 2, 3]}), ("title",), ("year",)
)


def data(time_kind: TimeKind = "timestamp") -> Dataset:
    log = Interactions.from_arrays(
        ["u", "v"],
        [0, 0, 1],
        [0, 1, 2],
        [0.0, 1.0, 0.0] if time_kind == "position" else [10.0, 30.0, 20.0],
        time_kind=time_kind,
        weight=[1.0, 2.0, 3.0],
        rating=[4.0, 5.0, 3.0],
        kind=["rating", "rating", "rating"],
    )
    return Dataset(CATALOG, log, UserTable(pl.DataFrame({"user_id": ["u", "v"], "age": [1, 2]})))


def heard(events: list[tuple[float, Event]], *changes: ItemChange, forgotten: frozenset[str] = frozenset()) -> Heard:
    return Heard(tuple(events), changes, forgotten, len(events), len(changes))


def change(item_id: str, fields: dict[str, str | int | float | bool | None] | None, version: int = 1) -> ItemChange:
    return ItemChange(version, item_id, fields, None, "", 0.0)


def event(
    user: str, item: str, when: float, kind: str = "click", rating: float | None = None, weight: float | None = None
) -> tuple[float, Event]:
    return when, Event(f"{user}{item}{when}", user, item, kind, when, rating, weight)


def rows(merged_data: Dataset) -> list[tuple[str, str, float, float]]:
    log, ids = merged_data.interactions, merged_data.catalog.ids
    return [
        (log.user_ids[user], ids[item], when, weight)
        for user, item, when, weight in zip(
            log.user_idx.tolist(), log.item_idx.tolist(), log.time_ts.tolist(), log.weight.tolist(), strict=True
        )
    ]


def test_events_are_put_in_their_place_in_time() -> None:
    late = [event("w", "a", 40.0, "rating", 5.0), event("u", "c", 25.0), event("v", "b", 35.0, "rating", 1.0)]
    merged = merge(data(), heard(late))
    assert rows(merged.dataset) == [
        ("u", "a", 10.0, 1.0), ("v", "c", 20.0, 3.0), ("u", "c", 25.0, 1.0), ("u", "b", 30.0, 2.0), ("w", "a", 40.0, 1.0),
    ]  # fmt: skip
    assert merged.is_new.tolist() == [False, False, True, False, True]
    assert merged.when_ts.tolist() == [10.0, 20.0, 25.0, 30.0, 40.0]
    log = merged.dataset.interactions
    assert log.kind is not None
    assert log.rating is not None
    assert log.kind.tolist() == ["rating", "rating", "click", "rating", "rating"]
    assert np.isnan(log.rating[2])
    assert log.rating[4] == 5.0
    assert (merged.counts.new_events, merged.counts.negative_events, merged.counts.new_users) == (2, 1, 1)


def test_what_a_user_did_not_want_later_is_taken_back() -> None:
    """By a dismissal or a low rating, in the old log too; what came after counts, as in the service's own history."""
    said = [
        event("u", "a", 40.0, "rating", 1.0),  # in the old log at 10
        event("u", "b", 20.0, "dismiss"),  # before the old log's event at 30
        event("v", "a", 41.0), event("v", "a", 42.0, "dismiss"),
        event("v", "b", 43.0, "rating", 2.0), event("v", "b", 44.0),
    ]  # fmt: skip
    merged = merge(data(), heard(said[::-1]))
    assert [(user, item, when) for user, item, when, _ in rows(merged.dataset)] == [
        ("v", "c", 20.0), ("u", "b", 30.0), ("v", "b", 44.0),
    ]  # fmt: skip
    counts = merged.counts
    assert (counts.new_events, counts.negative_events, counts.taken_back_events) == (1, 4, 1)
    assert counts.dropped_old_events == 1
    assert "6 heard (4 negative, 1 taken back by those)" in counts.sentence()
    served = join_history([(10.0, "a"), (30.0, "b")], [Tally(1, "b", 20.0, False), Tally(0, "a", 40.0, False)], 10)
    assert served.positive == ("b",)
    untimed = merge(data("position"), heard([event("u", "b", -5.0, "dismiss")]))
    assert [(user, item) for user, item, *_ in rows(untimed.dataset)] == [("u", "a"), ("v", "c")]


def test_items_change_go_and_come_and_keep_track_of_their_old_row() -> None:
    changes = (
        change("b", None, 1), change("d", {"title": "D", "year": "7", "unknown": 1}, 2),
        change("a", {"title": "A2", "year": "no number"}, 3), change("never", None, 4),
    )  # fmt: skip
    merged = merge(data(), heard([event("u", "d", 50.0), event("u", "b", 51.0)], *changes))
    frame = merged.dataset.catalog.frame
    assert frame.rows() == [("c", "C", 3), ("d", "D", 7), ("a", "A2", None)]
    assert merged.old_rows.tolist() == [2, -1, 0]
    assert [(user, item) for user, item, *_ in rows(merged.dataset)] == [("u", "a"), ("v", "c"), ("u", "d")]
    counts = merged.counts
    assert (counts.new_items, counts.changed_items, counts.deleted_items) == (1, 1, 1)
    assert (counts.dropped_old_events, counts.events_of_unknown_items) == (1, 1)
    with pytest.raises(InputError, match="all items were deleted"):
        merge(data(), heard([], *(change(item, None, n) for n, item in enumerate("abc"))))


def test_of_the_forgotten_nothing_is_left() -> None:
    merged = merge(data(), heard([event("u", "c", 50.0), event("w", "c", 51.0)], forgotten=frozenset({"u", "x"})))
    assert merged.dataset.interactions.user_ids == ["v", "w"]
    assert [user for user, *_ in rows(merged.dataset)] == ["v", "w"]
    assert merged.dataset.users is not None
    assert merged.dataset.users.frame["user_id"].to_list() == ["v"]
    assert (merged.counts.forgotten_users, merged.counts.events_of_forgotten_users) == (1, 1)


def test_a_log_without_times_goes_on_where_each_user_stopped() -> None:
    merged = merge(data("position"), heard([event("v", "a", 99.0), event("u", "c", 98.0), event("v", "b", 100.0)]))
    assert sorted(rows(merged.dataset)) == [
        ("u", "a", 0.0, 1.0), ("u", "b", 1.0, 2.0), ("u", "c", 2.0, 1.0),
        ("v", "a", 1.0, 1.0), ("v", "b", 2.0, 1.0), ("v", "c", 0.0, 3.0),
    ]  # fmt: skip
    asked = hold_out(merged, 0.34, repeats=False)
    log = merged.dataset.interactions
    assert merged.when_ts[asked.held].tolist() == [100.0]
    assert asked.learnt.sum() == 5
    assert asked.cases.history[0].tolist() == [2, 0]
    assert log.user_ids[int(asked.cases.user_idx[0])] == "v"


def test_the_newest_are_held_out_and_old_events_of_their_time_are_neither_learnt_nor_asked() -> None:
    merged = merge(data(), heard([event("w", "a", 5.0), event("w", "b", 15.0), event("v", "a", 25.0)]))
    asked = hold_out(merged, 0.34, repeats=False)
    assert merged.when_ts[asked.held].tolist() == [25.0]
    assert merged.when_ts[asked.learnt].tolist() == [5.0, 10.0, 15.0, 20.0]  # the old event at 30 is in neither


def bought(time_kind: TimeKind = "timestamp", **choices: object) -> Dataset:
    """u: two purchases of a, of 3 and 2 pieces, and a view of b; what they weigh is log2(1 + pieces)."""
    weighing = Weighing.model_validate({"return_kinds": {"return": "purchase"}, "weight_scale": "log", **choices})
    log = Interactions.from_arrays(
        ["u"], [0, 0, 0], [0, 0, 1], [0.0, 1.0, 2.0] if time_kind == "position" else [10.0, 20.0, 30.0],
        time_kind=time_kind, weight=[2.0, np.log2(3.0), 1.0], amount=[3.0, 2.0, 1.0], kind=["Purchase", "purchase", "view"],
    )  # fmt: skip
    return Dataset(CATALOG, log, weighing=weighing)


@pytest.mark.parametrize("time_kind", ["timestamp", "position"])
def test_a_return_takes_back_the_newest_purchase_and_part_of_the_one_before(time_kind: TimeKind) -> None:
    said = [
        event("u", "a", 40.0, "return", weight=3.0),  # 2 of the second purchase, 1 of the first
        event("u", "b", 41.0, "return"), event("v", "a", 42.0, "return"),  # a view is no purchase; v has none
        event("v", "c", 43.0, "purchase", weight=7.0), event("v", "c", 44.0, "return", weight=4.0),
    ]  # fmt: skip
    merged = merge(bought(time_kind), heard(said))
    log = merged.dataset.interactions
    assert sorted((user, item, weight) for user, item, _, weight in rows(merged.dataset)) == [
        ("u", "a", pytest.approx(np.log2(3.0))), ("u", "b", 1.0), ("v", "c", 2.0),
    ]  # fmt: skip
    assert log.amount is not None
    assert sorted(log.amount.tolist()) == [1.0, 2.0, 3.0]
    counts = merged.counts
    assert (counts.new_events, counts.returns, counts.returns_in_vain) == (1, 4, 2)
    assert (counts.returned_events, counts.dropped_old_events) == (0, 1)
    assert "5 heard (4 returns, 2 of them of nothing that was bought)" in counts.sentence()
    once_more = merge(merged.dataset, heard([event("u", "a", 50.0, "return", weight=2.0)]))
    assert [(user, item) for user, item, *_ in rows(once_more.dataset) if item == "a"] == [], (
        "of what was left, after the first"
    )


def test_a_return_and_a_dismissal_do_not_hinder_each_other() -> None:
    said = [
        event("u", "a", 40.0, "dismiss"), event("u", "a", 41.0, "purchase"), event("u", "a", 42.0, "return"),
        event("u", "c", 43.0, "view"), event("u", "c", 44.0, "purchase"), event("u", "c", 45.0, "return"),
    ]  # fmt: skip
    merged = merge(bought(), heard(said))
    assert [(item, when) for _, item, when, _ in rows(merged.dataset)] == [("b", 30.0), ("c", 43.0)]
    assert (merged.counts.returned_events, merged.counts.negative_events) == (2, 1)


def test_without_a_column_of_kinds_a_purchase_is_told_from_a_view() -> None:
    old = bought(no_kind="purchase")
    old = replace(old, interactions=replace(old.interactions, kind=None))
    merged = merge(old, heard([event("u", "a", 40.0, "view"), event("u", "a", 41.0, "return", weight=9.0)]))
    assert [(item, when) for _, item, when, _ in rows(merged.dataset)] == [("b", 30.0), ("a", 40.0)]
    later = merge(merged.dataset, heard([event("u", "a", 50.0, "return"), event("u", "b", 51.0, "return")]))
    assert [(item, when) for _, item, when, _ in rows(later.dataset)] == [("a", 40.0)]


def test_what_the_recipe_leaves_out_or_does_not_name_is_counted() -> None:
    old = replace(data(), weighing=Weighing(kind_weights={"play": 0, "purchase": 3}, min_rating=2))
    said = [
        event("u", "c", 40.0, "play"), event("u", "c", 41.0, "purchase"), event("u", "c", 42.0, "purchase", 2.0),
        event("v", "a", 43.0, "rating", 2.5, 2.0), event("v", "a", 44.0, "rating", 1.5),
    ]  # fmt: skip
    merged = merge(old, heard(said))
    assert [one for one in rows(merged.dataset) if one[2] >= 40] == [("u", "c", 42.0, 3.0)], (
        "the last took the one before back"
    )
    counts = merged.counts
    assert (counts.new_events, counts.left_out_events, counts.negative_events, counts.taken_back_events) == (1, 2, 1, 1)
    again = merge(old, heard(said[:4])).counts
    assert (again.new_events, again.unnamed_events) == (2, 1)
    assert "1 of kinds that data.kind_weights does not name" in again.sentence()


def test_the_store_is_read_from_where_the_last_one_stopped(tmp_path_factory: pytest.TempPathFactory) -> None:
    now = 1_000.0
    with Store.open(f"sqlite:///{tmp_path_factory.mktemp('s') / 'store.db'}", clock=lambda: now) as store:
        store.add_events([Event(f"e{n}", "u", "a", "click", 10.0 * n) for n in range(5)])
        store.add_events([Event("ahead", "u", "b", "click", 5_000.0)])
        store.delete_items(["a"])
        all_of_it = hear(store, 0, 0)
        assert (len(all_of_it.events), all_of_it.seq, all_of_it.items_version) == (6, 6, 1)
        assert all_of_it.events[-1][0] == now  # a clock that is ahead
        rest = hear(store, 4, 1)
        assert [found.event_id for _, found in rest.events] == ["e4", "ahead"]
        assert rest.changes == ()
