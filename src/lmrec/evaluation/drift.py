"""Drift: how far what comes in has moved from what was learnt from.

Every measure compares two histograms over the same bins: the old log's and the new events'. Two distances are given:

* PSI, the population stability index of credit scoring, sum (q - p) ln(q / p), with half a count added to each bin so
  that an empty one is no infinity. Its customary reading: below 0.1 steady, up to 0.25 moving, above it shifted.
* JS, the Jensen-Shannon divergence in bits, 0 (equal) to 1 (nothing in common); Lin 1991,
  https://doi.org/10.1109/18.61115. It needs no smoothing, so it reads histograms of thousands of bins (items, words).

A few events never look like the log that they are drawn from. So each measure also says what two samples of these sizes,
both drawn from the old histogram, stay below in 99 of 100 draws (`chance`): nothing below that is called a drift.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from lmrec.errors import InputError
from lmrec.fields import BoolArray, FloatArray, IntArray

Level: TypeAlias = Literal["steady", "moving", "shifted"]
Distance: TypeAlias = Literal["psi", "js"]

PSI_LEVELS: Final = (0.1, 0.25)
JS_LEVELS: Final = (0.1, 0.25)
UNKNOWN_LEVELS: Final = (0.05, 0.2)
N_BINS: Final = 10
_N_DRAWS: Final = 200
_CHANCE: Final = 0.99
_MAX_WORDS: Final = 20_000


@dataclass(frozen=True)
class DriftMeasure:
    """`read_by`: the distance that decides the level. `note`: what it means, for a person."""

    name: str
    psi: float
    js: float
    chance: float
    read_by: Distance
    level: Level
    note: str


@dataclass(frozen=True)
class Drift:
    """`unknown_words`: the share of the new events' words that no item of the old catalog has."""

    n_old: int
    n_new: int
    measures: tuple[DriftMeasure, ...]
    unknown_words: float
    unknown_items: float

    @property
    def level(self) -> Level:
        levels: list[Level] = ["shifted", "moving"]
        found = {measure.level for measure in self.measures} | {_level(self.unknown_words, UNKNOWN_LEVELS)}
        return next((level for level in levels if level in found), "steady")

    def as_dict(self) -> dict[str, Any]:
        return {
            "n_old": self.n_old,
            "n_new": self.n_new,
            "level": self.level,
            "unknown_words": self.unknown_words,
            "unknown_items": self.unknown_items,
            "measures": [asdict(measure) for measure in self.measures],
        }


def measure_drift(
    texts: Sequence[str],
    old_counts: IntArray,
    new_counts: IntArray,
    known: BoolArray,
    scores: tuple[FloatArray, FloatArray] | None = None,
    seed: int = 0,
) -> Drift:
    """How the new events differ from the old log.

    texts: (N,) the items' words. old_counts, new_counts: (N,) events of each item. known: (N,) items that the old
    catalog had. scores: the best score that the served model gives to histories of then and of now.
    Raises InputError where one of the sides has no event.
    """
    n_old, n_new = int(old_counts.sum()), int(new_counts.sum())
    if not n_old or not n_new:
        raise InputError(f"{n_old:,} old and {n_new:,} new events: drift needs some of both")
    rng = np.random.default_rng(seed)
    lengths = np.array([len(_words(text)) for text in texts], np.float64)
    bands = popularity_bands(old_counts)
    measures = [
        compare_histograms(
            "popularity",
            np.bincount(bands, old_counts, N_BINS + 1),
            np.bincount(bands, new_counts, N_BINS + 1),
            "psi",
            "are events on items as popular as before? Bands of equal old mass, and one of items without old events",
            rng,
        ),
        compare_histograms("items", old_counts, new_counts, "js", "are they the same items?", rng),
        compare_values(
            "text length",
            np.repeat(lengths, old_counts),
            np.repeat(lengths, new_counts),
            "words of the items of events",
            rng,
        ),
    ]
    vocabulary, unknown_words = _compare_words(texts, old_counts, new_counts, known, rng)
    measures.append(vocabulary)
    if scores is not None and len(scores[0]) and len(scores[1]):
        measures.append(compare_values("score", *scores, "the served model's best score for a history", rng))
    return Drift(n_old, n_new, tuple(measures), unknown_words, float(new_counts[~known].sum()) / n_new)


