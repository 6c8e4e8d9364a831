"""Batches: from users' training events to padded tensors; the one place where padding is decided.

A window is a run of at most `max_history` consecutive events of one user. Every event in it is a target, predicted from
the state that knows exactly the window's events strictly before it in time: events that share an instant do not see
each other, as they will not when the model is judged or served.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmrec.data.history import HistoryIndex
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.training.objectives import Shown


@dataclass(frozen=True)
class Windows:
    """W windows into the flat arrays of a HistoryIndex: `[start, stop)`; `opens` where it begins the user's life."""

    start: IntArray
    stop: IntArray
    opens: IntArray

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True)
class TrainBatch:
    """history_idx, history_mask: (B, H). Targets, T of them: target_row (T,) in B, target_state (T,) in H + 1,
    target_idx (T,) the right item, target_weight (T,); shown: what stood beside each in a list, where lists are known."""

    history_idx: Tensor
    history_mask: Tensor
    target_row: Tensor
    target_state: Tensor
    target_idx: Tensor
    target_weight: Tensor
    shown: Shown | None = None

    def to(self, device: torch.device) -> "TrainBatch":
        return TrainBatch(**{name: value.to(device) for name, value in vars(self).items() if value is not None})


def cut_windows(index: HistoryIndex, max_history: int, rng: np.random.Generator) -> Windows:
    """Cut every user's events into windows; the first cut of a long history is drawn anew at each call."""
    starts: list[int] = []
    stops: list[int] = []
    opens: list[bool] = []
    begin, end = index.offsets[:-1], index.offsets[1:]
    long_users = end - begin > max_history
    for user in np.flatnonzero(long_users):
        a, b = int(begin[user]), int(end[user])
        first = a + int(rng.integers(1, max_history + 1))
        cuts = [a, *range(first, b, max_history), b]
        starts += cuts[:-1]
        stops += cuts[1:]
        opens += [True] + [False] * (len(cuts) - 2)
    short = np.flatnonzero(~long_users & (end > begin))
    return Windows(
        np.concatenate([begin[short], np.asarray(starts, np.int64)]),
        np.concatenate([end[short], np.asarray(stops, np.int64)]),
        np.concatenate([np.ones(len(short), np.bool_), np.asarray(opens, np.bool_)]),
    )


def make_batch(
    index: HistoryIndex, windows: Windows, chosen: IntArray, shown: Ragged | None = None
) -> TrainBatch | None:
    """The chosen windows as one batch; None where no event in them can be a target.

    shown: for each event of the index what was shown beside it and not clicked, empty where that is not known.

    In a window that does not open the user's life, events with nothing before them in the window are no targets: their
    true history is not empty, only out of sight.
    """
    lengths = windows.stop[chosen] - windows.start[chosen]
    longest = int(lengths.max())
    history_idx = np.zeros((len(chosen), longest), np.int64)
    history_mask = np.arange(longest) < lengths[:, None]
    rows: list[IntArray] = []
    states: list[IntArray] = []
    targets: list[IntArray] = []
    weights: list[FloatArray] = []
    events: list[IntArray] = []
    for row, window in enumerate(chosen):
        part = slice(int(windows.start[window]), int(windows.stop[window]))
        items, times = index.item_idx[part], index.time_ts[part]
        history_idx[row, : len(items)] = items
        state = np.searchsorted(times, times, side="left")
        usable = (state > 0) | bool(windows.opens[window])
        rows.append(np.full(int(usable.sum()), row, np.int64))
        states.append(state[usable])
        targets.append(items[usable])
        weights.append(index.weight[part][usable])
        events.append(part.start + np.flatnonzero(usable))
    weight = np.concatenate(weights).astype(np.float32)
    if not weight.sum() > 0:
        return None
    return TrainBatch(
        history_idx=torch.from_numpy(history_idx),
        history_mask=torch.from_numpy(history_mask),
        target_row=torch.from_numpy(np.concatenate(rows)),
        target_state=torch.from_numpy(np.concatenate(states).astype(np.int64)),
        target_idx=torch.from_numpy(np.concatenate(targets).astype(np.int64)),
        target_weight=torch.from_numpy(weight),
        shown=None if shown is None else _beside(shown.take(np.concatenate(events))),
    )


def _beside(shown: Ragged) -> Shown:
    """Ragged rows as (T, K), at least one wide."""
    mask = np.arange(max(1, int(shown.lengths.max(initial=0)))) < shown.lengths[:, None]
    items = np.zeros(mask.shape, np.int64)
    items[mask] = shown.values
    return Shown(torch.from_numpy(items), torch.from_numpy(mask))


def epoch_batches(
    index: HistoryIndex, max_history: int, batch_events: int, seed: tuple[int, ...], shown: Ragged | None = None
) -> list[TrainBatch]:
    """All batches of one epoch, of about `batch_events` events each.

    The same seed gives the same batches in the same order, which is what resuming needs.

    Windows of like length share a batch (little padding); the batches come in random order.
    """
    rng = np.random.default_rng(seed)
    return batch_windows(index, cut_windows(index, max_history, rng), batch_events, rng, shown)


def batch_windows(
    index: HistoryIndex,
    windows: Windows,
    batch_events: int,
    rng: np.random.Generator,
    shown: Ragged | None = None,
) -> list[TrainBatch]:
    """The windows as batches of about `batch_events` events each, in random order; those without a target left out."""
    batches = (make_batch(index, windows, chosen, shown) for chosen in _length_buckets(windows, batch_events, rng))
    return [batch for batch in batches if batch is not None]


def _length_buckets(windows: Windows, batch_events: int, rng: np.random.Generator) -> Iterator[IntArray]:
    """Groups of windows that hold about `batch_events` events each, or one longer window."""
    # Sorting by length with noise keeps batches tight without making them the same in every epoch.
    lengths = windows.stop - windows.start
    order = np.argsort(lengths * rng.uniform(0.8, 1.25, len(windows)), kind="stable")
    group_of = (np.cumsum(lengths[order]) - 1) // batch_events
    groups = np.split(order, np.flatnonzero(np.diff(group_of)) + 1) if len(order) else []
    for place in rng.permutation(len(groups)):
        yield groups[place]
