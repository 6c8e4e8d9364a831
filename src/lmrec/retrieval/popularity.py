"""What is popular now: the events of a log, newer ones counting more."""

import numpy as np
import numpy.typing as npt

from lmrec.data.interactions import Interactions
from lmrec.fields import TIMESTAMP

HALF_LIFE_S = 30 * 86_400.0


def recent_popularity(log: Interactions, n_items: int, half_life_s: float = HALF_LIFE_S) -> npt.NDArray[np.float32]:
    """(N,) for each item the sum over its events of weight * 2^(-age / half_life_s), the age counted from the newest event.

    A log whose times are positions has no ages that could be compared: there every event counts in full.
    """
    weight = log.weight.astype(np.float64)
    if log.time_kind == TIMESTAMP and log.n_events:
        weight = weight * np.exp2((log.time_ts - log.time_ts.max()) / half_life_s)
    return np.bincount(log.item_idx, weights=weight, minlength=n_items).astype(np.float32)
