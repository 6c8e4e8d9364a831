"""Learning from lists: negatives are of the same list, and a planted taste is learnt where a control has none."""

import numpy as np
import pytest
import torch

from lmrec.evaluation.impressions import ShownLists, mean_auc
from lmrec.fields import FloatArray, Ragged
from lmrec.models.nrms import NRMS, NRMSConfig
from lmrec.progress import Bar
from lmrec.training.clicks import ClickLists, ClickTrainingConfig, draw_beside_clicks, fit_clicks, score_lists

QUIET = Bar(lambda done, total, note: None)
N_ITEMS, N_TOPICS = 60, 4


def test_what_stands_beside_a_click_was_shown_with_it_and_not_clicked() -> None:
    lists = ClickLists(
        Ragged.from_rows([[0], [1], [2]]),
        Ragged.from_rows([[10, 11, 12], [20, 21], [30]]),
        np.array([False, True, False, True, True, True]),
    )
    rows, drawn = draw_beside_clicks(lists, 50, np.random.default_rng(0))
    assert rows.tolist() == [0]  # the others have nothing that was not clicked
    assert drawn[0, 0] == 11
    assert set(drawn[0, 1:].tolist()) == {10, 12}


def topic_lists(n: int, seed: int, planted: bool) -> ShownLists:
    """Users read one topic; of six candidates the one of that topic is clicked, or in the control any one."""
    rng = np.random.default_rng(seed)
    topic_of = np.arange(N_ITEMS) % N_TOPICS
    histories, shown, clicked = [], [], []
    for _ in range(n):
        topic = int(rng.integers(N_TOPICS))
        histories.append(rng.choice(np.flatnonzero(topic_of == topic), 3))
        others = rng.choice(np.flatnonzero(topic_of != topic), 5)
        right = rng.choice(np.flatnonzero(topic_of == topic))
        order = rng.permutation(6)
        shown.append(np.append(others, right)[order])
        clicked.append(order == (5 if planted else 2))
    return ShownLists(
        np.arange(n, dtype=np.int32), np.zeros(n), Ragged.from_rows(histories), Ragged.from_rows(shown),
        np.concatenate(clicked),
    )  # fmt: skip


class Trained:
    name = "nrms"

    def __init__(self, model: NRMS) -> None:
        self.model = model

    def score_shown(self, history: Ragged, candidates: Ragged, time_ts: FloatArray) -> FloatArray:
        return score_lists(self.model, history, candidates, batch=16)


@pytest.mark.parametrize("planted", [True, False], ids=["planted", "control"])
def test_a_planted_taste_is_learnt_and_none_where_there_is_none(planted: bool) -> None:
    torch.manual_seed(0)
    # Words that say the topic only after a product: a random code for each topic, and noise.
    rng = np.random.default_rng(0)
    codes = rng.standard_normal((N_TOPICS, 16))
    text_vec = torch.from_numpy(
        (codes[np.arange(N_ITEMS) % N_TOPICS] + 0.8 * rng.standard_normal((N_ITEMS, 16))).astype(np.float32)
    )
    model = NRMS(text_vec, NRMSConfig(width=16, heads=2))
    train, held = topic_lists(300, 1, planted), topic_lists(150, 2, planted)
    lists = ClickLists(train.history, train.candidates, train.clicked)
    config = ClickTrainingConfig(epochs=6, learning_rate=3e-3)
    best = fit_clicks(model, lists, lambda: mean_auc(Trained(model), held), config, QUIET)
    assert best == pytest.approx(mean_auc(Trained(model), held))  # the best epoch's weights are the ones kept
    assert best > 0.9 if planted else best < 0.65


def test_a_list_scores_alike_alone_and_in_a_batch_and_nothing_read_is_zero() -> None:
    model = NRMS(torch.randn(N_ITEMS, 8), NRMSConfig(width=8, heads=2))
    history, shown = Ragged.from_rows([[1, 2, 3], [], [4]]), Ragged.from_rows([[5, 6], [7], [8, 9, 10]])
    together = score_lists(model, history, shown)
    alone = [score_lists(model, history.slice(row, row + 1), shown.slice(row, row + 1)) for row in range(3)]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)
    assert together[2] == 0.0
    assert np.isfinite(together).all()
