"""What every collaborative scorer owes: the judge and the recommender rely on exactly this."""

import numpy as np
import pytest

from lmrec.fields import IntArray, Ragged
from lmrec.models.bm25 import BM25KNN
from lmrec.models.collaborative import BASELINES, CollaborativeScorer, LogArrays
from lmrec.models.ease import EASE
from lmrec.models.transitions import ItemTransitions

N_ITEMS = 40
N_USERS = 60
HISTORIES = Ragged.from_rows([[3, 7, 3], [], [12], [39], list(range(20)), [7, 3, 3]])  # item 39 has no events


def make_log() -> LogArrays:
    """Two tastes: even users choose items 0 to 19, odd users items 20 to 38; lower numbers are more popular."""
    rng = np.random.default_rng(0)
    users: list[int] = []
    items: list[int] = []
    for user in range(N_USERS):
        first, last = (0, 20) if user % 2 == 0 else (20, 39)
        chance = 1.0 / (np.arange(last - first) + 2.0)
        items += (first + rng.choice(last - first, size=8, replace=False, p=chance / chance.sum())).tolist()
        users += [user] * 8
    order = rng.permutation(len(users))
    return LogArrays(
        np.array(users)[order], np.array(items)[order], np.arange(480.0) * 3600.0, np.ones(480), N_USERS, N_ITEMS
    )


KINDS: tuple[type[CollaborativeScorer], ...] = (*BASELINES, ItemTransitions, EASE, BM25KNN)
SETTINGS = [scorer for kind in KINDS for scorer in kind.candidates()]


@pytest.fixture(scope="module", params=range(len(SETTINGS)), ids=lambda i: f"{SETTINGS[i].name}-{i}")
def scorer(request: pytest.FixtureRequest) -> CollaborativeScorer:
    found: CollaborativeScorer = SETTINGS[request.param].fit(make_log())
    return found


def test_the_answer_is_one_finite_float32_for_each_history_and_item(scorer: CollaborativeScorer) -> None:
    scores = scorer.score(HISTORIES)
    assert scores.shape == (len(HISTORIES), N_ITEMS)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_no_histories_have_an_empty_answer(scorer: CollaborativeScorer) -> None:
    assert scorer.score(Ragged.from_rows([])).shape == (0, N_ITEMS)


def test_fitting_again_gives_the_same_answer(scorer: CollaborativeScorer) -> None:
    first = scorer.score(HISTORIES)
    np.testing.assert_array_equal(scorer.score(HISTORIES), first)
    again = type(scorer)(scorer.config).fit(make_log())  # type: ignore[attr-defined, call-arg]
    np.testing.assert_array_equal(again.score(HISTORIES), first)


def test_a_row_does_not_depend_on_the_others_in_its_block(scorer: CollaborativeScorer) -> None:
    together = scorer.score(HISTORIES)
    for row in range(len(HISTORIES)):
        # Not bit for bit: BLAS may add up a one-row product in another order.
        np.testing.assert_allclose(scorer.score(HISTORIES.slice(row, row + 1))[0], together[row], rtol=1e-5, atol=1e-6)


def test_a_caller_may_write_into_the_answer(scorer: CollaborativeScorer) -> None:
    first = scorer.score(HISTORIES)
    expected = first.copy()
    first[:] = -np.inf
    np.testing.assert_array_equal(scorer.score(HISTORIES), expected)


@pytest.mark.parametrize("row", [1, 3], ids=["empty history", "only an item without events"])
def test_who_is_not_known_gets_something_in_an_order(scorer: CollaborativeScorer, row: int) -> None:
    scores = scorer.score(HISTORIES)[row]
    assert len(np.unique(scores)) > 5
    assert scores[39] == scores.min()


def test_higher_is_better(scorer: CollaborativeScorer) -> None:
    """What the taste's users choose stands above what nobody chose."""
    scores = scorer.score(Ragged.from_rows([[0, 1, 2]]))[0]
    assert scores[3:20].mean() > scores[39]


def test_the_grid_has_different_settings(scorer: CollaborativeScorer) -> None:
    configs = [candidate.config for candidate in type(scorer).candidates()]  # type: ignore[attr-defined]
    assert len(configs) == len(set(configs))


@pytest.mark.parametrize("kind", [*BASELINES, BM25KNN], ids=lambda kind: kind.__name__)
def test_a_log_without_events_fits_and_answers(kind: type[CollaborativeScorer]) -> None:
    nothing: IntArray = np.zeros(0, np.int64)
    empty = LogArrays(nothing, nothing, np.zeros(0), np.zeros(0), 3, N_ITEMS)
    assert np.isfinite(kind.candidates()[0].fit(empty).score(HISTORIES)).all()
