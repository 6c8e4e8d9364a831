"""Returns at request time: what they take back of a user's log and of what the store has heard, as in a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from lmrec.data.interactions import Interactions
from lmrec.data.weighing import Weighing, plain_kind
from lmrec.data.weights import GONE, TAKEN, left_of
from lmrec.feedback.events import Tally
from lmrec.fields import ITEM_ID, KIND, USER_ID, WEIGHT, ItemId, UserId, stable_order

_TIME: Final = "time"


@dataclass(frozen=True, eq=False)
class Returnable:
    """What the events of a log were, user by user in order of time, as in a `HistoryIndex` of it.

    kinds: plain ones. kind_idx: (E,) into them. amount: (E,) how often or how much, None for once each.
    """

    kinds: tuple[str, ...]
    kind_idx: npt.NDArray[np.int32]
    amount: npt.NDArray[np.float32] | None

    @classmethod
    def of(cls, log: Interactions, weighing: Weighing) -> Self:
        order = stable_order(log.user_idx)
        amount = None if log.amount is None else log.amount[order]
        if log.kind is None:
            return cls((weighing.no_kind,), np.zeros(len(log), np.int32), amount)
        kind = pl.Series(log.kind[order].tolist(), dtype=pl.String)
        found = kind.unique()
        kind_idx = kind.cast(pl.Enum(found)).to_physical().to_numpy().astype(np.int32)
        return cls(tuple(plain_kind(name) or weighing.no_kind for name in found), kind_idx, amount)

    def said(self, start: int, stop: int) -> list[tuple[str, float]]:
        """(kind, how often or how much) of the events at these places."""
        amounts = [1.0] * (stop - start) if self.amount is None else self.amount[start:stop].tolist()
        kinds = [self.kinds[code] for code in self.kind_idx[start:stop].tolist()]
        return list(zip(kinds, amounts, strict=True))


class Told(NamedTuple):
    """What somebody did: `kind`, a plain one, and how often or how much."""

    user_id: UserId
    item_id: ItemId
    time_ts: float
    kind: str
    amount: float


class Settled(NamedTuple):
    """What is left of a user's log and of what was heard once returns have taken back theirs."""

    logged: list[tuple[float, ItemId]]
    heard: list[Tally]


def settle(
    logged: list[tuple[float, ItemId]],
    said: Sequence[tuple[str, float]],
    heard: list[Tally],
    weighing: Weighing,
) -> Settled:
    """said: (kind, how often or how much) of each event of the log. What was heard and is taken back stays and says nothing
    any more: the user has seen the item."""
    returned = {tally.item_id for tally in heard if tally.kind in weighing.return_kinds}
    of_log = [at for at, (_, item_id) in enumerate(logged) if item_id in returned]
    later = [at for at, tally in enumerate(heard) if tally.item_id in returned]
    told = [
        *(Told("", logged[at][1], logged[at][0], *said[at]) for at in of_log),
        *(Told("", heard[at].item_id, heard[at].time_ts, heard[at].kind, heard[at].amount) for at in later),
    ]
    gone = _left(told, weighing)[GONE].to_list()
    no_more = {at for at, is_gone in zip(of_log, gone[: len(of_log)], strict=True) if is_gone}
    taken_back = {at for at, is_gone in zip(later, gone[len(of_log) :], strict=True) if is_gone}
    return Settled(
        [entry for at, entry in enumerate(logged) if at not in no_more],
        [tally._replace(good=None) if at in taken_back else tally for at, tally in enumerate(heard)],
    )


def are_in_vain(told: Sequence[Told], weighing: Weighing) -> list[bool]:
    """(E,) whether each is a return that found nothing to take back; at equal times the first comes first."""
    return [taken == 0 for taken in _left(told, weighing)[TAKEN].to_list()]


def _left(told: Sequence[Told], weighing: Weighing) -> pl.DataFrame:
    schema = {USER_ID: pl.String, ITEM_ID: pl.String, _TIME: pl.Float64, KIND: pl.String, WEIGHT: pl.Float64}
    return left_of(pl.DataFrame(told, schema=schema, orient="row"), weighing, [USER_ID, ITEM_ID], _TIME)
