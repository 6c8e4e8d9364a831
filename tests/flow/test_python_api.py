"""Five lines of Python, from two data frames to recommendations; frames of either kind, or paths."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import lmrec


@pytest.fixture
def frames(world_folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    return pl.read_csv(world_folder / "items.csv"), pl.read_csv(world_folder / "events.csv")


@pytest.fixture
def one_epoch(quick_choices: list[str]) -> list[str]:
    return [*quick_choices, "training.tuned_epochs=0"]


@pytest.mark.parametrize("kind", ["polars", "pandas", "paths"])
def test_five_lines(
    kind: str, frames: tuple[pl.DataFrame, pl.DataFrame], world_folder: Path, tmp_path: Path, one_epoch: list[str]
) -> None:
    items: Any
    events: Any
    items, events = frames
    if kind == "pandas":
        pytest.importorskip("pandas")
        items, events = items.to_pandas(), events.to_pandas()
    elif kind == "paths":
        items, events = world_folder / "items.csv", str(world_folder / "events.csv")
    recommender = lmrec.fit(items, events, out=tmp_path / "run", overrides=one_epoch, show_progress=False)
    known = recommender.recommend(users=["user1"], k=5)
    unseen = recommender.recommend(histories=[["film3", "film5"]], k=5)
    frame = lmrec.to_frame([*known, *unseen])
    assert frame["rank"].to_list() == [1, 2, 3, 4, 5] * 2
    assert frame["user_id"].to_list() == ["user1"] * 5 + [None] * 5


def test_every_kind_of_table_leads_to_the_same_model(
    frames: tuple[pl.DataFrame, pl.DataFrame], world_folder: Path, tmp_path: Path, one_epoch: list[str]
) -> None:
    by_frame = lmrec.fit(*frames, out=tmp_path / "a", overrides=one_epoch, show_progress=False)
    files = (world_folder / "items.csv", world_folder / "events.csv")
    by_path = lmrec.fit(*files, out=tmp_path / "b", overrides=one_epoch, show_progress=False)
    assert by_frame.checkpoint.fingerprint == by_path.checkpoint.fingerprint
    again = lmrec.load(tmp_path / "a")
    assert again.recommend(users="user1") == by_path.recommend(users="user1")


def test_a_recipe_may_be_an_object_or_a_file(
    frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path, one_epoch: list[str]
) -> None:
    recipe = lmrec.load_recipe(overrides=[*one_epoch, "training.seed=5"])
    fitted = lmrec.fit(*frames, out=tmp_path / "run", recipe=recipe, show_progress=False)
    assert lmrec.load_recipe(fitted.run.recipe_file) == recipe
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.seed = 6


def test_typed_words_go_where_words_are_also_if_a_number_comes_first(
    frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path, one_epoch: list[str]
) -> None:
    items, events = frames
    numbered = items.with_columns(year=pl.lit(1999))
    choices = [*one_epoch, "template.item={year} {title}"]
    recommender = lmrec.fit(numbered, events, out=tmp_path / "run", overrides=choices, show_progress=False)
    assert len(recommender.recommend_for_text("a funny rocket", k=3).items) == 3
    assert recommender.recommend_for_text("a funny rocket", k=3) != recommender.recommend_for_text("the dark sea", k=3)


def test_progress_is_shown_on_stderr_only_when_wanted(
    frames: tuple[pl.DataFrame, pl.DataFrame], tmp_path: Path, one_epoch: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lmrec.fit(*frames, out=tmp_path / "quiet", overrides=one_epoch, show_progress=False)
    assert capsys.readouterr() == ("", "")
    lmrec.fit(*frames, out=tmp_path / "shown", overrides=one_epoch)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "train, frozen PLM" in shown.err


def test_the_package_names_what_it_offers_and_imports_no_torch() -> None:
    code = "import sys, lmrec; print(sorted(dir(lmrec)), 'torch' in sys.modules, lmrec.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("['Recipe', 'Recommender', 'fit', 'load', 'load_recipe', 'to_frame'] False")
    with pytest.raises(AttributeError, match="it has Recipe, Recommender, fit"):
        lmrec.no_such_name  # noqa: B018
