"""The order of candidates by a model's score and by how each item fared so far: one formula, which the judge asks about lists
of the past and a service about those of now. No words, no torch.

    score = w1 s / d1 + w2 rate / d2 + w3 log(1 + clicks) / d3 - w4 log(1 + hours since the first show) / d4

s is the model's own score, or that of its towers by themselves: what is fused with them is weighed for lists out of the whole
catalog, which the order of a few candidates need not follow. Weights w and scales d are a `Stack`, learnt from lists that were
shown. Counts are of what came strictly before the instant of a list.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from lmrec.fields import BoolArray, FloatArray, ItemId, Ragged
from lmrec.models.click_rates import (
    SECONDS_AN_HOUR,
    ClickRate,
    ClickRateConfig,
    ClicksSoFar,
    Freshness,
    LiveCounts,
    ShownLog,
    click_rate,
    clicks_so_far,
    first_shows,
    freshness,
)
from lmrec.models.stacking import Stack, fit_stack

OWN: Final = "lmrec"
TOWERS: Final = "lmrec's towers"
OWN_PARTS: Final = (OWN, TOWERS)
LIVE_PARTS: Final = (ClickRate.name, ClicksSoFar.name, Freshness.name)
_PULL: Final = 1e-2


@dataclass(frozen=True, eq=False)
class Fared:
    """How S candidates fared before an instant. shows, clicks: (S,) fading. n_clicks: (S,) not fading. age_s: (S,) seconds
    since the first show, below 0 where there was none."""

    shows: FloatArray
    clicks: FloatArray
    n_clicks: FloatArray
    age_s: FloatArray


@dataclass(frozen=True)
class LiveStack:
    """click_rate: how the rate is counted. rate: share of all shows that were clicked, which unknown items are credited with.
    stack: of one of `OWN_PARTS`, unless it is to do without, and `LIVE_PARTS`."""

    click_rate: ClickRateConfig
    rate: float
    stack: Stack

    @property
    def hears_towers(self) -> bool:
        """Whether the model's score that counts is that of its towers by themselves."""
        return TOWERS in self.stack.names

    def score(self, own: FloatArray | None, fared: Fared) -> FloatArray:
        """(S,) the model's scores, by its towers alone if it `hears_towers`, None for a stack without -> (S,)."""
        columns = _parts({} if own is None else {self.stack.names[0]: own}, fared, self.rate, self.click_rate)
        return self.stack.score(np.stack([columns[name] for name in self.stack.names], axis=1))


def fit_live_stack(
    own: Mapping[str, FloatArray],
    fared: Fared,
    config: ClickRateConfig,
    rate: float,
    lists: Ragged,
    clicked: BoolArray,
) -> LiveStack:
    """Weights that foretell best what was clicked in these lists. own: (S,) scores of their items by one of `OWN_PARTS`, under
    its name; empty for a stack without it. Raises InputError where nothing was clicked."""
    names = (*own, *LIVE_PARTS)
    columns = _parts(own, fared, rate, config)
    parts = np.stack([columns[name] for name in names], axis=1)
    return LiveStack(config, rate, fit_stack(names, parts, lists, clicked, pull=_PULL))


def _parts(
    own: Mapping[str, FloatArray], fared: Fared, rate: float, config: ClickRateConfig
) -> Mapping[str, FloatArray]:
    return {
        **{name: np.asarray(scores, np.float64) for name, scores in own.items()},
        ClickRate.name: click_rate(fared.shows, fared.clicks, rate, config),
        ClicksSoFar.name: clicks_so_far(fared.n_clicks),
        Freshness.name: freshness(fared.age_s),
    }


class LoggedCounts:
    """Counts before any instant of a log."""

    def __init__(self, log: ShownLog, half_life_hours: float | None) -> None:
        self._fading, self._whole = LiveCounts(log, half_life_hours), LiveCounts(log, None)
        self._first_ts = first_shows(log)

    def before(self, candidates: Ragged, time_ts: FloatArray) -> Fared:
        """Of each candidate strictly before its list's instant; time_ts: (I,) UTC seconds."""
        shows, clicks = self._fading.before(candidates, time_ts)
        n_clicks = self._whole.before(candidates, time_ts)[1]
        return Fared(shows, clicks, n_clicks, time_ts[candidates.row_of_value] - self._first_ts[candidates.values])


