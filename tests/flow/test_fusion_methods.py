"""Parts of a run put together in other ways than by weights tried one after the other."""

from pathlib import Path

import numpy as np
import pytest

from lmrec.artifacts.run import RunFolder
from lmrec.data.sources.synthetic import planted_world
from lmrec.errors import InputError
from lmrec.fields import Ragged
from lmrec.models.blending import reciprocal_ranks
from lmrec.models.fusion import FusionWeights
from lmrec.retrieval.live import LiveRecommender
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.compress import compress_run
from lmrec.workflows.counting import fit_fusion
from lmrec.workflows.ensemble import ensemble_runs
from lmrec.workflows.judge import FUSED, judge_run
from lmrec.workflows.train import fit_run
from lmrec.workflows.update import update_run

from .conftest import WORLD, shared


@pytest.fixture(scope="module")
def runs(learning_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("methods")
    shared().write_tables(planted_world(**WORLD), folder)
    quick = ("training.frozen_epochs=3", "training.tuned_epochs=0", "fusion.search_cases=60", "fusion.bm25_knn=true")
    for method in ("weighted", "learnt", "reciprocal_rank"):
        choices = [*learning_choices, *quick, f"fusion.method={method}", 'baselines.names=["popularity"]']
        tables = folder / "items.csv", folder / "events.csv"
        fit_run(*tables, out=folder / method, overrides=choices, show=False)
    return {method: folder / method for method in ("weighted", "learnt", "reciprocal_rank")}


def ndcg(run: Path) -> dict[str, float]:
    return {row.name: row.metrics["ndcg@10"].value for row in judge_run(run, show=False).table.rows}


def test_learnt_weights_answer_served_as_others_do(runs: dict[str, Path]) -> None:
    weights = Recommender.load(runs["learnt"]).fusion.weights
    assert not weights.ranks
    assert min(getattr(weights, part) for part in ("towers", "transitions", "bm25_knn", "content", "popularity")) >= 0
    assert weights.towers not in (0.0, 1.0), "no grid has these"
    assert weights.transitions > 0
    found = ndcg(runs["learnt"])
    assert found[FUSED] > 2 * found["popularity"]
    assert len(LiveRecommender.load(runs["learnt"]).scorer.scorer.bank.matrix)


def test_ranks_recommend_and_are_judged_and_are_not_served(runs: dict[str, Path]) -> None:
    run = runs["reciprocal_rank"]
    found = ndcg(run)
    assert found[FUSED] > 2 * found["popularity"]
    (note,) = [row.note for row in judge_run(run, show=False).table.rows if row.name == FUSED]
    assert "reciprocal ranks by " in note
    recommender = Recommender.load(run)
    ids = recommender.catalog.ids
    (answer,) = recommender.recommend(histories=[ids[:3]], k=5)
    assert len(answer.items) == 5
    assert recommender.recommend_for_text("lighthouse", k=3).items
    with pytest.raises(InputError, match=r"another fusion\.method"):
        LiveRecommender.load(run)
    with pytest.raises(InputError, match="not served"):
        update_run(run)
    with pytest.raises(InputError, match="by ranks"):
        compress_run(run, run.parent / "small", show=False)
    with pytest.raises(InputError, match="by ranks"):
        ensemble_runs([runs["weighted"], run], run.parent / "both")
    assert not RunFolder(run).index.exists()


def test_ranks_are_summed_over_parts_that_count(runs: dict[str, Path]) -> None:
    recommender = Recommender.load(runs["reciprocal_rank"])
    histories = Ragged.from_rows([[1, 2, 3], [7], []])
    fused = recommender.towers_scorer.fused(recommender.fusion)
    parts = fused.fusion.weights.parts
    assert parts
    alone = [fused.fused(fused.fusion.of_part(part)).score(histories) for part in parts]
    expected = sum(reciprocal_ranks(one) for one in alone)
    np.testing.assert_allclose(recommender.list_scorer.score(histories), expected, rtol=1e-5)


def test_a_part_alone_is_what_it_adds(runs: dict[str, Path]) -> None:
    recommender = Recommender.load(runs["weighted"])
    weights = FusionWeights(transitions=2.0, bm25_knn=0.1, content=3.0, popularity=0.4, borrowed=1.0)
    fused = recommender.towers_scorer.fused(fit_fusion(weights, recommender.interactions, recommender.catalog.n_items))
    histories = Ragged.from_rows([[1, 2, 3], [7], []])
    alone = [fused.fused(fused.fusion.of_part(part)).score(histories) for part in weights.parts]
    np.testing.assert_allclose(np.sum(alone, axis=0), fused.score(histories), rtol=1e-4, atol=1e-4)
