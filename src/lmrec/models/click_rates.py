"""Order what is shown by how it fared so far: clicks, shows and age, as they stood just before each list. No words, no torch.

News lives for hours, so what is counted is counted live: everything strictly before the instant of a list, as a service that
hears its own events would. Nothing of the list itself or of later ones is looked at.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lmrec.errors import LmrecError
from lmrec.fields import BoolArray, FloatArray, IntArray, Ragged, places_before

SECONDS_AN_HOUR: Final = 3600.0
_STRETCH: Final = 5.0  # mean lives


@dataclass(frozen=True, eq=False)
class ShownLog:
    """item_idx, time_ts, clicked: (S,), one entry for each candidate that was shown to anybody, in any order."""

    item_idx: IntArray
    time_ts: FloatArray
    clicked: BoolArray
    n_items: int

    def before(self, at_ts: float) -> Self:
        """What was shown strictly before an instant, UTC seconds."""
        earlier = self.time_ts < at_ts
        return type(self)(self.item_idx[earlier], self.time_ts[earlier], self.clicked[earlier], self.n_items)


class ClickRateConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    half_life_hours: float | None = Field(
        default=None, gt=0, description="A show this long ago counts half; unset: all shows count alike."
    )
    prior_shows: float = Field(
        default=20.0, gt=0, description="Shows at the average rate that each item is credited with: distrusts few."
    )


class ClickRate:
    """score = (clicks + prior * r) / (shows + prior), both counted live and fading; r an average rate that was known before."""

    name = "click rate so far"

    def __init__(self, config: ClickRateConfig | None = None) -> None:
        self.config = config or ClickRateConfig()
        self._counts: LiveCounts | None = None
        self._rate = 0.0

    @classmethod
    def candidates(cls) -> "tuple[ClickRate, ...]":
        return tuple(
            cls(ClickRateConfig(half_life_hours=hours, prior_shows=prior))
            for hours in (None, 24.0, 6.0)
            for prior in (5.0, 20.0, 80.0)
        )

    def fit(self, log: ShownLog, rate: float) -> Self:
        """log: to count live in; rate: the share of shows that were clicked, of a time before what is asked."""
        self._counts, self._rate = LiveCounts(log, self.config.half_life_hours), rate
        return self

    def score_shown(self, history: Ragged, candidates: Ragged, time_ts: FloatArray) -> FloatArray:
        """(n_shown,)."""
        if self._counts is None:
            raise LmrecError(f"'{self.name}' was asked before it was fitted. Call fit(log, rate) first.")
        shows, clicks = self._counts.before(candidates, time_ts)
        return click_rate(shows, clicks, self._rate, self.config)


class ClicksSoFar:
    """score = log(1 + clicks before the instant): popularity, live."""

    name = "clicks so far"

    def __init__(self, log: ShownLog) -> None:
        self._counts = LiveCounts(log, None)

    def score_shown(self, history: Ragged, candidates: Ragged, time_ts: FloatArray) -> FloatArray:
        """(n_shown,)."""
        return clicks_so_far(self._counts.before(candidates, time_ts)[1])


class Freshness:
    """score = -log(1 + hours since the item was first shown to anybody), 0 for one that was not shown before."""

    name = "freshness"

    def __init__(self, log: ShownLog) -> None:
        self._first_ts = first_shows(log)

    def score_shown(self, history: Ragged, candidates: Ragged, time_ts: FloatArray) -> FloatArray:
        """(n_shown,)."""
        return freshness(time_ts[candidates.row_of_value] - self._first_ts[candidates.values])


def click_rate(shows: FloatArray, clicks: FloatArray, rate: float, config: ClickRateConfig) -> FloatArray:
    """(S,) the score of `ClickRate`."""
    return (clicks + config.prior_shows * rate) / (shows + config.prior_shows)


def clicks_so_far(clicks: FloatArray) -> FloatArray:
    """(S,) the score of `ClicksSoFar`."""
    return np.log1p(clicks)


def freshness(age_s: FloatArray) -> FloatArray:
    """(S,) the score of `Freshness`; age_s: since the first show, below 0 where there was none before."""
    found: FloatArray = -np.log1p(np.maximum(age_s / SECONDS_AN_HOUR, 0.0))
    return found


def first_shows(log: ShownLog) -> FloatArray:
    """(N,) when each item was first shown, infinity for never."""
    first = np.full(log.n_items, np.inf)
    np.minimum.at(first, log.item_idx, log.time_ts)
    return first


class LiveCounts:
    """Shows and clicks of every item before any instant, fading by half in `half_life_hours`.

    After an item's k-th show at t_k: c_k = c_(k-1) 2^(-(t_k - t_(k-1)) / half-life) + 1, and the same of clicks. Sums are
    taken within stretches of a few half-lives, for over long ones what fades would leave the range of numbers.
    """

    def __init__(self, log: ShownLog, half_life_hours: float | None) -> None:
        order = np.lexsort((log.time_ts, log.item_idx))
        self._time_ts = np.asarray(log.time_ts, np.float64)[order]
        self._offsets = np.concatenate([[0], np.cumsum(np.bincount(log.item_idx, minlength=log.n_items))])
        self._per_s = 0.0 if half_life_hours is None else np.log(2.0) / (half_life_hours * SECONDS_AN_HOUR)
        stretches = _Stretches.of(self._time_ts, log.item_idx[order], self._per_s)
        self._start_ts = stretches.start_ts[stretches.number]
        self._shows = stretches.sums(np.ones(len(order)))
        self._clicks = stretches.sums(log.clicked[order].astype(np.float64))

    def before(self, candidates: Ragged, time_ts: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(n_shown,) shows and clicks of each candidate strictly before its list's instant."""
        items, instants = np.asarray(candidates.values, np.int64), time_ts[candidates.row_of_value]
        if not len(self._time_ts):
            return np.zeros(len(items)), np.zeros(len(items))
        first = self._offsets[items]
        place = places_before(self._time_ts, first, self._offsets[items + 1], instants)
        known, last = place > first, np.maximum(place - 1, 0)
        since = np.where(known, instants - self._start_ts[last], 0.0)
        faded = np.where(known, np.exp(-since * self._per_s), 0.0)
        return self._shows[last] * faded, self._clicks[last] * faded


