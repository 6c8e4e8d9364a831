"""Templates: what is rendered, what vanishes, and what the fingerprint notices."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrec.data.catalog import Catalog
from lmrec.errors import RecipeError
from lmrec.text.template import Template, TemplateConfig, build_template, default_pattern

PATTERN = "{title}. Genres: {genres}. Year: {year}"
NAMES = ("title", "genres", "year")
words = st.one_of(st.none(), st.text(max_size=30), st.integers(0, 2100))


def template(pattern: str = PATTERN, max_chars: int = 1000) -> Template:
    return Template(pattern, " | ", max_chars)


def catalog() -> Catalog:
    frame = pl.DataFrame(
        {"item_id": ["a", "b"], "title": ["Heat", "Ronin"], "genres": ["Crime", None], "year": [1995, 1998]}
    )
    return Catalog(frame, text_columns=("title", "genres"), attribute_columns=("year",))


@given(title=words, genres=words, year=words, max_chars=st.integers(1, 80))
def test_the_same_row_always_gives_the_same_tidy_text(
    title: object, genres: object, year: object, max_chars: int
) -> None:
    row = {"title": title, "genres": genres, "year": year}
    text = template(max_chars=max_chars).render_item(row)
    assert text == template(max_chars=max_chars).render_item(dict(row))
    assert len(text) <= max_chars
    assert text == text.strip()


@given(
    title=words,
    genres=words,
    year=words,
    blank=st.sampled_from(NAMES),
    nothing=st.sampled_from([None, "", "  ", "\n\t"]),
)
def test_a_blank_field_is_as_if_the_template_had_never_named_it(
    title: object, genres: object, year: object, blank: str, nothing: str | None
) -> None:
    row = {"title": title, "genres": genres, "year": year, blank: nothing}
    segments = {"title": "{title}", "genres": ". Genres: {genres}", "year": ". Year: {year}"}
    shorter = "".join(segment for name, segment in segments.items() if name != blank)
    assert template().render_item(row) == template(shorter).render_item(row)


def test_an_item_without_any_words_is_an_empty_text() -> None:
    assert template().render_item(dict.fromkeys(NAMES)) == ""


def test_a_field_that_comes_first_after_a_blank_one_brings_its_label_without_punctuation() -> None:
    assert template().render_item({"title": None, "genres": "Crime", "year": None}) == "Genres: Crime"


@given(first=st.text("ab{} .", max_size=8), second=st.text("ab{} .", max_size=8))
def test_the_fingerprint_changes_with_the_pattern(first: str, second: str) -> None:
    assert (template(first).fingerprint == template(second).fingerprint) == (first == second)


def test_the_fingerprint_changes_with_every_other_choice_and_is_short() -> None:
    known = [template(), Template(PATTERN, ", ", 1000), template(max_chars=999)]
    assert len({found.fingerprint for found in known}) == 3
    assert template().fingerprint == Template(PATTERN, " | ", 1000).fingerprint
    assert all(len(found.fingerprint) == 16 for found in known)


def test_rows_are_rendered_in_their_order_and_numbers_are_words_too() -> None:
    frame = catalog().frame
    assert template().render_items(frame) == ["Heat. Genres: Crime. Year: 1995", "Ronin. Year: 1998"]


def test_a_column_may_be_named_twice() -> None:
    assert template("{title} {title}").render_items(catalog().frame) == ["Heat Heat", "Ronin Ronin"]


def test_a_column_that_is_missing_is_named_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"'titel', which the catalog lacks. Did you mean 'title'"):
        template("{titel}").render_items(catalog().frame)


def test_the_default_takes_every_text_column_and_no_attribute() -> None:
    found = build_template(TemplateConfig(), catalog())
    assert found.pattern == default_pattern(("title", "genres")) == "{title}. Genres: {genres}"
    assert found.columns == ("title", "genres")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [("{title", "is not a template"), ("no columns at all", "names no column"), ("{}", "names no")],
)
def test_a_pattern_that_cannot_work_is_refused_with_its_text(pattern: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason) as caught:
        build_template(TemplateConfig(item=pattern), catalog())
    assert pattern in str(caught.value)


def test_words_of_a_user_come_before_the_history_and_change_the_fingerprint() -> None:
    assert template().render_history(["Heat", "Ronin"], "Likes: tea") == "Likes: tea | Ronin | Heat"
    assert template().render_history([], "Likes: tea") == "Likes: tea"
    histories = [np.array([0, 1]), np.array([], np.int64)]
    assert template().render_histories(["Heat", "Ronin"], histories, ["", "Old"]) == ["Ronin | Heat", "Old"]
    assert template().render_histories(["Heat", "Ronin"], histories) == ["Ronin | Heat", ""]
    said = [build_template(TemplateConfig(user=user), catalog()) for user in ("", "{age}", "{likes}")]
    assert len({one.fingerprint for one in said}) == 3
    assert len({tuple(one.render_items(catalog().frame)) for one in said}) == 1


def test_a_history_begins_with_its_newest_item_and_leaves_out_items_without_words() -> None:
    assert template().render_history(["Heat", "", "Ronin"]) == "Ronin | Heat"
    assert template().render_history([]) == ""
