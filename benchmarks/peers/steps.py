"""Steps: each leaves a file when it is done and is skipped from then on, so that a benchmark of hours can be stopped.

Every step that learns runs in a process of its own, so that its peak memory is its own.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import spaces
from benchmarks.peers.cells import ROOT
from benchmarks.peers.exchange import facts_of, measure_handed_over, write_split
from benchmarks.peers.rivals import INSIDE, OUTSIDE, Fittable, Inside
from benchmarks.peers.spaces import Settings
from benchmarks.peers.stopwatch import Stopwatch, peak_mb
from benchmarks.peers.work import CHOSEN_BY, Effort, Place, is_searched, keep_row, save_search, trials_of
from lmrec.artifacts.files import read_json, write_json
from lmrec.artifacts.run import describe_environment
from lmrec.data.history import Cases
from lmrec.errors import LmrecError
from lmrec.evaluation.evaluator import evaluate
from lmrec.fields import FloatArray
from lmrec.models.collaborative import LogArrays
from lmrec.recipe import Recipe
from lmrec.text.template import build_template
from lmrec.workflows.counting import log_arrays
from lmrec.workflows.encode import read_texts, untuned_vectors
from lmrec.workflows.prepare import Prepared

PEERS = ROOT / "benchmarks" / "peers"
PEERS_PYTHON = PEERS / ".venv" / "bin" / "python"
LIST_K = 100


def in_own_process(step: Callable[..., None], *arguments: Any) -> None:
    """Run it in a fresh interpreter. Raises LmrecError where it did not end well."""
    process = multiprocessing.get_context("spawn").Process(target=step, args=arguments)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise LmrecError(f"the step {step.__name__} ended with exit code {process.exitcode}; its message stands above")


def prepare_cell(place: Place, effort: Effort) -> tuple[Prepared, dict[str, Recipe]]:
    """The data and its split, which all forms share, and each form's recipe."""
    recipes = {form: effort.recipe(place.cell, form) for form in place.cell.protocol.forms}
    return place.cell.prepare(next(iter(recipes.values()))), recipes


def export_split(place: Place, effort: Effort) -> None:
    """The folder that outside rivals read; the catalog's words are encoded here, once, by the un-tuned model.

    Where it is of other data, or asks other questions of them, it is made anew, and what outside rivals left beside it goes.
    """
    prepared, recipes = prepare_cell(place, effort)
    found = facts_of(prepared)
    if (place.split / "facts.json").exists():
        if (made_of := read_json(place.split / "facts.json")) == found:
            return
        print(f"{place.split} is of other data or other questions ({made_of}, now {found}): made anew")
        for name in OUTSIDE:
            shutil.rmtree(place.folder / name, ignore_errors=True)
    place.split.parent.mkdir(parents=True, exist_ok=True)
    write_split(prepared, encode_words(prepared, next(iter(recipes.values()))), place.split)


def encode_words(prepared: Prepared, recipe: Recipe) -> FloatArray:
    """(N, Dt) vectors of the un-tuned language model, from the cache where they are known."""
    catalog = prepared.dataset.catalog
    source = read_texts(catalog, build_template(recipe.template, catalog), recipe.encoder)
    vectors: FloatArray = untuned_vectors(source, source.load_encoder(), True).numpy()
    return vectors


def run_inside(place: Place, name: str, effort: Effort) -> None:
    """Search a rival of the product, then fit it to training and validation and measure it on the test part."""
    prepared, recipes = prepare_cell(place, effort)
    rival, split, n_items = INSIDE[name], prepared.split, prepared.dataset.catalog.n_items
    text_vec = np.load(place.split / "text_vec.npy")
    drawn = effort.draw(_space_of(rival, prepared), rival.asked, rival.fits_of_product)
    if not is_searched(place, name, len(drawn)):
        asked = split.validation.sample(effort.search_cases, 0)
        trials = list(try_inside(rival, drawn, text_vec, log_arrays(split.train, n_items), asked, recipes))
        save_search(place, name, trials)
    best = read_json(place.search(name))["best"]
    for form, recipe in recipes.items():
        for seed in range(effort.seeds if rival.is_seeded else 1):
            if not place.row(form, name, seed).exists():
                _save_inside(place, name, best[form]["settings"], form, seed, prepared, text_vec, recipe)


def run_known(place: Place, name: str, settings: Mapping[str, Settings], seeds: int, effort: Effort) -> None:
    """Rows of a rival of the product with settings that an earlier search has chosen, form -> settings."""
    prepared, recipes = prepare_cell(place, effort)
    text_vec = np.load(place.split / "text_vec.npy")
    for form, chosen in settings.items():
        for seed in range(seeds):
            if not place.row(form, name, seed).exists():
                _save_inside(place, name, chosen, form, seed, prepared, text_vec, recipes[form])


def _save_inside(
    place: Place,
    name: str,
    settings: Settings,
    form: str,
    seed: int,
    prepared: Prepared,
    text_vec: FloatArray,
    recipe: Recipe,
) -> None:
    """Fit a rival of the product to training and validation and save its row of the test part."""
    log = log_arrays(prepared.split.train_and_validation, prepared.dataset.catalog.n_items)
    watch = Stopwatch()
    fitted = INSIDE[name].make(settings, seed, text_vec).fit(log)
    facts = {"settings": settings, **watch.read()}
    evaluation = evaluate(fitted, prepared.split.test, log.n_items, recipe.evaluation)
    keep_row(place, form, name, seed, evaluation, {**facts, "peak_mb": peak_mb()})


