"""How items fare in the lists that are shown: shows and clicks counted from the store as they come in."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from lmrec.data.weighing import PLAIN, Weighing
from lmrec.feedback.outcomes import Lists
from lmrec.feedback.store import Shown, Store
from lmrec.models.live_stack import RunningCounts

_MAX_BACK: Final = 100_000  # newest lists that are counted at the start, and
_MAX_SHOWS: Final = 1_000_000  # places in them: a ranking is a list of up to 1,000
_AT_ONCE: Final = 500
_SETTLED_S: Final = 1.0
"""Lists are written behind the answers, by several processes: of what is younger, some may be still to come."""
_LATE_S: Final = 30.0
"""How late a list may be written and still count: a write may wait 10 s for other processes, and be tried again."""


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
        newest, _ = store.newest_lists(Lists(until_ts), _MAX_BACK)
        self._first_ts = store.newest_shows(newest, _MAX_SHOWS).after_ts
        self._shown_ts = self._first_ts
        self._done_ts = max(self._first_ts, clock() - _SETTLED_S - _LATE_S)  # no list of before is looked for any more
        # Request ids of the lists of later that are counted, and when those were shown.
        self._taken: dict[str, float] = {}
        self._seq = 0
        # When, and the last event by then.
        self._heard: deque[tuple[float, int]] = deque([(-math.inf, store.last_seq())])

    def update(self) -> None:
        """Take in the lists and clicks that came since."""
        settled_ts = self._clock() - _SETTLED_S
        while fresh := [one for one in self._store.shown_after(self._shown_ts, _AT_ONCE) if one.time_ts <= settled_ts]:
            self._take_in(fresh)
            self._shown_ts = fresh[-1].time_ts
        late_ids = [one for one in self._store.shown_ids(self._done_ts, self._shown_ts) if one not in self._taken]
        for start in range(0, len(late_ids), _AT_ONCE):
            found = [self._store.shown(request_id) for request_id in late_ids[start : start + _AT_ONCE]]
            self._take_in([one for one in found if one is not None])
        self._done_ts = max(self._done_ts, min(self._shown_ts, settled_ts - _LATE_S))
        self._taken = {one: time_ts for one, time_ts in self._taken.items() if time_ts > self._done_ts}
        self._heard.append((self._clock(), self._store.last_seq()))
        upto = self._seq
        while self._heard and self._heard[0][0] <= settled_ts:
            upto = self._heard.popleft()[1]
        if upto > self._seq:
            for click in self._store.clicked_items(self._first_ts, self._seq, upto, self._weighing):
                # A list that is not counted yet brings its clicks along.
                if click.time_ts <= self._done_ts or click.request_id in self._taken:
                    self._counts.add_click(click.item_id, click.time_ts)
            self._seq = upto

    def _take_in(self, lists: Sequence[Shown]) -> None:
        """Count lists, and what was clicked of them before they were written."""
        self._counts.add_shows([(one.item_ids, one.time_ts) for one in lists if not one.is_trial])
        self._taken.update({one.request_id: one.time_ts for one in lists if one.time_ts > self._done_ts})
        if self._seq and lists:
            request_ids = [one.request_id for one in lists]
            for click in self._store.clicked_items(self._first_ts, 0, self._seq, self._weighing, request_ids):
                self._counts.add_click(click.item_id, click.time_ts)
