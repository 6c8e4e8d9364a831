"""Ids to rows: what a plain dictionary would say after the same changes, and older ones stay as they were."""

from hypothesis import given
from hypothesis import strategies as st

from lmrec.retrieval import snapshot
from lmrec.retrieval.snapshot import RowsById

IDS = st.sampled_from([f"i{n}" for n in range(12)])
CHANGES = st.lists(st.dictionaries(IDS, st.none() | st.integers(0, 99), max_size=4), max_size=8)


@given(whole=st.dictionaries(IDS, st.integers(0, 99)), changes=CHANGES, most=st.sampled_from([2, 1_000]))
def test_rows_are_those_of_a_dictionary(whole: dict[str, int], changes: list[dict[str, int | None]], most: int) -> None:
    kept, snapshot.MAX_CHANGED = snapshot.MAX_CHANGED, most
    try:
        rows, expected = RowsById(dict(whole)), dict(whole)
        for change in changes:
            before, seen = dict(rows), rows
            rows = rows.with_changes(change)
            expected = {item: row for item, row in {**expected, **change}.items() if row is not None}
            assert dict(rows) == expected
            assert len(rows) == len(expected)
            assert all((item in rows) == (item in expected) for item in (*whole, *change, "never"))
            assert dict(seen) == before
    finally:
        snapshot.MAX_CHANGED = kept
