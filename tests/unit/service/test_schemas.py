"""Bodies: what is accepted, what is refused, and how that is said."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from lmrec.errors import InputError
from lmrec.feedback.events import Event
from lmrec.service.errors import error_answer
from lmrec.service.problems import describe_problems
from lmrec.service.routes.events import DAY_S, parse_time, to_event
from lmrec.service.schemas.questions import (
    EventBatch,
    EventIn,
    Events,
    ItemBatch,
    RecommendationQuestion,
    SimilarQuestion,
)
from lmrec.service.schemas.words import Fields, plain_filter

EVENTS: TypeAdapter[EventBatch | EventIn] = TypeAdapter(Events)
ONE = {"user_id": "u", "item_id": "i", "kind": "view"}


def refusal(adapter: TypeAdapter[Any], body: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        adapter.validate_python(body)
    return describe_problems([dict(problem) for problem in refused.value.errors()])


def test_events_come_as_a_list_or_bare() -> None:
    batch, one = EVENTS.validate_python({"events": [ONE]}), EVENTS.validate_python(ONE)
    assert isinstance(batch, EventBatch)
    assert isinstance(one, EventIn)
    assert batch.events == [one]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({**ONE, "kind": 7}, "kind is 7"),
        ({**ONE, "kind": "a\tb"}, "kind is 'a\\tb'"),
        ({**ONE, "value": 3}, "value is not a field"),
        ({"events": [{**ONE, "user_id": ""}]}, "events.0.user_id is ''"),
        ({"events": []}, "events is []"),
        ({"events": [ONE] * 1_001}, "at most 1000"),
        ({"item_id": "i", "kind": "view"}, "user_id is missing"),
        ({**ONE, "user": "u"}, "user is not a field"),
        ({**ONE, "user_id": 7}, "user_id is 7"),
        ({**ONE, "user_id": "a\x00b"}, "user_id"),
        ({**ONE, "user_id": "a\ud800"}, "user_id"),
        ({**ONE, "weight": float("nan")}, "weight is nan"),
        (None, "the body is None"),
    ],
)
def test_wrong_events_are_refused_with_place_value_and_rule(body: Any, said: str) -> None:
    assert said in refusal(EVENTS, body)


@pytest.mark.parametrize(
    "spec",
    [
        {"year": 1990},
        {"year": [1990, 1991], "genre": "Drama"},
        {"year": {"min": 1990}},
        {"year": {"min": 1990, "max": 2000.5}},
        {"lang": {"not": "en"}},
        {"lang": {"not": {"contains": "e"}}},
        {"lang": {"not": ["en", None]}},
        {"adult": False, "x": None},
    ],
)
def test_a_filter_comes_through_as_it_was_sent(spec: dict[str, Any]) -> None:
    question = RecommendationQuestion.model_validate({"filter": spec})
    assert plain_filter(question.filter) == spec


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"filter": {"year": {"minimum": 1}}}, "filter.year.minimum is not a field"),
        ({"filter": {"year": {}}}, "no bound is given"),
        ({"filter": {}}, "filter is {}"),
        ({"filter": {"year": [[1]]}}, "filter.year.0 is [1]"),
        ({"k": 0}, "k is 0"),
        ({"k": "5"}, "k is '5'"),
        ({"k": True}, "k is True"),
        ({"k": 201}, "k is 201"),
        ({"diversity": 1.5}, "diversity is 1.5"),
        ({"text": " "}, "text is ' '"),
        ({"history": ["1"] * 1_001}, "history"),
    ],
)
def test_wrong_questions_are_refused(body: Any, said: str) -> None:
    assert said in refusal(TypeAdapter(RecommendationQuestion), body)


def test_a_whole_number_may_have_a_point() -> None:
    assert RecommendationQuestion.model_validate({"k": 5.0}).k == 5


def test_similar_wants_exactly_one() -> None:
    for body in ({}, {"item_id": "1", "text": "x"}):
        assert "give either item_id or text" in refusal(TypeAdapter(SimilarQuestion), body)


def test_item_fields_are_scalars_and_bulk_items_have_ids() -> None:
    assert "title is {'a': 1}: it must be a text" in refusal(TypeAdapter(Fields), {"title": {"a": 1}})
    assert "year is 9007199254740993" in refusal(TypeAdapter(Fields), {"year": 2**53 + 1})
    assert "item_id None is none" in refusal(TypeAdapter(ItemBatch), {"items": [{"title": "x"}]})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1735689600, 1735689600.0),
        ("2025-01-01", 1735689600.0),
        ("2025-01-01T00:00:00Z", 1735689600.0),
        ("2025-01-01T02:00:00+02:00", 1735689600.0),
    ],
)
def test_times_are_read(value: str | float, seconds: float) -> None:
    assert parse_time(value) == seconds


@pytest.mark.parametrize(
    ("value", "said"), [(1735689600000, "by 1000"), ("soon", "ISO 8601"), ("0001-01-01T00:00+14:00", "")]
)
def test_times_that_cannot_be_meant_are_refused_or_old(value: str | float, said: str) -> None:
    if said:
        with pytest.raises(InputError, match=said):
            parse_time(value)
    else:
        assert parse_time(value) < 0


def test_odd_events_are_flagged_and_kept() -> None:
    now = 1_000 * DAY_S

    def flags(item_id: str, days: float) -> tuple[str, ...]:
        sent = EventIn.model_validate({**ONE, "item_id": item_id, "time": now + days * DAY_S})
        event = to_event(sent, now, {"i"}.__contains__)
        assert isinstance(event, Event)
        return event.flags

    assert flags("i", 0) == ()
    assert flags("x", 0) == ("unknown_item",)
    assert flags("i", -31) == ("old_clock",)
    assert flags("x", 2) == ("unknown_item", "future_clock")
    assert to_event(EventIn.model_validate(ONE), now, {"i"}.__contains__).time_ts == now
    made = {to_event(EventIn.model_validate(ONE), now, {"i"}.__contains__).event_id for _ in range(5)}
    assert len(made) == 5


def test_store_errors_are_not_told_with_their_paths() -> None:
    from lmrec.feedback.errors import StoreError

    answer = error_answer(StoreError("the store /srv/secret/store.db is damaged"))
    assert answer is not None
    assert answer.status == 503
    assert "secret" not in answer.message
