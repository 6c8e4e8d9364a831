"""Reasons for a whole list at once, where `/explanations` says everything about one item."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lmrec.fields import ItemId
from lmrec.retrieval.explain import contributions
from lmrec.retrieval.live import LiveRecommender

_MAX_HISTORY = 30  # newest items that reasons are looked for among: 61 passes of the user model for a list
_SHOWN = 3  # contributions of each reason


def find_reasons(live: LiveRecommender, history: Sequence[ItemId], item_ids: Sequence[ItemId]) -> list[dict[str, Any]]:
    """For each item the past items that speak most for it, or against it, credited as lmrec.retrieval.explain does.

    The part-histories are scored once for all items of the list. Without a history there is no reason to give.
    """
    snapshot = live.state.snapshot
    past = snapshot.known_rows(history)[-min(_MAX_HISTORY, live.scorer.scorer.max_history) :]
    rows = [snapshot.row_of(item_id) for item_id in item_ids]
    wanted = [row for row in rows if row is not None]
    if not past or not wanted:
        return [_reason([]) for _ in item_ids]
    _, gained = contributions(live, snapshot, past, wanted)
    found = iter(gained.T)
    credits = [np.zeros(len(past)) if row is None else next(found) for row in rows]  # None: deleted a moment ago
    return [
        _reason([(snapshot.ids[at], snapshot.titles[at], float(value)) for at, value in zip(past, own, strict=True)])
        for own in credits
    ]


def _reason(credited: list[tuple[ItemId, str, float]]) -> dict[str, Any]:
    strongest = sorted(credited, key=lambda entry: -abs(entry[2]))[:_SHOWN]
    best = max(credited, key=lambda entry: entry[2], default=None)
    return {
        "because": f"because of {best[1]}" if best is not None and best[2] > 0 else None,
        "contributions": [{"item_id": item, "title": title, "contribution": value} for item, title, value in strongest],
    }
