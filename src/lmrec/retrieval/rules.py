"""Rules compiled against the rows of a catalog, once when rules or rows change: a request only reads arrays. No torch."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from lmrec.errors import InputError, nearest
from lmrec.fields import BoolArray, ItemId
from lmrec.retrieval.filters import Filter, number_of, parse_filter, truth_of, words_filter
from lmrec.retrieval.index import RowMask
from lmrec.retrieval.rule_kinds import (
    AgeRating,
    BlockWords,
    Boost,
    Demote,
    InStock,
    MustNotShow,
    Pin,
    Rule,
    load_rules_file,
    parse_rule,
)

__all__ = [
    "CompiledRules", "PinnedRow", "Review", "Rule", "RowView", "SegmentRules",
    "compile_rules", "load_rules_file", "parse_rule", "place_pins",
]  # fmt: skip

_FEW = 16


class RowView(Protocol):
    """The rows of a catalog that rules are compiled against."""

    @property
    def n_rows(self) -> int: ...
    @property
    def alive(self) -> BoolArray:
        """(n_rows,) False for rows that were deleted or replaced."""
        ...

    @property
    def schema(self) -> Mapping[str, pl.DataType]: ...
    @property
    def text_columns(self) -> tuple[str, ...]: ...
    def row_of(self, item_id: ItemId) -> int | None: ...
    def mask(self, item_filter: Filter) -> BoolArray:
        """(n_rows,) the rows that pass."""
        ...


@dataclass(frozen=True)
class Review:
    """waiting: items that a person must look at first, not shown. approved: items that a person has let through, and when
    (UTC seconds). made: when rules were made: an approval is of the rules of its time; a rule without a time is older."""

    waiting: frozenset[ItemId] = frozenset()
    approved: Mapping[ItemId, float] = field(default_factory=dict)
    made: Mapping[str, float] = field(default_factory=dict)

    def approved_under(self, rule_id: str) -> list[ItemId]:
        since = self.made.get(rule_id, -math.inf)
        return [item_id for item_id, time_ts in self.approved.items() if time_ts >= since]


@dataclass(frozen=True)
class PinnedRow:
    place: int
    row: int
    rule_id: str


@dataclass(frozen=True, eq=False)
class SegmentRules:
    """What the rules say for one segment of users.

    hidden: (n_rows,) rows never shown. adjustment: (n_rows,) float32 to add to scores, None where no rule adds.
    rule_idx: (n_rows,) which rule adjusted a row, -1 none. pins: by place.
    """

    hidden: BoolArray
    adjustment: npt.NDArray[np.float32] | None
    rule_idx: npt.NDArray[np.int32] | None
    pins: tuple[PinnedRow, ...]

    @cached_property
    def few_hidden(self) -> npt.NDArray[np.int64] | None:
        """The hidden rows one by one, where they are so few that naming them is quicker than a mask; else None."""
        if np.count_nonzero(self.hidden) * _FEW > len(self.hidden):
            return None
        return np.flatnonzero(self.hidden)

    @cached_property
    def levels(self) -> tuple[tuple[float, RowMask], ...]:
        """What may be shown, apart for each adjustment: within one, the model's order holds."""
        return self.levels_within(None)

    def levels_within(self, chosen: BoolArray | None) -> tuple[tuple[float, RowMask], ...]:
        """The same of what a filter lets through, chosen: (n_rows,)."""
        shown = ~self.hidden if chosen is None else chosen & ~self.hidden
        if self.adjustment is None:
            return ((0.0, RowMask.of(shown)),)
        return tuple(
            (float(value), RowMask.of(shown & (self.adjustment == value)))
            for value in np.unique(self.adjustment[shown])
        )


@dataclass(frozen=True, eq=False)
class CompiledRules:
    """rule_ids: in force, in order. held: rows that wait because of a word, and the rule that says so."""

    rule_ids: tuple[str, ...]
    everyone: SegmentRules
    by_segment: Mapping[str, SegmentRules] = field(default_factory=dict)
    held: Mapping[int, str] = field(default_factory=dict)

    def of(self, segment: str | None) -> SegmentRules:
        return self.everyone if segment is None else self.by_segment.get(segment, self.everyone)


