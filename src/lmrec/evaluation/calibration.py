"""Are probabilities true? Reliability, expected calibration error, and one temperature that mends over-confidence.

Everything here reads logits or probabilities, never a decision. A binary logit z stands for the two-class logits (0, z).
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax, softmax

from lmrec.errors import InputError
from lmrec.fields import BoolArray, FloatArray, IntArray

_LOG_RANGE = (np.log(0.02), np.log(50.0))


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions of nearly one size: how sure they were on average, how often they came true, and how many there are."""

    confidence: float
    truth: float
    n: int


def probabilities(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """(P, C) logits -> (P, C) probabilities of a softmax at a temperature; (P, 1) log-odds -> (P, 2).

    >>> probabilities(np.array([[0.0], [np.log(3.0)]])).round(2).tolist()
    [[0.5, 0.5], [0.25, 0.75]]
    """
    scaled = np.asarray(logits, np.float64) / temperature
    if scaled.shape[1] == 1:
        chance = expit(scaled)
        return np.concatenate([1.0 - chance, chance], axis=1)
    found: FloatArray = softmax(scaled, axis=1)
    return found


def log_loss(logits: FloatArray, labels: IntArray, temperature: float = 1.0) -> float:
    """Mean of -log p(label), in nats: 0 for a prophet, log 2 for a fair coin over two classes.

    >>> round(log_loss(np.array([[0.0], [0.0]]), np.array([0, 1])), 4)
    0.6931
    """
    scaled = np.asarray(logits, np.float64) / temperature
    if scaled.shape[1] == 1:
        scaled = np.concatenate([np.zeros_like(scaled), scaled], axis=1)
    return float(-log_softmax(scaled, axis=1)[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: FloatArray, labels: IntArray) -> float:
    """The T that makes the log loss of softmax(logits / T) least: above 1 where the model is too sure of itself.

    It moves no prediction past another, so it changes no ranking. Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599.

    Three right answers in four, each given with odds of 81 to 1: T = log 81 / log 3 makes them odds of 3 to 1.

    >>> round(fit_temperature(np.full((4, 1), np.log(81.0)), np.array([1, 1, 1, 0])), 3)
    4.0

    Raises InputError where there is nothing to fit to.
    """
    if not len(labels):
        raise InputError("a temperature is fitted to pairs with known labels, and there are none")
    found = minimize_scalar(
        lambda log_t: log_loss(logits, labels, float(np.exp(log_t))), bounds=_LOG_RANGE, method="bounded",
        options={"xatol": 1e-6},
    )  # fmt: skip
    return float(np.exp(found.x))


def fit_odds(values: FloatArray, is_right: BoolArray) -> tuple[float, float]:
    """(a, b) that make sigmoid(a + b * value) likeliest: log-odds from any score (Platt 1999).

    b is at least 0: a score may turn out to say nothing, but is not turned round. Nothing to learn from gives (0, 1).

    >>> a, b = fit_odds(np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]), np.array([True, False, False, True, True, False]))
    >>> round(a, 2), round(b, 2)
    (-0.69, 1.39)
    """
    if not is_right.any() or is_right.all():
        return 0.0, 1.0
    middle, scale = float(values.mean()), max(float(values.std()), 1e-9)
    x, signs = (values - middle) / scale, np.where(is_right, 1.0, -1.0)

    def loss(line: FloatArray) -> tuple[float, FloatArray]:
        margin = signs * (line[0] + line[1] * x)
        slope = -signs * expit(-margin) / len(x)
        return float(np.logaddexp(0.0, -margin).mean()), np.array([slope.sum(), slope @ x])

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B", bounds=[(None, None), (0.0, None)]).x
    return float(found[0] - found[1] * middle / scale), float(found[1] / scale)


def reliability(confidence: FloatArray, came_true: FloatArray, n_bins: int = 10) -> list[ReliabilityBin]:
    """Bins of equal width over [0, 1], empty ones left out. confidence: (P,) probabilities; came_true: (P,) 0 or 1.

    >>> [(b.confidence, b.truth, b.n) for b in reliability(np.array([0.1, 0.1, 0.9]), np.array([0, 1, 1]), 2)]
    [(0.1, 0.5, 2), (0.9, 1.0, 1)]
    """
    place = np.minimum((np.asarray(confidence) * n_bins).astype(np.int64), n_bins - 1)
    return [
        ReliabilityBin(
            round(float(confidence[place == at].mean()), 12),
            float(came_true[place == at].mean()),
            int((place == at).sum()),
        )
        for at in range(n_bins)
        if (place == at).any()
    ]


def calibration_error(bins: list[ReliabilityBin]) -> float:
    """Expected calibration error: the mean over predictions of |confidence - truth| of their bin (Naeini et al. 2015).

    >>> round(calibration_error(reliability(np.array([0.1, 0.1, 0.9]), np.array([0, 1, 1]), 2)), 3)
    0.3
    """
    total = sum(one.n for one in bins)
    return float(sum(one.n * abs(one.confidence - one.truth) for one in bins) / max(total, 1))
