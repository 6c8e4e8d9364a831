"""What followed the lists that were shown: a count a generation, with an interval that says what chance alone can do."""

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from math import sqrt

from lmrec.feedback.store import Store
from lmrec.feedback.walk import walk_followed, walk_shown

_MAX_LISTS = 50_000
_MAX_EVENTS = 200_000
_Z = 1.959964  # two-sided 95 %


@dataclass(frozen=True)
class Outcome:
    generation: str
    lists: int
    successes: int
    rate: float
    low: float
    high: float


def measure_outcomes(store: Store, since_ts: float) -> list[Outcome]:
    """Lists with a positive event on one of their items, by generation, trials left out; looks at the newest events only."""
    asked = islice(walk_shown(store, since_ts), _MAX_LISTS)
    lists = {shown.request_id: shown for shown in asked if not shown.is_trial}
    succeeded = {
        request_id
        for request_id, item_id in walk_followed(store, max(0, store.last_seq() - _MAX_EVENTS))
        if request_id in lists and item_id in lists[request_id].item_ids
    }
    shown_by = Counter(shown.generation for shown in lists.values())
    success_by = Counter(lists[request_id].generation for request_id in succeeded)
    return [_outcome(name, n, success_by[name]) for name, n in sorted(shown_by.items())]


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """95 % interval of a rate (Wilson 1927), which keeps its level for small numbers too.

    >>> low, high = wilson_interval(5, 10)
    >>> round(low, 3), round(high, 3)
    (0.237, 0.763)
    """
    if n == 0:
        return 0.0, 1.0
    rate, z2 = successes / n, _Z * _Z
    middle = rate + z2 / (2 * n)
    half = _Z * sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    # At rates of 0 and 1 the bound is the rate itself; rounding must not put it on the wrong side.
    return max(0.0, min(rate, (middle - half) / (1 + z2 / n))), min(1.0, max(rate, (middle + half) / (1 + z2 / n)))


def _outcome(generation: str, n: int, successes: int) -> Outcome:
    return Outcome(generation, n, successes, successes / n, *wilson_interval(successes, n))
