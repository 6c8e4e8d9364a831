"""Rules: what each kind does, which beats which, segments, files, and clear words for rules that cannot work."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from lmrec.errors import InputError
from lmrec.retrieval.filters import parse_filter
from lmrec.retrieval.live import LiveQuery, LiveRecommender
from lmrec.retrieval.rules import PinnedRow, Review, load_rules_file, parse_rule, place_pins

from .conftest import N_ITEMS


def set_rules(live: LiveRecommender, *specs: dict[str, Any]) -> None:
    live.set_rules({f"r{place}": parse_rule(spec) for place, spec in enumerate(specs)})


def shown(live: LiveRecommender, k: int = 100, **choices: Any) -> list[str]:
    (answer,) = live.recommend([LiveQuery(history=("3", "9"), k=k, **choices)])
    return [item.item_id for item in answer.items]


def test_must_not_show_holds_everywhere(live: LiveRecommender) -> None:
    set_rules(
        live,
        {"kind": "must_not_show", "item_ids": ["5", "no such item"]},
        {"kind": "must_not_show", "filter": {"genre": "Chef"}},
    )
    hidden = {"5", *(str(row) for row in range(2, N_ITEMS, 4))}
    assert hidden.isdisjoint(shown(live))
    assert len(shown(live)) == N_ITEMS - 2 - len(hidden)
    assert hidden.isdisjoint(item.item_id for item in live.similar(item_id="5", k=100))
    assert hidden.isdisjoint(item.item_id for item in live.search("chef bakery", k=100))
    (popular,) = live.recommend([LiveQuery(k=100)])
    assert hidden.isdisjoint(item.item_id for item in popular.items)
    live.upsert([{"item_id": "new", "title": "x", "genre": "Chef"}, {"item_id": "5", "title": "changed"}])
    assert {"new", "5"}.isdisjoint(shown(live))
    live.set_rules({})
    assert {"new", "5"} <= set(shown(live))


def test_a_boost_multiplies_the_odds(live: LiveRecommender) -> None:
    def scores() -> dict[str, tuple[float, str | None]]:
        (answer,) = live.recommend([LiveQuery(history=("3", "9"), k=100)])
        return {item.item_id: (item.score, item.rule) for item in answer.items}

    before = scores()
    set_rules(
        live,
        {"kind": "boost", "item_ids": ["6"], "factor": 3},
        {"kind": "demote", "filter": {"genre": "Violin"}, "factor": 2},
        {"kind": "boost", "filter": {"genre": "Violin"}, "factor": 2},
    )
    after = scores()
    for item_id, (score, rule) in after.items():
        boost = math.log(3) if item_id == "6" else 0.0
        assert score == pytest.approx(before[item_id][0] + boost, abs=1e-5)
        assert rule == ("r0" if item_id == "6" else "r2" if int(item_id) % 4 == 3 else None)
    set_rules(live, {"kind": "boost", "item_ids": ["4"], "factor": 100})
    (popular,) = live.recommend([LiveQuery(k=1)])
    assert popular.items[0].item_id == "4"
    assert popular.items[0].score == pytest.approx(100, rel=1e-3)


def test_a_pin_takes_its_place_and_what_hides_beats_it(live: LiveRecommender) -> None:
    best = shown(live, k=5)
    last = shown(live)[-1]
    pin = {"kind": "pin", "item_id": last, "place": 2}
    set_rules(live, pin)
    assert shown(live, k=5) == [best[0], last, *best[1:4]]
    (answer,) = live.recommend([LiveQuery(history=("3", "9"), k=5, diversity=0.5)])
    assert (answer.items[1].item_id, answer.items[1].rule) == (last, "r0")
    assert last not in shown(live, k=1)
    set_rules(
        live, pin, {"kind": "pin", "item_id": best[0], "place": 1}, {"kind": "pin", "item_id": best[4], "place": 2}
    )
    assert shown(live, k=5) == [best[0], last, best[4], best[1], best[2]]

    set_rules(live, pin)
    live.set_review(Review(frozenset({last})))
    assert last not in shown(live)
    live.set_review(Review())
    assert shown(live, k=2)[1] == last
    set_rules(live, pin, {"kind": "must_not_show", "item_ids": [last]})
    assert last not in shown(live)
    set_rules(live, pin)
    assert last not in shown(live, exclude={last})
    genre = {0: "Rocket", 1: "Whale", 2: "Chef", 3: "Violin"}[int(last) % 4]
    assert last not in shown(live, filter=parse_filter({"genre": {"not": genre}}, live.schema))
    live.delete([last])
    assert last not in shown(live)


def test_age_ratings(live: LiveRecommender) -> None:
    set_rules(live, {"kind": "age_rating", "field": "rating", "max": 6, "segment": "kids"})
    live.upsert([{"item_id": "unrated", "title": "x"}, {"item_id": "plus", "title": "x", "rating": "6+"}])
    allowed = {str(row) for row in range(N_ITEMS) if row % 4 in (0, 1)} - {"9"} | {"plus"}
    assert set(shown(live, segment="kids")) == allowed
    assert len(shown(live)) == len(shown(live, segment="grown-ups")) == N_ITEMS


def test_stock(live: LiveRecommender) -> None:
    set_rules(live, {"kind": "in_stock", "field": "stock"})
    assert all(int(item) % 5 for item in shown(live))
    live.upsert([{"item_id": "unknown", "title": "x"}, {"item_id": "some", "title": "x", "stock": 1}])
    assert "some" in shown(live)
    assert "unknown" not in shown(live)
    set_rules(live, {"kind": "in_stock", "field": "adult"})
    assert set(shown(live)) == {str(row) for row in range(0, N_ITEMS, 7)}


def test_blocked_words_and_the_review_queue(live: LiveRecommender) -> None:
    live.upsert(
        [{"item_id": "a", "title": "WHALES and more"}, {"item_id": "b", "title": "x", "description": "One Whale."}]
    )
    set_rules(live, {"kind": "block_words", "words": ["whale", "café noir"]})
    assert "a" in shown(live)
    assert "b" not in shown(live)
    assert not any(item.isdigit() and int(item) % 4 == 1 for item in shown(live))
    assert live.held_items() == {}
    live.set_review(Review(approved={"b": 5.0}))
    assert "b" not in shown(live)

    set_rules(live, {"kind": "block_words", "words": ["whale"], "review": True})
    assert "b" in shown(live)
    assert live.held_items() == {str(row): "r0" for row in range(1, N_ITEMS, 4)}
    live.set_review(Review(frozenset({"3", "4"}), {"b": 5.0, "5": 5.0}, {"r0": 6.0}))
    assert "5" not in shown(live), "the rule is newer than the approval"
    live.set_review(Review(frozenset({"3", "4"}), {"b": 5.0, "5": 5.0}, {"r0": 5.0}))
    assert "5" in shown(live)
    assert {"4", "13"}.isdisjoint(shown(live))
    live.delete(["13"])
    assert "13" not in live.held_items()


def test_segments(live: LiveRecommender) -> None:
    set_rules(
        live,
        {"kind": "must_not_show", "item_ids": ["6"], "segment": "kids"},
        {"kind": "must_not_show", "item_ids": ["7"]},
        {"kind": "pin", "item_id": "8", "place": 1, "segment": "kids"},
        {"kind": "boost", "item_ids": ["10"], "factor": 1e6, "segment": "fans"},
        {"kind": "in_stock", "field": "stock", "segment": "shop"},
        {"kind": "block_words", "words": ["whale"], "segment": "ashore"},
    )
    assert shown(live, segment="kids")[0] == "8"
    assert {"6", "7"}.isdisjoint(shown(live, segment="kids"))
    assert shown(live, segment="fans")[0] == "10"
    for segment in (None, "fans", "nobody wrote rules for this one"):
        assert "7" not in shown(live, segment=segment)
        assert "6" in shown(live, segment=segment)
    assert all(int(item) % 5 for item in shown(live, segment="shop"))
    assert not any(int(item) % 4 == 1 for item in shown(live, segment="ashore"))
    assert {"5", "10"} <= set(shown(live))
    segments = ("kids", None, "fans", "shop")
    answers = live.recommend([LiveQuery(history=("3", "9"), k=100, segment=segment) for segment in segments])
    for segment, answer in zip(segments, answers, strict=True):
        assert [item.item_id for item in answer.items] == shown(live, segment=segment)


def test_rules_outlive_compaction(live: LiveRecommender) -> None:
    set_rules(
        live, {"kind": "must_not_show", "filter": {"genre": "Chef"}}, {"kind": "pin", "item_id": "39", "place": 1}
    )
    live.delete([str(row) for row in range(10, 20)])
    before = shown(live)
    live.compact()
    assert shown(live) == before
    assert before[0] == "39"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "must_not_show", "filter": {"genr": "x"}}, r"rule 'r1': the filter names the field 'genr'.*'genre'"),
        ({"kind": "age_rating", "field": "age", "max": 6}, "rule 'r1': it names the field 'age'"),
        ({"kind": "in_stock", "field": "added"}, "rule 'r1': it reads the field 'added', which is Date"),
    ],
)
def test_rules_that_do_not_fit_the_catalog_change_nothing(
    live: LiveRecommender, spec: dict[str, Any], message: str
) -> None:
    set_rules(live, {"kind": "must_not_show", "item_ids": ["6"]})
    with pytest.raises(InputError, match=message):
        set_rules(live, {"kind": "pin", "item_id": "3", "place": 1}, spec)
    assert "6" not in shown(live)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "a rule has the kind None. Known: age_rating"),
        ({"kind": "bost"}, r"a rule has the kind 'bost'. Did you mean 'boost'\?"),
        ({"kind": ["pin"]}, "a rule has the kind"),
        ([], "a rule has the kind"),
        ({"kind": "boost", "item_ids": ["1"]}, "at 'factor': Field required"),
        ({"kind": "boost", "item_ids": ["1"], "factor": 0.5}, "at 'factor'"),
        ({"kind": "boost", "item_ids": ["1"], "factor": float("inf")}, "at 'factor'"),
        ({"kind": "must_not_show"}, "names no items"),
        ({"kind": "must_not_show", "item_ids": [""]}, "at 'item_ids.0'"),
        ({"kind": "must_not_show", "item_ids": ["1"], "colour": "red"}, "at 'colour': Extra inputs"),
        ({"kind": "pin", "item_id": "1", "place": 0}, "at 'place'"),
        ({"kind": "block_words", "words": []}, "at 'words'"),
        (
            {"kind": "block_words", "words": ["x"], "review": True, "segment": "y"},
            "review and segment exclude each other",
        ),
        ({"kind": "block_words", "words": [" "]}, "at 'words.0'"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_rules_that_are_none(spec: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_rule(spec)


def test_rules_files(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(
        '[[rules]]\nid = "no horror"\nkind = "must_not_show"\nfilter = {genre = "Horror"}\n\n'
        '[[rules]]\nkind = "pin"\nitem_id = "50"\nplace = 1\n'
    )
    rules = load_rules_file(tmp_path / "rules.toml")
    assert list(rules) == ["no horror", "file-2"]
    assert rules["file-2"] == parse_rule({"kind": "pin", "item_id": "50", "place": 1})
    specs = [{"id": name, **rule.model_dump(exclude_none=True)} for name, rule in rules.items()]
    (tmp_path / "rules.json").write_text(json.dumps({"rules": specs}))
    assert load_rules_file(tmp_path / "rules.json") == rules


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.toml", None, "cannot be read"),
        ("a.toml", "[[rules]", "neither TOML"),
        ("a.json", "{", "neither TOML"),
        ("a.json", "[]", "must hold a list called 'rules'"),
        ("a.toml", "[[rule]]\nkind = 'pin'", "must hold a list called 'rules'"),
        ("a.json", '{"rules": ["pin"]}', "rule 1: it is a str"),
        ("a.json", '{"rules": [{"id": "x", "kind": "pin", "item_id": "1"}]}', r"rule 1 \('x'\): .*'place'"),
        (
            "a.json",
            '{"rules": [{"id": "x", "kind": "in_stock", "field": "a"}, {"id": "x", "kind": "in_stock", "field": "b"}]}',
            "rule 2: the id 'x' is taken",
        ),
    ],
)
def test_rules_files_that_cannot_be_used(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        load_rules_file(tmp_path / name)


@pytest.mark.parametrize(
    ("rows", "pins", "k", "expected"),
    [
        ([1, 2, 3], [(1, 9)], 3, [9, 1, 2]),
        ([1, 2, 3], [(3, 1)], 3, [2, 3, 1]),
        ([1, 2, 3], [(4, 9)], 3, [1, 2, 3]),
        ([1], [(3, 9)], 3, [1, 9]),
        ([], [(1, 9)], 3, [9]),
        ([1, 2], [(2, 8), (2, 9)], 4, [1, 8, 9, 2]),
        ([1, 2], [(1, 9), (2, 9)], 3, [9, 1, 2]),
    ],
)
def test_places_of_pins(rows: list[int], pins: list[tuple[int, int]], k: int, expected: list[int]) -> None:
    assert place_pins(rows, [PinnedRow(place, row, "r") for place, row in pins], k) == expected
