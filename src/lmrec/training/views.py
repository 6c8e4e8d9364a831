"""Histories seen otherwise while training: cropped, with items hidden, or with a stretch in no known order.

The three operators of Xie et al. 2022, "Contrastive Learning for Sequential Recommendation" (CL4SRec),
https://arxiv.org/abs/2010.14395, here as augmentation of what is learnt from, without their contrastive loss. None of them
lets a target see itself: a crop keeps only targets whose known history it holds, and in a reordered stretch all targets
are predicted from what came before the stretch, as events of one instant are. Validation, the judge and the service
see histories as they are.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from lmrec.fields import IntArray
from lmrec.training.batches import TrainBatch, take_targets

View = Literal["crop", "mask", "reorder"]
_MIN_EVENTS = 3  # shorter windows have nothing to take away


class HistoryAugmentConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[View, ...] = Field(
        default=(), description="crop, mask, reorder: a changed history gets one of these, drawn anew in each epoch."
    )
    share: float = Field(default=0.5, gt=0, le=1, description="Share of the training histories that are changed.")
    crop_keep: float = Field(default=0.6, gt=0, lt=1, description="crop: share of a history that stays, in one piece.")
    mask_share: float = Field(default=0.3, gt=0, lt=1, description="mask: share of the items that are hidden.")
    reorder_share: float = Field(default=0.6, gt=0, lt=1, description="reorder: share of a history that is shuffled.")


def view_batch(batch: TrainBatch, config: HistoryAugmentConfig, rng: np.random.Generator) -> TrainBatch:
    """The batch with its drawn histories changed. At least one target is left, or the batch comes back as it was."""
    if not config.kinds:
        return batch
    lengths = batch.history_mask.sum(1).numpy()
    chosen = np.flatnonzero((rng.random(len(lengths)) < config.share) & (lengths >= _MIN_EVENTS))
    kind = rng.integers(0, len(config.kinds), len(chosen))
    changed = batch
    for number, name in enumerate(config.kinds):
        rows = chosen[kind == number]
        if not len(rows):
            continue
        if name == "crop":
            changed = _crop(changed, rows, lengths, config.crop_keep, rng)
        elif name == "mask":
            changed = _hide(changed, rows, config.mask_share, rng)
        else:
            changed = _reorder(changed, rows, lengths, config.reorder_share, rng)
    return changed if bool((changed.target_weight > 0).any()) else batch


def _crop(batch: TrainBatch, rows: IntArray, lengths: IntArray, keep: float, rng: np.random.Generator) -> TrainBatch:
    """Each row keeps one piece. A state that knew what is cut off at the left now knows the rest of it only."""
    history, mask = batch.history_idx.clone(), batch.history_mask.clone()
    first = np.zeros(len(lengths), np.int64)
    last = np.full(len(lengths), history.shape[1], np.int64)
    for row in rows:
        size = max(1, round(keep * int(lengths[row])))
        first[row] = rng.integers(0, lengths[row] - size + 1)
        last[row] = first[row] + size
        history[row, :size] = batch.history_idx[row, first[row] : last[row]]
        mask[row, size:] = False
    start, stop = torch.from_numpy(first)[batch.target_row], torch.from_numpy(last)[batch.target_row]
    # What follows the crop at once is a target too: its whole history is the crop.
    known = (batch.target_state <= stop) & ((batch.target_state > start) | (start == 0))
    cropped = replace(batch, history_idx=history, history_mask=mask, target_state=batch.target_state - start)
    return take_targets(cropped, known.nonzero().squeeze(1))


def _hide(batch: TrainBatch, rows: IntArray, share: float, rng: np.random.Generator) -> TrainBatch:
    """Hidden items stay where they were, and stay targets and "seen"; only what they are is not read."""
    hidden = torch.zeros_like(batch.history_mask) if batch.hidden is None else batch.hidden.clone()
    hidden[rows] = torch.from_numpy(rng.random((len(rows), hidden.shape[1])) < share)
    return replace(batch, hidden=hidden & batch.history_mask)


def _reorder(
    batch: TrainBatch, rows: IntArray, lengths: IntArray, share: float, rng: np.random.Generator
) -> TrainBatch:
    """A stretch [first, last) of each row, never the row's first event, is shuffled; states within it end before it."""
    history = batch.history_idx.clone()
    first = np.zeros(len(lengths), np.int64)
    last = np.zeros(len(lengths), np.int64)
    for row in rows:
        size = min(max(2, round(share * int(lengths[row]))), int(lengths[row]) - 1)
        first[row] = rng.integers(1, lengths[row] - size + 1)
        last[row] = first[row] + size
        places = np.arange(first[row], last[row])
        history[row, places] = batch.history_idx[row, rng.permutation(places)]
    start, stop = torch.from_numpy(first)[batch.target_row], torch.from_numpy(last)[batch.target_row]
    inside = (batch.target_state > start) & (batch.target_state < stop)
    return replace(batch, history_idx=history, target_state=torch.where(inside, start, batch.target_state))
