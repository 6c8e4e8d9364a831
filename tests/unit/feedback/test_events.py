"""What counts as liking, what can be kept, and that the room stays light."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrec.data.weighing import Weighing
from lmrec.errors import InputError
from lmrec.feedback.checks import check_count, check_text, from_json, to_json
from lmrec.feedback.events import EVENT_KINDS, Event
from lmrec.feedback.judging import PLAIN_JUDGING, Judging


@pytest.mark.parametrize("kind", EVENT_KINDS)
def test_every_kind_but_a_dismissal_says_something_good(kind: str) -> None:
    assert PLAIN_JUDGING.says_yes(Event("e", "u", "i", kind, 0.0)) == (kind != "dismiss")


@pytest.mark.parametrize(("stars", "liked"), [(0.5, False), (2.9, False), (3.0, True), (5.0, True), (None, True)])
def test_a_rating_counts_from_three_stars_on(stars: float | None, liked: bool) -> None:
    assert PLAIN_JUDGING.says_yes(Event("e", "u", "i", "rating", 0.0, stars)) == liked


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({}, {("dismiss", None): False, ("rating", 1.0): False, ("return", None): True, ("buy", 1.0): True}),
        ({"weight_from": "rating"}, {("rating", 1.0): True, ("dismiss", None): False}),
        ({"min_rating": 2}, {("rating", 2.0): True, ("rating", 1.5): False, ("view", None): None, ("view", 2.0): True}),
        ({"min_rating": 4}, {("rating", 3.5): None, ("rating", 1.0): False, ("buy", 5.0): True}),
        (
            {"kind_weights": {"view": 0, "dismiss": 0}},
            {("view", None): None, ("dismiss", None): False, ("buy", None): True},
        ),
        ({"kind_weights": {"dismiss": 0.1, "rating": 0}}, {("dismiss", None): True, ("rating", 1.0): None}),
        ({"return_kinds": {"return": "buy", "dismiss": "buy"}}, {("return", None): None, ("dismiss", None): None}),
    ],
)
def test_what_a_kind_says_goes_by_the_recipe(
    choices: dict[str, object], said: dict[tuple[str, float | None], bool | None]
) -> None:
    judging = Judging.of(Weighing.model_validate(choices))
    assert {event: judging.judge(*event) for event in said} == said


@given(st.text())
def test_text_passes_exactly_where_utf8_without_nul_can_hold_it(words: str) -> None:
    keepable = bool(words) and "\x00" not in words and not any("\ud800" <= letter <= "\udfff" for letter in words)
    if keepable:
        check_text("word", words)
    else:
        with pytest.raises(InputError, match="word"):
            check_text("word", words)


@pytest.mark.parametrize(("count", "fits"), [(-1, False), (0, True), (2**63 - 1, True), (2**63, False)])
def test_counts_have_the_range_of_a_database(count: int, fits: bool) -> None:
    if fits:
        check_count("limit", count)
    else:
        with pytest.raises(InputError, match=f"limit is {count}; give a whole number from 0"):
            check_count("limit", count)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('aé\x00\n"\\'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
)


@given(json_values)
def test_json_comes_back_as_it_was_and_has_no_nul(value: object) -> None:
    text = to_json("x", value)
    assert from_json(text) == value
    assert "\x00" not in text


@pytest.mark.parametrize("value", [float("nan"), {"a": float("inf")}, b"bytes", {"a": "\ud800"}, {1, 2}])
def test_what_json_cannot_say_is_refused_by_name(value: object) -> None:
    with pytest.raises(InputError, match="the fields"):
        to_json("the fields", value)


def test_feedback_imports_no_torch() -> None:
    code = "import sys, lmrec.feedback.store; print(*{'torch', 'transformers', 'polars', 'fastapi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
