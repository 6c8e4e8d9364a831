"""A table's events weighed, those that count nothing left out, purchases taken back; and all of it said."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import polars as pl

from lmrec.data.sources.checks import SETTLED
from lmrec.data.sources.reading import Table
from lmrec.data.weighing import Weighing, plain_kind
from lmrec.data.weights import GONE, LEFT, TAKEN, kind_of, left_of
from lmrec.errors import DataError, nearest
from lmrec.fields import ITEM_ID, KIND, USER_ID, WEIGHT

_RETURNS: Final = r"(returns?|returned|refunds?|refunded|cancel(s|led|ed|lations?)?|chargebacks?)"
_DENIALS: Final = r"(dismiss|dismissed|dislikes?|disliked)"
_BOUGHT: Final = ("purchase", "buy", "bought", "order", "transaction", "sale")


def see_kinds(table: Table, weighing: Weighing) -> tuple[Table, Weighing]:
    """The kinds that the log has go into the weighing; kinds that were named in vain or not at all, and kinds that by their
    name are no good sign, are said.

    Raises `DataError` where kinds are named but the table has none.
    """
    for option, given in (("kind_weights", weighing.kind_weights), ("return_kinds", weighing.return_kinds)):
        if given and KIND not in table.columns:
            raise DataError(
                f"data.{option} is given, but there is no column of kinds among {table.columns}. "
                "Say which it is: --map kind=YOUR_COLUMN",
                file=table.name,
            )
    if KIND not in table.columns:
        return table, weighing
    n_events: Counter[str] = Counter()
    for kind, n in table.frame[KIND].cast(pl.String).drop_nulls().value_counts().iter_rows():
        n_events[plain_kind(kind)] += n
    del n_events[""]
    weighing = weighing.model_copy(update={"kinds": tuple(sorted(n_events))})
    for option, named in (
        ("kind_weights", [*weighing.kind_weights]),
        ("return_kinds", [*weighing.return_kinds, *weighing.return_kinds.values()]),
    ):
        if unused := sorted(set(named) - n_events.keys()):
            slip = " ".join(dict.fromkeys(nearest(kind, n_events) for kind in unused))
            table = table.note(f"no event is of the kinds {unused} that data.{option} names. {slip}")
    others = sorted(n_events.keys() - weighing.kind_weights.keys() - weighing.return_kinds.keys())
    if weighing.kind_weights and others:
        table = table.note(f"the kinds {others} are not in data.kind_weights and weigh 1")
    for kind in others:
        table = _note_meaning(table, kind, n_events)
    return table, weighing


def count_lines(table: Table, weighing: Weighing) -> Table:
    """Where returns are settled, a line of what is bought or comes back counts also where it repeats another (SETTLED tells
    them apart): it weighs 1 where nothing says more, and a return what came back, written with a minus or without."""
    if not weighing.return_kinds or KIND not in table.columns:
        return table
    kind = kind_of(table.frame, weighing)
    is_return = kind.is_in(list(weighing.return_kinds))
    is_settled = is_return | kind.is_in(list(weighing.bought_kinds))
    weight = pl.col(WEIGHT).cast(pl.Float64, strict=False) if WEIGHT in table.columns else pl.lit(1.0)
    frame = table.frame.with_columns(
        pl.when(is_return).then(weight.abs()).otherwise(weight).alias(WEIGHT),
        pl.when(is_settled).then(pl.int_range(pl.len())).alias(SETTLED),
    )
    return replace(table, frame=frame)


def drop_kinds(table: Table, weighing: Weighing) -> Table:
    """Leave out the events of kinds that weigh 0, and count them."""
    if KIND not in table.columns or not weighing.zero_kinds:
        return table
    is_zero = kind_of(table.frame, weighing).is_in(list(weighing.zero_kinds))
    kept = table.frame.filter(~is_zero)
    n_dropped = table.frame.height - kept.height
    if not n_dropped:
        return table
    named = [kind for kind in weighing.kind_weights if kind in weighing.zero_kinds]
    return replace(table, frame=kept).note(
        f"{n_dropped:,} events of a kind that weighs 0 were left out ({', '.join(named)})"
    )


def cancel_returned_kinds(table: Table, weighing: Weighing, time: str) -> Table:
    """Let the events of each kind of return take back the same user's earlier events of the kind it names; an event counts
    its `weight`, else 1. Returns themselves leave."""
    if not weighing.return_kinds or KIND not in table.columns:
        return table
    frame = table.frame.with_columns(left_of(table.frame, weighing, [USER_ID, ITEM_ID], time))
    is_return = pl.col(TAKEN).is_not_null()
    n_returns, n_in_vain, n_gone = frame.select(
        is_return.sum(), (pl.col(TAKEN) == 0).sum().alias("in_vain"), pl.col(GONE).sum()
    ).row(0)
    kept = frame.filter(~is_return & ~pl.col(GONE))
    if WEIGHT in table.columns:
        kept = kept.with_columns(pl.col(LEFT).cast(pl.Float32).alias(WEIGHT))
    in_vain = f"; {n_in_vain:,} found nothing to take back" if n_in_vain else ""
    return replace(table, frame=kept.drop(LEFT, GONE, TAKEN)).note(
        f"{n_returns:,} returns took back {n_gone:,} earlier events; both were left out{in_vain}. This looks "
        "ahead of any cut in time, alike for every model"
    )


def note_weights(table: Table, weighing: Weighing) -> Table:
    """Say by what events weigh, where that is not their weight as it stands."""
    if weighing.weight_from == "rating":
        return table.note("events weigh as they are rated: (rating - lowest + 1) / (highest - lowest + 1)")
    if weighing.weight_from == "weight" and weighing.weight_scale == "log" and WEIGHT in table.columns:
        return table.note("events weigh log2(1 + weight)")
    return table


def _note_meaning(table: Table, kind: str, n_events: Mapping[str, int]) -> Table:
    """Say where a kind that no choice names reads like the opposite of liking. n_events: of each kind."""
    is_return = _says(_RETURNS, kind)
    if not is_return and not _says(_DENIALS, kind):
        return table
    key = kind if re.fullmatch(r"[a-z0-9_-]+", kind) else f"'{kind}'"
    ways = [f"to leave them out, set data.kind_weights={{{key} = 0}}"]
    if is_return:
        others = [other for other in n_events if not _says(_RETURNS, other)]
        bought = next((other for word in _BOUGHT for other in others if _says(word, other)), "purchase")
        ways.insert(0, f"where they take something back, set data.return_kinds={{{key} = '{bought}'}}")
    return table.note(f"{n_events[kind]:,} events of the kind '{kind}' count as choosing the item: {'; '.join(ways)}")


def _says(words: str, kind: str) -> bool:
    """Whether one of the words, a pattern, is a word of the kind.

    >>> _says(_RETURNS, "item_returned"), _says(_RETURNS, "returning visitor"), _says("buy", "buyer")
    (True, False, False)
    """
    return re.search(rf"(?<![a-z]){words}(?![a-z])", kind) is not None
