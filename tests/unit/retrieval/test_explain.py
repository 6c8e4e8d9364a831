"""Explanations add up, name what truly moves the score, and the smallest change truly drops the item."""

import pytest

from lmrec.errors import UnknownIdError
from lmrec.fields import Ragged
from lmrec.retrieval.explain import Explanation, explain
from lmrec.retrieval.live import LiveQuery, LiveRecommender
from lmrec.retrieval.rules import parse_rule

from .conftest import FUSED, MakeLive

HISTORY = ("3", "10", "7", "21", "no such item", "0")
KNOWN = [item for item in HISTORY if item != "no such item"]


def why(
    live: LiveRecommender,
    history: tuple[str, ...],
    item_id: str,
    k: int = 10,
    text: str | None = None,
    words: bool = True,
) -> Explanation:
    return explain(live, LiveQuery(history=history, text=text, k=k), item_id, words)


def ranked(live: LiveRecommender, history: tuple[str, ...], exclude: tuple[str, ...] = HISTORY) -> list[str]:
    query = LiveQuery(history=history, k=100, exclude=exclude, exclude_seen=False)
    return [item.item_id for item in live.recommend([query])[0].items]


@pytest.mark.parametrize(
    "choices",
    [{}, {"head": "dot"}, {"source": "text"}, {"source": "id"}, {"user_kind": "mean"}, {"user_kind": "text"}],
    ids=str,
)
def test_contributions_add_up_to_the_score(make_live: MakeLive, choices: dict[str, str]) -> None:
    live = make_live(**choices)
    for item_id in ("12", "33"):
        found = why(live, HISTORY, item_id, k=5)
        assert [one.item_id for one in found.contributions] == KNOWN
        assert found.base + sum(one.contribution for one in found.contributions) == pytest.approx(found.score, abs=1e-4)
        row = live.state.snapshot.rows[item_id]
        known = Ragged.from_rows([[live.state.snapshot.rows[item] for item in KNOWN]])
        expected = live.recommender.scorer.score(known)[0, row]
        assert found.score == pytest.approx(float(expected), abs=1e-4)
        assert found.place == ranked(live, HISTORY).index(item_id) + 1
        assert bool(found.words) == (choices.get("source") != "id")


@pytest.mark.parametrize("history", [HISTORY, ()], ids=["with a history", "alone"])
def test_a_free_text_is_credited_as_the_newest_item(live: LiveRecommender, history: tuple[str, ...]) -> None:
    text = "rocket galaxy"
    found = why(live, history, "12", k=5, text=text)
    assert found.text is not None
    total = found.base + sum(one.contribution for one in found.contributions) + found.text
    assert total == pytest.approx(found.score, abs=1e-4)
    query = LiveQuery(history=history, text=text, k=100, exclude_seen=False)
    listed = {item.item_id: (place, item.score) for place, item in enumerate(live.recommend([query])[0].items, start=1)}
    assert found.score == pytest.approx(listed["12"][1], abs=1e-4)
    assert [one.word for one in found.text_words] == text.split()
    without = live.recommend([LiveQuery(history=history, text="galaxy", k=100, exclude_seen=False)])[0].items
    less = next(item.score for item in without if item.item_id == "12")
    assert found.text_words[0].attribution == pytest.approx(found.score - less, abs=1e-4)


def test_what_a_text_does_not_want_takes_no_place(live: LiveRecommender) -> None:
    plain = why(live, HISTORY, "12", text="rocket galaxy", words=False)
    narrowed = why(live, HISTORY, "12", text="rocket galaxy, no whales", words=False)
    assert plain.place is not None
    assert narrowed.place is not None
    assert narrowed.place <= plain.place
    assert narrowed.score == pytest.approx(plain.score, abs=1e-4)


def test_a_history_of_one_gave_it_all(live: LiveRecommender) -> None:
    found = why(live, ("3",), "12")
    (only,) = found.contributions
    assert only.contribution == pytest.approx(found.score - found.base, abs=1e-5)
    assert found.because == ("because of violin choir 3" if only.contribution > 0 else None)


def test_without_a_history_there_is_only_the_base(live: LiveRecommender) -> None:
    live.set_popularity({"30": 5.0, "12": 3.0})
    found = why(live, (), "12", k=100)
    assert (found.contributions, found.score, found.because, found.smallest_change) == ((), found.base, None, None)
    assert found.words == (), "words have no say in what is popular"
    listed = live.recommend([LiveQuery(k=40)])[0].items
    place = [item.item_id for item in listed].index("12")
    assert (found.place, found.score) == (place + 1, listed[place].score)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_smallest_change_drops_the_item(live: LiveRecommender, k: int) -> None:
    tried = 0
    for item_id in ranked(live, HISTORY)[:k]:
        found = why(live, HISTORY, item_id, k=k, words=False)
        assert found.place is not None
        assert found.place <= k
        if found.smallest_change is None:
            continue
        tried += 1
        gone = {one.item_id for one in found.smallest_change}
        assert gone
        rest = tuple(item for item in HISTORY if item not in gone)
        assert item_id not in ranked(live, rest)[:k]
        for item in gone:  # none of them is needless
            assert (
                len(gone) == 1
                or item_id in ranked(live, tuple(one for one in HISTORY if one == item or one not in gone))[:k]
            )
    assert tried