def compile_rules(rules: Mapping[str, Rule], view: RowView, review: Review | None = None) -> CompiledRules:
    """The rules as arrays over the view's rows. Items that a rule names and the catalog lacks are passed over.

    Raises InputError, naming the rule, where a field does not exist or a filter does not fit.
    """
    review = review or Review()
    hidden_for: dict[str | None, list[BoolArray]] = {None: [~view.alive, _rows_of(view, review.waiting)]}
    changes: list[tuple[str | None, int, float, BoolArray]] = []
    pins: list[tuple[str | None, PinnedRow]] = []
    held: dict[int, str] = {}
    for idx, (rule_id, rule) in enumerate(rules.items()):
        segment = rule.segment
        try:
            match rule:
                case Pin():
                    row = view.row_of(rule.item_id)
                    if row is not None:
                        pins.append((segment, PinnedRow(rule.place, row, rule_id)))
                case Boost():
                    changes.append((segment, idx, math.log(rule.factor), _targets(view, rule)))
                case Demote():
                    changes.append((segment, idx, -math.log(rule.factor), _targets(view, rule)))
                case BlockWords(review=True):
                    approved = _rows_of(view, review.approved_under(rule_id))
                    found = _hides(view, rule) & ~approved & view.alive
                    hidden_for[None].append(found)
                    held |= {int(row): rule_id for row in np.flatnonzero(found)}
                case _:
                    hidden_for.setdefault(segment, []).append(_hides(view, rule))
        except InputError as error:
            raise InputError(f"rule '{rule_id}': {error}") from None
    named = {
        segment for segment in (*hidden_for, *(c[0] for c in changes), *(p[0] for p in pins)) if segment is not None
    }

    def for_segment(segment: str | None) -> SegmentRules:
        applies = {None, segment}
        hidden = np.logical_or.reduce([mask for name in applies for mask in hidden_for.get(name, [])])
        chosen = [change[1:] for change in changes if change[0] in applies]
        own_pins = sorted((pin for name, pin in pins if name in applies), key=lambda pin: pin.place)
        return SegmentRules(hidden, *_adjust(view.n_rows, chosen), tuple(own_pins))

    return CompiledRules(tuple(rules), for_segment(None), {name: for_segment(name) for name in named}, held)


def place_pins(rows: Sequence[int], pins: Sequence[PinnedRow], k: int) -> list[int]:
    """The first k of `rows` with pinned rows at their places; of two at one place the later goes to the next that is free.

    >>> place_pins([7, 8, 9], [PinnedRow(1, 4, "a"), PinnedRow(3, 8, "b")], k=3)
    [4, 7, 8]
    """
    taken: dict[int, int] = {}
    pinned: set[int] = set()
    for pin in pins:
        place = pin.place
        while place in taken:
            place += 1
        if place <= k and pin.row not in pinned:
            taken[place] = pin.row
            pinned.add(pin.row)
    others = [row for row in rows if row not in pinned]
    result: list[int] = []
    for place in range(1, k + 1):
        if place in taken:
            result.append(taken.pop(place))
        elif others:
            result.append(others.pop(0))
    return result


def _adjust(
    n_rows: int, changes: Sequence[tuple[int, float, BoolArray]]
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.int32] | None]:
    if not changes:
        return None, None
    adjustment, rule_idx = np.zeros(n_rows, np.float32), np.full(n_rows, -1, np.int32)
    for idx, value, mask in changes:
        adjustment[mask] += np.float32(value)
        rule_idx[mask] = idx
    return adjustment, rule_idx


def _hides(view: RowView, rule: MustNotShow | AgeRating | InStock | BlockWords) -> BoolArray:
    match rule:
        case MustNotShow():
            return _targets(view, rule)
        case AgeRating():
            fits = number_of(rule.field, _type_of(view, rule.field)) <= rule.max
            shown = Filter(f"age_rating {rule.field!r} {rule.max!r}", fits.fill_null(False))
            return ~view.mask(shown)
        case InStock():
            return ~view.mask(Filter(f"in_stock {rule.field!r}", truth_of(rule.field, _type_of(view, rule.field))))
        case BlockWords():
            return view.mask(words_filter(rule.words, view.text_columns))


def _targets(view: RowView, rule: MustNotShow | Boost | Demote) -> BoolArray:
    mask = _rows_of(view, rule.item_ids)
    return mask if rule.filter is None else mask | view.mask(parse_filter(rule.filter, view.schema))


def _rows_of(view: RowView, item_ids: Collection[ItemId]) -> BoolArray:
    mask = np.zeros(view.n_rows, np.bool_)
    mask[[row for item_id in item_ids if (row := view.row_of(item_id)) is not None]] = True
    return mask


def _type_of(view: RowView, name: str) -> pl.DataType:
    if name not in view.schema:
        raise InputError(f"it names the field '{name}', which items do not have. {nearest(name, view.schema)}")
    dtype = view.schema[name]
    if not (dtype.is_numeric() or dtype in (pl.String, pl.Boolean)):
        raise InputError(
            f"it reads the field '{name}', which is {dtype}. Name a field of numbers, texts or true and false"
        )
    return dtype
