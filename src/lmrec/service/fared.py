"""How items fare in the lists that are shown: shows and clicks counted from the store as they come in."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from lmrec.data.weighing import PLAIN, Weighing
from lmrec.feedback.outcomes import Lists
from lmrec.feedback.store import Store
from lmrec.models.live_stack import RunningCounts

_MAX_BACK: Final = 100_000  # newest lists that are counted at the start
_AT_ONCE: Final = 1_000
_SETTLED_S: Final = 1.0
"""Lists are written behind the answers, by several processes: of what is younger, some may be still to come."""


class FaredCounts:
    """Keeps a generation's counts up to date. Used by one thread.

    until_ts: what the counts hold already; lists shown later are added, with the clicks that name them: positive events, by the
    weighing of the run that is served. What somebody tried out in the console counts nowhere.
    """

    def __init__(
        self,
        store: Store,
        counts: RunningCounts,
        until_ts: float,
        clock: Callable[[], float] = time.time,
        weighing: Weighing = PLAIN,
    ) -> None:
        self._store = store
        self._counts = counts
        self._clock = clock
        self._weighing = weighing
        self._first_ts = store.newest_lists(Lists(until_ts), _MAX_BACK)[0].after_ts
        self._shown_ts = self._first_ts
        self._seq = 0
        self._heard: deque[tuple[float, int]] = deque(
            [(-math.inf, store.last_seq())]
        )  # when, and the last event by then

    def update(self) -> None:
        """Take in the lists and clicks that came since."""
        settled_ts = self._clock() - _SETTLED_S
        while fresh := [one for one in self._store.shown_after(self._shown_ts, _AT_ONCE) if one.time_ts <= settled_ts]:
            for shown in fresh:
                if not shown.is_trial:
                    self._counts.add_shows(shown.item_ids, shown.time_ts)
            self._shown_ts = fresh[-1].time_ts
        self._heard.append((self._clock(), self._store.last_seq()))
        upto = self._seq
        while self._heard and self._heard[0][0] <= settled_ts:  # a click may be heard before its list is written
            upto = self._heard.popleft()[1]
        if upto > self._seq:
            for item_id, time_ts in self._store.clicked_items(self._first_ts, self._seq, upto, self._weighing):
                self._counts.add_click(item_id, time_ts)
            self._seq = upto
