"""Drift is found where it was put, and not where there is only chance."""

import math

import numpy as np
import pytest

from lmrec.errors import InputError
from lmrec.evaluation.drift import (
    Drift,
    DriftMeasure,
    compare_histograms,
    compare_values,
    jensen_shannon,
    measure_drift,
    popularity_bands,
    stability_index,
)

N = 200
TEXTS = [f"{'short' if item < 100 else 'a rather long and winding text'} word{item % 20}" for item in range(N)]


def draw(weights: np.ndarray, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).multinomial(n, weights / weights.sum())


def by_name(drift: Drift) -> dict[str, DriftMeasure]:
    return {measure.name: measure for measure in drift.measures}


ZIPF = 1.0 / np.arange(1, N + 1)
KNOWN = np.ones(N, np.bool_)


@pytest.mark.parametrize("n_new", [60, 5000])
def test_the_same_world_is_steady_however_few_events_there_are(n_new: int) -> None:
    scores = np.random.default_rng(0).normal(size=500), np.random.default_rng(1).normal(size=100)
    drift = measure_drift(TEXTS, draw(ZIPF, 50_000, 1), draw(ZIPF, n_new, 2), KNOWN, scores)
    assert [measure.name for measure in drift.measures] == ["popularity", "items", "text length", "words", "score"]
    assert (drift.level, drift.n_new, drift.unknown_items, drift.unknown_words) == ("steady", n_new, 0.0, 0.0)


def test_what_moved_is_named() -> None:
    old = draw(ZIPF, 50_000, 1)
    moved = by_name(measure_drift(TEXTS, old, draw(ZIPF[::-1], 1000, 2), KNOWN))
    assert all(measure.level == "shifted" for measure in moved.values() if measure.name != "words")
    # Only the length of words: items of the same popularity, the long texts among them.
    long_only = np.where(np.arange(N) % 2 == 0, 1.0, 0.0)
    texts = ["a b c d e f g h" if item % 2 == 0 else "a" for item in range(N)]
    found = by_name(measure_drift(texts, draw(np.ones(N), 50_000, 1), draw(long_only, 1000, 2), KNOWN))
    assert found["text length"].level == "shifted"
    assert found["popularity"].level == "steady"
    scores = np.zeros(300) + np.linspace(0, 1, 300), np.linspace(0.6, 1.6, 300)
    assert by_name(measure_drift(TEXTS, old, old, KNOWN, scores))["score"].level == "shifted"


def test_new_items_and_new_words_are_counted() -> None:
    known = np.arange(N) < 150
    old = np.where(known, 100, 0)
    new = np.where(known, 0, 4)
    texts = [*TEXTS[:150], *(f"unheard{item} word1" for item in range(50))]
    drift = measure_drift(texts, old, new, known)
    assert (drift.unknown_items, drift.unknown_words, drift.level) == (1.0, 0.5, "shifted")
    assert drift.as_dict()["level"] == "shifted"
    assert len(drift.as_dict()["measures"]) == 4


def test_distances_are_what_their_formulas_say() -> None:
    p, q = np.array([30.0, 50.0, 20.0]), np.array([10.0, 60.0, 30.0])
    ps, qs = (p + 0.5) / (p + 0.5).sum(), (q + 0.5) / (q + 0.5).sum()
    assert stability_index(p, q) == pytest.approx(sum((b - a) * math.log(b / a) for a, b in zip(ps, qs, strict=True)))
    middle = (p / 100 + q / 100) / 2

    def entropy(shares: np.ndarray) -> float:
        return float(-(shares * np.log2(shares)).sum())

    expected = entropy(middle) - (entropy(p / 100) + entropy(q / 100)) / 2
    assert jensen_shannon(p, q) == pytest.approx(expected)
    assert jensen_shannon([1, 0, 0], [0, 1, 1]) == pytest.approx(1.0)


def test_bands_hold_equal_mass_and_values_that_repeat_are_no_trouble() -> None:
    counts = draw(ZIPF, 10_000, 3)
    bands = popularity_bands(counts)
    mass = np.bincount(bands, counts, minlength=11)
    assert mass[10] == 0
    assert mass[:10].sum() == counts.sum()
    assert bands[int(np.argmax(counts))] == 0
    rng = np.random.default_rng(0)
    same = compare_values("flat", np.ones(100), np.ones(20), "", rng)
    assert (same.level, same.js) == ("steady", 0.0)
    other = compare_values("flat", np.ones(100), np.zeros(20), "", rng)
    assert other.level == "shifted"
    assert compare_histograms("x", np.array([5, 0]), np.array([0, 5]), "js", "", rng).js == 1.0


def test_without_events_there_is_no_drift_to_speak_of() -> None:
    with pytest.raises(InputError, match="some of both"):
        measure_drift(TEXTS, draw(ZIPF, 100, 1), np.zeros(N, np.int64), KNOWN)
    blank = measure_drift(["", ""], np.array([3, 4]), np.array([1, 1]), np.ones(2, np.bool_))
    assert by_name(blank)["words"].level == "steady"
