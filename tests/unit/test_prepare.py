"""Leaving the last event out where several share its instant."""

import numpy as np
import polars as pl
import pytest

from lmrec.data.history import HistoryIndex
from lmrec.data.impressions import Impressions, shown_beside
from lmrec.data.interactions import Interactions
from lmrec.fields import Ragged
from lmrec.recipe import load_recipe
from lmrec.workflows.prepare import prepare

ITEMS = pl.DataFrame({"item_id": [f"i{n}" for n in range(6)], "title": [f"item {n}" for n in range(6)]})
# Both users have their last three events at one instant.
EVENTS = pl.DataFrame(
    {
        "user_id": ["a"] * 5 + ["b"] * 5,
        "item_id": ["i0", "i1", "i4", "i2", "i3", "i5", "i4", "i3", "i2", "i1"],
        "timestamp": [100, 200, 300, 300, 300] * 2,
    }
)


@pytest.mark.parametrize(("kind", "history"), [("last", [0, 1, 4, 2]), ("time", [0, 1])])
def test_what_a_user_did_at_the_instant_of_the_last_event_is_known_by_its_place_in_the_table(
    kind: str, history: list[int]
) -> None:
    """And is not where the question is what comes from a moment on: all that came at that moment is asked for."""
    shares = ["split.test=0.6", "split.validation=0"] if kind == "time" else []
    prepared = prepare(ITEMS, EVENTS, None, load_recipe(overrides=[f"split.kind={kind}", *shares]))
    test = prepared.split.test
    assert test.history[0].tolist() == history
    assert sorted(test.relevant[0].tolist()) == ([3] if kind == "last" else [2, 3, 4])
    assert prepared.split.proof.holds
    tied = "for 2 of 2 users the cut runs between events of one instant"
    assert any(tied in weakness for weakness in prepared.split.proof.weaknesses) == (kind == "last")
    assert prepared.summary.tie_share == prepared.split.proof.tie_share == 0.6
    assert any("the table's order says" in note for note in prepared.notes) == (kind == "last")


def test_an_item_that_was_seen_and_bought_at_once_is_one_question() -> None:
    log = pl.DataFrame(
        {
            "user_id": ["a"] * 6,
            "item_id": ["i0", "i1", "i2", "i3", "i3", "i2"],
            "timestamp": [100, 200, 300, 300, 300, 300],
            "kind": ["view", "view", "view", "view", "purchase", "purchase"],
        }
    )
    split = prepare(ITEMS, log, None, load_recipe(overrides=["split.kind=last"])).split
    assert split.test.history[0].tolist() == [0, 1, 2, 2]
    assert (split.test.relevant[0].tolist(), split.validation.relevant[0].tolist()) == ([3], [2])
    assert split.train.item_idx.tolist() == [0, 1]
    assert split.n_dropped == (0, 0)


def test_clicks_of_one_list_keep_what_was_shown_beside_them_when_their_order_is_told_apart() -> None:
    log = Interactions.from_arrays(["a"], [0, 0, 0], [1, 2, 3], [50.0, 50.0, 90.0])
    shown = Impressions(
        ["x", "y"],
        np.array([0, 0], np.int32),
        np.array([50.0, 90.0]),
        Ragged.from_rows([[1, 4, 2], [5, 3]]),
        np.array([True, False, True, False, True]),
    )
    for events in (log, log.in_given_order()):
        beside = shown_beside(HistoryIndex.from_interactions(events), shown)
        assert [beside[at].tolist() for at in range(3)] == [[4], [4], [5]]
