"""The resumable state of a training: everything that the next step depends on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lmrec.artifacts.files import read_json, replaced_folder, write_json
from lmrec.errors import RunFolderError

if TYPE_CHECKING:
    from torch import Tensor

_COUNTERS = (
    *("fingerprint", "stage", "epoch", "step", "loss_sum", "n_bad"),
    *("best_metric", "best_stage", "best_epoch", "frozen_metric", "frozen_epoch", "stage_metric", "n_averaged"),
)
_GENERATORS = ("rng", "device_rng")
_TENSORS = ("weights", "moments", "averaged", "snapshots", "best", "frozen_best", "tuned_best")


@dataclass
class TrainingState:
    """Where a training stands. `epoch` and `step` count what is finished, within the stage and within the epoch.

    weights: as they are now. moments: the optimizer's tensors. best: the best weights so far. frozen_best: the towers'
    best of the first stage; tuned_best: towers and text vectors, best of the second. stage_metric: the best of this stage,
    n_bad: epochs since; a stage that rises from below the one before it goes on. averaged: the moving average of this
    stage's weights, after `n_averaged` steps. snapshots: weights at the ends of its cycles, "0/..." first.
    rng, device_rng: torch's generators, the CPU's and CUDA's.
    """

    fingerprint: str
    stage: int = -1
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    n_bad: int = 0
    best_metric: float | None = None
    best_stage: int | None = None
    best_epoch: int = 0
    frozen_metric: float | None = None
    frozen_epoch: int = 0
    stage_metric: float | None = None
    n_averaged: int = 0
    weights: "dict[str, Tensor]" = field(default_factory=dict)
    moments: "dict[str, Tensor]" = field(default_factory=dict)
    averaged: "dict[str, Tensor]" = field(default_factory=dict)
    snapshots: "dict[str, Tensor]" = field(default_factory=dict)
    best: "dict[str, Tensor]" = field(default_factory=dict)
    frozen_best: "dict[str, Tensor]" = field(default_factory=dict)
    tuned_best: "dict[str, Tensor]" = field(default_factory=dict)
    rng: "Tensor | None" = None
    device_rng: "Tensor | None" = None

    def start_stage(self, number: int) -> None:
        self.stage, self.epoch, self.step, self.loss_sum, self.n_bad = number, 0, 0, 0.0, 0
        self.averaged, self.n_averaged, self.stage_metric = {}, 0, None

    def next_epoch(self) -> None:
        self.epoch, self.step, self.loss_sum = self.epoch + 1, 0, 0.0

    def is_stage_best(self, metric: float) -> bool:
        return self.stage_metric is None or metric > self.stage_metric

    def keep_if_better(self, metric: float, weights: "Callable[[], dict[str, Tensor]]") -> None:
        if self.is_stage_best(metric):
            self.stage_metric, self.n_bad = metric, 0
        else:
            self.n_bad += 1
        if self.best_metric is None or metric > self.best_metric:
            self.best_metric = metric
            self._keep(weights())

    def keep_last(self, weights: "dict[str, Tensor]") -> None:
        self._keep(weights)

    def _keep(self, weights: "dict[str, Tensor]") -> None:
        self.best, self.best_stage, self.best_epoch = weights, self.stage, self.epoch + 1


def save_training_state(folder: Path, state: TrainingState) -> None:
    from safetensors.torch import save_file

    tensors = {f"{part}/{name}": value for part in _TENSORS for name, value in getattr(state, part).items()}
    tensors |= {name: value for name in _GENERATORS if (value := getattr(state, name)) is not None}
    with replaced_folder(folder) as fresh:
        save_file({name: value.contiguous().clone() for name, value in tensors.items()}, fresh / "state.safetensors")
        write_json(fresh / "state.json", {name: getattr(state, name) for name in _COUNTERS})


def read_counters(folder: Path, fingerprint: str) -> TrainingState:
    """The state without its tensors. Raises RunFolderError where there is none, or one of another recipe or data."""
    if not (folder / "state.json").exists():
        raise RunFolderError(f"{folder} holds no interrupted training. Run fit without --resume")
    values = read_json(folder / "state.json")
    if values.get("fingerprint") != fingerprint:
        raise RunFolderError(
            f"{folder} was interrupted with another recipe, seed or language model, or other data (fingerprint "
            f"{values.get('fingerprint')}, now {fingerprint}). Resume with what it began with, or fit into a new folder"
        )
    if set(values) != set(_COUNTERS):
        raise RunFolderError(
            f"{folder} was written by another version of lmrec. Resume with that one, or fit into a new folder"
        )
    return TrainingState(**values)


def n_epochs_kept(folder: Path, fingerprint: str) -> int:
    """How many whole epochs of its stage a training with this fingerprint left here; 0 where there is none of it."""
    try:
        return read_counters(folder, fingerprint).epoch
    except RunFolderError:
        return 0


def load_training_state(folder: Path, fingerprint: str) -> TrainingState:
    """The whole state; raises as `read_counters` does."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state = read_counters(folder, fingerprint)
    try:
        tensors = load_file(folder / "state.safetensors")
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"{folder / 'state.safetensors'} is damaged ({error}). Fit into a new folder, without --resume"
        ) from error
    for name, value in tensors.items():
        if name in _GENERATORS:
            setattr(state, name, value)
        else:
            part, _, rest = name.partition("/")
            getattr(state, part)[rest] = value
    return state
