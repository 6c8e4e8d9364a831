"""What a shadow would have shown: how far its lists are from those that people saw, how quick it is, and what it would have
missed.

What people did after a list says something of the list that they saw, and only little of one that they did not see: an
item that only the shadow names could not be clicked. So `kept` is a bound on what would be lost, not a rate to win by;
for that, split the users.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lmrec.evaluation.compare import bootstrap_interval
from lmrec.feedback.shown import MS, SHADOW, Shown
from lmrec.fields import ItemId


@dataclass(frozen=True)
class Times:
    """Milliseconds that the model took for a list."""

    p50_ms: float
    p95_ms: float


@dataclass(frozen=True)
class ShadowReadOut:
    """lists: seen by people in this time. compared: those for which the shadow was asked, too.

    overlap: mean share of the seen items that the shadow shows as well, with its interval (users redrawn). same_first: how
    often both have the same item at the top. followed: seen items that something positive came of; kept: those of them
    that the shadow's lists name.
    """

    lists: int
    compared: int
    overlap: float
    overlap_low: float
    overlap_high: float
    same_first: float
    followed: int
    kept: int
    shown_times: Times | None
    shadow_times: Times | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_shadow(
    lists: Iterable[Shown], followed: Iterable[tuple[str, ItemId]], n_bootstrap: int = 500, seed: int = 0
) -> ShadowReadOut:
    """lists: of one experiment. followed: (request id, item) of positive events that name a list."""
    every = list(lists)
    compared = [(shown, shown.context[SHADOW]) for shown in every if isinstance(shown.context.get(SHADOW), dict)]
    overlaps = np.array([_overlap(shown.item_ids, shadow["item_ids"]) for shown, shadow in compared])
    users = _user_numbers([shown for shown, _ in compared])
    low, high = bootstrap_interval(overlaps, users, n_bootstrap, seed=seed) if compared else (0.0, 1.0)
    by_request: dict[str, set[ItemId]] = defaultdict(set)
    for request_id, item_id in followed:
        by_request[request_id].add(item_id)
    seen = [(by_request[shown.request_id].intersection(shown.item_ids), shadow) for shown, shadow in compared]
    return ShadowReadOut(
        lists=len(every),
        compared=len(compared),
        overlap=float(overlaps.mean()) if compared else 0.0,
        overlap_low=low,
        overlap_high=high,
        same_first=float(np.mean([list(s.item_ids[:1]) == shadow["item_ids"][:1] for s, shadow in compared] or [0.0])),
        followed=sum(len(items) for items, _ in seen),
        kept=sum(len(items.intersection(shadow["item_ids"])) for items, shadow in seen),
        shown_times=_times([shown.context.get(MS) for shown, _ in compared]),
        shadow_times=_times([shadow.get(MS) for _, shadow in compared]),
    )


def _overlap(shown: Sequence[ItemId], shadow: Sequence[ItemId]) -> float:
    """Two empty lists are the same."""
    return len(set(shown).intersection(shadow)) / len(shown) if shown else float(not shadow)


def _user_numbers(lists: Sequence[Shown]) -> npt.NDArray[np.int64]:
    """A list without a user is alone."""
    numbers: dict[str, int] = {}
    keys = [f"user {one.user_id}" if one.user_id is not None else f"list {one.request_id}" for one in lists]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _times(values: Sequence[object]) -> Times | None:
    known = [float(value) for value in values if isinstance(value, int | float)]
    if not known:
        return None
    p50, p95 = np.quantile(known, [0.5, 0.95])
    return Times(round(float(p50), 3), round(float(p95), 3))
