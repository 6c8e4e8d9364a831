"""Continual learning: batches of what is new with a sample of what is old, and a pull to the weights that are served.

Learning from new events alone forgets the old ones. Two known cures, and both are used: replay, some old events in each
batch (Robins 1995, https://doi.org/10.1080/09540099550039318), and a penalty on leaving the old weights
(`regularisers.pull_to`).
"""

from dataclasses import replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lmrec.data.history import HistoryIndex
from lmrec.fields import BoolArray, FloatArray
from lmrec.training.batches import TrainBatch, Windows, batch_windows, cut_windows, take_targets


class UpdateConfig(BaseModel):
    """How `lmrec update` learns from new events, and when it promotes what it has learnt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_events: int = Field(default=50, ge=2, description="With fewer new events an update does nothing.")
    held_out: float = Field(
        default=0.2, gt=0, lt=1, description="The newest share of the new events, on which both models are judged."
    )
    epochs: int = Field(default=3, ge=1, description="Epochs over the new events, the language model fixed.")
    tuned_epochs: int = Field(default=0, ge=0, description="Further epochs in which the language model learns too.")
    rate_share: float = Field(
        default=0.5, gt=0, description="The learning rates of an update, as a share of training's."
    )
    replay: float = Field(default=1.0, ge=0, description="Old events learnt again, for each new one.")
    anchor: float = Field(
        default=0.01, ge=0, description="Weight of the squared distance between the towers and the served ones."
    )
    tolerance: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="The interval of the gain may reach this share of the served metric below zero. 0: the gain is clear.",
    )
    min_slice_users: int = Field(
        default=10, ge=1, description="A slice with fewer users is shown, but can stop nothing."
    )
    keep_refused: int = Field(
        default=3, ge=1, description="Generations that were not promoted kept; older ones of them go."
    )


def update_batches(
    index: HistoryIndex, is_new: BoolArray, max_history: int, batch_events: int, replay: float, seed: tuple[int, ...]
) -> list[TrainBatch]:
    """All batches of one epoch. is_new: (E,) in the index's order. The same seed gives the same batches.

    Every new event is a target. Old events are targets up to `replay` times the new ones' weight: first those that
    stand in the windows of new events anyway, then those of windows drawn at random; where the former are too many,
    a random part of them. What is no target is still history.
    """
    rng = np.random.default_rng(seed)
    windows = cut_windows(index, max_history, rng)
    chosen = _choose_windows(index, windows, is_new, replay, rng)
    inside = np.zeros(len(is_new), np.bool_)
    for start, stop in zip(chosen.start, chosen.stop, strict=True):
        inside[start:stop] = True
    old_weight = float(index.weight[inside & ~is_new].sum())
    share = min(1.0, replay * float(index.weight[is_new].sum()) / old_weight) if old_weight else 0.0
    is_target = is_new | (rng.random(len(is_new)) < share)
    weighed = replace(index, weight=np.where(is_target, index.weight, 0.0).astype(np.float32))
    return [_targets_only(batch) for batch in batch_windows(weighed, chosen, batch_events, rng)]


def _choose_windows(
    index: HistoryIndex, windows: Windows, is_new: BoolArray, replay: float, rng: np.random.Generator
) -> Windows:
    """The windows that hold new events, and as many others as replay still wants."""
    n_new = _sums(windows, is_new)
    weight_old = _sums(windows, np.where(is_new, 0.0, index.weight))
    with_new = n_new > 0
    wanted = replay * float(index.weight[is_new].sum()) - float(weight_old[with_new].sum())
    others = rng.permutation(np.flatnonzero(~with_new))
    before = np.cumsum(weight_old[others]) - weight_old[others]
    chosen = np.sort(np.concatenate([np.flatnonzero(with_new), others[before < wanted]]))
    return Windows(windows.start[chosen], windows.stop[chosen], windows.opens[chosen])


def _sums(windows: Windows, values: FloatArray | BoolArray) -> FloatArray:
    """(W,) the sum of the values (E,) in each window."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    sums: FloatArray = total[windows.stop] - total[windows.start]
    return sums


def _targets_only(batch: TrainBatch) -> TrainBatch:
    """Without the targets that weigh nothing: each costs a pass over the whole catalog."""
    return take_targets(batch, (batch.target_weight > 0).nonzero().squeeze(1))
