"""The second task: which categories there are, what it adds to the loss, and that the head learns."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from lmrec.artifacts.run import open_run
from lmrec.data.catalog import Catalog
from lmrec.errors import RecipeError
from lmrec.recipe import load_recipe
from lmrec.training.auxiliary import Categories, WithCategory, read_categories
from lmrec.training.losses import AuxiliaryConfig, FullSoftmax
from lmrec.training.objectives import Asked
from lmrec.workflows.prepare import prepare
from lmrec.workflows.train import begin_learning, fit_run


def catalog(genres: list[str | None]) -> Catalog:
    frame = pl.DataFrame(
        {"item_id": [str(at) for at in range(len(genres))], "title": ["x"] * len(genres), "genres": genres}
    )
    return Catalog(frame, ("title", "genres"), ())


def config(**choices: object) -> AuxiliaryConfig:
    return AuxiliaryConfig.model_validate({"column": "genres", "min_items": 2, **choices})


def test_the_first_of_several_values_counts_and_rare_ones_do_not() -> None:
    found = read_categories(catalog(["Crime, Drama", "Crime|War", "Comedy ", "Comedy", "Odd", None, ""]), config())
    assert found is not None
    assert found.names == ("Comedy", "Crime")
    assert found.of_item.tolist() == [1, 1, 0, 0, -1, -1, -1]


def test_the_top_of_a_tree_of_categories_is_passed_over() -> None:
    """Industrial & Scientific stands first at every item of Amazon's category of that name."""
    found = read_categories(
        catalog(["All, Saws, Big", "All, Saws", "All,Glue", "All, Glue", "All", None, " "]), config()
    )
    assert found is not None
    assert found.names == ("Glue", "Saws")
    assert found.of_item.tolist() == [1, 1, 0, 0, -1, -1, -1]


def test_a_column_that_tells_nothing_is_refused() -> None:
    with pytest.raises(
        RecipeError, match="objective.auxiliary.column is 'genre', which the catalog lacks. Did you mean"
    ):
        read_categories(catalog(["a", "a"]), config(column="genre"))
    with pytest.raises(RecipeError, match="has 1 value of at least 2 items"):
        read_categories(catalog(["a", "a", "b"]), config())
    with pytest.raises(RecipeError, match="without objective.auxiliary.column"):
        load_recipe(overrides=["objective.auxiliary.weight=0.5"])


def test_the_loss_is_the_rest_plus_the_weighted_cross_entropy_of_those_with_a_category() -> None:
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    users, items = torch.randn(4, 8), torch.randn(6, 8)
    asked = Asked(users, items, torch.tensor([0, 1, 2, 5]), torch.tensor([1.0, 2.0, 1.0, 1.0]), torch.tensor(1.0))
    both = WithCategory(FullSoftmax(), Categories(("a", "b"), np.array([0, 1, -1, 0, 0, 1])), 8, 0.5)
    own = torch.nn.functional.cross_entropy(both.logits(users), torch.tensor([0, 1, 0, 1]), reduction="none")
    expected = FullSoftmax()(asked, generator) + 0.5 * (own[0] + 2 * own[1] + own[3]) / 4
    assert both(asked, generator).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_towers_begin_alike_with_it_and_without(world_folder: Path, quick_choices: list[str]) -> None:
    """So that one start is one start, whatever learns beside it: of a soup, and of two rows of a table."""
    begun = []
    for more in ([], ["objective.auxiliary.column=topic", "objective.auxiliary.min_items=2"]):
        recipe = load_recipe(None, [*quick_choices, *more])
        prepared = prepare(world_folder / "items.csv", world_folder / "events.csv", None, recipe)
        begun.append(begin_learning(recipe, prepared, False).learner.towers.state_dict())
    assert all(torch.equal(value, begun[1][name]) for name, value in begun[0].items())


def test_a_fit_learns_it_and_tells_how_well(world_folder: Path, tmp_path: Path, quick_choices: list[str]) -> None:
    choices = [
        *quick_choices, "training.frozen_epochs=6", "training.tuned_epochs=1", "objective.auxiliary.column=topic",
        "objective.auxiliary.weight=1.0", "objective.auxiliary.min_items=2",
    ]  # fmt: skip
    fit_run(
        world_folder / "items.csv", world_folder / "events.csv", out=tmp_path / "run", overrides=choices, show=False
    )
    told = open_run(tmp_path / "run").read_record()["auxiliary"]
    assert told["n_classes"] == 4
    assert told["log_loss"] < np.log(4)
    assert told["accuracy"] > told["most_common_accuracy"]