def compare_values(
    name: str, old: FloatArray, new: FloatArray, note: str, rng: np.random.Generator, n_bins: int = N_BINS
) -> DriftMeasure:
    """Values in bins that hold about equal shares of the old ones (fewer bins where values repeat)."""
    edges = np.unique(np.quantile(old, np.linspace(0, 1, n_bins + 1)[1:-1]))
    sides = [
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1) for values in (old, new)
    ]
    return compare_histograms(name, sides[0], sides[1], "psi", note, rng)


def compare_histograms(
    name: str,
    old: IntArray | FloatArray,
    new: IntArray | FloatArray,
    read_by: Distance,
    note: str,
    rng: np.random.Generator,
) -> DriftMeasure:
    """Two histograms of counts over the same bins."""
    distance = {"psi": stability_index, "js": jensen_shannon}[read_by]
    levels = {"psi": PSI_LEVELS, "js": JS_LEVELS}[read_by]
    value = distance(old, new)
    used = np.asarray(old, np.float64)[np.asarray(old) > 0]
    # Both sides are samples, so both are drawn anew.
    sides = (rng.multinomial(int(np.sum(side)), used / used.sum(), size=_N_DRAWS) for side in (old, new))
    chance = float(np.quantile([distance(*drawn) for drawn in zip(*sides, strict=True)], _CHANCE))
    level: Level = _level(value, levels) if value > chance else "steady"
    return DriftMeasure(name, stability_index(old, new), jensen_shannon(old, new), chance, read_by, level, note)


def stability_index(old: npt.ArrayLike, new: npt.ArrayLike) -> float:
    """PSI of two histograms of counts.

    >>> stability_index([10, 10], [10, 10])
    0.0
    >>> round(stability_index([50, 50], [80, 20]), 2)
    0.41
    """
    p, q = (np.asarray(side, np.float64) + 0.5 for side in (old, new))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def jensen_shannon(old: npt.ArrayLike, new: npt.ArrayLike) -> float:
    """In bits.

    >>> jensen_shannon([1, 0], [0, 1]), jensen_shannon([2, 2], [5, 5])
    (1.0, 0.0)
    """
    p, q = (np.asarray(side, np.float64) / np.sum(side) for side in (old, new))
    middle = (p + q) / 2
    return max(0.0, float((_relative(p, middle) + _relative(q, middle)) / 2))


def popularity_bands(counts: IntArray, n_bands: int = N_BINS) -> npt.NDArray[np.int64]:
    """(N,) the band of each item: the most popular ones that hold the first share of all events are band 0, and so on;
    items without events are band `n_bands`.

    >>> popularity_bands(np.array([5, 0, 4, 1]), 2).tolist()
    [0, 2, 1, 1]
    """
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    bands = np.empty(len(counts), np.int64)
    bands[order] = np.minimum(before * n_bands // max(1, int(counts.sum())), n_bands - 1)
    bands[counts == 0] = n_bands
    return bands


def _relative(p: FloatArray, q: FloatArray) -> float:
    """Kullback-Leibler divergence in bits; q is positive wherever p is."""
    used = p > 0
    return float((p[used] * np.log2(p[used] / q[used])).sum())


def _compare_words(
    texts: Sequence[str], old_counts: IntArray, new_counts: IntArray, known: BoolArray, rng: np.random.Generator
) -> tuple[DriftMeasure, float]:
    """Words of the items of events, as often as the events; and the share of new words that the old catalog lacks."""
    old: Counter[str] = Counter()
    new: Counter[str] = Counter()
    vocabulary: set[str] = set()
    for text, n_old, n_new, is_known in zip(texts, old_counts.tolist(), new_counts.tolist(), known, strict=True):
        if not (n_old or n_new or is_known):
            continue
        for word in _words(text):
            if is_known:
                vocabulary.add(word)
            old[word] += n_old
            new[word] += n_new
    total = sum(new.values())
    unknown = sum(n for word, n in new.items() if word not in vocabulary) / total if total else 0.0
    kept = [word for word, _ in (old + new).most_common(_MAX_WORDS)]
    sides = [np.array([side[word] for word in kept], np.int64) for side in (old, new)]
    note = f"the commonest {len(kept):,} words of the items of events"
    if not len(kept) or not sides[0].sum() or not sides[1].sum():
        return DriftMeasure("words", 0.0, 0.0, 0.0, "js", "steady", note), unknown
    return compare_histograms("words", sides[0], sides[1], "js", note, rng), unknown


def _words(text: str) -> list[str]:
    return text.lower().split()


def _level(value: float, levels: tuple[float, float]) -> Level:
    return "steady" if value < levels[0] else "moving" if value <= levels[1] else "shifted"
