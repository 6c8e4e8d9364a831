"""The collaborative scorers against their formulas and on worlds whose answer is known."""

import numpy as np
import pytest
from pydantic import ValidationError

from lmrec.errors import InputError, LmrecError
from lmrec.fields import Ragged
from lmrec.models.collaborative import (
    ALS,
    BASELINES,
    ALSConfig,
    CollaborativeScorer,
    ItemKNN,
    ItemKNNConfig,
    LogArrays,
    Popularity,
    RecentPopularity,
    RecentPopularityConfig,
)

DAY = 86_400.0
ANYBODY = Ragged(np.zeros(0, np.int64), np.zeros(2, np.int64))  # one empty history


def make_log(events: list[tuple[int, int, float]], n_users: int = 6, n_items: int = 5) -> LogArrays:
    """Events (user, item, day)."""
    users, items, days = (np.array(column) for column in zip(*events, strict=True))
    return LogArrays(users, items, days * DAY, np.ones(len(events)), n_users, n_items)


# Users 0 to 2 choose items 0 and 1, users 3 and 4 choose items 2 and 3, user 5 all four; nobody chooses item 4.
BLOCKS = make_log(
    [(u, i, 0.0) for u in (0, 1, 2) for i in (0, 1)]
    + [(u, i, 1.0) for u in (3, 4) for i in (2, 3)]
    + [(5, i, 2.0) for i in range(4)]
)


def test_popularity_adds_up_weights() -> None:
    weighted = LogArrays(np.array([0, 1, 1]), np.array([0, 1, 1]), np.zeros(3), np.array([5.0, 1.0, 2.0]), 2, 3)
    assert Popularity().fit(weighted).score(ANYBODY).tolist() == [[5.0, 3.0, 0.0]]


def test_an_event_one_half_life_old_counts_half() -> None:
    log = make_log([(0, 0, 0.0), (1, 0, 0.0), (2, 0, 0.0), (0, 1, 10.0), (1, 1, 10.0)])
    scores = RecentPopularity(RecentPopularityConfig(half_life_days=10.0)).fit(log).score(ANYBODY)[0]
    np.testing.assert_allclose(scores[:3], [1.5, 2.0, 0.0], atol=1e-5)


def test_only_the_newest_share_counts_and_all_time_breaks_ties() -> None:
    log = make_log([(0, 0, 0.0), (1, 0, 1.0), (2, 1, 2.0), (3, 2, 3.0)])
    scores = RecentPopularity(RecentPopularityConfig(newest_share=0.25)).fit(log).score(ANYBODY)[0]
    assert np.argsort(-scores, kind="stable").tolist() == [2, 0, 1, 3, 4]


def test_recency_has_exactly_one_rule() -> None:
    for wrong in ({}, {"half_life_days": 1.0, "newest_share": 0.5}):
        with pytest.raises(ValidationError, match="exactly one"):
            RecentPopularityConfig.model_validate(wrong)


def test_similarity_is_the_shrunk_cosine() -> None:
    knn = ItemKNN(ItemKNNConfig(n_neighbours=10, shrinkage=2.0)).fit(BLOCKS)
    scores = knn.score(Ragged.from_rows([[0]]))[0]
    # Item 0 has users {0, 1, 2, 5}, item 1 the same, item 2 {3, 4, 5}.
    np.testing.assert_allclose(scores[1], 4 / (4 + 2.0), atol=1e-5)
    np.testing.assert_allclose(scores[2], 1 / (np.sqrt(4 * 3) + 2.0), atol=1e-5)
    np.testing.assert_allclose(scores[0], 0.0, atol=1e-5)  # an item is not its own neighbour


def test_only_the_nearest_are_kept_and_only_the_last_are_asked() -> None:
    one = ItemKNN(ItemKNNConfig(n_neighbours=1, shrinkage=0.0)).fit(BLOCKS).score(Ragged.from_rows([[0]]))[0]
    assert (one > 1e-3).tolist() == [False, True, False, False, False]
    last = ItemKNN(ItemKNNConfig(max_history=1)).fit(BLOCKS)
    np.testing.assert_array_equal(last.score(Ragged.from_rows([[2, 0]])), last.score(Ragged.from_rows([[0]])))


def test_similarities_made_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ItemKNN().fit(BLOCKS).score(Ragged.from_rows([[0, 3]]))
    monkeypatch.setattr("lmrec.models.collaborative._BLOCK_ITEMS", 2)
    np.testing.assert_array_equal(ItemKNN().fit(BLOCKS).score(Ragged.from_rows([[0, 3]])), whole)


@pytest.mark.parametrize("scorer", [ItemKNN(), ALS(ALSConfig(n_factors=4))], ids=lambda scorer: scorer.name)
def test_taste_is_learnt_also_for_a_user_never_seen(scorer: CollaborativeScorer) -> None:
    scores = scorer.fit(BLOCKS).score(Ragged.from_rows([[0], [2]]))
    assert scores[0, 1] > scores[0, 3]
    assert scores[1, 3] > scores[1, 1]


def test_als_solves_the_user_from_the_history() -> None:
    """The vector minimises the weighted squares: (Y'Y + Y'(C - I)Y + reg I) x = Y'C p."""
    config = ALSConfig(n_factors=3, alpha=5.0, regularization=0.1)
    als = ALS(config).fit(BLOCKS)
    factors = als.factors.vectors.astype(np.float64)
    confidence = np.ones(5)
    confidence[[0, 3]] = 5.0
    chosen = np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    left = factors.T @ (factors * confidence[:, None]) + 0.1 * np.eye(3)
    user_vec = np.linalg.solve(left, factors.T @ (confidence * chosen))
    np.testing.assert_allclose(als.score(Ragged.from_rows([[0, 3]]))[0], factors @ user_vec, atol=1e-4)


@pytest.mark.parametrize("kind", [ItemKNN, ALS])
def test_an_empty_history_is_answered_by_popularity(kind: type[CollaborativeScorer]) -> None:
    scores = kind.candidates()[0].fit(BLOCKS).score(ANYBODY)[0]
    np.testing.assert_array_equal(np.argsort(-scores, kind="stable"), np.argsort(-BLOCKS.popularity(), kind="stable"))


@pytest.mark.parametrize("kind", BASELINES, ids=lambda kind: kind.__name__)
def test_asking_before_fitting_is_refused(kind: type[CollaborativeScorer]) -> None:
    with pytest.raises(LmrecError, match="before it was fitted"):
        kind.candidates()[0].score(ANYBODY)


def test_arrays_of_unequal_length_are_refused() -> None:
    with pytest.raises(InputError, match=r"\[1, 2\] entries"):
        LogArrays(np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(1), np.ones(2), 1, 1)