def test_an_item_off_the_list_needs_no_change(live: LiveRecommender) -> None:
    worst = ranked(live, HISTORY)[-1]
    found = why(live, HISTORY, worst, k=3)
    assert found.smallest_change is None
    assert found.place == len(ranked(live, HISTORY))


def test_words_that_matter_are_told(live: LiveRecommender) -> None:
    """Without its own words an item of words alone loses what they gave; a word twice is credited where it stands."""
    live.upsert([{"item_id": "x", "title": "rocket", "description": "whale chef"}])
    found = why(live, ("3",), "x")
    assert [one.word for one in found.words] == ["rocket.", "whale", "chef"]
    for at, one in enumerate(found.words):
        said = " ".join(word for place, word in enumerate(["rocket.", "whale", "chef"]) if place != at)
        live.upsert([{"item_id": "shorter", "title": said}])
        shorter = why(live, ("3",), "shorter", words=False)
        assert one.attribution == pytest.approx(found.score - shorter.score, abs=1e-4)
    live.upsert([{"item_id": "blank"}])
    assert why(live, ("3",), "blank").words == ()


def test_words_of_a_known_item_do_not_change_how_popular_it_is(
    make_live: MakeLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its words would let expect of a new item is not what the log says of it."""
    told = []
    for newcomer, head in ((0.0, "cosine"), (1.0, "dot")):  # another kind of run each, for runs are kept by their kind
        weights = FUSED["all"].model_copy(update={"newcomer": newcomer, "popularity": 5.0, "towers": 0.0})
        monkeypatch.setitem(FUSED, "words", weights)
        found = why(make_live(fused="words", head=head), ("3", "10"), "12")
        told.append([one.attribution for one in found.words])
    assert told[0] == pytest.approx(told[1], abs=1e-4)
    assert any(abs(one) > 1e-3 for one in told[0])


def test_only_what_the_model_reads_is_credited(live: LiveRecommender) -> None:
    """The model looks at the 8 newest items."""
    history = tuple(str(row) for row in range(12))
    found = why(live, history, "30", words=False)
    assert [one.item_id for one in found.contributions] == list(history[-8:])
    assert found.place == ranked(live, history, exclude=history).index("30") + 1


def test_what_the_question_leaves_out_takes_no_place(live: LiveRecommender) -> None:
    best = ranked(live, HISTORY)
    query = LiveQuery(history=HISTORY, exclude=best[:2])
    assert explain(live, query, best[2], words=False).place == 1
    assert explain(live, query, best[0], words=False).place is None
    title = live.browse(best[3])[0][0].title
    narrowed = LiveQuery(history=HISTORY, filter=live.read_filter({"title": title}))
    assert explain(live, narrowed, best[3], words=False).place == 1
    assert why(live, HISTORY, "10", words=False).place is None, "an item of the history is not shown"
    assert explain(live, LiveQuery(history=HISTORY, exclude_seen=False), "10", words=False).place is not None


@pytest.mark.parametrize("text", [None, "rocket galaxy"])
@pytest.mark.parametrize("n", [1, 7, 8, 9, 30])
def test_the_score_is_that_of_the_list_however_long_the_history(
    live: LiveRecommender, n: int, text: str | None
) -> None:
    history = tuple(str(row) for row in range(n))
    for item in live.recommend([LiveQuery(history=history, text=text, k=4)])[0].items:
        found = why(live, history, item.item_id, k=4, text=text, words=False)
        assert found.score == pytest.approx(item.score, abs=1e-4)
        assert found.place is not None


def test_a_title_that_begins_with_no_is_no_denial(live: LiveRecommender) -> None:
    live.upsert([{"item_id": "no", "title": "No Whale for Old Chefs (2007)", "description": "violin"}])
    for text in ("no whale for old chefs", "No Whale for Old Chefs (2007)"):
        assert live.recommend([LiveQuery(text=text)])[0].unwanted == ()
    assert live.recommend([LiveQuery(text="no whale for me")])[0].unwanted == ("whale",)


def test_rules_are_heeded_in_the_place(live: LiveRecommender) -> None:
    best = ranked(live, HISTORY)
    live.set_rules({"r": parse_rule({"kind": "must_not_show", "item_ids": best[:2]})})
    assert why(live, HISTORY, best[0], words=False).place is None
    assert why(live, HISTORY, best[2], words=False).place == 1


def test_an_unknown_item_is_refused(live: LiveRecommender) -> None:
    with pytest.raises(UnknownIdError, match="there is no item 'nowhere'"):
        why(live, HISTORY, "nowhere")
