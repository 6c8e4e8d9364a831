"""The rival every language model must beat: the same sequence model and training on item ids, without a word."""

import tempfile
from functools import partial
from pathlib import Path

import torch

from lmrec.data.catalog import Catalog
from lmrec.data.split import Split
from lmrec.recipe import Recipe
from lmrec.retrieval.scorer import Scorer
from lmrec.training.learner import Learner
from lmrec.training.perturb import AdversarialConfig
from lmrec.training.trainer import Trainer, TrainingConfig, plan_stages
from lmrec.workflows.train import (
    batch_source,
    build_learner,
    build_validator,
    learn_again,
    refit_epochs,
    trained_scorer,
)


def train_id_only(recipe: Recipe, catalog: Catalog, split: Split, show: bool, name: str) -> Scorer:
    """Trained as the recipe's own towers are, with the same early stopping and learning again; a text user model becomes a
    transformer."""
    user_model = recipe.user_model
    if user_model.kind == "text":
        user_model = user_model.model_copy(update={"kind": "transformer"})
    epochs = recipe.training.frozen_epochs or TrainingConfig().frozen_epochs
    id_recipe = recipe.model_copy(
        update={
            "item": recipe.item.model_copy(update={"source": "id", "whiten": 0}),
            "user_model": user_model,
            "head": recipe.head.model_copy(update={"width": None}),  # a rival is not made smaller with the run
            "training": recipe.training.model_copy(update={"frozen_epochs": epochs}),
            "adversarial": AdversarialConfig(),  # it shifts words, and here are none
            "objective": recipe.objective.model_copy(update={"shown": 0.0, "shown_negatives": None}),
        }
    )
    learner: Learner = build_learner(id_recipe, torch.zeros(catalog.n_items, 1), split.train)
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        trainer_of = partial(Trainer, record=lambda row: None, state_folder=state, fingerprint="", show=show)
        trainer = trainer_of(
            learner,
            id_recipe.training,
            batches=batch_source(id_recipe, split.train),
            validate=build_validator(learner, id_recipe, split.validation),
            label=name,
        )
        report = trainer.run(plan_stages(id_recipe.training, can_tune=False), resume=False)
        if n_epochs := refit_epochs(id_recipe, split, report):
            log = split.train_and_validation
            fresh = build_learner(id_recipe, learner.text_vec, log)
            learner, _ = learn_again(fresh, batch_source(id_recipe, log), n_epochs, id_recipe, trainer_of)
    learner.to("cpu").eval()
    return trained_scorer(name, learner, id_recipe)
