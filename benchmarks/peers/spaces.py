"""What a search may choose from, and the draw: as many fits for every rival that counts, all of them stated here.

A draw is without repetition and the same for a seed; a space with fewer fits is searched whole. Every fit
that `lmrec fit` itself tries of a rival, to judge by it or to fuse it, is tried as well. Settings that change only the
question cost no fit, so a fit is asked in every way of the space.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from lmrec.models.collaborative import HALF_LIVES_DAYS

Settings: TypeAlias = dict[str, Any]
Space: TypeAlias = Mapping[str, tuple[Any, ...]]

# Rivals of the product: keys are the fields of their configs.
POPULARITY: Space = {}
RECENT_POPULARITY: Space = {"newest_share": (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)}
RECENT_POPULARITY_BY_TIME: Space = {"half_life_days": tuple(sorted({*HALF_LIVES_DAYS, 0.5, 14.0, 60.0, 180.0}))}
ITEM_KNN: Space = {"n_neighbours": (50, 100, 300), "shrinkage": (1.0, 5.0, 10.0, 30.0), "max_history": (1, 3, 8, None)}
BM25_KNN: Space = {
    "n_neighbours": (20, 50, 100, 300),
    "k1": (0.5, 1.2, 3.0, 100.0),
    "b": (0.1, 0.25, 0.5, 0.75),
    "max_history": (1, 3, 8, None),
}
ALS: Space = {
    "n_factors": (32, 64, 128),
    "regularization": (0.01, 0.1, 1.0, 10.0),
    "alpha": (1.0, 5.0, 10.0, 40.0),
    "max_history": (3, 8, None),
}
EASE: Space = {"regularization": (50.0, 100.0, 200.0, 400.0, 1600.0), "n_last": (1, 3, 5, 8, None)}
TRANSITIONS: Space = {
    "window": (1, 3, 5, 10, 20),
    "window_decay": (0.6, 0.8, 0.9, 0.95),
    "backward": (0.5, 1.0),
    "shrinkage": (2.0, 8.0),
    "n_last": (1, 3, 10, 50),
    "history_decay": (0.6, 0.8, 0.9, 0.95),
}
CONTENT: Space = {"n_last": (1, 2, 3, 5, 10, 50), "decay": (0.5, 0.7, 0.9, 1.0)}

# RecTools: keys are arguments of its models. `temperature` set: cosine divided by it; unset: the plain product.
SASREC: Space = {
    "n_factors": (64, 128),
    "n_blocks": (1, 2),
    "n_heads": (1, 2),
    "dropout_rate": (0.2, 0.5),
    "lr": (1e-3, 2e-3),
    "batch_size": (64, 128),
    "temperature": (None, 0.1),
}
UNISREC: Space = {
    "n_factors": (64, 128),
    "projection_hidden": (256, 384),
    "n_blocks": (1, 2),
    "n_heads": (1, 2),
    "dropout": (0.1, 0.3),
    "adaptor_type": ("pca", "bn"),
    "lr": (3e-4, 1e-3),
    "batch_size": (64, 128),
}


def draw_settings(
    space: Space, n: int, asked: Collection[str] = (), seed: int = 0, fits: Sequence[Settings] = ()
) -> list[Settings]:
    """The `fits` that are given and at most `n` that are drawn, all different, each with every choice of what is only `asked`.

    >>> draw_settings({"a": (1, 2)}, 5)
    [{'a': 1}, {'a': 2}]
    >>> len(draw_settings({"a": (1, 2, 3), "b": (1, 2, 3)}, 4))
    4
    >>> len(draw_settings({"a": (1, 2, 3), "b": (1, 2, 3)}, 2, asked=["b"]))
    6
    >>> draw_settings({"a": (1, 2)}, 5, fits=[{"a": 9}, {"a": 2}])
    [{'a': 9}, {'a': 2}, {'a': 1}]
    """
    drawn = _all_of({name: values for name, values in space.items() if name not in asked})
    ways = _all_of({name: values for name, values in space.items() if name in asked})
    if len(drawn) > n:
        drawn = [drawn[place] for place in np.random.default_rng(seed).choice(len(drawn), size=n, replace=False)]
    every = [*fits, *(fit for fit in drawn if fit not in fits)]
    return [{**fit, **way} for fit in every for way in ways]


def _all_of(space: Space) -> list[Settings]:
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
