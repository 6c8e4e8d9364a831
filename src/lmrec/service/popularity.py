"""What is popular now, counted from the store's events as they come in."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import polars as pl

from lmrec.data.weighing import PLAIN, Weighing
from lmrec.data.weights import weigh
from lmrec.feedback.events import Worth
from lmrec.feedback.store import Store
from lmrec.fields import KIND, RATING, WEIGHT, ItemId
from lmrec.retrieval.popularity import HALF_LIFE_S

_MAX_BACK = 200_000  # newest events that are counted at the start; what is older has faded or is in the training log
_SMALLEST = 1e-6  # of an event that weighs 1; kinds may weigh a thousandth, and be many


class LiveCounts:
    """What positive events weigh by item, half of it after a month, as in the log of a generation. Used by one thread.

    What a return takes back counts here until an update has learnt of it, as does what is dismissed.

    after_seq: the last event that the generation's own log holds; those up to it must not count twice.
    """

    def __init__(
        self, store: Store, after_seq: int = 0, clock: Callable[[], float] = time.time, weighing: Weighing = PLAIN
    ) -> None:
        self._store = store
        self._clock = clock
        self._weighing = weighing
        self._origin_ts = clock()
        self._counts: dict[ItemId, float] = {}  # worth at the origin
        self._seq = max(after_seq, store.last_seq() - _MAX_BACK)

    def update(self) -> bool:
        """Take in the events that came since; whether there were any."""
        last = self._store.last_seq()
        if last <= self._seq:
            return False
        now = self._clock()
        fade = self._fade(now)
        worths = self._store.worth(self._seq, last, now, HALF_LIFE_S, self._weighing)
        for item_id, worth in _weighed(worths, self._weighing):
            self._counts[item_id] = self._counts.get(item_id, 0.0) + worth / fade
        self._seq = last
        return True

    def weights(self) -> Mapping[ItemId, float]:
        """Item to what its events are worth now; items whose events have faded are let go."""
        fade = self._fade(self._clock())
        self._counts = {item_id: worth for item_id, worth in self._counts.items() if worth * fade > _SMALLEST}
        return {item_id: worth * fade for item_id, worth in self._counts.items()}

    def _fade(self, now: float) -> float:
        """What is worth 1 at the origin is worth this now."""
        return float(2.0 ** (-(now - self._origin_ts) / HALF_LIFE_S))


def _weighed(worths: Sequence[Worth], weighing: Weighing) -> Iterator[tuple[ItemId, float]]:
    """What they weigh, beside their items."""
    said = {
        KIND: pl.Series([one.kind for one in worths], dtype=pl.String),
        RATING: pl.Series([one.rating for one in worths], dtype=pl.Float64),
        WEIGHT: pl.Series([one.weight for one in worths], dtype=pl.Float64),
    }
    for one, weight in zip(worths, weigh(pl.DataFrame(said), weighing), strict=True):
        yield one.item_id, one.worth * weight
