"""Returns at request time: what they take back of a user's log and of what the store has heard, as in a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from lmrec.data.interactions import Interactions
from lmrec.data.weighing import Weighing, plain_kind
from lmrec.data.weights import GONE, TAKEN, left_of
from lmrec.feedback.events import Tally
from lmrec.fields import ITEM_ID, KIND, WEIGHT, ItemId, stable_order

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


@dataclass(frozen=True)
class Settled:
    """What is left of a user's log and of what was heard once returns have taken back theirs. in_vain: ids of the returns
    that found nothing."""

    logged: list[tuple[float, ItemId]]
    heard: list[Tally]
    in_vain: frozenset[str] = frozenset()


def settle(
    logged: list[tuple[float, ItemId]],
    said: Sequence[tuple[str, float]],
    heard: list[Tally],
    weighing: Weighing,
) -> Settled:
    """said: (kind, how often or how much) of each event of the log. What was heard and is taken back stays and says nothing
    any more: the user has seen the item."""
    rows = [
        *((item_id, time_ts, kind, amount) for (time_ts, item_id), (kind, amount) in zip(logged, said, strict=True)),
        *((tally.item_id, tally.time_ts, tally.kind, tally.amount) for tally in heard),
    ]
    schema = {ITEM_ID: pl.String, _TIME: pl.Float64, KIND: pl.String, WEIGHT: pl.Float64}
    left = left_of(pl.DataFrame(rows, schema=schema, orient="row"), weighing, [ITEM_ID], _TIME)
    gone, taken = left[GONE].to_list(), left[TAKEN].to_list()
    of_log, later = gone[: len(logged)], gone[len(logged) :]
    return Settled(
        [entry for entry, is_back in zip(logged, of_log, strict=True) if not is_back],
        [tally._replace(good=None) if is_back else tally for tally, is_back in zip(heard, later, strict=True)],
        frozenset(tally.event_id for tally, back in zip(heard, taken[len(logged) :], strict=True) if back == 0),
    )
