"""What is wanted and what is not, as people write it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrec.retrieval.wishes import Wish, read_wish, spellings


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("something light for rainy days, no horror", "something light for rainy days", ("horror",)),
        ("no horror", "", ("horror",)),
        ("No horror films please", "", ("horror",)),
        ("no horror, no war; a comedy", "a comedy", ("horror", "war")),
        ("a thriller but not too violent", "a thriller", ("violent",)),
        ("nothing with zombies", "", ("zombies",)),
        ("anything but musicals", "", ("musicals",)),
        ("space adventure without violence or gore for the whole family", "space adventure for the whole family",
         ("violence", "gore")),
        ("I don't like westerns. Something slow", "Something slow", ("westerns",)),
        ("drama and no horror, and no horror", "drama", ("horror",)),
        ("romance except for sad endings that hurt", "romance that hurt", ("sad endings",)),
    ],
)  # fmt: skip
def test_what_is_not_wanted_is_taken_out(text: str, wanted: str, unwanted: tuple[str, ...]) -> None:
    assert read_wish(text) == Wish(wanted, unwanted)


@pytest.mark.parametrize(
    "text",
    [
        "something like No Country for Old Men",
        "not only for children",
        "not bad",
        "no one knows it",
        "a knot in the notebook",
        "nothing",
        "no",
        "no, thanks",
        "Dr. No",
        "casino",
    ],
)
def test_what_denies_nothing_stays_as_it_was(text: str) -> None:
    assert read_wish(text) == Wish(text)


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    wish = read_wish(text)
    assert len(wish.wanted) <= len(text)
    assert all(phrase for phrase in wish.unwanted)
    assert all(form for phrase in wish.unwanted for form in spellings(phrase))


def test_spellings() -> None:
    assert spellings("horror") == ("horror", "horrors")
    assert spellings("guns") == ("guns", "gun")
    assert spellings("comedy") == ("comedy", "comedies")
    assert spellings("kiss") == ("kiss",)
