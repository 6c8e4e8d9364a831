"""What the events that a store has heard say of items: sorted out by the recipe, returns settled with what was bought."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from lmrec.data.dataset import Dataset
from lmrec.data.interactions import Interactions
from lmrec.data.weighing import Weighing
from lmrec.data.weights import GONE, LEFT, TAKEN, left_of, on_the_scale, weigh
from lmrec.feedback.events import Event
from lmrec.feedback.judging import Judging
from lmrec.fields import ITEM_ID, KIND, RATING, TIMESTAMP, USER_ID, WEIGHT, IntArray, ItemId, UserId


@dataclass(frozen=True, slots=True)
class Said:
    """An event of the store, and when it was. `is_good` as in `Judging.judge`. `amount`: how often or how much, less what
    returns have taken back."""

    when_ts: float
    event: Event
    is_good: bool | None
    amount: float

    @property
    def pair(self) -> tuple[UserId, ItemId]:
        return self.event.user_id, self.event.item_id


def sort_out(
    events: Sequence[tuple[float, Event]], items: Collection[ItemId], gone: Collection[UserId], weighing: Weighing
) -> tuple[list[Said], dict[str, int]]:
    """The (time, event) that may say something, oldest first; and counts of the others. items: those that there are. gone:
    forgotten users."""
    judging = Judging.of(weighing)
    # As the service's own order of events of one moment: what a fast clock said was heard at that moment, the rest later.
    in_order = sorted(events, key=lambda entry: (entry[0], entry[1].time_ts == entry[0], entry[1].time_ts))
    kept: list[Said] = []
    n_negative = n_left_out = n_unknown = n_forgotten = 0
    for when_ts, event in in_order:
        is_good = judging.judge(event.kind, event.rating)
        if event.user_id in gone:
            n_forgotten += 1
        elif is_good is not False and event.item_id not in items:
            n_unknown += 1
        else:
            n_negative += is_good is False
            n_left_out += is_good is None and event.kind not in judging.returns
            if event.kind not in judging.left_out:
                kept.append(Said(when_ts, event, is_good, event.amount))
    return kept, {
        "heard_events": len(events),
        "negative_events": n_negative,
        "left_out_events": n_left_out,
        "events_of_unknown_items": n_unknown,
        "events_of_forgotten_users": n_forgotten,
    }


def settle_returns(
    log: Interactions, old: Dataset, said: Sequence[Said]
) -> tuple[Interactions, list[Said], dict[str, int]]:
    """What is left of the log, events of the data set `old`, and of what was said after returns took back theirs; and
    counts. The returns go."""
    weighing, catalog = old.weighing, old.catalog
    pairs = {one.pair for one in said if one.event.kind in weighing.return_kinds}
    if not pairs:
        return log, list(said), {}
    # Only what a return is about is looked at: of a long log a few events.
    user_rows = {user_id: row for row, user_id in enumerate(log.user_ids)}
    codes = [
        user_rows[user] * catalog.n_items + catalog.indices[item]
        for user, item in pairs
        if user in user_rows and item in catalog.indices
    ]
    places = np.flatnonzero(np.isin(log.user_idx.astype(np.int64) * catalog.n_items + log.item_idx, codes))
    later = [one for one in said if one.pair in pairs]
    rows = pl.concat([_of_log(log, places, catalog.ids), _of_said(later)])
    rows = rows.with_columns(left_of(rows, weighing, [USER_ID, ITEM_ID], TIMESTAMP))
    log = _less(log, places, rows.head(len(places)), weighing)
    found = dict(zip(map(id, later), rows.tail(len(later)).select(LEFT, GONE, TAKEN).iter_rows(), strict=True))
    kept: list[Said] = []
    n_returns = n_in_vain = n_returned = 0
    for one in said:
        left, is_gone, taken = found.get(id(one), (one.amount, False, None))
        n_returns += taken is not None
        n_in_vain += taken == 0
        n_returned += is_gone and one.is_good is True
        if taken is None and not is_gone:
            kept.append(replace(one, amount=left))
    return log, kept, {"returns": n_returns, "returns_in_vain": n_in_vain, "returned_events": n_returned}


def weigh_together(old: Interactions, said: Sequence[Said], weighing: Weighing) -> tuple["pl.Series", Weighing]:
    """(E,) what events of the old log and then those said weigh, and what they were weighed by.

    A scale of ratings stays that of the fit: one wild rating, or a user who is forgotten, must not weigh everybody anew.
    """
    stars = [np.nan if one.event.rating is None else one.event.rating for one in said]
    new = pl.DataFrame(
        {
            KIND: pl.Series([one.event.kind for one in said], dtype=pl.String),
            RATING: pl.Series(stars, dtype=pl.Float32),
            WEIGHT: pl.Series([one.amount for one in said], dtype=pl.Float32),
        }
    )
    if weighing.weight_from != "rating" or old.rating is None:
        return pl.concat([pl.Series(WEIGHT, old.weight), weigh(new, weighing)]), weighing
    # An event without a rating weighs the mean of all ratings, so those of before may weigh something else beside what came.
    kind = pl.Series([""] * len(old) if old.kind is None else old.kind.tolist(), dtype=pl.String)
    whole = pl.concat([pl.DataFrame({KIND: kind, RATING: old.rating}), new.select(KIND, RATING)])
    weighing = on_the_scale(weighing, whole[RATING])
    return weigh(whole, weighing), weighing


def last_words(said: Sequence[Said]) -> Mapping[tuple[UserId, ItemId], Said]:
    """The last that each user said of an item, yes or no."""
    return {one.pair: one for one in said if one.is_good is not None}


def _of_log(log: Interactions, places: IntArray, item_ids: Sequence[ItemId]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            USER_ID: pl.Series([log.user_ids[user] for user in log.user_idx[places]], dtype=pl.String),
            ITEM_ID: pl.Series([item_ids[item] for item in log.item_idx[places]], dtype=pl.String),
            # A log without times is before all that is heard.
            TIMESTAMP: log.time_ts[places] if log.time_kind == TIMESTAMP else np.full(len(places), -np.inf),
            KIND: pl.Series([""] * len(places) if log.kind is None else log.kind[places].tolist(), dtype=pl.String),
            WEIGHT: (np.ones(len(places)) if log.amount is None else log.amount[places]).astype(np.float64),
        }
    )


def _of_said(said: Sequence[Said]) -> pl.DataFrame:
    return pl.DataFrame(
        [(*one.pair, one.when_ts, one.event.kind, one.amount) for one in said],
        schema={USER_ID: pl.String, ITEM_ID: pl.String, TIMESTAMP: pl.Float64, KIND: pl.String, WEIGHT: pl.Float64},
        orient="row",
    )


def _less(log: Interactions, places: IntArray, rows: pl.DataFrame, weighing: Weighing) -> Interactions:
    """The log without the events at these places that are gone, the others there with what is left of them."""
    left = rows[LEFT].cast(pl.Float32).to_numpy()
    changed = left < rows[WEIGHT].cast(pl.Float32).to_numpy()
    events = rows.select(KIND, pl.col(LEFT).alias(WEIGHT))
    if log.rating is not None:
        events = events.with_columns(pl.Series(RATING, log.rating[places]))
    weight = log.weight.copy()
    weight[places[changed]] = weigh(events, weighing).to_numpy()[changed]
    amount = log.amount
    if changed.any():
        amount = np.ones(len(log), np.float32) if amount is None else amount.copy()
        amount[places] = left
    stays = np.ones(len(log), np.bool_)
    stays[places] = ~rows[GONE].to_numpy()
    return replace(log, weight=weight, amount=amount).select(stays)
