"""Leaving the last event out where several share its instant."""

import polars as pl
import pytest

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
    assert prepared.summary.tie_share == prepared.split.proof.tie_share == 0.6
    assert any("the table's order says" in note for note in prepared.notes) == (kind == "last")
