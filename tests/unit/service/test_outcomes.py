"""Lists and what followed them, by generation."""

import pytest

from lmrec.feedback.events import Event
from lmrec.feedback.shown import Shown
from lmrec.feedback.store import Store
from lmrec.service.outcomes import measure_outcomes, wilson_interval


def show(store: Store, request_id: str, generation: str, time_ts: float = 10.0) -> None:
    store.add_shown(Shown(request_id, "ann", generation, ("a", "b"), time_ts, {}))


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
    old, new = measure_outcomes(store, since_ts=5.0)
    assert (old.generation, old.lists, old.successes, old.rate) == ("0", 4, 1, 0.25)
    assert (new.generation, new.lists, new.successes) == ("0001", 1, 0)
    assert old.low < 0.25 < old.high


def test_lists_tried_out_in_the_console_do_not_count(store: Store) -> None:
    show(store, "seen", "0")
    store.add_shown(Shown("tried", None, "0", ("a",), 10.0, {"page": "console"}))
    store.add_events([Event("e1", "ann", "a", "click", 11.0, request_id="tried")])
    (found,) = measure_outcomes(store, since_ts=5.0)
    assert (found.lists, found.successes) == (1, 0)


def test_nothing_shown_is_nothing_measured(store: Store) -> None:
    assert measure_outcomes(store, 0.0) == []


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (1, 1_000_000), (0, 0)])
def test_the_interval_stays_within_0_and_1_and_holds_the_rate(successes: int, n: int) -> None:
    low, high = wilson_interval(successes, n)
    assert 0.0 <= low <= (successes / n if n else 0.5) <= high <= 1.0