@dataclass(frozen=True, eq=False)
class _Stretches:
    """Shows (S,), by item and in time, cut where an item's next one is `_STRETCH` times the mean life behind a stretch's start.

    number: (S,) which stretch each is in. begin: (M,) the first show of each; start_ts: (M,) when that was. rank: (M,) how many
    stretches of its item come before it.
    """

    worth: FloatArray  # (S,) of a show in units of its stretch's start: at most e^_STRETCH
    number: IntArray
    begin: IntArray
    start_ts: FloatArray
    rank: IntArray
    per_s: float

    @classmethod
    def of(cls, time_ts: FloatArray, item_idx: IntArray, per_s: float) -> Self:
        new_item = np.append(True, item_idx[1:] != item_idx[:-1])[: len(item_idx)]
        item_start = np.flatnonzero(new_item)
        since_first = time_ts - np.repeat(time_ts[item_start], np.diff(np.append(item_start, len(time_ts))))
        bucket = np.floor(since_first * per_s / _STRETCH)
        fresh = new_item | np.append(True, bucket[1:] != bucket[:-1])[: len(bucket)]
        begin, number = np.flatnonzero(fresh), np.cumsum(fresh) - 1
        first_of_item = np.flatnonzero(new_item[begin])
        rank = np.arange(len(begin)) - np.repeat(first_of_item, np.diff(np.append(first_of_item, len(begin))))
        worth = np.exp((time_ts - time_ts[begin][number]) * per_s)
        return cls(worth, number, begin, time_ts[begin], rank, per_s)

    def sums(self, counted: FloatArray) -> FloatArray:
        """(S,) what is counted up to each show and with it, of its item, in units of its stretch's start."""
        whole = np.append(0.0, np.cumsum(counted * self.worth))
        within = whole[1:] - whole[self.begin][self.number]
        total = np.diff(whole[np.append(self.begin, len(counted))])
        brought = np.zeros(len(self.begin))
        for rank in range(1, int(self.rank.max(initial=0)) + 1):  # each stretch takes over what its item had before
            here = np.flatnonzero(self.rank == rank)
            fades = np.exp((self.start_ts[here - 1] - self.start_ts[here]) * self.per_s)
            brought[here] = (brought[here - 1] + total[here - 1]) * fades
        found: FloatArray = within + brought[self.number]
        return found
