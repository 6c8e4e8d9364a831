"""What an event counts: from its kind, its rating, or how often or how much; and purchases taken back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import polars as pl

from lmrec.data.sources.reading import INTERNAL, Table
from lmrec.errors import DataError
from lmrec.fields import ITEM_ID, KIND, RATING, USER_ID, WEIGHT

WeightSource: TypeAlias = Literal["weight", "rating", "none"]
WeightScale: TypeAlias = Literal["linear", "log"]

_LEVEL, _LOWEST, _BEFORE = INTERNAL + "level", INTERNAL + "lowest", INTERNAL + "before"
_STEP, _LEFT, _WHAT, _PLACE = INTERNAL + "step", INTERNAL + "left", INTERNAL + "what", INTERNAL + "place"


def drop_kinds(table: Table, kind_weights: Mapping[str, float]) -> Table:
    """Leave out the events of kinds that weigh 0, and count them. Kinds compare without case.

    Raises `DataError` where kinds are weighed but the table has none.
    """
    if not kind_weights:
        return table
    if KIND not in table.columns:
        raise DataError(
            f"data.kind_weights is given, but there is no column of kinds among {table.columns}. "
            "Say which it is: --map kind=YOUR_COLUMN",
            file=table.name,
        )
    zero = [kind for kind, weight in kind_weights.items() if weight == 0]
    dropped = table.frame.select(_plain_kind().is_in([kind.strip().lower() for kind in zero]).fill_null(False))
    n_dropped = int(dropped.to_series().sum())
    if not n_dropped:
        return table
    table = replace(table, frame=table.frame.filter(~dropped.to_series()))
    return table.note(f"{n_dropped:,} events of a kind that weighs 0 were left out ({', '.join(zero)})")


def weigh_events(
    table: Table, kind_weights: Mapping[str, float], weight_from: WeightSource, scale: WeightScale
) -> Table:
    """Put into `weight` what each event counts: its base times the weight of its kind.

    | weight_from | base                                                                           |
    |-------------|--------------------------------------------------------------------------------|
    | weight      | the column `weight`, 1 without one; scale "log": log2(1 + weight), so 1 stays 1 |
    | rating      | (rating - lowest + 1) / (highest - lowest + 1) of the log's ratings: 1 to 5 stars |
    |             | count 0.2 to 1; an event without a rating counts as the mean of the others      |
    | none        | 1                                                                              |
    """
    base = pl.lit(1.0)
    if weight_from == "rating":
        base = _from_rating()
        table = table.note("events weigh as they are rated: (rating - lowest + 1) / (highest - lowest + 1)")
    elif weight_from == "weight" and WEIGHT in table.columns:
        base = pl.col(WEIGHT).cast(pl.Float64)
        if scale == "log":
            base = (base + 1).log(2)
            table = table.note("events weigh log2(1 + weight)")
    elif WEIGHT not in table.columns and not kind_weights:
        return table
    if kind_weights:
        table = _note_kinds(table, kind_weights)
        known = {kind.strip().lower(): weight for kind, weight in kind_weights.items()}
        base = base * _plain_kind().replace_strict(known, default=1.0, return_dtype=pl.Float64)
    return replace(table, frame=table.frame.with_columns(base.cast(pl.Float32).alias(WEIGHT)))


def cancel_returned_kinds(table: Table, returns: Mapping[str, str], time: str) -> Table:
    """Let the events of each kind of return take back the same user's earlier events of the kind it names.

    `returns` is return kind -> the kind taken back; an event counts its `weight`, else 1. Returns themselves leave.
    """
    if not returns or KIND not in table.columns:
        return table
    plain = {back.strip().lower(): bought.strip().lower() for back, bought in returns.items()}
    what = _plain_kind().replace(plain)
    is_return = _plain_kind().is_in(list(plain)).fill_null(False)
    amount = pl.col(WEIGHT).cast(pl.Float64) if WEIGHT in table.columns else pl.lit(1.0)
    touched = what.is_in(list(plain.values())).fill_null(False)
    frame = table.frame.with_columns(
        pl.int_range(pl.len()).alias(_PLACE),
        what.alias(_WHAT),
        pl.when(is_return).then(-amount).when(touched).then(amount).alias(_STEP),
    )
    moved = frame.filter(pl.col(_STEP).is_not_null())
    left = left_after_returns(moved, [USER_ID, ITEM_ID, _WHAT], time, _STEP)
    kept = left.filter(pl.col(_LEFT) > 0)
    if WEIGHT in table.columns:
        kept = kept.with_columns(pl.col(_LEFT).cast(pl.Float32).alias(WEIGHT))
    n_returns = int((moved[_STEP] < 0).sum())
    n_gone = moved.height - n_returns - kept.height
    whole = pl.concat([frame.filter(pl.col(_STEP).is_null()), kept.drop(_LEFT)]).sort(_PLACE)
    table = replace(table, frame=whole.drop(_PLACE, _WHAT, _STEP))
    return table.note(f"{n_returns:,} returns took back {n_gone:,} earlier events; both were left out")


def left_after_returns(frame: pl.DataFrame, by: Sequence[str], time: str, step: str) -> pl.DataFrame:
    """What is left of each event after later returns, in a new last column; rows in the order (time, given order).

    `step` is how much came (above 0) or went back (below 0). A return takes from the newest earlier events of its group,
    and no more than there is: the rest of a return of something never bought is ignored.

    >>> days = pl.DataFrame({"who": ["u"] * 4, "day": [1, 2, 3, 4], "n": [5, 2, -3, 1]})
    >>> left_after_returns(days, ["who"], "day", "n").to_series(-1).to_list()
    [4.0, 0.0, 0.0, 1.0]
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
    left = (pl.col(_LOWEST) - pl.col(_BEFORE)).clip(lower_bound=0.0)
    return frame.with_columns(left.alias(_LEFT)).drop(_LEVEL, _LOWEST, _BEFORE)


def _plain_kind() -> pl.Expr:
    return pl.col(KIND).cast(pl.String).str.strip_chars().str.to_lowercase()


def _from_rating() -> pl.Expr:
    rating = pl.col(RATING).cast(pl.Float64)
    rating = pl.when(rating.is_finite()).then(rating)
    weight = (rating - rating.min() + 1) / (rating.max() - rating.min() + 1)
    return weight.fill_null(weight.mean()).fill_null(1.0)


def _note_kinds(table: Table, kind_weights: Mapping[str, float]) -> Table:
    """Say which kinds no weight was given for, and which weights no kind came for: either may be a slip."""
    found = set(table.frame.select(_plain_kind()).to_series().drop_nulls().unique())
    named = {kind.strip().lower() for kind, weight in kind_weights.items() if weight > 0}
    unknown, unused = sorted(found - named), sorted(named - found)
    if unknown:
        table = table.note(f"the kinds {unknown} are not in data.kind_weights and weigh 1")
    return table.note(f"no event is of the kinds {unused} that data.kind_weights names") if unused else table
