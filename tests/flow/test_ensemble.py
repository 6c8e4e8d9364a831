"""Ensembles: made, judged, compared, asked and served as a run is; what cannot answer together is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lmrec.artifacts.generation import read_serving
from lmrec.errors import InputError, RunFolderError
from lmrec.models.blending import reciprocal_ranks
from lmrec.retrieval.live import LiveQuery, LiveRecommender
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.compare import compare_runs
from lmrec.workflows.ensemble import ensemble_runs
from lmrec.workflows.judge import judge_run
from lmrec.workflows.train import fit_run
from lmrec.workflows.update import update_run

from .conftest import Invoke
from .running import NEW_ITEM, running, until


@pytest.fixture(scope="module")
def runs(world_folder: Path, quick_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds of one recipe, without a second stage."""
    folder = tmp_path_factory.mktemp("seeds")
    items, events = world_folder / "items.csv", world_folder / "events.csv"
    for seed in (0, 1):
        choices = [*quick_choices, "training.tuned_epochs=0", "training.frozen_epochs=2", f"training.seed={seed}"]
        fit_run(items, events, out=folder / f"seed{seed}", overrides=choices, show=False)
    return [folder / "seed0", folder / "seed1"]


@pytest.fixture(scope="module")
def ensemble(runs: list[Path]) -> Path:
    return ensemble_runs(runs, runs[0].parent / "both").path


def test_scores_are_the_members_weighted_sum(runs: list[Path], ensemble: Path) -> None:
    found = Recommender.load(ensemble)
    assert found.ensemble is not None
    histories = found._all_histories
    members = [Recommender.load(run).scorer.score(histories) for run in runs]
    first, second = found.ensemble.weights
    expected = first * members[0] + second * members[1]
    np.testing.assert_allclose(found.scorer.score(histories), expected, rtol=1e-4, atol=1e-4)
    spreads = [weight * one.std(axis=1).mean() for weight, one in zip(found.ensemble.weights, members, strict=True)]
    assert spreads == pytest.approx([1.0, 1.0], rel=0.05)
    (answer,) = found.recommend(users=[found.interactions.user_ids[0]], k=5)
    best = np.argsort(-np.where(np.isin(np.arange(32), histories[0]), -np.inf, expected[0]))[:5]
    assert [item.item_id for item in answer.items] == [found.catalog.ids[row] for row in best]


def test_it_is_judged_beside_its_members_and_compared(invoke: Invoke, runs: list[Path], ensemble: Path) -> None:
    rows = {row.name for row in judge_run(ensemble, show=False).table.rows}
    assert {"popularity", "member seed0", "member seed1", "ensemble by scores"} <= rows
    judge_run(runs[0], show=False)
    found = compare_runs([ensemble, runs[0]], n_bootstrap=50)
    assert len(found.pairs) == 1
    assert "both/ensemble by scores" in found.systems
    answer = json.loads(invoke("recommend", ensemble, "--history", "film3,film5", "--json").stdout)
    assert len(answer["items"]) == 10


def test_it_is_served_and_takes_new_items(ensemble: Path) -> None:
    live = LiveRecommender.load(ensemble)
    known = Recommender.load(ensemble).recommend(histories=[["film3", "film5"]], k=5)[0]
    (answer,) = live.recommend([LiveQuery(history=("film3", "film5"), k=5)])
    assert [item.item_id for item in answer.items] == [item.item_id for item in known.items]
    live.upsert([{"item_id": "new", "title": known.items[0].title}])
    (after,) = live.recommend([LiveQuery(history=("film3", "film5"), k=33)])
    assert "new" in [item.item_id for item in after.items]
    assert Recommender.load(ensemble).audience(text=known.items[0].title, k=3)
    assert Recommender.load(ensemble).similar(item="film3", k=3)


def test_the_service_answers_with_it_and_takes_new_items_and_events(ensemble: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(ensemble, tmp_path / "served"))
    known = Recommender.load(run).recommend(histories=[["film3", "film5"]], k=5)[0]
    with running(run) as service:
        assert service.shown(history=["film3", "film5"], k=5) == [item.item_id for item in known.items]
        service.put("/v1/items/new", NEW_ITEM)
        assert "new" in service.shown(history=["film3", "film5"])
        service.post("/v1/events", {"event_id": "e1", "user_id": "stranger", "item_id": "film3", "kind": "view"})
        until(lambda: service.recommend(user_id="stranger")["basis"] != "popular")
    shutil.rmtree(run / "members" / "1" / "vectors")
    with pytest.raises(RunFolderError, match="item_vectors.safetensors is missing"):
        read_serving(run)


def test_weights_are_learnt_on_validation(runs: list[Path]) -> None:
    made = ensemble_runs(runs, runs[0].parent / "learnt", learn=True)
    weights = json.loads(made.ensemble_file.read_text())["weights"]
    assert all(weight >= 0 for weight in weights)
    assert any(weights)


def test_an_ensemble_by_ranks_recommends_and_is_judged_and_served(runs: list[Path]) -> None:
    path = ensemble_runs(runs, runs[0].parent / "ranks", by="ranks").path
    found = Recommender.load(path)
    histories = found._all_histories
    members = [Recommender.load(run).scorer.score(histories) for run in runs]
    expected = sum(reciprocal_ranks(one) for one in members)
    np.testing.assert_allclose(found.list_scorer.score(histories), expected, rtol=1e-5)
    assert len(found.recommend(users=["user0"], k=5)[0].items) == 5
    assert "ensemble by ranks" in {row.name for row in judge_run(path, show=False).table.rows}
    with pytest.raises(InputError, match="Make an ensemble by scores"):
        found.audience(item="film3")
    with running(path) as service:
        (offline,) = found.recommend(histories=[["film3", "film5"]], k=5)
        assert service.shown(history=["film3", "film5"], k=5) == [item.item_id for item in offline.items]


def test_what_cannot_answer_together_is_refused(
    invoke: Invoke, runs: list[Path], ensemble: Path, fitted: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="at least two"):
        ensemble_runs(runs[:1], tmp_path / "x")
    with pytest.raises(InputError, match="is an ensemble itself"):
        ensemble_runs([runs[0], ensemble], tmp_path / "x")
    with pytest.raises(InputError, match="no weights to learn"):
        ensemble_runs(runs, tmp_path / "x", by="ranks", learn=True)
    with pytest.raises(RunFolderError, match="not empty"):
        ensemble_runs(runs, ensemble)
    assert "scores or ranks" in invoke("ensemble", *runs, "--out", tmp_path / "x", "--by", "votes", code=2).stderr
    with pytest.raises(InputError, match="learns nothing itself"):
        update_run(ensemble)
    assert not (tmp_path / "x").exists()
