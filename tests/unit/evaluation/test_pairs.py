"""Single pairs judged from probabilities: against brute force, against simulated truth, and there and back."""

import json

import numpy as np
import pytest
from scipy.special import expit

from lmrec.evaluation.calibration import fit_temperature, log_loss, probabilities, reliability
from lmrec.evaluation.charts import draw_reliability
from lmrec.evaluation.pairs import Calibration, PairJudgement, best_threshold, calibrate, f1_score, judge_pairs, roc_auc
from lmrec.fields import FloatArray

RNG = np.random.default_rng(0)


def over_sure(n: int = 20_000) -> tuple[FloatArray, FloatArray]:
    """Log-odds three times as large as the truth's."""
    true = RNG.normal(size=n)
    labels = (RNG.random(n) < expit(true)).astype(np.float32)
    return (3.0 * true)[:, None], labels


def test_auc_is_the_share_of_pairs_in_order() -> None:
    chance = RNG.integers(0, 8, 60) / 8.0  # many ties
    is_right = RNG.random(60) < 0.4
    right, wrong = chance[is_right][:, None], chance[~is_right][None, :]
    assert roc_auc(chance, is_right) == pytest.approx(((right > wrong) + 0.5 * (right == wrong)).mean())
    assert roc_auc(chance, np.ones(60, bool)) == 0.5


def test_the_temperature_finds_the_truth_and_mends_what_it_should() -> None:
    outputs, labels = over_sure()
    temperature = fit_temperature(outputs, labels.astype(np.int64))
    assert temperature == pytest.approx(3.0, rel=0.1)
    judged = judge_pairs("binary", outputs, labels, calibrate("binary", outputs, labels), "drawn")
    assert judged.metrics["calibration_error"] < 0.02 < judged.metrics["calibration_error_before"]
    assert judged.metrics["log_loss"] < judged.metrics["log_loss_before"]
    assert judged.metrics["auc"] == pytest.approx(roc_auc(outputs[:, 0], labels > 0))  # no ranking is changed
    assert sum(one.n for one in judged.bins) == judged.n_pairs == len(labels)


def test_classes_are_judged_one_against_the_others() -> None:
    labels = RNG.integers(0, 4, 4000)
    outputs = np.eye(4)[labels] * 2.0 + RNG.normal(size=(4000, 4))
    judged = judge_pairs(
        "classes", outputs, labels.astype(np.float32), calibrate("classes", outputs, labels.astype(np.float32)), ""
    )
    one_by_one = [roc_auc(probabilities(outputs)[:, c], labels == c) for c in range(4)]
    assert judged.metrics["auc"] == pytest.approx(np.mean(one_by_one), abs=0.01)
    assert judged.metrics["accuracy"] == pytest.approx((outputs.argmax(1) == labels).mean())
    assert judged.metrics["log_loss"] < np.log(4)


def test_a_regression_has_errors_and_no_probabilities() -> None:
    labels = RNG.normal(size=500).astype(np.float32)
    outputs = labels[:, None] + 0.5
    judged = judge_pairs("regression", outputs, labels, calibrate("regression", outputs, labels), "")
    assert judged.metrics["rmse"] == pytest.approx(0.5, rel=1e-3)
    assert judged.metrics["mae"] == pytest.approx(0.5, rel=1e-3)
    in_stars = judge_pairs("regression", outputs, labels, Calibration(), "", spread=1.2)
    assert in_stars.metrics["rmse"] == pytest.approx(1.2 * judged.metrics["rmse"])
    assert in_stars.metrics["mae"] == pytest.approx(1.2 * judged.metrics["mae"])
    assert in_stars.metrics["r2"] == pytest.approx(judged.metrics["r2"])
    assert judged.bins == ()


def test_the_threshold_is_the_best_of_all() -> None:
    chance, is_right = RNG.random(200).round(2), RNG.random(200) < 0.3
    best = max(f1_score(chance > at, is_right) for at in [-1.0, *np.unique(chance)])
    assert f1_score(chance > best_threshold(chance, is_right), is_right) == pytest.approx(best)


def test_bins_hold_every_prediction_also_at_the_ends() -> None:
    bins = reliability(np.array([0.0, 1.0, 0.999]), np.array([0.0, 1.0, 1.0]))
    assert [one.n for one in bins] == [1, 2]
    assert log_loss(np.array([[800.0]]), np.array([0])) == 800.0  # no overflow


def test_it_goes_to_json_and_back_and_into_a_picture() -> None:
    outputs, labels = over_sure(500)
    judged = judge_pairs("binary", outputs, labels, calibrate("binary", outputs, labels), "drawn")
    assert PairJudgement.from_dict(json.loads(json.dumps(judged.as_dict()))) == judged
    assert "came true" in draw_reliability(judged.bins, judged.raw_bins)
    assert "temperature" in judged.sentence