def try_inside(
    rival: Inside,
    drawn: list[Settings],
    text_vec: FloatArray,
    train: LogArrays,
    asked: Cases,
    recipes: Mapping[str, Recipe],
) -> Iterator[dict[str, Any]]:
    """One trial for each setting. Settings that only change the question share a fit."""

    def of_fit(settings: Settings) -> str:
        return json.dumps({key: value for key, value in settings.items() if key not in rival.asked}, sort_keys=True)

    fitted: Fittable | None = None
    last = ""
    for settings in sorted(drawn, key=of_fit):
        watch, made = Stopwatch(), rival.make(settings, 0, text_vec)
        if fitted is not None and of_fit(settings) == last:
            fitted = copy(fitted)
            fitted.config = made.config
        else:
            fitted, last = made.fit(train), of_fit(settings)
        found = {
            form: evaluate(fitted, asked, train.n_items, recipe.evaluation).aggregate[CHOSEN_BY]
            for form, recipe in recipes.items()
        }
        yield {"settings": settings, "validation": found, **watch.read()}


def _space_of(rival: Inside, prepared: Prepared) -> spaces.Space:
    if rival.needs_times and prepared.dataset.interactions.time_kind != "timestamp":
        return spaces.RECENT_POPULARITY
    return rival.space


def train_outside(place: Place, name: str, effort: Effort, number: int) -> None:
    """One trial of an outside rival's search, which joins those that were made before; its best epoch counts for each form."""
    settings = effort.draw_outside(OUTSIDE[name].space)[number]
    out = place.folder / name / f"trial-{label_of(settings)}"
    result = read_json(_train(place, name, out, settings, 0, effort, epochs=effort.epochs, final=False))
    at = {
        form: int(np.argmax([row["validation"][form] for row in result["epochs"]]))
        for form in place.cell.protocol.forms
    }
    trial = {
        "settings": settings,
        "validation": {form: result["epochs"][epoch]["validation"][form] for form, epoch in at.items()},
        "epochs": {form: epoch + 1 for form, epoch in at.items()},
        "n_epochs": len(result["epochs"]),
        "most_epochs": effort.epochs,
        "cut_long": True,
        "seconds": result["seconds"],
        "cpu_seconds": result["cpu_seconds"],
        "commit": describe_environment()["commit"],
    }
    # Those of before it learnt from every event choose nothing beside those that do.
    before = [one for one in trials_of(place, name) if one["settings"] != settings and one.get("cut_long")]
    save_search(place, name, [*before, trial])


def is_tried(place: Place, name: str, effort: Effort, number: int) -> bool:
    """Whether that trial has been made, by this call or an earlier one: from all events, and to its end, which patience finds,
    or to as many epochs as are asked for now."""
    settings = effort.draw_outside(OUTSIDE[name].space)[number]
    made = [trial for trial in trials_of(place, name) if trial["settings"] == settings and trial.get("cut_long")]
    return any(trial["n_epochs"] < trial["most_epochs"] or trial["most_epochs"] >= effort.epochs for trial in made)


def label_of(settings: Settings) -> str:
    """Settings as part of a folder's name."""
    return "-".join(str(value) for value in settings.values())


def run_outside(place: Place, name: str, effort: Effort, form: str, seed: int) -> None:
    """The best trial's settings, trained for its best number of epochs on training and validation, and its lists measured."""
    if place.row(form, name, seed).exists():
        return
    best = read_json(place.search(name))["best"][form]
    epochs = best["epochs"][form]
    # Two forms that chose the same share a training: lists of both are handed over.
    out = place.folder / name / f"final-{label_of(best['settings'])}-e{epochs}-s{seed}"
    result = read_json(_train(place, name, out, best["settings"], seed, effort, epochs=epochs, final=True))
    prepared, recipes = prepare_cell(place, effort)
    n_items = prepared.dataset.catalog.n_items
    with np.load(out / "lists.npz") as lists:
        items, scores = lists[f"{form}_items"], lists[f"{form}_scores"]
    stand_in = log_arrays(prepared.split.train_and_validation, n_items).popularity().astype(np.float32)
    test, judging = prepared.split.test, recipes[form].evaluation
    evaluation = measure_handed_over(name, items, scores, test, n_items, judging, stand_in)
    facts = {"settings": {**best["settings"], "epochs": epochs}}
    facts |= {key: result[key] for key in ("seconds", "cpu_seconds", "peak_mb")}
    keep_row(place, form, name, seed, evaluation, facts)


def _train(
    place: Place, name: str, out: Path, settings: Settings, seed: int, effort: Effort, *, epochs: int, final: bool
) -> Path:
    if not PEERS_PYTHON.exists():
        raise LmrecError(
            f"{OUTSIDE[name].title} runs in an environment of its own, and {PEERS_PYTHON} is missing. "
            "Type: make bench-peers-setup"
        )
    job = {
        "peer": OUTSIDE[name].peer,
        "settings": {**settings, "session_max_len": place.cell.data.max_session},
        "seed": seed,
        "split": str(place.split),
        "cut_long": True,
        "out": str(out),
        "epochs": epochs,
        "patience": effort.patience,
        "final": final,
        "forms": dict(place.cell.protocol.forms),
        "metric_k": 10,
        "list_k": LIST_K,
        "search_cases": effort.search_cases,
    }
    result, told = out / "result.json", out / "job.json"
    if result.exists() and read_json(told) == job:
        return result
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    write_json(told, job)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [PEERS_PYTHON, PEERS / "rectools_peer.py", out / "job.json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LmrecError(f"{OUTSIDE[name].title} ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    return result
