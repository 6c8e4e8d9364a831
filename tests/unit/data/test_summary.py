"""The summary counts what is there, and reads well."""

import numpy as np
import polars as pl
import pytest

from lmrec.data.catalog import Catalog
from lmrec.data.dataset import Dataset
from lmrec.data.interactions import Interactions
from lmrec.data.sources import TablesConfig, planted_world, read_dataset
from lmrec.data.split import SplitConfig, split_interactions
from lmrec.data.summary import summarize
from lmrec.errors import DataError

CATALOG = Catalog(
    pl.DataFrame({"item_id": ["a", "b", "c", "d"], "title": ["one", "two words", None, "x y z"]}), ("title",)
)


def test_counts_by_hand() -> None:
    log = Interactions.from_arrays(["u", "v"], [0, 0, 0, 1], [0, 1, 1, 0], [0.0, 86400.0, 86400.0, 5.0])
    summary = summarize(Dataset(CATALOG, log))
    assert (summary.n_users, summary.n_items, summary.n_events) == (2, 4, 4)
    assert summary.density == 3 / 8
    assert (summary.history_median, summary.history_max) == (2.0, 3)
    assert summary.items_without_events == 0.5
    assert summary.tie_share == 0.5
    assert (summary.blank_texts, summary.median_words) == (0.25, 1.5)
    rows = dict(summary.rows())
    assert rows["items"] == "4 (50.0% without events)"
    assert rows["time"] == "1970-01-01 00:00:00 to 1970-01-02 00:00:00 UTC"
    assert rows["set aside"] == "nothing"
    assert "split" not in rows


def test_cold_shares_of_a_split() -> None:
    log = Interactions.from_arrays(["u", "v"], [0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 1, 0], [1, 2, 3, 4, 5, 6])
    split = split_interactions(log, 4, SplitConfig(validation=0, test=0.5))
    summary = summarize(Dataset(CATALOG, log), split)
    assert summary.cold_items == pytest.approx(1 / 3)
    assert summary.cold_users == 0.5
    assert dict(summary.rows())["cold in test"] == "33.3% of relevant items, 50.0% of users"
    assert dict(summary.rows())["questions"] == "validation 0, test 3"
    assert summary == type(summary).model_validate_json(summary.model_dump_json())


def test_what_was_set_aside_is_counted_by_reason() -> None:
    events = pl.DataFrame({"user_id": ["u"] * 4, "item_id": ["a", "q", "r", None], "position": [0, 1, 2, 3]})
    dataset = read_dataset(CATALOG.frame, events, config=TablesConfig(max_bad_share=1))
    rows = dict(summarize(dataset).rows())
    assert rows["set aside"] == "2 the item is not in the catalog, 1 no item_id"
    assert rows["time"] == "positions 0 to 0"


def test_an_empty_log_and_a_world() -> None:
    nothing = Interactions.from_arrays([], [], [], [])
    assert dict(summarize(Dataset(CATALOG, nothing)).rows())["time"] == "no events"
    world = planted_world()
    split = split_interactions(world.interactions, world.catalog.n_items, SplitConfig())
    assert summarize(world, split).cold_items == 0.0


def test_a_dataset_refuses_items_that_its_catalog_has_not() -> None:
    log = Interactions.from_arrays(["u"], [0], [4], [1])
    with pytest.raises(DataError, match=r"item row 4, but the catalog has 4 items"):
        Dataset(CATALOG, log)
    assert len(Dataset(CATALOG, log.select(np.array([False]))).fingerprint) == 33
