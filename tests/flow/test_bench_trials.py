"""Trials of settings: variants are asked the same cases, and nobody is judged on what chose the weights."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fusing.halves import halves
from benchmarks.peers.cells import PROTOCOLS, Cell, Data
from benchmarks.trials import __main__ as trials
from benchmarks.trials.fits import Variant, fit_towers, recipes_of
from lmrec.artifacts.run import RunFolder
from lmrec.errors import InputError
from lmrec.recipe import load_recipe
from lmrec.workflows.prepare import prepare

ALIKE = Variant("alike", ("head.temperature=0.07",))  # the default, said
OTHER = Variant("dot", ("head.kind=dot",))


@pytest.fixture
def cell(world_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cell:
    monkeypatch.setenv("LMREC_DATA", str(world_folder.parent))
    found = Cell(Data("world", "tables", "amazon-scientific", 20, world_folder.name), PROTOCOLS["P1"])
    monkeypatch.setattr(trials, "choose", lambda data, protocol: (found, "x"))
    return found


@pytest.fixture
def choices(quick_choices: list[str]) -> list[str]:
    return [one for one in quick_choices if not one.startswith("training.tuned_epochs")]


def test_variants_are_fitted_fused_and_compared_with_the_recipe_as_it_is(
    cell: Cell, choices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["small", "--data", "world", "--protocol", "P1x", "--set", *choices, "--epochs", "2", "--fused", "all"]
    variants = [word for one in (ALIKE, OTHER) for word in ("--variant", one.name, *one.sets)]
    monkeypatch.setattr(trials, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["trials", *asked, *variants, "--seeds", "0", "1"])
    trials.main()
    found = json.loads((tmp_path / "small.json").read_text(encoding="utf-8"))
    assert found["cases"] == found["users"] == 60
    assert list(found["variants"]) == ["as it is", "alike", "dot"]
    for part in ("towers", "fused"):
        plain, alike, other = (found["variants"][name][part] for name in found["variants"])
        assert plain["difference"] is None
        assert alike["ndcg@10"] == plain["ndcg@10"]
        assert alike["difference"] == [0.0, 0.0, 0.0]
        low, high = other["difference"][1:]
        assert low <= other["difference"][0] <= high
        assert len({one["ndcg@10"] for one in other["by seed"]}) == 2
        assert other["ndcg@10"] == pytest.approx(np.mean([one["ndcg@10"] for one in other["by seed"]]), abs=1e-4)
    assert "dot" in capsys.readouterr().out


def test_towers_are_asked_beside_the_popularity_that_they_learnt_beside(
    cell: Cell, choices: list[str], tmp_path: Path
) -> None:
    (recipe,) = recipes_of(cell, "x", [Variant("trend", ("objective.trend_half_life_days=inf",))], choices)
    prepared = cell.prepare(recipe)
    found = fit_towers(recipe, prepared, prepared.split.validation, tmp_path / "run")
    best = RunFolder(tmp_path / "run").read_record()["training"]["best_metric"]
    assert found.values.mean() == pytest.approx(best, abs=1e-9)


def test_a_variant_that_asks_other_cases_is_refused(cell: Cell, choices: list[str]) -> None:
    other = Variant("cases without the history", ("evaluation.exclude_seen=false",))
    with pytest.raises(InputError, match="'cases without the history' changes evaluation"):
        recipes_of(cell, "x", [trials.FIRST, other], choices)


def test_a_form_of_a_protocol_has_a_name() -> None:
    cell, form = trials.choose("amazon-scientific", "P1i")
    assert (cell.name, form) == ("amazon-scientific-P1", "i")
    for wrong in ("P1", "P2"):
        with pytest.raises(InputError, match=f"amazon-scientific is not asked '{wrong}'"):
            trials.choose("amazon-scientific", wrong)


def test_halves_share_no_user(world_folder: Path, choices: list[str]) -> None:
    recipe = load_recipe(overrides=[*choices, "split.kind=time"])
    prepared = prepare(world_folder / "items.csv", world_folder / "events.csv", None, recipe)
    cases = prepared.split.validation
    first = halves(cases)
    users, others = set(cases.user_idx[first]), set(cases.user_idx[~first])
    assert len(users | others) == len(set(cases.user_idx))
    assert not users & others
    assert abs(len(users) - len(others)) <= 1
