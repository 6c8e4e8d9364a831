"""What events say of an item: wanted, not wanted, or nothing, by the recipe of the run that is served."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Self

from sqlalchemy import ColumnElement, and_, false, func, or_, true

from lmrec.data.weighing import PLAIN, Weighing
from lmrec.feedback.events import DISMISS, LIKED_STARS, Event
from lmrec.feedback.tables import EVENTS

_RATING: Final = "rating"


@dataclass(frozen=True)
class Judging:
    """An event says yes, so that it belongs to a history, unless it is one of these.

    no_kinds: say no, and take back what the same user did with the item before.
    left_out: kinds that the recipe weighs 0; they say nothing.
    returns: kinds that take back single events, as `Weighing.left_of` finds them; by themselves they say nothing.
    min_rating: events rated lower, or not at all, say nothing, as in a table.
    low_says_no: an event of the kind "rating" below LIKED_STARS says no; else it weighs what its stars weigh.
    """

    no_kinds: frozenset[str] = frozenset({DISMISS})
    left_out: frozenset[str] = frozenset()
    returns: frozenset[str] = frozenset()
    min_rating: float | None = None
    low_says_no: bool = True

    @classmethod
    def of(cls, weighing: Weighing) -> Self:
        # Who gives dismissals a weight above 0 wants them counted; 0 only says that a table's are no good sign.
        no_kinds = frozenset({DISMISS} if not weighing.kind_weights.get(DISMISS) else ())
        returns = frozenset(weighing.return_kinds)
        return cls(
            no_kinds=no_kinds - returns,
            left_out=weighing.zero_kinds - no_kinds,
            returns=returns,
            min_rating=weighing.min_rating,
            low_says_no=weighing.weight_from != "rating",
        )

    @property
    def of_lists(self) -> Self:
        """For what came of a list that was shown: a click on it has no rating, and is an answer all the same."""
        return replace(self, min_rating=None)

    def judge(self, kind: str, rating: float | None) -> bool | None:
        """Whether an event says yes or no; None: neither.

        >>> [Judging().judge(*said) for said in (("view", None), ("rating", 2.0), ("rating", None), ("dismiss", None))]
        [True, False, True, False]
        >>> strict = Judging.of(Weighing(min_rating=4, kind_weights={"view": 0}, return_kinds={"return": "purchase"}))
        >>> [strict.judge(*said) for said in (("rating", 4.0), ("rating", 3.5), ("purchase", None), ("return", None))]
        [True, None, None, None]
        """
        if kind in self.no_kinds:
            return False
        if kind in self.left_out or kind in self.returns:
            return None
        if self.min_rating is not None and rating is not None and rating >= self.min_rating:
            return True
        if self.low_says_no and kind == _RATING and rating is not None and rating < LIKED_STARS:
            return False
        return True if self.min_rating is None else None

    def says_yes(self, event: Event) -> bool:
        return self.judge(event.kind, event.rating) is True


@lru_cache(maxsize=64)
def said_yes(judging: Judging) -> ColumnElement[bool]:
    """`Judging.judge` is True, for the database; never NULL."""
    nothing = judging.no_kinds | judging.left_out | judging.returns
    counted = EVENTS.c.kind.not_in(sorted(nothing)) if nothing else true()
    if judging.min_rating is not None:
        return and_(counted, func.coalesce(EVENTS.c.rating >= judging.min_rating, false()))
    return and_(counted, or_(EVENTS.c.kind != _RATING, ~_is_low())) if judging.low_says_no else counted


@lru_cache(maxsize=64)
def said_no(judging: Judging) -> ColumnElement[bool]:
    """`Judging.judge` is False, for the database; never NULL."""
    no_kind = EVENTS.c.kind.in_(sorted(judging.no_kinds))
    if not judging.low_says_no or _RATING in judging.left_out | judging.returns:
        return no_kind
    low = and_(EVENTS.c.kind == _RATING, _is_low())
    if judging.min_rating is not None:
        low = and_(low, EVENTS.c.rating < judging.min_rating)
    return or_(no_kind, low)


def _is_low() -> ColumnElement[bool]:
    return func.coalesce(EVENTS.c.rating < LIKED_STARS, false())


PLAIN_JUDGING: Final = Judging.of(PLAIN)
