"""A fit that a benchmark of hours can be stopped in, and that is never taken for one of another recipe."""

import hashlib
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import lmrec
from lmrec.artifacts.files import read_json, write_json
from lmrec.artifacts.run import RunFolder
from lmrec.recipe import Recipe
from lmrec.workflows.prepare import Prepared
from lmrec.workflows.train import Watch, fit_run, training_fingerprint


def fit_once(
    path: Path,
    recipe: Recipe,
    prepared: Prepared,
    begin: Callable[[], None] | None = None,
    watch: Watch | None = None,
    show: bool = True,
) -> RunFolder:
    """The run in `path`. One of this recipe, these data and this code is used again, or gone on with where it was interrupted;
    any other is removed first. What it was made of stands beside it, in `.made-of/` by its name.

    begin: called before a fit that is new, where it goes on from something. watch, show: as of `fit_run`.
    """
    run = RunFolder(path)
    keep_if_made_of(path, training_fingerprint(recipe, prepared))
    if run.record_file.exists() and run.read_record()["status"] == "trained":
        return run
    if not run.record_file.exists():
        shutil.rmtree(path, ignore_errors=True)
        if begin is not None:
            begin()
    resume = run.record_file.exists()
    return fit_run(None, None, out=path, recipe=recipe, prepared=prepared, resume=resume, watch=watch, show=show).run


def keep_if_made_of(path: Path, *what: str) -> None:
    """Remove the folder unless it was made of `what` (recipes, fingerprints) by today's code, which is noted beside it before
    it is made."""
    beside = path.parent / ".made-of" / f"{path.name}.json"
    made_of = {"what": hashlib.sha256("\n".join(what).encode()).hexdigest()[:16], "code": code_fingerprint()}
    if beside.exists() and read_json(beside) == made_of:
        return
    if path.exists():
        print(f"{path} is of another recipe, other data or other code: made anew", flush=True)
    shutil.rmtree(path, ignore_errors=True)
    beside.parent.mkdir(parents=True, exist_ok=True)
    write_json(beside, made_of)


@cache
def code_fingerprint() -> str:
    """Of all of the product's code as it lies here, committed or not."""
    digest = hashlib.sha256()
    for file in sorted(Path(lmrec.__file__).parent.rglob("*.py")):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
