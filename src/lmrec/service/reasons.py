"""Reasons for a whole list at once, where `/explanations` says everything about one item."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lmrec.fields import ItemId
from lmrec.retrieval.explain import contributions
from lmrec.retrieval.live import LiveRecommender
from lmrec.retrieval.live_lists import wish_of

_MAX_HISTORY = 30  # newest items that reasons are looked for among: 61 passes of the user model for a list
_SHOWN = 3  # contributions of each reason


def find_reasons(
    live: LiveRecommender,
    history: Sequence[ItemId],
    text: str | None,
    item_ids: Sequence[ItemId],
    profile: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """For each item the past items that speak most for it, or against it, credited as lmrec.retrieval.explain does; words
    that somebody asked with may be the reason too. An item that is twice in the history is credited once, with both.

    The part-histories are scored once for all items of the list. Of who gave neither there is no reason to give.
    """
    snapshot = live.state.snapshot
    past = snapshot.known_rows(history)[-min(_MAX_HISTORY, live.scorer.scorer.reach) :]
    wish = live.read_of(wish_of(snapshot, text))
    rows = [snapshot.row_of(item_id) for item_id in item_ids]
    wanted = [row for row in rows if row is not None]
    if (not past and wish is None) or not wanted:
        return [_reason([], None) for _ in item_ids]
    _, gained = contributions(live, snapshot, past, wanted, wish, profile)
    found = iter(gained.T)
    nothing = np.zeros(len(gained))  # of an item that was deleted a moment ago
    reasons = []
    for row in rows:
        own = nothing if row is None else next(found)
        credit: dict[int, float] = {}
        for at, value in zip(past, own, strict=False):  # the words' own comes after the items'
            credit[at] = credit.get(at, 0.0) + float(value)
        said = None if wish is None else (f"'{wish}'", float(own[-1]))
        reasons.append(_reason([(snapshot.ids[at], snapshot.titles[at], value) for at, value in credit.items()], said))
    return reasons


def _reason(credited: list[tuple[ItemId, str, float]], said: tuple[str, float] | None) -> dict[str, Any]:
    strongest = sorted(credited, key=lambda entry: -abs(entry[2]))[:_SHOWN]
    spoken = [(title, value) for _, title, value in credited] + ([said] if said is not None else [])
    best = max(spoken, key=lambda entry: entry[1], default=None)
    return {
        "because": f"because of {best[0]}" if best is not None and best[1] > 0 else None,
        "contributions": [{"item_id": item, "title": title, "contribution": value} for item, title, value in strongest],
    }
