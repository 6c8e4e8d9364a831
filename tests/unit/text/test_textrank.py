"""What is central stays, in the order of the text, within the budget; and long columns give way to short ones."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrec.data.catalog import Catalog
from lmrec.text.template import TemplateConfig, build_template
from lmrec.text.textrank import keep_keywords, keep_sentences, rank_sentences

TEXT = (
    "Free delivery in May! The steel kettle boils water fast. A steel lid keeps the water warm. "
    "Our company was founded long ago. The kettle has a steel handle and a lid."
)
LONG = " ".join(f"Sentence {n} speaks of part {n % 7} and thing {n % 5}." for n in range(40))


def test_the_sentences_that_share_words_win_over_the_first_ones() -> None:
    sentences = ["Free delivery in May!", "The steel kettle boils.", "A steel lid.", "The kettle has a steel lid."]
    assert rank_sentences(sentences)[0] == 3
    assert rank_sentences(sentences)[-1] == 0
    kept = keep_sentences(TEXT, 16)
    assert kept == "The steel kettle boils water fast. The kettle has a steel handle and a lid."


def test_keywords_are_the_central_words_as_they_are_written() -> None:
    assert set(keep_keywords(TEXT, 3).lower().split()) == {"steel", "kettle", "water"}
    assert keep_keywords("Of the and", 2) == "Of the", "rather than nothing"
    assert keep_keywords("2001 1984", 1) == "2001"
    shouted = "Wow wow wow wow. Steel chain links fit steel hooks; the steel chain holds steel plates."
    assert "Wow" not in keep_keywords(shouted, 3), "no word votes for itself"


@given(text=st.one_of(st.just(LONG), st.text("ab .!;", max_size=60)), n_words=st.integers(1, 30))
def test_the_budget_holds_and_nothing_is_made_up(text: str, n_words: int) -> None:
    for keep in (keep_sentences, keep_keywords):
        kept = keep(text, n_words)
        assert len(kept.split()) <= n_words
        assert set(kept.split()) <= set(text.split()) | set(
            text.replace(".", " ").replace("!", " ").replace(";", " ").split()
        )
    assert bool(keep_sentences(text, n_words)) == bool(text.strip())


@pytest.mark.parametrize(
    ("shorten", "text"),
    [
        ("head", "Kettle 2000. Steel Ltd: Free delivery in May! The steel"),
        ("sentences", "Kettle 2000. Steel Ltd: The steel kettle boils water fast."),
        ("keywords", "Kettle 2000. Steel Ltd: steel kettle water lid company ago"),
    ],
)
def test_the_longest_column_is_shortened_to_what_the_others_leave(shorten: str, text: str) -> None:
    catalog = Catalog(
        pl.DataFrame({"item_id": ["a"], "title": ["Kettle 2000"], "brand": ["Steel Ltd"], "about": [TEXT]}),
        ("title", "brand", "about"),
        (),
    )
    config = {"item": "{title}. {brand}: {about}", "max_words": 10, "shorten": shorten}
    template = build_template(TemplateConfig.model_validate(config), catalog)
    assert template.render_items(catalog.frame) == [text]
    whole = build_template(TemplateConfig(item="{title}. {brand}: {about}"), catalog)
    assert template.fingerprint != whole.fingerprint
    assert whole.render_items(catalog.frame)[0].endswith(TEXT)


@pytest.mark.parametrize("shorten", ["head", "sentences", "keywords"])
def test_two_long_columns_share_the_budget(shorten: str) -> None:
    row = {"title": "Kettle two thousand", "features": LONG, "about": LONG}
    catalog = Catalog(pl.DataFrame({"item_id": ["a"], **{name: [text] for name, text in row.items()}}), tuple(row), ())
    config = {"item": "{title} {features} {about}", "max_words": 48, "shorten": shorten}
    template = build_template(TemplateConfig.model_validate(config), catalog)
    (text,) = template.render_items(catalog.frame)
    assert 10 < len(text.split()) <= 48
    only = build_template(TemplateConfig(item="{features}", max_words=22, shorten=template.shorten), catalog)
    assert text == f"{row['title']} {' '.join(only.render_items(catalog.frame) * 2)}"
