"""Attributes of users as numbers: bands of numbers, texts, tags; what was never seen is nothing."""

import polars as pl
import pytest

from lmrec.data.users import ProfileVocabulary, UserTable, learn_vocabulary
from lmrec.errors import InputError, RecipeError


def table(n: int = 40) -> UserTable:
    return UserTable(
        pl.DataFrame(
            {
                "user_id": [f"u{at}" for at in range(n)],
                "age": [str(10 + at) if at else " " for at in range(n)],  # a blank does not make it a text
                "gender": ["F" if at % 2 else "M" for at in range(n)],
                "likes": [["jazz", "tea"] if at % 2 else ["tea", f"only {at}"] for at in range(n)],
                "tags": ["rock|film" if at % 3 else None for at in range(n)],
                "children": [at % 3 for at in range(n)],
            }
        )
    )


def test_numbers_make_bands_and_texts_and_tags_values() -> None:
    found = learn_vocabulary(table(), ["age", "gender", "likes", "tags", "children"])
    assert found.values == {
        "gender": ("F", "M"),
        "likes": ("jazz", "tea"),
        "tags": ("film", "rock"),
        "children": ("0", "1", "2"),
    }, "few numbers are values, and what only one user has is left out"
    assert len(found.edges["age"]) == 7
    assert found.n_values == 2 + 2 + 2 + 3 + 8
    young, old = found.ids_of({"age": 11}), found.ids_of({"age": "99"})
    assert young == [10]
    assert old == [17]
    assert found.ids_of({"gender": "F", "tags": "film|rock|polo", "children": 2}) == [1, 5, 6, 9]


def test_numbers_are_told_alike_whatever_their_columns_type() -> None:
    frame = table().frame.with_columns(
        children=pl.Series([None if at == 3 else float(at % 3) for at in range(40)]),
        score=pl.Series([float("nan") if at % 2 else 0.5 for at in range(40)]),
        written=pl.Series([f"{at % 3}.0" for at in range(40)]),
        code=pl.Series(["007" if at % 2 else "7" for at in range(40)]),
    )
    found = learn_vocabulary(UserTable(frame), ["children", "score", "written", "code"])
    assert found.values == {
        "children": ("0", "1", "2"),
        "score": ("0.5",),
        "written": ("0", "1", "2"),
        "code": ("007", "7"),
    }
    for asked in (2, "2", 2.0, "2.0"):
        assert found.ids_of({"children": asked, "written": asked}) == [3, 7], asked


def test_a_stray_word_leaves_a_column_of_numbers_its_bands() -> None:
    ages = table().frame.with_columns(
        age=pl.Series([*(str(10 + at) for at in range(39)), "unknown"]),
        born=pl.Series([float("nan") if at < 5 else 1990.0 + at for at in range(40)]),
        size=pl.Series([str(at) if at % 3 else "large" for at in range(40)]),
    )
    found = learn_vocabulary(UserTable(ages), ["age", "born", "size"])
    assert {name: len(edges) for name, edges in found.edges.items()} == {"age": 7, "born": 7}
    assert found.ids_of({"age": "unknown"}) == []
    assert found.values == {"size": ("large",)}, "a third is no few"
    groups = table().frame.with_columns(groups=pl.Series([*(str(at) for at in range(38)), "12|13", "14|13"]))
    several = learn_vocabulary(UserTable(groups), ["groups"])
    assert several.values == {"groups": ("12", "13", "14")}, "where a cell holds several, numbers are names"


def test_every_number_belongs_to_one_value() -> None:
    found = learn_vocabulary(table(), ["gender", "likes", "age"])
    each = [found.ids_of({"gender": one}) for one in ("F", "M")]
    each += [found.ids_of({"likes": [one]}) for one in ("jazz", "tea")]
    each += [found.ids_of({"age": age}) for age in (11, 16, 21, 26, 31, 36, 41, 48)]
    assert sorted(number for one in each for number in one) == list(range(1, found.n_values + 1))


@pytest.mark.parametrize(
    "profile", [{}, {"gender": None}, {"gender": "X"}, {"age": "old"}, {"age": float("nan")}, {"x": 1}]
)
def test_what_is_unknown_is_nothing(profile: dict[str, object]) -> None:
    assert learn_vocabulary(table(), ["gender", "age"]).ids_of(profile) == []


def test_users_of_a_log_get_theirs_and_others_nothing() -> None:
    found = learn_vocabulary(table(), ["gender"]).profiles(table(), ["u1", "stranger", "u2"])
    assert found is not None
    assert [found.known.ids[at].tolist() for at in range(3)] == [[1], [], [2]]
    assert ProfileVocabulary().profiles(table(), ["u1"]) is None


def test_it_comes_back_from_json() -> None:
    found = learn_vocabulary(table(), ["age", "likes"])
    assert ProfileVocabulary.from_dict(found.as_dict()) == found


def test_wrong_columns_are_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="'gender'"):
        learn_vocabulary(table(), ["gendr"])
    with pytest.raises(RecipeError, match="--users"):
        learn_vocabulary(None, ["gender"])
    with pytest.raises(InputError, match="'age'"):
        learn_vocabulary(table(), ["age"]).checked({"agee": 3})


def test_it_says_how_many_users_a_column_reaches() -> None:
    found = learn_vocabulary(table(), ["age", "tags"])
    users = [*(f"u{at}" for at in range(40)), "stranger"]
    assert found.reach_notes(table(), users) == (
        "user_model.profile: values of 'tags' that are learnt: 2; users who have one: 26 of 41",
        "user_model.profile: bands of 'age' that are learnt: 8; users who have one: 39 of 41",
    )
    commas = UserTable(table().frame.with_columns(tags=pl.concat_str(pl.lit("rock, film "), "age")))
    (note,) = learn_vocabulary(commas, ["tags"]).reach_notes(commas, users)
    assert "that are learnt: 0; users who have one: 0 of 41, though 40 have something" in note
    assert note.endswith("where a cell holds several, write '|' between them")
