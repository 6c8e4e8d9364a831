"""How often the language model stepped: in a fit, and up to the epoch whose towers are judged.

The second stage gathers gradients over `training.encoder_interval` steps of the towers, so the count follows from its
batches. A new result carries what its run's epochs say; for one that was kept before they said it, it is counted again.
"""

from collections.abc import Sequence
from math import ceil
from typing import Any, TypedDict

from lmrec.artifacts.run import RunFolder
from lmrec.data.interactions import Interactions
from lmrec.recipe import Recipe, load_fitted
from lmrec.workflows.train import batch_source

STILL = 1e-30  # a learning rate that changes no fp32 weight: the language model stands still


class Steps(TypedDict):
    """taken: by the language model in a fit. judged: of these, up to the end of the epoch whose towers are judged. epochs: of
    the second stage; epoch: the judged one. None: not known."""

    taken: int
    judged: int | None
    epochs: int
    epoch: int | None


NONE: Steps = {"taken": 0, "judged": 0, "epochs": 0, "epoch": 0}


def steps_of(run: RunFolder, judges_tuned: bool = True) -> Steps:
    """What a run's epochs say of its second stage. What is judged is its best epoch, or else the first stage's."""
    epochs: dict[int, dict[str, Any]] = {row["epoch"]: row for row in run.curves.read() if row["stage"] == "tuned"}
    if not epochs:
        return NONE
    stands = load_fitted(run.recipe_file).training.encoder_learning_rate <= STILL
    each = [0 if stands else int(epochs[epoch]["encoder_steps"]) for epoch in sorted(epochs)]
    best = max(sorted(epochs), key=lambda epoch: epochs[epoch]["validation"]) if judges_tuned else 0
    return {"taken": sum(each), "judged": sum(each[:best]), "epochs": len(each), "epoch": best}


def steps_by_recipe(recipe: Recipe, train: Interactions) -> Steps:
    """What a fit by this recipe takes where no epoch is left out for patience."""
    config, n_epochs = recipe.training, recipe.training.tuned_epochs
    if recipe.encoder.train == "none" or not n_epochs or recipe.item.source == "id":
        return NONE
    if config.encoder_learning_rate <= STILL:
        return {**NONE, "judged": None, "epochs": n_epochs, "epoch": None}
    batches = batch_source(recipe, train)
    every = 1 if recipe.user_model.kind == "text" else config.encoder_interval
    stage = 1 if config.frozen_epochs else 0
    taken = sum(ceil(ceil(len(batches(stage, epoch)) / config.accumulate) / every) for epoch in range(n_epochs))
    return {"taken": taken, "judged": None, "epochs": n_epochs, "epoch": None}


def cell(steps: Sequence[Steps]) -> str:
    """One fit's steps, or those of several that became one model.

    >>> cell([{"taken": 200, "judged": 120, "epochs": 5, "epoch": 3}])
    '120 of 200'
    >>> cell([{"taken": 8, "judged": None, "epochs": 2, "epoch": None}] * 3)
    '8 + 8 + 8'
    """
    each = [
        str(one["taken"]) if one["judged"] in (None, one["taken"]) else f"{one['judged']} of {one['taken']}"
        for one in steps
    ]
    return " + ".join(each)
