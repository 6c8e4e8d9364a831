"""What a stranger does wrong: nothing of theirs is lost, nothing is answered silently wrong, and each gets a way out."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from lmrec.cli.app import app
from lmrec.errors import InputError, RunFolderError
from lmrec.retrieval.recommender import Recommender


def lmrec(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


def test_prepare_never_replaces_what_it_did_not_make(world_folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(world_folder, mine)
    (mine / "thesis.txt").write_text("years of work")
    tables = ("--items", mine / "items.csv", "--interactions", mine / "events.csv")
    before = sorted(path.name for path in mine.iterdir())
    code, output = lmrec("prepare", *tables, "--out", mine)
    assert (code, sorted(path.name for path in mine.iterdir())) == (2, before)
    assert "was not made by `lmrec prepare`" in output
    assert lmrec("prepare", *tables, "--out", mine / "thesis.txt")[0] == 2
    assert lmrec("prepare", *tables, "--out", tmp_path / "fresh")[0] == 0
    assert lmrec("prepare", *tables, "--out", tmp_path / "fresh")[0] == 0  # its own it may


def test_a_fit_that_never_began_leaves_the_name_free(world_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tables = ("--items", world_folder / "items.csv", "--interactions", world_folder / "events.csv")
    code, output = lmrec("fit", *tables, "--out", out, "--set", f"encoder.name={tmp_path / 'nowhere'}")
    assert code == 2
    assert "nowhere" in output
    assert not out.exists()


def test_a_file_of_users_without_a_header_loses_nobody(learnt: Any, tmp_path: Path) -> None:
    users = tmp_path / "users.csv"
    users.write_text("42\n43\n")
    code, output = lmrec("recommend", learnt.run, "--users", users)
    assert code == 2
    assert "'42'" in output
    assert "header user_id" in output


def test_an_empty_history_is_refused(learnt: Any) -> None:
    assert lmrec("recommend", learnt.run, "--history", ",")[0] == 2


def test_text_where_a_list_belongs_is_refused(learnt: Any) -> None:
    recommender = Recommender.load(learnt.run)
    item, user = recommender.catalog.ids[0], recommender.interactions.user_ids[0]
    for wrong in ([item], item):
        with pytest.raises(InputError, match="list of lists"):
            recommender.recommend(histories=wrong)
    with pytest.raises(InputError, match="filter is a str"):
        recommender.recommend(users=user, filter=item)
    for users in (pl.Series([user]), np.array([user]), (user,)):
        assert recommender.recommend(users=users)[0].user_id == user
    assert recommender.recommend(users=[])[:1] == []


@pytest.mark.parametrize("damage", [Path.unlink, lambda file: file.write_text("x")])
@pytest.mark.parametrize("name", ["catalog.parquet", "interactions.parquet"])
def test_damaged_data_of_a_run_is_named(
    learnt: Any, tmp_path: Path, name: str, damage: Callable[[Path], object]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(learnt.run, run)
    damage(run / "data" / name)
    with pytest.raises(RunFolderError, match="missing or damaged"):
        Recommender.load(run)


def test_an_unclosed_quote_is_placed(world_folder: Path, tmp_path: Path) -> None:
    events = (world_folder / "events.csv").read_text()
    n_lines = len(events.splitlines())
    broken = tmp_path / "events.csv"
    broken.write_text(events + 'u1,"i3,1600000000\n')
    code, output = lmrec("prepare", "--items", world_folder / "items.csv", "--interactions", broken)
    assert code == 2
    assert f"row {n_lines + 1}" in output.replace("\n", " ")
    assert "infer_schema_length" not in output


def test_a_place_that_cannot_be_written_is_named(learnt: Any, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, output = lmrec("report", learnt.run, "--out", blocked / "report.html")
    assert code == 2
    assert str(blocked) in output.replace("\n", "")
    assert "Traceback" not in output
