"""Events weighed, and returns taken from what was bought: the one place where that is computed.

A frame of events has, where known, `kind` (text), `rating` and `weight` (how often or how much, 1 where unknown).
"""

from collections.abc import Sequence
from typing import Final

import polars as pl

from lmrec.data.weighing import Weighing
from lmrec.fields import KIND, RATING, WEIGHT

LEFT: Final = "__left"
GONE: Final = "__gone"
TAKEN: Final = "__taken"
_CRUMB: Final = 1e-6  # what rounding leaves of weights in kilograms or metres
_LEVEL, _LOWEST, _BEFORE = "__level", "__lowest", "__before"
_STEP, _WHAT, _PLACE, _IS_RETURN, _AMOUNT = "__step", "__what", "__place", "__is_return", "__amount"


def weigh(events: pl.DataFrame, weighing: Weighing) -> pl.Series:
    """(E,) Float32, what each event counts. A rating beyond those of the log counts as if the log went so far."""
    base = pl.lit(1.0)
    if weighing.weight_from == "rating" and RATING in events.columns:
        base = _of_rating(weighing).fill_null(weighing.unrated)
    elif weighing.weight_from == "rating":
        base = pl.lit(weighing.unrated)
    elif weighing.weight_from == "weight" and WEIGHT in events.columns:
        base = pl.col(WEIGHT).cast(pl.Float64).fill_null(1.0)
        if weighing.weight_scale == "log":
            base = (base + 1).log(2)
    if weighing.kind_weights:
        kind = kind_of(events, weighing)
        base = base * kind.replace_strict(weighing.kind_weights, default=1.0, return_dtype=pl.Float64)
    return events.with_columns(base.cast(pl.Float32).alias(WEIGHT))[WEIGHT]


def fitted(weighing: Weighing, ratings: pl.Series) -> Weighing:
    """The same recipe over a log with these ratings; null and NaN: none."""
    rating = _rated(ratings)
    lowest, highest = rating.select(pl.col(RATING).min(), pl.col(RATING).max().alias("highest")).row(0)
    return on_the_scale(weighing.model_copy(update={"lowest": lowest, "highest": highest}), ratings)


def on_the_scale(weighing: Weighing, ratings: pl.Series) -> Weighing:
    """The same scale, with what an event without a rating counts beside these: the mean of what they count."""
    unrated = _rated(ratings).select(_of_rating(weighing).mean()).item()
    return weighing.model_copy(update={"unrated": 1.0 if unrated is None else unrated})


def _rated(ratings: pl.Series) -> pl.DataFrame:
    rating = ratings.cast(pl.Float64)
    return rating.filter(rating.is_finite().fill_null(False)).to_frame(RATING)


def left_of(events: pl.DataFrame, weighing: Weighing, by: Sequence[str], time: str) -> pl.DataFrame:
    """(E,) what returns leave of events, in the frame's order; a return takes from earlier ones of the same `by`.

    LEFT: of how often or how much it was, 0 of returns. GONE: whether it was taken back wholly. TAKEN: what a return
    took back, 0 where nothing was there; null for all others.
    """
    kind = kind_of(events, weighing)
    # As exact as they are kept: what came as 0.3 is taken back by 0.3, whichever of them was read from a file.
    known = pl.col(WEIGHT).cast(pl.Float32).cast(pl.Float64).fill_null(1.0)
    amount = known if WEIGHT in events.columns else pl.lit(1.0)
    is_return = kind.is_in(list(weighing.return_kinds))
    frame = events.select(
        *by,
        time,
        pl.int_range(pl.len()).alias(_PLACE),
        kind.replace(weighing.return_kinds).alias(_WHAT),
        is_return.alias(_IS_RETURN),
        pl.when(is_return)
        .then(-amount)
        .when(~kind.is_in(list(weighing.bought_kinds)))
        .then(None)
        .otherwise(amount)
        .alias(_STEP),
        amount.alias(_AMOUNT),
    )
    moved = left_after_returns(frame.filter(pl.col(_STEP).is_not_null()), [*by, _WHAT], time, _STEP)
    whole = frame.join(moved.select(_PLACE, TAKEN, LEFT), on=_PLACE, how="left", maintain_order="left")
    return whole.select(
        pl.coalesce(LEFT, _AMOUNT).alias(LEFT),
        ((pl.col(LEFT) <= _CRUMB * pl.col(_AMOUNT)) & (pl.col(_AMOUNT) > 0) & ~pl.col(_IS_RETURN))
        .fill_null(False)
        .alias(GONE),
        pl.when(pl.col(_IS_RETURN)).then(TAKEN).alias(TAKEN),
    )


def left_after_returns(frame: pl.DataFrame, by: Sequence[str], time: str, step: str) -> pl.DataFrame:
    """What is left of each event after later returns (LEFT, the last column), and what each return took back (TAKEN, before
    it); rows in the order (time, given order).

    `step` is how much came (above 0) or went back (below 0). A return takes from the newest earlier events of its group,
    and no more than there is: the rest of a return of something never bought is ignored.

    >>> days = pl.DataFrame({"who": ["u"] * 4, "day": [1, 2, 3, 4], "n": [5, 2, -3, 1]})
    >>> left_after_returns(days, ["who"], "day", "n").select(TAKEN, LEFT).rows()
    [(0.0, 4.0), (0.0, 0.0), (3.0, 0.0), (0.0, 1.0)]
    """
    total = pl.col(step).cast(pl.Float64).cum_sum()
    # How much there is after each event, never below nothing: the total, less its lowest point so far where negative.
    frame = frame.sort(time, maintain_order=True).with_columns(total.over(by).alias(_LEVEL))
    debt = pl.col(_LEVEL).cum_min().over(by).clip(upper_bound=0.0)
    frame = frame.with_columns((pl.col(_LEVEL) - debt).alias(_LEVEL))
    # What an event brought is left as far as the level never falls below it again.
    frame = frame.with_columns(
        pl.col(_LEVEL).cum_min(reverse=True).over(by).alias(_LOWEST),
        pl.col(_LEVEL).shift(1, fill_value=0.0).over(by).alias(_BEFORE),
    )
    taken = (pl.col(_BEFORE) - pl.col(_LEVEL)).clip(lower_bound=0.0)
    left = (pl.col(_LOWEST) - pl.col(_BEFORE)).clip(lower_bound=0.0)
    return frame.with_columns(taken.alias(TAKEN), left.alias(LEFT)).drop(_LEVEL, _LOWEST, _BEFORE)


def kind_of(events: pl.DataFrame, weighing: Weighing) -> pl.Expr:
    """(E,) plain kinds, never null."""
    if KIND not in events.columns:
        return pl.repeat(weighing.no_kind, pl.len())
    plain = pl.col(KIND).cast(pl.String).str.strip_chars().str.to_lowercase().fill_null("")
    return plain.replace({"": weighing.no_kind}) if weighing.no_kind else plain


def _of_rating(weighing: Weighing) -> pl.Expr:
    rating = pl.col(RATING).cast(pl.Float64)
    rating = pl.when(rating.is_finite()).then(rating)
    lowest = pl.min_horizontal(rating, pl.lit(weighing.lowest, pl.Float64))
    highest = pl.max_horizontal(rating, pl.lit(weighing.highest, pl.Float64))
    return (rating - lowest + 1) / (highest - lowest + 1)
