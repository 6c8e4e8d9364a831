"""What an event counts, and what returns leave, against a plain stack."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lmrec.data.dataset import Dataset
from lmrec.data.sources import TablesConfig, read_dataset
from lmrec.data.sources.weights import left_after_returns
from lmrec.errors import DataError

ITEMS = pl.DataFrame({"item_id": ["a", "b"], "title": ["Red Kettle", "Blue Lamp"]})
EVENTS = pl.DataFrame(
    {
        "user_id": ["u", "u", "u", "u"],
        "item_id": ["a", "b", "a", "b"],
        "timestamp": [1_700_000_000, 1_700_000_001, 1_700_000_002, 1_700_000_003],
        "kind": ["view", "Purchase", "dismiss", "share"],
        "weight": [1.0, 3.0, 7.0, 1.0],
        "rating": [1.0, 5.0, None, 3.0],
    }
)


def read(events: pl.DataFrame = EVENTS, **choices: object) -> Dataset:
    return read_dataset(ITEMS, events, config=TablesConfig.model_validate(choices))


def weights(dataset: Dataset) -> list[float]:
    return [round(float(weight), 4) for weight in dataset.interactions.weight]


def noted(dataset: Dataset, words: str) -> bool:
    return any(words in note for note in dataset.notes)


def test_kinds_weigh_and_zero_drops() -> None:
    dataset = read(EVENTS.drop("weight"), kind_weights={"view": 1, "purchase": 3, "dismiss": 0, "cart": 2})
    assert weights(dataset) == [1.0, 3.0, 1.0]
    assert noted(dataset, "1 events of a kind that weighs 0 were left out (dismiss)")
    assert noted(dataset, "the kinds ['share'] are not in data.kind_weights and weigh 1")
    assert noted(dataset, "no event is of the kinds ['cart']")


def test_kinds_multiply_the_weight_column() -> None:
    assert weights(read(kind_weights={"purchase": 2})) == [1.0, 6.0, 7.0, 1.0]


def test_the_weight_column_can_be_left_scaled_or_ignored() -> None:
    assert weights(read()) == [1.0, 3.0, 7.0, 1.0]
    assert weights(read(weight_scale="log")) == [1.0, 2.0, 3.0, 1.0]
    assert weights(read(weight_from="none")) == [1.0, 1.0, 1.0, 1.0]


def test_ratings_as_weights() -> None:
    assert weights(read(weight_from="rating")) == [0.2, 1.0, 0.6, 0.6]  # the third has none: the mean of the others
    assert weights(read(EVENTS.with_columns(pl.lit(4.0).alias("rating")), weight_from="rating")) == [1.0] * 4
    with pytest.raises(DataError, match="there is no column 'rating'"):
        read(EVENTS.drop("rating"), weight_from="rating")


def test_kinds_without_a_column_or_below_zero_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.kind_weights is given, but there is no column of kinds .*--map kind="):
        read(EVENTS.drop("kind"), kind_weights={"view": 1})
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        TablesConfig(kind_weights={"view": -1})
    with pytest.raises(DataError, match="weigh more kinds above 0"):
        read(EVENTS.head(1), kind_weights={"view": 0})


def test_kinds_of_return_take_back_only_their_kind() -> None:
    events = pl.DataFrame(
        {
            "user_id": ["u"] * 5 + ["v"],
            "item_id": ["a", "a", "a", "a", "b", "a"],
            "timestamp": [1_700_000_000 + second for second in range(6)],
            "kind": ["purchase", "view", "return", "purchase", "purchase", "purchase"],
        }
    )
    dataset = read(events, return_kinds={"return": "purchase"})
    assert dataset.interactions.kind is not None
    assert dataset.interactions.kind.tolist() == ["view", "purchase", "purchase", "purchase"]
    assert noted(dataset, "1 returns took back 1 earlier events")
    with_amounts = events.with_columns(pl.Series("weight", [5.0, 1, 2, 1, 1, 1]))
    assert weights(read(with_amounts, return_kinds={"Return": "PURCHASE"})) == [3.0, 1.0, 1.0, 1.0, 1.0]


def test_no_choice_leaves_everything_as_it_was(tmp_path: Path) -> None:
    plain = EVENTS.drop("weight")
    assert read(plain).fingerprint == read(plain, kind_weights={}, return_kinds={"return": "view"}).fingerprint


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-4, 4).filter(bool)), min_size=1, max_size=30))
def test_returns_take_from_the_newest_as_a_stack_does(moves: list[tuple[str, int]]) -> None:
    frame = pl.DataFrame({"who": [who for who, _ in moves], "n": [n for _, n in moves], "at": range(len(moves))})
    left = [0.0] * len(moves)
    for place, (who, n) in enumerate(moves):
        if n > 0:
            left[place] = n
        for earlier in reversed(range(place)):
            if n < 0 and moves[earlier][0] == who:
                taken = min(left[earlier], -n)
                left[earlier] -= taken
                n += int(taken)
    assert left_after_returns(frame, ["who"], "at", "n").to_series(-1).to_list() == left
