"""Lists and what followed them, by generation and by arm: counted over one span, and what is left out is said."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from lmrec.evaluation.readout import compare_lists, read_experiment, read_generations
from lmrec.feedback.assignment import Experiment
from lmrec.feedback.events import Event
from lmrec.feedback.experiments import ExperimentRow
from lmrec.feedback.shown import Shown
from lmrec.feedback.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path / 'store.db'}", clock=count(1.0, 1_000.0).__next__) as opened:
        yield opened


def show(store: Store, request_id: str, generation: str, time_ts: float = 10.0) -> None:
    store.add_shown(Shown(request_id, "ann", generation, ("a", "b"), time_ts, {}))


def run(store: Store, mode: str, n_lists: int, n_clicked: int) -> ExperimentRow:
    """An experiment with `n_lists` a second apart, of which the newest were clicked."""
    store.start_experiment(Experiment.from_dict({**Experiment.of_two("x", "0", "1", 0.5).as_dict(), "mode": mode}))
    for n in range(n_lists):
        context = {"experiment": "x", "arm": "control" if n % 2 else "challenger"}
        shadow = {"shadow": {"generation": "1", "item_ids": ["a"], "ms": 1.0}} if mode == "shadow" else {}
        store.add_shown(Shown(f"r{n}", f"u{n}", "0", ("a", "b"), 100.0 + n, {**context, **shadow}))
    clicked = range(n_lists - n_clicked, n_lists)
    store.add_events([Event(f"e{n}", f"u{n}", "a", "click", 200.0, request_id=f"r{n}") for n in clicked])
    row = store.running_experiment()
    assert row is not None
    return row


def test_a_list_succeeds_once_by_a_positive_event_on_one_of_its_items(store: Store) -> None:
    for at in range(4):
        show(store, f"old-{at}", "0")
    show(store, "new-0", "0001")
    show(store, "long ago", "0", time_ts=1.0)
    store.add_events(
        [
            Event("e1", "ann", "a", "click", 11.0, request_id="old-0"),
            Event("e2", "ann", "b", "purchase", 12.0, request_id="old-0"),
            Event("e3", "ann", "a", "dismiss", 12.0, request_id="old-1"),
            Event("e4", "ann", "z", "click", 12.0, request_id="old-2"),  # was not on the list
            Event("e5", "ann", "a", "click", 12.0, request_id="long ago"),
            Event("e6", "ann", "a", "click", 12.0),
        ]
    )
    old, new = read_generations(store, since_ts=5.0)
    assert (old.generation, old.lists, old.lists_with_success, old.rate) == ("0", 4, 1, 0.25)
    assert (new.generation, new.lists, new.lists_with_success) == ("0001", 1, 0)
    assert old.low < 0.25 < old.high


def test_lists_tried_out_in_the_console_do_not_count(store: Store) -> None:
    show(store, "seen", "0")
    store.add_shown(Shown("tried", None, "0", ("a",), 10.0, {"page": "console"}))
    store.add_events([Event("e1", "ann", "a", "click", 11.0, request_id="tried")])
    (found,) = read_generations(store, since_ts=5.0)
    assert (found.lists, found.lists_with_success) == (1, 0)
    assert compare_lists(store, 5.0).arms[0].lists == 1


def test_nothing_shown_is_nothing_measured(store: Store) -> None:
    assert read_generations(store, 0.0) == []
    assert compare_lists(store, 0.0).arms == ()


def test_all_lists_count_whatever_came_after_their_clicks(store: Store) -> None:
    """Once the oldest 50,000 lists were read against the newest 200,000 events; here both are far apart."""
    lists = [Shown(f"r{n}", None, "0", ("a",), 10.0 + n, {}) for n in range(51_000)]
    for start in range(0, len(lists), 5_000):
        store.queue_shown(lists[start : start + 5_000]).result()
    clicks = [Event(f"e{n}", "ann", "a", "click", 1e6, request_id=f"r{n}") for n in range(46_000, 51_000)]
    store.add_events(clicks)
    (found,) = read_generations(store, 0.0)
    assert (found.lists, found.lists_with_success) == (51_000, 5_000)


def test_the_newest_lists_of_an_experiment_are_read_and_the_others_named(store: Store) -> None:
    row = run(store, "split", n_lists=40, n_clicked=10)
    whole = read_experiment(store, row)["split"]
    assert [(arm["arm"], arm["lists"], arm["successes"]) for arm in whole["arms"]] == [
        ("control", 20, 5),
        ("challenger", 20, 5),
    ]
    assert not any("newest" in warning for warning in whole["warnings"])
    cut = read_experiment(store, row, max_lists=20)["split"]
    assert [(arm["lists"], arm["successes"]) for arm in cut["arms"]] == [(10, 5), (10, 5)]
    said = "only the newest lists are read, those since 1970-01-01 00:01 UTC; 20 earlier ones are left out"
    assert cut["warnings"][0] == said
    assert said in compare_lists(store, 0.0, max_lists=20).warnings


def test_a_shadow_is_read_by_its_newest_lists_too(store: Store) -> None:
    row = run(store, "shadow", n_lists=30, n_clicked=10)
    whole = read_experiment(store, row)["shadow"]
    assert (whole["lists"], whole["followed"], whole["kept"], whole["warnings"]) == (30, 10, 10, [])
    cut = read_experiment(store, row, max_lists=15)["shadow"]
    assert (cut["lists"], cut["followed"]) == (15, 10)
    assert "15 earlier ones are left out" in cut["warnings"][0]


def test_what_is_not_kept_any_more_is_said(store: Store) -> None:
    row = run(store, "split", n_lists=10, n_clicked=2)
    store.end_experiment("x", "enough")
    assert store.drop_old_lists(105.0) == 5
    (ended,) = store.experiments()
    found = read_experiment(store, ended)["split"]
    assert sum(arm["lists"] for arm in found["arms"]) == 5
    assert found["warnings"][0] == (
        "its lists from before 1970-01-01 00:01 UTC are not kept any more, and count for nothing here"
    )
    assert row.lists_from_ts is None
