"""What the service relies on from whatever it serves: one product of a query and a row, plus what is sparse."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lmrec.fields import Ragged
from lmrec.models.fusion import Fusion, FusionWeights
from lmrec.retrieval.ensemble import EnsembleScorer
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.scorer import Scorer
from lmrec.workflows.counting import fit_fusion

HISTORIES = Ragged.from_rows([[3, 7, 3], [], [12], list(range(20)), [31]])
KINDS = ("towers", "fused", "untrained", "collaborative", "ensemble")


@pytest.fixture(scope="module", params=KINDS)
def served(request: pytest.FixtureRequest, fitted: Any) -> Scorer | EnsembleScorer:
    recommender = Recommender.load(fitted)
    towers = recommender.towers_scorer
    weights = FusionWeights(transitions=20.0, content=4.0, popularity=0.4, borrowed=1.5, newcomer=1.0, repeated=-3.0)
    fused = towers.fused(fit_fusion(weights, recommender.interactions, recommender.catalog.n_items))
    untrained = fused.fused(replace(fused.fusion, weights=weights.model_copy(update={"towers": 0.0})))
    counted = FusionWeights(towers=0.0, als=3.0, ease=2.0, bm25_knn=0.1, popularity=0.4, borrowed=1.5, newcomer=2.0)
    collaborative = towers.fused(fit_fusion(counted, recommender.interactions, recommender.catalog.n_items))
    kinds: dict[str, Scorer | EnsembleScorer] = {
        "towers": towers,
        "fused": fused,
        "untrained": untrained,
        "collaborative": collaborative,
        "ensemble": EnsembleScorer("e", (towers, fused, collaborative), (0.5, 0.25, 2.0)),
    }
    return kinds[request.param]


def test_a_score_is_a_product_and_what_is_sparse(served: Scorer | EnsembleScorer) -> None:
    product = (served.query(HISTORIES) @ served.bank.matrix.T).numpy()
    added = served.sparse(HISTORIES, served.bank.n_items)
    whole = product if added is None else product + added.toarray()
    np.testing.assert_allclose(served.score(HISTORIES), whole, rtol=1e-4, atol=1e-4)
    assert served.score(HISTORIES).dtype == np.float32


def test_towers_that_count_nothing_change_nothing(fitted: Any) -> None:
    recommender = Recommender.load(fitted)
    weights = FusionWeights(towers=0.0, transitions=20.0, content=4.0)
    one = recommender.towers_scorer.fused(fit_fusion(weights, recommender.interactions, recommender.catalog.n_items))
    other = one.over(one.bank_rows(one.bank.text_vec, torch.randn(one.bank.item_vec.shape)))
    np.testing.assert_allclose(one.score(HISTORIES), other.score(HISTORIES), rtol=1e-5, atol=1e-6)
    assert one.score(HISTORIES)[0].any()


def test_one_item_and_one_history_get_what_all_get(served: Scorer | EnsembleScorer) -> None:
    scores, query = served.score(HISTORIES), served.query(HISTORIES)
    for row in (0, 5, 31):
        np.testing.assert_allclose(served.scores_of(HISTORIES, query, row), scores[:, row], rtol=1e-4, atol=1e-4)
    for at in range(len(HISTORIES)):
        alone = served.score(HISTORIES.slice(at, at + 1))[0]
        np.testing.assert_allclose(alone, scores[at], rtol=1e-4, atol=1e-4)
        found = served.followers(HISTORIES[at])
        added = served.sparse(HISTORIES.slice(at, at + 1), served.bank.n_items)
        if found is not None and added is not None:
            row_of = np.zeros(served.bank.n_items, np.float32)
            np.add.at(row_of, *found)
            np.testing.assert_allclose(row_of, added.toarray()[0], rtol=1e-4, atol=1e-5)


def test_rows_are_made_alike_wherever_they_come_from(served: Scorer | EnsembleScorer) -> None:
    bank = served.bank
    again = served.bank_rows(bank.text_vec, bank.item_vec, np.arange(bank.n_items))
    for name in ("text_vec", "item_vec", "matrix"):
        torch.testing.assert_close(getattr(again, name), getattr(bank, name))
    fresh = served.bank_rows(bank.text_vec[:3])
    assert fresh.matrix.shape == (3, bank.matrix.shape[1])
    # Rows that histories name are enough to ask: what a live catalog does.
    rows = np.array([3, 7])
    part = type(bank)(*(getattr(bank, name)[rows] for name in ("text_vec", "item_vec", "matrix")))
    asked = served.asked_over(part, lambda histories, words: torch.zeros(0)).query(Ragged.from_rows([[0, 1, 0]]))
    torch.testing.assert_close(asked, served.query(Ragged.from_rows([[3, 7, 3]])), rtol=1e-4, atol=1e-5)


def test_items_that_come_later_borrow_as_those_of_the_catalog_do(served: Scorer | EnsembleScorer) -> None:
    bank = served.bank
    loans = served.loans_of(bank.text_vec)
    if not served.borrows:
        assert not served.borrowed(HISTORIES[3], loans).any()
        return
    added = served.sparse(HISTORIES.slice(3, 4), bank.n_items)
    followers = served.followers(HISTORIES[3])
    assert added is not None
    assert followers is not None
    own = np.zeros(bank.n_items)
    members = served.members if isinstance(served, EnsembleScorer) else (served,)
    for member in members:
        if member.fusion.neighbours:
            own += member.fusion.support
    borrowers = np.flatnonzero(own == 0)
    lent = served.borrowed(HISTORIES[3], loans)
    np.testing.assert_allclose(lent[borrowers], added.toarray()[0, borrowers], rtol=1e-3, atol=1e-4)
    assert lent.max() > 0


def test_nothing_fused_is_the_towers(fitted: Any) -> None:
    recommender = Recommender.load(fitted)
    alone = EnsembleScorer("one", (recommender.towers_scorer.fused(Fusion()),), (1.0,))
    np.testing.assert_allclose(alone.score(HISTORIES), recommender.towers_scorer.score(HISTORIES), rtol=1e-5)
