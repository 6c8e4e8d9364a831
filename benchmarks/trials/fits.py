"""Towers of the first stage that learnt from training alone, and what validation says of them, alone and fused."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from benchmarks.fusing.halves import METRIC, answer_halves, judging_of, learnt_towers
from benchmarks.peers.cells import Cell
from lmrec.data.history import Cases
from lmrec.errors import InputError
from lmrec.evaluation.evaluator import evaluate
from lmrec.fields import FloatArray
from lmrec.models.fusion import COLLABORATIVE
from lmrec.recipe import Recipe
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.prepare import Prepared
from lmrec.workflows.train import fit_run

# What the data is read by, which cases are asked and who is a candidate: differences are of the same cases, read once.
_SHARED = ("data", "split", "evaluation", "user_model.profile", "template.user")


@dataclass(frozen=True)
class Variant:
    """A name, and what is set beside the recipe."""

    name: str
    sets: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Answers:
    """values: (B,) the metric of each case. cpu_seconds: of what was fitted or searched for it. words: what came of that."""

    values: FloatArray
    cpu_seconds: float
    words: Sequence[str]


def recipes_of(cell: Cell, form: str, variants: Sequence[Variant], overrides: Sequence[str]) -> list[Recipe]:
    """Each variant's recipe. Raises InputError where one asks other cases than the first, and RecipeError as `load_recipe`."""
    first_stage = ("training.refit=false", "training.tuned_epochs=0")
    recipes = [cell.recipe(form, (*first_stage, *overrides, *variant.sets)) for variant in variants]
    for variant, recipe in zip(variants, recipes, strict=True):
        for key in _SHARED:
            if attrgetter(key)(recipe) != attrgetter(key)(recipes[0]):
                raise InputError(
                    f"'{variant.name}' changes {key}, by which the data is read or asked, and that is done once, for all "
                    "variants alike. Set it for all with --set, or try it by itself"
                )
    return recipes


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"seed": seed})})


def fit_towers(recipe: Recipe, prepared: Prepared, cases: Cases, out: Path) -> Answers:
    """Fit a run at `out`, with nothing fused but the popularity beside which its towers learn, if they do, and ask them. What
    was there goes."""
    began = time.process_time()
    shutil.rmtree(out, ignore_errors=True)
    parts = (*COLLABORATIVE, "content", "popularity", "new_items", "repeats")
    bare = recipe.model_copy(update={"fusion": recipe.fusion.model_copy(update=dict.fromkeys(parts, False))})
    fitted = fit_run(None, None, out=out, recipe=bare, prepared=prepared, show=False)
    seconds = round(time.process_time() - began, 1)
    towers = learnt_towers(Recommender.load(out), prepared.split)
    values = evaluate(towers, cases, towers.bank.n_items, judging_of(recipe)).metrics[METRIC]
    return Answers(values, seconds, [f"best of {recipe.training.frozen_epochs} epochs: {fitted.training.best_epoch}"])


def answer_fused(recipe: Recipe, prepared: Prepared, cases: Cases, run: Path) -> Answers:
    """As the recipe fuses: nobody is judged on what chose the weights."""
    began = time.process_time()
    values, words = answer_halves(
        learnt_towers(Recommender.load(run), prepared.split), prepared.split, cases, recipe, {}
    )
    return Answers(values, round(time.process_time() - began, 1), words)
