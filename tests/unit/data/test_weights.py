"""What an event counts, and what returns leave, against a plain stack."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lmrec.data.dataset import Dataset
from lmrec.data.sources import TablesConfig, read_dataset
from lmrec.data.weights import GONE, left_after_returns, left_of, on_the_scale, weigh
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
    with pytest.raises(DataError, match=r"data\.return_kinds is given, but there is no column of kinds .*--map kind="):
        read(EVENTS.drop("kind"), return_kinds={"return": "view"})
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        TablesConfig(kind_weights={"view": -1})
    with pytest.raises(ValidationError, match="finite number"):
        TablesConfig(kind_weights={"view": float("inf")})
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
    settled = read(with_amounts, return_kinds={"Return": "PURCHASE"})
    assert weights(settled) == [3.0, 1.0, 1.0, 1.0, 1.0]
    logged = read(with_amounts, return_kinds={"return": "purchase"}, weight_scale="log").interactions
    assert logged.amount is not None
    assert logged.amount.tolist() == [3.0, 1.0, 1.0, 1.0, 1.0], "of which the weights were made"
    assert logged.weight[0] == 2.0


def test_a_return_takes_back_though_its_kind_weighs_nothing() -> None:
    events = EVENTS.with_columns(
        kind=pl.Series(["buy", "view", "undo", "undo"]), item_id=pl.Series(["a", "b", "a", "a"])
    )
    dataset = read(events.drop("weight"), return_kinds={"undo": "buy"}, kind_weights={"undo": 0, "buy": 2, "view": 1})
    assert weights(dataset) == [1.0]
    assert noted(dataset, "2 returns took back 1 earlier events; both were left out; 1 found nothing to take back")


@pytest.mark.parametrize(
    ("kind", "ways"),
    [
        ("Return", ["2 events of the kind 'return'", "return_kinds={return = 'buy'}", "kind_weights={return = 0}"]),
        ("order_cancelled", ["return_kinds={order_cancelled = 'buy'}"]),
        ("item refunded", ["return_kinds={'item refunded' = 'buy'}"]),
        ("dismiss", ["count as choosing the item: to leave them out, set data.kind_weights={dismiss = 0}"]),
        ("returning visitor", []),
    ],
)  # fmt: skip
def test_a_kind_that_reads_like_the_opposite_is_questioned(kind: str, ways: list[str]) -> None:
    events = EVENTS.with_columns(kind=pl.Series(["view", "buy", kind, kind]))
    dataset = read(events)
    assert len(dataset.interactions) == 4
    assert all(noted(dataset, way) for way in ways)
    assert noted(dataset, "count as choosing") == bool(ways)
    assert not ways or noted(read(events, kind_weights={"view": 1, "buy": 1}), ways[0]), "unless it is named itself"
    assert not noted(read(events, kind_weights={"view": 1, "buy": 1, kind: 0.5}), "count as choosing"), "it is meant"
    assert not noted(read(events, return_kinds={kind: "buy"}), "count as choosing")


def test_kinds_that_are_named_in_vain_are_said() -> None:
    dataset = read(return_kinds={"shaer": "purchase"}, kind_weights={"view": 1, "dimsiss": 0})
    assert noted(dataset, "no event is of the kinds ['shaer'] that data.return_kinds names. Did you mean 'share'?")
    assert noted(dataset, "no event is of the kinds ['dimsiss'] that data.kind_weights names. Did you mean 'dismiss'?")
    assert noted(read(return_kinds={"share": "buy"}), "no event is of the kinds ['buy'] that data.return_kinds names")
    assert not noted(read(return_kinds={"Share": " VIEW"}), "no event is of the kinds")


def test_what_later_events_count_is_kept_with_the_data() -> None:
    weighing = read(weight_from="rating", kind_weights={"View": 0.5}, min_rating=3).weighing
    assert (weighing.kinds, weighing.known_kinds) == (
        ("dismiss", "purchase", "share", "view"),
        frozenset(weighing.kinds),
    )
    assert (weighing.lowest, weighing.highest, weighing.min_rating) == (3.0, 5.0, 3.0)
    assert weighing.unrated == pytest.approx((1 + 1 / 3) / 2)
    later = pl.DataFrame({"kind": ["VIEW", "buy", "buy"], "rating": [5.0, None, 1.0]})
    assert weigh(later, weighing).to_list() == pytest.approx([0.5, weighing.unrated, 0.2]), (
        "as if the log went down to 1"
    )
    assert weigh(later, TablesConfig(weight_scale="log").weighing).to_list() == [1.0] * 3


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


def test_one_wild_rating_weighs_nobody_anew() -> None:
    weighing = read(weight_from="rating").weighing
    wild = on_the_scale(weighing, pl.Series([3.0, 5.0, 1e6, None]))
    assert (wild.lowest, wild.highest) == (weighing.lowest, weighing.highest)
    some = pl.DataFrame({"rating": [3.0, 5.0, 1e6]})
    assert weigh(some, wild).to_list() == pytest.approx([*weigh(some[:2], weighing).to_list(), 1.0])


def test_a_whole_return_of_rounded_weights_leaves_no_crumb() -> None:
    moves = pl.DataFrame(
        {
            "user": "u",
            "item": "i",
            "at": [1, 2, 3],
            "kind": ["purchase", "purchase", "share"],
            "weight": [0.1, 0.6, 0.7],
        }
    )
    weighing = TablesConfig(return_kinds={"share": "purchase"}).weighing
    assert left_of(moves, weighing, ["user", "item"], "at")[GONE].to_list() == [True, True, False]


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"kind_weights": {"View": 1, "view ": 3}}, "names the kind 'view' twice"),
        ({"return_kinds": {"share": "purchase", "back": "share"}}, "takes back 'share', which is a return itself"),
        (
            {"return_kinds": {"share": "purchase"}, "kind_weights": {"purchase": 0}},
            "of which data.kind_weights leaves out every event",
        ),
    ],
)
def test_kinds_that_collide_or_chain_are_refused(choices: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TablesConfig(**choices)


def test_events_at_one_time_that_weigh_differently_are_one_whose_weight_is_their_sum() -> None:
    log = pl.DataFrame(
        {
            "user_id": ["a", "a", "a", "a", "b"],
            "item_id": ["i0", "i0", "i0", "i1", "i0"],
            "timestamp": [1.7e9, 1.7e9, 1.7e9, 1.7e9, 1.7e9],
            "weight": [2.0, 3.0, 2.0, 4.0, 1.0],
        }
    )
    items = pl.DataFrame({"item_id": ["i0", "i1"], "title": ["red lamp", "blue lamp"]})
    dataset = read_dataset(items, log)
    found = dataset.interactions
    assert list(zip(found.user_idx.tolist(), found.item_idx.tolist(), found.weight.tolist(), strict=True)) == [
        (0, 0, 5.0),  # 2 and 3; the third repeats the first wholly
        (0, 1, 4.0),
        (1, 0, 1.0),
    ]
    assert any("1 events repeat an earlier one" in note for note in dataset.notes)
    assert any("1 events came at the time of another" in note for note in dataset.notes)


def test_of_ratings_at_one_time_the_last_counts() -> None:
    log = pl.DataFrame(
        {"user_id": ["a", "a", "b"], "item_id": ["i0"] * 3, "timestamp": [1.7e9] * 3, "rating": [1.0, 5.0, 3.0]}
    )
    dataset = read_dataset(pl.DataFrame({"item_id": ["i0"], "title": ["red lamp"]}), log)
    assert dataset.interactions.rating is not None
    assert dataset.interactions.rating.tolist() == [5.0, 3.0]
    assert any("1 events were rated anew" in note for note in dataset.notes)


def test_a_rating_that_is_missing_takes_nobodys_place_and_own_columns_stay() -> None:
    columns = {"user_id": ["a"] * 3, "item_id": ["i0"] * 3, "timestamp": [1.7e9] * 3, "place": ["shop", "web", "web"]}
    log = pl.DataFrame({**columns, "rating": [5.0, None, None], "weight": [1.0, 2.0, 3.0]})
    found = read_dataset(pl.DataFrame({"item_id": ["i0"], "title": ["red lamp"]}), log).interactions
    assert found.rating is not None
    assert (found.rating.tolist(), found.weight.tolist()) == ([5.0], [6.0])


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([("purchase", 1), ("purchase", 1), ("return", 1)], [1.0]),
        ([("purchase", 1), ("purchase", 2), ("return", 1)], [2.0]),
        ([("purchase", 2), ("return", 1), ("return", 1)], []),
        ([("purchase", 1), ("return", -1)], []),
        ([("purchase", 3), ("return", -1)], [2.0]),
    ],
)
@pytest.mark.parametrize("by_lines", [False, True])
def test_returns_are_settled_by_lines_that_may_be_alike(
    lines: list[tuple[str, int]], left: list[float], by_lines: bool
) -> None:
    """Days are all the time there is; without a column of weights a line is one."""
    if by_lines:
        lines = [(kind, 1) for kind, n in lines for _ in range(abs(n))]
    days = {"purchase": "2024-01-01", "return": "2024-01-05"}
    rows = [("u", "a", days[kind], kind, float(n)) for kind, n in lines]
    others = [("v", "b", "2024-01-01", "view", 1.0)] * 2  # a view told twice is one view
    columns = ["user_id", "item_id", "timestamp", "kind", "weight"]
    frame = pl.DataFrame([*rows, *others], schema=columns, orient="row")
    log = read(frame.drop("weight") if by_lines else frame, return_kinds={"return": "purchase"}).interactions
    assert log.amount is not None
    assert log.kind is not None
    assert [float(one) for one, kind in zip(log.amount, log.kind, strict=True) if kind == "purchase"] == left
    assert [float(one) for one, kind in zip(log.amount, log.kind, strict=True) if kind == "view"] == [1.0]


def test_a_scale_needs_something_to_scale() -> None:
    with pytest.raises(DataError, match="there is no column 'weight', .* --map weight=YOUR_COLUMN"):
        read(EVENTS.drop("weight"), weight_scale="log")


def test_lines_of_one_day_with_other_ratings_are_counted_by_returns_too() -> None:
    rows = [("u", "a", "2024-01-01", "purchase", 5.0), ("u", "a", "2024-01-01", "purchase", 4.0)]
    frame = pl.DataFrame(
        [*rows, ("u", "a", "2024-01-05", "return", None)],
        schema=["user_id", "item_id", "timestamp", "kind", "rating"], orient="row",
    )  # fmt: skip
    log = read(frame, return_kinds={"return": "purchase"}).interactions
    assert log.amount is not None
    assert log.rating is not None
    assert (log.amount.tolist(), log.rating.tolist()) == ([1.0], [4.0])
