"""A fit that a benchmark of hours can be stopped in, and that is never taken for one of another recipe."""

import shutil
from pathlib import Path

from lmrec.artifacts.files import read_json, write_json
from lmrec.artifacts.run import RunFolder, describe_environment
from lmrec.recipe import Recipe
from lmrec.workflows.prepare import Prepared
from lmrec.workflows.train import fit_run, training_fingerprint


def fit_once(path: Path, recipe: Recipe, prepared: Prepared) -> RunFolder:
    """The run in `path`. One of this recipe, these data and this commit is used again, or gone on with where it was
    interrupted; any other is removed first. What it was made of stands beside it, in a file of its name."""
    run, beside = RunFolder(path), path.with_name(f"{path.name}.made-of.json")
    made_of = {"fingerprint": training_fingerprint(recipe, prepared), "commit": describe_environment()["commit"]}
    if not (beside.exists() and read_json(beside) == made_of):
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(beside, made_of)
    begun = run.record_file.exists()
    if begun and run.read_record()["status"] == "trained":
        return run
    if not begun:
        shutil.rmtree(path, ignore_errors=True)
    return fit_run(None, None, out=path, recipe=recipe, prepared=prepared, resume=begun).run
