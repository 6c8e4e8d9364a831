"""Variety in a list, bought with as little of its quality as asked for."""

import numpy as np

from lmrec.fields import FloatArray


def diversify(scores: FloatArray, vectors: FloatArray, k: int, diversity: float) -> list[int]:
    """Maximal marginal relevance: the places (at most k) of C candidates, in the order in which they are to be shown.

    scores: (C,) finite, in any order. vectors: (C, D) item vectors, of any length but zero. With r the scores brought to
    0..1 over the candidates and d the `diversity`, each next item is the one with the greatest

        (1 - d) * r(item) - d * max over items already chosen of cos(item, chosen)

    At d = 0 that is the plain order of scores (equal ones by place); at d = 1 the best item, then whatever is least like
    the list so far. Source: Carbonell & Goldstein 1998, https://dl.acm.org/doi/10.1145/290941.291025.

    >>> near = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> diversify(np.array([3.0, 2.9, 1.0]), near, 2, 0.0), diversify(np.array([3.0, 2.9, 1.0]), near, 2, 0.6)
    ([0, 1], [0, 2])
    """
    order = np.argsort(-scores, kind="stable")
    if diversity == 0 or len(order) < 2:
        return [int(place) for place in order[:k]]
    spread = float(scores.max() - scores.min())
    relevance = (scores - scores.min()) / spread if spread else np.ones(len(scores))
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    chosen = [int(order[0])]
    nearest = units @ units[chosen[0]]
    open_places = np.ones(len(scores), np.bool_)
    open_places[chosen[0]] = False
    while len(chosen) < min(k, len(scores)):
        worth = np.where(open_places, (1.0 - diversity) * relevance - diversity * nearest, -np.inf)
        chosen.append(int(worth.argmax()))
        open_places[chosen[-1]] = False
        nearest = np.maximum(nearest, units @ units[chosen[-1]])
    return chosen
