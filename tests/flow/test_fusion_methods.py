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
from lmrec.workflows.index import index_run
from lmrec.workflows.judge import FUSED, judge_run
from lmrec.workflows.news import drift_of, read_news
from lmrec.workflows.train import fit_run
from lmrec.workflows.update import update_run

from .conftest import WORLD, shared
from .running import NEW_ITEM, running, until


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


def test_ranks_recommend_and_are_judged(runs: dict[str, Path]) -> None:
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
    assert len(recommender.similar(text="lighthouse", k=3)) == 3
    with pytest.raises(InputError, match=r"audience compares users by a score.*another fusion\.method"):
        recommender.audience(item=ids[0])
    with pytest.raises(InputError, match="not for ranks"):
        index_run(run)
    with pytest.raises(InputError, match="an update compares scores"):
        update_run(run)
    with pytest.raises(InputError, match="by ranks"):
        compress_run(run, run.parent / "small", show=False)
    with pytest.raises(InputError, match="by ranks"):
        ensemble_runs([runs["weighted"], run], run.parent / "both")
    assert not RunFolder(run).index.exists()


def test_ranks_are_served_but_not_explained(runs: dict[str, Path]) -> None:
    run = runs["reciprocal_rank"]
    recommender = Recommender.load(run)
    ids = recommender.catalog.ids
    (offline,) = recommender.recommend(histories=[ids[:3]], k=8)
    best = offline.items[0].item_id
    with running(run) as service:
        assert service.shown(history=ids[:3], k=8) == [item.item_id for item in offline.items]
        assert service.recommend(text="lighthouse", k=3)["basis"] == "text"
        for asked in (
            service.client.post("/v1/explanations", json={"item_id": best, "history": ids[:3]}),
            service.client.post("/v1/recommendations", json={"history": ids[:3], "explain": True}),
        ):
            assert asked.status_code == 422
            assert "explanations are not for ranks" in asked.text
        service.put("/v1/items/new", NEW_ITEM)
        assert "new" in service.shown(history=ids[:3])
        service.delete(f"/v1/items/{best}")
        assert best not in service.shown(history=["new", *ids[:3]])
        found = service.post("/v1/search", {"words": "lighthouse", "history": ids[:3], "k": 5})
        assert len(found["items"]) == 5
        service.post("/v1/events", {"event_id": "e1", "user_id": "stranger", "item_id": ids[0], "kind": "view"})
        until(lambda: service.recommend(user_id="stranger")["basis"] != "popular")
    with pytest.raises(InputError, match="not for ranks"):
        drift_of(read_news(run))


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
