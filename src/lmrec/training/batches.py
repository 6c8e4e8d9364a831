"""Batches: from users' training events to padded tensors; the one place where padding is decided.

A window is a run of at most `max_history` consecutive events of one user. Every event in it is a target, predicted from
the state that knows exactly the window's events strictly before it in time: events that share an instant do not see
each other, as they will not when the model is judged or served.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lmrec.data.history import HistoryIndex
from lmrec.fields import IntArray, Ragged, TextArray, ranges
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
    target_idx (T,) the right item, target_weight (T,); shown: what stood beside each in a list, where lists are known;
    hidden: (B, H) events whose item is not read, where an augmentation hides some; profile: (B, P) what else is known of the
    user, 0 for nothing; words: (B,) texts that are read before the history, blank for nothing; target_time: (T,) when each
    target was chosen, UTC seconds or positions."""

    history_idx: Tensor
    history_mask: Tensor
    target_row: Tensor
    target_state: Tensor
    target_idx: Tensor
    target_weight: Tensor
    shown: Shown | None = None
    hidden: Tensor | None = None
    profile: Tensor | None = None
    words: TextArray | None = None
    target_time: Tensor | None = None

    def to(self, device: torch.device) -> "TrainBatch":
        moved = {name: value for name, value in vars(self).items() if value is not None and name != "words"}
        return TrainBatch(**{name: value.to(device) for name, value in moved.items()}, words=self.words)


def take_targets(batch: TrainBatch, chosen: Tensor) -> TrainBatch:
    """The batch with these of its targets, (T',) places."""
    targets = ("target_row", "target_state", "target_idx", "target_weight")
    shown = Shown(batch.shown.item_idx[chosen], batch.shown.mask[chosen]) if batch.shown is not None else None
    times = None if batch.target_time is None else batch.target_time[chosen]
    return replace(batch, shown=shown, target_time=times, **{name: getattr(batch, name)[chosen] for name in targets})


def cut_windows(index: HistoryIndex, max_history: int, rng: np.random.Generator) -> Windows:
    """Cut every user's events into windows; the first cut of a long history is drawn anew at each call."""
    begin, end = index.offsets[:-1], index.offsets[1:]
    long = np.flatnonzero(end - begin > max_history)
    first_cut = begin[long] + rng.integers(1, max_history + 1, len(long))
    # A long life: what comes before its first cut, then pieces of max_history.
    n_pieces = 1 + -(-(end[long] - first_cut) // max_history)
    pieces = ranges(np.zeros(len(long), np.int64), n_pieces)
    cut = np.repeat(first_cut, n_pieces) + (pieces.values - 1) * max_history
    opens = pieces.values == 0
    starts = np.where(opens, np.repeat(begin[long], n_pieces), cut)
    stops = np.minimum(
        np.where(opens, np.repeat(first_cut, n_pieces), cut + max_history), np.repeat(end[long], n_pieces)
    )
    short = np.flatnonzero((end - begin <= max_history) & (end > begin))
    return Windows(
        np.concatenate([begin[short], starts]),
        np.concatenate([end[short], stops]),
        np.concatenate([np.ones(len(short), np.bool_), opens]),
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
    events = ranges(windows.start[chosen], windows.stop[chosen])
    row, place = events.row_of_value, events.values - np.repeat(windows.start[chosen], lengths)
    items, times = index.item_idx[events.values], index.time_ts[events.values]
    history_idx = np.zeros((len(chosen), longest), np.int64)
    history_mask = np.arange(longest) < lengths[:, None]
    history_idx[history_mask] = items
    # The state before an event is that of the first event of its instant in the window.
    begins = np.ones(len(times), np.bool_)
    begins[1:] = (times[1:] != times[:-1]) | (row[1:] != row[:-1])
    state = place[np.maximum.accumulate(np.where(begins, np.arange(len(times)), 0))]
    usable = (state > 0) | windows.opens[chosen][row]
    profile = index.profile_of(index.user_idx[windows.start[chosen]])
    weight = index.weight[events.values][usable].astype(np.float32)
    if not weight.sum() > 0:
        return None
    return TrainBatch(
        history_idx=torch.from_numpy(history_idx),
        history_mask=torch.from_numpy(history_mask),
        target_row=torch.from_numpy(row[usable]),
        target_state=torch.from_numpy(state[usable]),
        target_idx=torch.from_numpy(items[usable].astype(np.int64)),
        target_weight=torch.from_numpy(weight),
        shown=None if shown is None else _beside(shown.take(events.values[usable])),
        profile=None if profile is None else torch.from_numpy(profile.ids.padded()),
        words=None if profile is None else profile.words,
        target_time=torch.from_numpy(times[usable]),
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
