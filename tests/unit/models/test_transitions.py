"""Item transitions and EASE against their formulas."""

import numpy as np
import pytest

from lmrec.errors import InputError
from lmrec.fields import Ragged
from lmrec.models.collaborative import LogArrays
from lmrec.models.ease import EASE, EASEConfig
from lmrec.models.transitions import ItemTransitions, ItemTransitionsConfig


def log_of(rows: list[list[int]], n_items: int, weight: float = 1.0) -> LogArrays:
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    items = np.array([item for row in rows for item in row])
    n = len(items)
    return LogArrays(users, items, np.arange(n, dtype=float), np.full(n, weight), len(rows), n_items)


def test_transitions_follow_the_formula() -> None:
    config = ItemTransitionsConfig(
        window=2, window_decay=0.5, backward=0.25, shrinkage=1.0, n_last=2, history_decay=0.5
    )
    made = ItemTransitions(config).fit(log_of([[0, 1, 2], [1, 2]], 4))
    forward = np.zeros((4, 4))
    forward[0, 1], forward[1, 2], forward[0, 2] = 1.0, 2.0, 0.5
    counts = forward + 0.25 * forward.T
    expected = counts / np.sqrt((counts.sum(1)[:, None] + 1.0) * (counts.sum(0)[None, :] + 1.0))
    np.testing.assert_allclose(made.matrix.toarray(), expected, rtol=1e-6)
    asked = made.neighbours.sparse_scores(Ragged.from_rows([[3, 0, 1], []]), 4).toarray()
    np.testing.assert_allclose(asked[0], expected[1] + 0.5 * expected[0], rtol=1e-6)
    assert not asked[1].any()
    for history in ([3, 0, 1], [2, 1, 0, 9], [9], []):  # 9 came after the fit
        items, worth = made.neighbours.followers(np.array(history, np.int64))
        summed = np.bincount(items, weights=worth, minlength=4)
        np.testing.assert_allclose(
            summed, made.neighbours.sparse_scores(Ragged.from_rows([history]), 4).toarray()[0], rtol=1e-6
        )


def test_an_item_keeps_its_nearest_followers_and_never_itself() -> None:
    made = ItemTransitions(ItemTransitionsConfig(n_neighbours=1, backward=0.0)).fit(
        log_of([[0, 0, 1], [0, 2], [0, 2]], 3)
    )
    assert made.matrix[[0]].nonzero()[1].tolist() == [2]
    assert made.matrix.diagonal().sum() == 0


def test_items_that_came_later_neither_ask_nor_are_answered() -> None:
    made = ItemTransitions().fit(log_of([[0, 1], [1, 0]], 2))
    scores = made.neighbours.sparse_scores(Ragged.from_rows([[0, 5], [5]]), 7).toarray()
    assert scores.shape == (2, 7)
    assert scores[0, 1] > 0
    assert not scores[1].any()
    assert not scores[:, 2:].any()
    assert made.neighbours.scores_of(Ragged.from_rows([[0, 5]]), 6).tolist() == [0.0]
    np.testing.assert_allclose(made.neighbours.scores_of(Ragged.from_rows([[0, 5]]), 1), scores[:1, 1])


def test_weights_of_events_count_as_the_root_of_their_product() -> None:
    config = ItemTransitionsConfig(shrinkage=1.0)
    light, heavy = (ItemTransitions(config).fit(log_of([[0, 1]], 2, weight)).matrix[0, 1] for weight in (1.0, 4.0))
    # One pair: counts w forward and w / 2 backward, so sums of w and w / 2 over rows and columns.
    assert light == pytest.approx(1.0 / np.sqrt((1.0 + 1.0) * (1.0 + 1.0)))
    assert heavy == pytest.approx(4.0 / np.sqrt((4.0 + 1.0) * (4.0 + 1.0)))


def test_ease_solves_its_own_ridge_problem() -> None:
    """B minimises |X - X B|^2 + r |B|^2 with a zero diagonal: its gradient vanishes off the diagonal."""
    log = log_of([[0, 1, 2], [1, 2], [0, 3], [0, 1]], 4)
    made = EASE(EASEConfig(regularization=2.0)).fit(log)
    x = log.matrix().toarray()
    weights = np.vstack([made.score(Ragged.from_rows([[item]]))[0] - made._tie_break for item in range(4)])
    gradient = x.T @ (x @ weights - x) + 2.0 * weights
    off_diagonal = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(gradient[off_diagonal], 0.0, atol=1e-4)
    np.testing.assert_allclose(np.diag(weights), 0.0, atol=1e-6)


def test_ease_refuses_a_catalog_that_needs_too_much_memory() -> None:
    with pytest.raises(InputError, match="25,000"):
        EASE().fit(log_of([[0, 1]], 25_001))
