"""Lists that were shown, judged beside the catalog: on a planted world where the taste decides, and nothing leaks."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmrec.artifacts.run import RunFolder
from lmrec.data.dataset import Dataset
from lmrec.data.impressions import Impressions
from lmrec.data.sources.synthetic import planted_world
from lmrec.errors import InputError, RecipeError
from lmrec.evaluation.casefile import JudgedLists
from lmrec.fields import Ragged
from lmrec.recipe import load_recipe
from lmrec.workflows.compare import compare_shown
from lmrec.workflows.impressions import read_impression_table, split_lists
from lmrec.workflows.prepare import prepare_dataset
from lmrec.workflows.train import fit_run

from .conftest import WORLD, Invoke

N_SHOWN = 8


def with_impressions(world: Dataset, seed: int = 0) -> Dataset:
    """Every eighth event was a click on one of eight shown at its instant, the others drawn from the catalog."""
    events, rng = world.interactions, np.random.default_rng(seed)
    events = events.select(np.arange(len(events)) % 8 == 0)
    rows = []
    for item in events.item_idx:
        others = rng.permutation(world.catalog.n_items)
        rows.append(rng.permutation(np.append(others[others != item][: N_SHOWN - 1], item)))
    shown = Ragged.from_rows(rows)
    clicked = shown.values == np.repeat(events.item_idx, N_SHOWN)
    names = [f"i{at}" for at in range(len(events))]
    return replace(world, impressions=Impressions(names, events.user_idx, events.time_ts, shown, clicked))


@pytest.fixture(scope="module")
def judged(learning_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("impressions") / "run"
    choices = [*learning_choices, "training.frozen_epochs=4", "training.tuned_epochs=0", "objective.shown=0.5"]
    recipe = load_recipe(overrides=[*choices, 'baselines.names=["popularity"]'])
    prepared = prepare_dataset(with_impressions(planted_world(**WORLD)), recipe)
    fit_run(None, None, out=out, recipe=recipe, prepared=prepared, show=False)
    return out


def test_evaluate_judges_what_was_shown_too(invoke: Invoke, judged: Path) -> None:
    answer = json.loads(invoke("evaluate", judged, "--json", "--quiet").stdout)["impressions"]
    rows = {row["name"]: row["metrics"] for row in answer["rows"]}
    assert answer["base_rate"] == pytest.approx(1 / N_SHOWN)
    assert rows["popularity"]["auc"]["value"] < 0.65
    assert rows["lmrec + live counts"]["auc"]["value"] > 0.75
    assert rows["categories + cosine, not trained"]["auc"]["value"] > rows["popularity"]["auc"]["value"]
    assert rows["lmrec + live counts"]["auc"]["low"] > rows["popularity"]["auc"]["high"]
    table = read_impression_table(RunFolder(judged))
    assert table is not None
    assert table.as_dict()["best_baseline"] == answer["best_baseline"]
    shown = invoke("inspect", judged).stdout
    assert "Impressions" in shown
    assert "NRMS on the same vectors" in shown


def test_runs_are_compared_on_what_was_shown_or_refused(invoke: Invoke, judged: Path, tmp_path: Path) -> None:
    invoke("evaluate", judged, "--json", "--quiet")
    answer = json.loads(invoke("compare", judged, "--shown", "--json", "--out", tmp_path / "page.html").stdout)
    table = read_impression_table(RunFolder(judged))
    assert table is not None
    values = {row.name: row.metrics["auc"].value for row in table.rows}
    assert {name: cell["value"] for name, cell in answer["estimates"]["auc"].items()} == pytest.approx(values)
    against_popularity = next(pair for pair in answer["pairs"] if pair["second"] == "popularity")
    assert against_popularity["marks"] in ("**", "***")
    assert table.sentence in (tmp_path / "page.html").read_text()
    twin = tmp_path / "twin"
    shutil.copytree(judged, twin)
    found = compare_shown([judged, twin], rows=["all"], metrics=["mrr", "ndcg@5"], n_bootstrap=200)
    assert sum(name.endswith("/popularity") for name in found.systems) == 1  # the same answers stand there once
    with pytest.raises(InputError, match="'f1' is not measured list by list"):
        compare_shown([judged], metrics=["f1"])
    kept = JudgedLists.from_parquet(twin / "shown.parquet")
    replace(kept, questions="others").save_parquet(twin / "shown.parquet")
    assert "not asked about the same lists" in invoke("compare", judged, twin, "--shown", code=2).stderr.replace(
        "\n", " "
    )
    (twin / "shown.parquet").unlink()
    with pytest.raises(InputError, match="no judged lists that were shown to compare"):
        compare_shown([judged, twin])


def test_parts_are_apart_in_time_and_histories_end_before_their_list(judged: Path) -> None:
    dataset = with_impressions(planted_world(**WORLD))
    assert dataset.impressions is not None
    times = dataset.interactions.time_ts
    cuts = (float(np.quantile(times, 0.6)), float(np.quantile(times, 0.8)))
    parts = split_lists(dataset.impressions, dataset.interactions, cuts, dataset.catalog.n_items)
    assert parts.train.time_ts.max() < cuts[0] <= parts.validation.time_ts.min()
    assert parts.validation.time_ts.max() < cuts[1] <= parts.test.time_ts.min()
    assert len(parts.train) + len(parts.validation) + len(parts.test) == len(dataset.impressions)
    for lists in (parts.train, parts.test):
        for at in range(0, len(lists), 9):
            user, instant = lists.user_idx[at], lists.time_ts[at]
            mask = (dataset.interactions.user_idx == user) & (times < instant)
            assert lists.history[at].tolist() == dataset.interactions.item_idx[mask].tolist()


def test_learning_from_lists_needs_lists(world_folder: Path, tmp_path: Path, quick_choices: list[str]) -> None:
    out, choices = tmp_path / "run", [*quick_choices, "objective.shown=1"]
    with pytest.raises(RecipeError, match="does not say what was shown"):
        fit_run(world_folder / "items.csv", world_folder / "events.csv", out=out, overrides=choices, show=False)
    assert not out.exists()
