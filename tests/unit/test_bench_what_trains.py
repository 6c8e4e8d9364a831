"""Every row of the benchmark is a recipe that loads, under a name of its own."""

from pathlib import Path
from typing import get_args

import pytest

from benchmarks.tuning.rows import Row
from benchmarks.tuning.what_trains import ROWS, cost_cells
from lmrec.artifacts.run import open_run
from lmrec.models.adapters import AdapterKind
from lmrec.models.encoder import Trained
from lmrec.recipe import load_recipe


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_row_is_a_recipe(row: Row) -> None:
    assert load_recipe(overrides=row.overrides) is not None


def test_every_policy_and_every_adapter_has_a_row() -> None:
    recipes = [load_recipe(overrides=row.overrides) for row in ROWS]
    assert {recipe.encoder.train for recipe in recipes} == set(get_args(Trained))
    assert {recipe.encoder.adapter.kind for recipe in recipes} == set(get_args(AdapterKind))
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_a_run_says_what_it_cost(fitted: Path) -> None:
    cells = cost_cells(open_run(fitted))
    assert all(value is not None and value >= 0 for value in cells.values())
    one_layer = 4 * (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32) + 4 * 32  # attention, feed-forward, norms
    assert cells["trainable parameters of the language model"] == one_layer
