"""`lmrec find-rate`: a curve, a suggestion and a picture, for towers and for the language model; nothing is kept."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from lmrec.recipe import load_recipe
from lmrec.workflows.find_rate import Part, find_rate, tower_step
from lmrec.workflows.prepare import prepare
from lmrec.workflows.train import batch_source, begin_learning

from .conftest import Invoke


@pytest.mark.parametrize(
    ("part", "key", "more"),
    [
        ("towers", "training.learning_rate", ["--steps", "30"]),
        ("language-model", "training.encoder_learning_rate", ["--steps", "8", "--high", "1e-1"]),
    ],
)
def test_it_finds_a_rate_that_lowers_the_loss(
    part: str, key: str, more: list[str], invoke: Invoke, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    picture = tmp_path / "rate.png"
    tables = ["--items", world_folder / "items.csv", "--interactions", world_folder / "events.csv"]
    settings = [word for choice in quick_choices for word in ("--set", choice)]
    found = json.loads(
        invoke("find-rate", *tables, *settings, "--part", part, *more, "--out", picture, "--json").stdout
    )
    assert found["key"] == key
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(found["rates"]) == len(found["losses"]) >= 5
    assert found["rates"] == sorted(found["rates"])
    assert min(found["losses"]) < found["losses"][0]
    assert found["rates"][0] < found["suggestion"] < found["rates"][-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rate.png"]


def test_it_reads_what_a_fit_reads(
    invoke: Invoke, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    events = pl.read_csv(world_folder / "events.csv")
    events.rename({"item_id": "film"}).write_csv(tmp_path / "events.csv")
    events.select("user_id").unique().with_columns(pl.lit("here").alias("town")).write_csv(tmp_path / "users.csv")
    tables = ["--items", world_folder / "items.csv", "--interactions", tmp_path / "events.csv"]
    choices = [*quick_choices, 'user_model.profile=["town"]']
    settings = [word for choice in choices for word in ("--set", choice)]
    more = ["--map", "interactions.item_id=film", "--split", "time", "--steps", "6", "--json"]
    assert "Give one with --users" in invoke("find-rate", *tables, *settings, *more, code=2).output
    found = json.loads(invoke("find-rate", *tables, "--users", tmp_path / "users.csv", *settings, *more).stdout)
    assert len(found["rates"]) == 6


def test_what_cannot_be_swept_is_refused(invoke: Invoke, world_folder: Path, quick_choices: list[str]) -> None:
    tables = ["--items", world_folder / "items.csv", "--interactions", world_folder / "events.csv"]
    settings = [word for choice in [*quick_choices, "encoder.train=none"] for word in ("--set", choice)]
    said = invoke("find-rate", *tables, *settings, "--part", "language-model", code=2).output
    assert "tunes no language model" in " ".join(said.split())
    assert "towers or language-model" in " ".join(invoke("find-rate", *tables, "--part", "both", code=2).output.split())
    later = [*settings, "--set", "training.frozen_epochs=0", "--set", "fusion.popularity=true"]
    said = invoke("find-rate", *tables, *later, "--set", "training.tuned_epochs=0", code=2).output
    assert "no first stage (training.frozen_epochs is 0)" in " ".join(said.split())
    for option, told in (
        ("--low", "rates go from 0 to"),
        ("--high", "rates go from"),
        ("--steps", "0 steps make no curve"),
    ):
        refused = invoke("find-rate", *tables, *settings, option, "0", code=2).output
        assert told in " ".join(refused.split())
    wild = ["training.optimizer=sgd", "head.kind=dot", "training.max_grad_norm=1e30"]
    words = [*settings, *(word for choice in wild for word in ("--set", choice)), "--low", "1e30", "--high", "1e35"]
    assert "Begin lower (--low)" in " ".join(invoke("find-rate", *tables, *words, code=2).output.split())
    assert "a .png" in " ".join(invoke("find-rate", *tables, *settings, "--out", "x.gif", code=2).output.split())


@pytest.mark.parametrize(
    ("part", "choice"),
    [
        ("towers", "augment.words.delete=0.5"),
        ("towers", "objective.auxiliary.column=topic"),
        ("language-model", "augment.words.delete=0.5"),
        ("language-model", "training.accumulate=2"),
    ],
)
def test_it_hears_what_a_fit_hears(part: Part, choice: str, world_folder: Path, quick_choices: list[str]) -> None:
    found = []
    for choices in (quick_choices, [*quick_choices, choice]):
        recipe = load_recipe(overrides=choices)
        prepared = prepare(world_folder / "items.csv", world_folder / "events.csv", None, recipe)
        found.append(find_rate(prepared, recipe, part, n_steps=5, show=False).sweep.losses)
    assert found[0] != found[1]


def test_a_model_that_reads_histories_steps_each_time(world_folder: Path, quick_choices: list[str]) -> None:
    """Whatever `training.encoder_interval` says, as in a fit."""
    found = []
    for interval in (1, 4):
        recipe = load_recipe(
            overrides=[*quick_choices, "user_model.kind=text", f"training.encoder_interval={interval}"]
        )
        prepared = prepare(world_folder / "items.csv", world_folder / "events.csv", None, recipe)
        found.append(find_rate(prepared, recipe, "language-model", n_steps=5, show=False).sweep.losses)
    assert found[0] == found[1]


def test_a_second_task_learns_as_the_towers_do(world_folder: Path, quick_choices: list[str]) -> None:
    recipe = load_recipe(overrides=[*quick_choices, "objective.auxiliary.column=topic"])
    prepared = prepare(world_folder / "items.csv", world_folder / "events.csv", None, recipe)
    learner = begin_learning(recipe, prepared, False).learner
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    tower_step(learner, recipe, batch_source(recipe, prepared.split.train))(1e-2)
    moved = {name for name, p in learner.named_parameters() if not torch.equal(p, before[name])}
    assert {name.partition(".")[0] for name in moved} == {"towers", "objective"}
