"""What a shadow would have shown: how far its lists are from those that people saw, how quick it is, and what it would have
missed.

What people did after a list says something of the list that they saw, and only little of one that they did not see: an
item that only the shadow names could not be clicked. So `kept` is a bound on what would be lost, not a rate to win by;
for that, split the users.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lmrec.evaluation.compare import bootstrap_means, share_interval
from lmrec.evaluation.experiments import who_saw
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


@dataclass(frozen=True, slots=True)
class _Compared:
    """What is kept of a list: a few numbers, for there may be very many lists."""

    user: int
    overlap: float
    same_first: bool
    followed: int
    kept: int
    shown_ms: object
    shadow_ms: object


def read_shadow(
    lists: Iterable[tuple[Shown, Collection[ItemId]]], n_bootstrap: int = 500, seed: int = 0
) -> ShadowReadOut:
    """lists: of one experiment, each with those of its items that a positive event followed."""
    numbers: dict[str, int] = {}
    compared: list[_Compared] = []
    n_lists = 0
    for shown, followed in lists:
        n_lists += 1
        shadow = shown.context.get(SHADOW)
        if isinstance(shadow, dict):
            user = who_saw(shown.user_id, shown.request_id)
            compared.append(_compare(shown, shadow, followed, numbers.setdefault(user, len(numbers))))
    overlaps = np.array([one.overlap for one in compared])
    users = np.array([one.user for one in compared], np.int64)
    overlap = float(overlaps.mean()) if compared else 0.0
    low, high = 0.0, 1.0
    if compared:
        redraws = bootstrap_means(overlaps[:, None], users, n_bootstrap, seed)[:, 0]
        low, high = share_interval(redraws, overlap, len(numbers))
    return ShadowReadOut(
        lists=n_lists,
        compared=len(compared),
        overlap=overlap,
        overlap_low=low,
        overlap_high=high,
        same_first=float(np.mean([one.same_first for one in compared] or [False])),
        followed=sum(one.followed for one in compared),
        kept=sum(one.kept for one in compared),
        shown_times=_times([one.shown_ms for one in compared]),
        shadow_times=_times([one.shadow_ms for one in compared]),
    )


def _compare(shown: Shown, shadow: Mapping[str, Any], followed: Collection[ItemId], user: int) -> _Compared:
    return _Compared(
        user=user,
        overlap=_overlap(shown.item_ids, shadow["item_ids"]),
        same_first=list(shown.item_ids[:1]) == shadow["item_ids"][:1],
        followed=len(followed),
        kept=len(set(followed).intersection(shadow["item_ids"])),
        shown_ms=shown.context.get(MS),
        shadow_ms=shadow.get(MS),
    )


def _overlap(shown: Sequence[ItemId], shadow: Sequence[ItemId]) -> float:
    """Two empty lists are the same."""
    return len(set(shown).intersection(shadow)) / len(shown) if shown else float(not shadow)


def _times(values: Sequence[object]) -> Times | None:
    known = [float(value) for value in values if isinstance(value, int | float)]
    if not known:
        return None
    p50, p95 = np.quantile(known, [0.5, 0.95])
    return Times(round(float(p50), 3), round(float(p95), 3))
