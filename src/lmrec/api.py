"""The Python face: fit two tables, load a run."""

from collections.abc import Sequence
from pathlib import Path

from lmrec.recipe import Recipe
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.train import fit_run


def fit(
    items: object,
    interactions: object,
    users: object | None = None,
    *,
    out: Path | str,
    recipe: Recipe | Path | str | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    show_progress: bool = True,
) -> Recommender:
    """Fine-tune on two tables and return what recommends.

    items, interactions, users: paths (csv, tsv, parquet, json lines; plain or gzip), polars or pandas frames.
    out: a new folder for the run. recipe: a Recipe, a TOML file, or None for the defaults; overrides: "key=value" texts.
    Raises DataError, RecipeError, RunFolderError for what cannot be used; Interrupted on Ctrl-C, after saving.
    """
    fit_run(items, interactions, users, out=out, recipe=recipe, overrides=overrides, resume=resume, show=show_progress)
    return load(out)


def load(run: Path | str) -> Recommender:
    """What a run folder recommends with."""
    return Recommender.load(run)
