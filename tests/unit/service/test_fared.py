"""Shows and clicks as they come in: each list once, however late it is written, and clicks of none but these."""

from typing import Final

import pytest

from lmrec.feedback.events import Event
from lmrec.feedback.shown import Shown
from lmrec.feedback.store import Store
from lmrec.models.live_stack import RunningCounts
from lmrec.service.fared import FaredCounts

START: Final = 1_750_000_000.0


class Fared:
    """Counts of a store, and the clock that both go by."""

    def __init__(self, store: Store) -> None:
        self.store, self.now, self.counts = store, START, RunningCounts(None)
        self.fared = FaredCounts(store, self.counts, START - 1_000, clock=lambda: self.now)
        self.n_clicks = 0

    def show(self, request_id: str, ago_s: float, page: str = "home") -> None:
        self.store.add_shown(Shown(request_id, None, "0", ("a", "b"), self.now - ago_s, {"page": page}))

    def click(self, request_id: str) -> None:
        self.n_clicks += 1
        self.store.add_events([Event(f"e{self.n_clicks}", "ann", "a", "click", self.now, request_id=request_id)])

    def wait(self, seconds: float) -> tuple[float, float]:
        """(shows, clicks) of "a" after so long, with an update each second."""
        for _ in range(round(seconds)):
            self.now += 1
            self.fared.update()
        found = self.counts.before(["a"], self.now + 1)
        return found.shows[0], found.n_clicks[0]


@pytest.fixture
def fared(store: Store) -> Fared:
    return Fared(store)


def test_a_list_that_is_written_late_counts_once(fared: Fared) -> None:
    fared.show("r1", 0)
    assert fared.wait(5) == (1, 0)
    fared.show("r0", 8)
    fared.show("r2", 4)
    assert fared.wait(1) == (3, 0)
    assert fared.wait(60) == (3, 0)


@pytest.mark.parametrize("late_s", [4, 20])
def test_a_click_waits_for_its_list(fared: Fared, late_s: int) -> None:
    fared.wait(40)
    fared.click("late")
    fared.click("late")
    fared.show("r1", 0)
    assert fared.wait(late_s) == (1, 0)
    fared.show("late", late_s + 2)
    assert fared.wait(1) == (2, 1)
    fared.click("late")  # once is once
    fared.click("r1")
    assert fared.wait(60) == (2, 2)


def test_a_click_of_a_list_that_is_too_new_waits_too(fared: Fared) -> None:
    fared.wait(3)
    fared.show("ahead", -5)  # by a clock of another machine
    fared.click("ahead")
    assert fared.wait(4) == (0, 0)
    assert fared.wait(60) == (1, 1)


def test_a_trial_counts_nowhere(fared: Fared) -> None:
    fared.wait(3)
    fared.show("late", 2, page="console")
    fared.click("late")
    assert fared.wait(60) == (0, 0)


def test_a_start_counts_what_is_there_and_what_is_still_to_come(store: Store) -> None:
    fared = Fared(store)
    fared.show("old", 500)
    fared.show("r1", 5)
    fared.click("old")
    fared.click("r1")
    again = Fared(store)
    assert again.wait(1) == (2, 2)
    again.show("late", 8)
    again.n_clicks = 9
    again.click("late")
    assert again.wait(60) == (3, 3)