class ItemCounts(NamedTuple):
    """Of one item: shows and clicks as they had faded to at_ts, clicks that do not fade, and when it was first shown."""

    at_ts: float
    shows: float
    clicks: float
    n_clicks: float
    first_ts: float


_NEVER: Final = ItemCounts(0.0, 0.0, 0.0, 0.0, np.inf)


class RunningCounts:
    """Counts as of now, which go on with every show and click that is heard, also of items that came later.

    One thread may add while others read: an item's counts are replaced as a whole.
    """

    def __init__(self, half_life_hours: float | None, known: Mapping[ItemId, ItemCounts] | None = None) -> None:
        self._per_s = 0.0 if half_life_hours is None else np.log(2.0) / (half_life_hours * SECONDS_AN_HOUR)
        self.items: dict[ItemId, ItemCounts] = dict(known or {})

    def add_shows(self, lists: Sequence[tuple[Sequence[ItemId], float]]) -> None:
        """Lists that were shown, each at an instant, UTC seconds; in any order."""
        rows: dict[ItemId, int] = {}
        item_row = np.array([rows.setdefault(one, len(rows)) for item_ids, _ in lists for one in item_ids], np.intp)
        times = np.repeat(np.array([time_ts for _, time_ts in lists]), [len(item_ids) for item_ids, _ in lists])
        end_ts = float(times.max(initial=0.0))
        shows = np.bincount(item_row, weights=np.exp((times - end_ts) * self._per_s), minlength=len(rows))
        first_ts = np.full(len(rows), np.inf)
        np.minimum.at(first_ts, item_row, times)
        for item_id, n_shows, shown_ts in zip(rows, shows.tolist(), first_ts.tolist(), strict=True):
            now = self._faded(self.items.get(item_id, _NEVER), end_ts)
            more = now.shows + n_shows * self._worth(now, end_ts)
            self.items[item_id] = now._replace(shows=more, first_ts=min(now.first_ts, shown_ts))

    def add_click(self, item_id: ItemId, time_ts: float) -> None:
        """A click on an item of a list that was shown at this instant."""
        now = self._faded(self.items.get(item_id, _NEVER), time_ts)
        clicks = now.clicks + self._worth(now, time_ts)
        self.items[item_id] = now._replace(clicks=clicks, n_clicks=now.n_clicks + 1.0)

    def before(self, item_ids: Sequence[ItemId], at_ts: float) -> Fared:
        """Of each item, at this instant, which comes after all that was added."""
        found = [self._faded(self.items.get(item_id, _NEVER), at_ts) for item_id in item_ids]
        _, shows, clicks, n_clicks, first_ts = np.array(found, np.float64).reshape(len(found), 5).T
        return Fared(shows, clicks, n_clicks, at_ts - first_ts)

    def _faded(self, counts: ItemCounts, at_ts: float) -> ItemCounts:
        """The counts as they stand then; those of a later instant stay as they are."""
        if at_ts <= counts.at_ts:
            return counts
        share = float(np.exp((counts.at_ts - at_ts) * self._per_s))
        return counts._replace(at_ts=at_ts, shows=counts.shows * share, clicks=counts.clicks * share)

    def _worth(self, counts: ItemCounts, time_ts: float) -> float:
        """What something of this instant is worth beside counts of the same or a later one."""
        return float(np.exp((time_ts - counts.at_ts) * self._per_s))


def counts_at_end(log: ShownLog, item_ids: Sequence[ItemId], half_life_hours: float | None) -> RunningCounts:
    """What the whole log says, to go on from. item_ids: (N,) of its rows."""
    end_ts = float(log.time_ts.max(initial=0.0))
    per_s = 0.0 if half_life_hours is None else np.log(2.0) / (half_life_hours * SECONDS_AN_HOUR)
    worth, n = np.exp((log.time_ts - end_ts) * per_s), log.n_items
    shows = np.bincount(log.item_idx, weights=worth, minlength=n)
    clicks = np.bincount(log.item_idx, weights=worth * log.clicked, minlength=n)
    n_clicks = np.bincount(log.item_idx, weights=log.clicked.astype(np.float64), minlength=n)
    first_ts = first_shows(log)
    known = {
        item_ids[row]: ItemCounts(
            end_ts, float(shows[row]), float(clicks[row]), float(n_clicks[row]), float(first_ts[row])
        )
        for row in np.flatnonzero(np.isfinite(first_ts)).tolist()
    }
    return RunningCounts(half_life_hours, known)
