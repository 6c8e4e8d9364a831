"""What orders candidates beside the model's own score, where a run has learnt from lists that were shown.

live_stack.json            parts, weights, scales, how the click rate is counted, until when
counts.safetensors         of each item that was shown by then: its row, shows, clicks, first show
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lmrec.artifacts.files import read_json, replaced_folder, write_json
from lmrec.errors import RunFolderError
from lmrec.fields import ItemId
from lmrec.models.click_rates import ClickRateConfig
from lmrec.models.live_stack import LIVE_PARTS, OWN_PARTS, ItemCounts, LiveStack, RunningCounts
from lmrec.models.stacking import Stack

_DESCRIPTION, _COUNTS = "live_stack.json", "counts.safetensors"
_COLUMNS = ItemCounts._fields


@dataclass(frozen=True, eq=False)
class ListStack:
    """known: what is counted until `until_ts`, UTC seconds; what was shown later is to be added to `counts()`."""

    stack: LiveStack
    known: dict[ItemId, ItemCounts]
    until_ts: float

    def counts(self) -> RunningCounts:
        """Counts of one's own, to go on from."""
        return RunningCounts(self.stack.click_rate.half_life_hours, self.known)


def save_list_stack(folder: Path, saved: ListStack, item_ids: Sequence[ItemId]) -> None:
    """Write the folder whole, or not at all. item_ids: (N,) the run's catalog; counts of other items are left out."""
    rows = [row for row, item_id in enumerate(item_ids) if item_id in saved.known]
    values = np.array([saved.known[item_ids[row]] for row in rows], np.float64).reshape(len(rows), len(_COLUMNS))
    with replaced_folder(folder) as fresh:
        columns = {name: torch.from_numpy(values[:, at].copy()) for at, name in enumerate(_COLUMNS)}
        save_file({"item_idx": torch.tensor(rows, dtype=torch.int64), **columns}, fresh / _COUNTS)
        write_json(
            fresh / _DESCRIPTION,
            {
                "names": list(saved.stack.stack.names),
                "weights": list(saved.stack.stack.weights),
                "scale": list(saved.stack.stack.scale),
                "click_rate": saved.stack.click_rate.model_dump(mode="json"),
                "rate": saved.stack.rate,
                "until_ts": saved.until_ts,
            },
        )


def load_list_stack(folder: Path, item_ids: Sequence[ItemId]) -> ListStack:
    """item_ids: (N,) the run's catalog. Raises RunFolderError where the folder is damaged or of another catalog."""
    values: dict[str, Any] = read_json(folder / _DESCRIPTION)
    try:
        numbers = [*values["weights"], *values["scale"], values["rate"], values["until_ts"]]
        names, weights, scale = (tuple(values[name]) for name in ("names", "weights", "scale"))
        known_names = [(own, *LIVE_PARTS) for own in OWN_PARTS]
        if names not in known_names or not len(names) == len(weights) == len(scale):
            raise ValueError(f"it names {names}, expected {known_names[0]} with a weight and a scale each")
        if not np.isfinite(np.array(numbers, np.float64)).all() or min(scale) <= 0:
            raise ValueError("a number is not finite, or a scale is not above 0")
        stack = LiveStack(ClickRateConfig(**values["click_rate"]), values["rate"], Stack(names, weights, scale))
        tensors = load_file(folder / _COUNTS)
        rows, columns = tensors["item_idx"].numpy(), np.stack([tensors[name].numpy() for name in _COLUMNS], axis=1)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(item_ids):
            raise ValueError(f"counts of row {rows.max():,}, and the catalog has {len(item_ids):,} items")
        if not np.isfinite(columns).all() or len(columns) != len(rows):
            raise ValueError("counts are not finite, or not of their items")
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        raise RunFolderError(f"{folder} is damaged, or of another catalog ({error}). Fit the run again") from error
    known = {item_ids[row]: ItemCounts(*own) for row, own in zip(rows.tolist(), columns.tolist(), strict=True)}
    return ListStack(stack, known, float(values["until_ts"]))
