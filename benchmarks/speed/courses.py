"""Quality against seconds: a fit's own trainer, with the clock stopped while it validates."""

import time
from pathlib import Path
from typing import TypeAlias

from lmrec.recipe import Recipe
from lmrec.training.learner import Learner
from lmrec.training.trainer import Trainer
from lmrec.workflows.prepare import Prepared
from lmrec.workflows.train import batch_source, build_validator

Course: TypeAlias = dict[float, float]  # processor seconds -> the metric


def trainer_of(
    learner: Learner, recipe: Recipe, prepared: Prepared, state: Path, course: list[tuple[float, float]]
) -> Trainer:
    """A fit's own trainer. course: takes, after each epoch, the seconds so far without validation, and the metric."""
    measure = build_validator(learner, recipe, prepared.split.validation)
    busy, aside = time.process_time(), 0.0

    def validate() -> float:
        nonlocal aside
        now = time.process_time()
        value = float(measure())
        course.append((now - busy - aside, value))
        aside += time.process_time() - now
        return value

    batches = batch_source(recipe, prepared.split.train)
    return Trainer(
        learner, recipe.training, batches, validate, record=lambda row: None, state_folder=state, fingerprint="", show=False
    )  # fmt: skip
