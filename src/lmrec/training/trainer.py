"""The loop: stages of epochs on accelerate, with early stopping, restore of the best, safe Ctrl-C and exact resume.

It takes `validate` as a callable and knows no metric; it takes batches as a callable and knows no data.

- Clipping: gradients longer than `max_grad_norm` (L2, over all weights of a part) are scaled down to it: Pascanu et al. 2013,
  "On the difficulty of training recurrent neural networks", https://arxiv.org/abs/1211.5063.
- Early stopping: a stage ends after `patience` epochs without a better validation metric than its own best, and the best
  weights of all stages stay: Prechelt 1998, "Early Stopping - But When?", https://doi.org/10.1007/3-540-49430-8_3.
- Accumulation: a step takes the mean of the gradients of `accumulate` batches: Ott et al. 2018, "Scaling Neural Machine
  Translation", https://arxiv.org/abs/1806.00187.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from lmrec.artifacts.training_state import TrainingState, load_training_state, save_training_state
from lmrec.errors import Interrupted, TrainingError
from lmrec.models.precision import autocast, has_fast_bf16
from lmrec.progress import Bar, progress_bar
from lmrec.training.averaging import average_decay, average_in
from lmrec.training.batches import TrainBatch
from lmrec.training.cost import StageCost, count_trainable
from lmrec.training.generators import generators, set_generators
from lmrec.training.learner import Learner, Regime
from lmrec.training.optimizer import (
    OptimizerKind,
    Schedule,
    build_optimizer,
    layer_rates,
    learning_rate_factor,
    moments_of,
    parameter_groups,
    restore_moments,
    set_learning_rate,
)

Weights: TypeAlias = dict[str, Tensor]


class TrainingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=0, ge=0, description="Seed of weights, batches and dropout.")
    frozen_epochs: int = Field(default=10, ge=0, description="Epochs of the first stage: the language model is fixed.")
    tuned_epochs: int = Field(default=2, ge=0, description="Epochs of the second stage: the language model learns too.")
    batch_events: int = Field(default=800, ge=1, description="Events of histories in a batch of the first stage.")
    tuned_batch_events: int = Field(
        default=4000, ge=1, description="The same in the second stage, where a step costs more."
    )
    learning_rate: float = Field(default=3e-3, gt=0, description="First stage: user model, projection, id residual.")
    tuned_learning_rate: float = Field(default=5e-4, gt=0, description="The same parts in the second stage.")
    encoder_learning_rate: float = Field(default=2e-5, gt=0, description="The language model, in the second stage.")
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Each layer of the language model learns at this share of the rate of the one above it; 1: all alike.",
    )
    weight_decay: float = Field(default=0.01, ge=0, description="Decay of matrices; norms and biases never decay.")
    optimizer: OptimizerKind = Field(
        default="adamw",
        description="adamw; sgd, with momentum, whose learning rates are larger (`lmrec find-rate`); adafactor, with a "
        "fraction of adamw's memory.",
    )
    momentum: float | None = Field(default=None, ge=0, lt=1, description="sgd: share of the last step. Unset: 0.9.")
    schedule: Schedule = Field(default="cosine", description="Course of the learning rates after warm-up.")
    warmup_share: float = Field(default=0.05, ge=0, le=1, description="Share of a stage's steps spent warming up.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Gradients are clipped to this norm.")
    accumulate: int = Field(default=1, ge=1, description="Batches whose gradients make one step.")
    encoder_interval: int = Field(
        default=5, ge=1, description="Second stage: steps whose gradients are gathered before the language model steps."
    )
    max_encoded_items: int = Field(
        default=512, ge=1, description="Items encoded with gradient each time the language model steps."
    )
    mask_seen: bool | None = Field(
        default=None,
        description="Leave items of the history out of the softmax; unset: where evaluation.exclude_seen leaves them out.",
    )
    refit: bool = Field(
        default=True,
        description="In the end fresh towers learn from training and validation together, on the text vectors and for the "
        "epochs that validation chose.",
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the moving average of the weights that stays at each step, such as 0.999; the average is what "
        "is validated and kept. Unset: no average.",
    )
    snapshots: int = Field(
        default=0,
        ge=0,
        description="Cycles of the first stage, each with a cosine course of its own; the towers at their ends become the "
        "runs RUN/snapshots/1, 2, ... for `lmrec ensemble`. 0: one course, none kept.",
    )
    start_seed: int | None = Field(
        default=None,
        ge=0,
        description="Seed of the towers' first weights; unset: training.seed. Runs that share it can be made a soup.",
    )
    patience: int = Field(
        default=3,
        ge=1,
        description="Epochs without a better validation metric than the stage's own best before it ends; one with snapshots "
        "goes on to its end.",
    )
    validation_cases: int = Field(default=2000, ge=1, description="Validation cases drawn to measure after each epoch.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 autocast where this machine computes it faster, else fp32."
    )


@dataclass(frozen=True)
class Stage:
    """n_cycles: courses of the learning rate, one after the other, with a snapshot at the end of each; 0: one, without."""

    regime: Regime
    n_epochs: int
    learning_rate: float
    encoder_learning_rate: float
    n_cycles: int = 0

    def factor(self, epoch: int, step: int, per_epoch: int, n_steps: int, config: TrainingConfig) -> float:
        """What learning rates are multiplied by in this step of an epoch of `per_epoch`; n_steps: of all epochs."""
        if not self.n_cycles:
            return learning_rate_factor(epoch * per_epoch + step, n_steps, config.warmup_share, config.schedule)
        # Huang et al. 2017, https://arxiv.org/abs/1704.00109: a cosine from the full rate, again and again.
        in_cycle = self.n_epochs // self.n_cycles
        done, warm_up = (epoch % in_cycle) * per_epoch + step, config.warmup_share if epoch < in_cycle else 0.0
        return learning_rate_factor(done, in_cycle * per_epoch, warm_up, "cosine")

    def ends_cycle(self, n_epochs_done: int) -> bool:
        return bool(self.n_cycles) and n_epochs_done % (self.n_epochs // self.n_cycles) == 0


@dataclass(frozen=True)
class TrainingReport:
    """best_metric is None where nothing validated; `frozen_best` are the towers' best weights of the first stage, from its
    epoch `frozen_epoch` (0: there was none), `tuned_best` the towers' best and the text vectors of the second; `snapshots`
    the weights at the ends of the first stage's cycles. `costs`: of each stage, by its regime."""

    best_metric: float | None
    best_stage: Regime | None
    best_epoch: int
    frozen_best: Weights | None
    frozen_metric: float | None
    frozen_epoch: int
    tuned_best: Weights | None
    costs: dict[Regime, StageCost] = field(default_factory=dict)
    snapshots: tuple[Weights, ...] = ()


def check_snapshots(config: TrainingConfig, refits: bool) -> None:
    """Raises ValueError where a stage cannot be cut into cycles, or what is served does not come from them."""
    n, epochs = config.snapshots, config.frozen_epochs
    for wrong, rule in (
        (epochs < n or epochs % n, f"training.frozen_epochs is {epochs}, and must be a multiple of it"),
        (config.schedule != "cosine", f"each cycle is a cosine, and training.schedule is '{config.schedule}'"),
        (config.ema is not None, "training.ema averages over the ends of cycles, which are to differ"),
        (
            config.tuned_epochs and not refits,
            "what is served comes from the second stage: set training.refit, or training.tuned_epochs to 0",
        ),
    ):
        if wrong:
            raise ValueError(f"training.snapshots is {n}: {rule}")


def plan_stages(config: TrainingConfig, can_tune: bool) -> list[Stage]:
    """The stages that a config asks for; without trainable language-model parameters the second one falls away."""
    stages = [Stage("frozen", config.frozen_epochs, config.learning_rate, 0.0, config.snapshots)]
    if can_tune:
        stages.append(Stage("tuned", config.tuned_epochs, config.tuned_learning_rate, config.encoder_learning_rate))
    return [stage for stage in stages if stage.n_epochs]


def trains_in_bf16(config: TrainingConfig) -> bool:
    """Where it is asked for, or where nothing is and the hardware has it."""
    return has_fast_bf16() if config.precision == "auto" else config.precision == "bf16"


def beside_encoder(learner: Learner) -> list[torch.nn.Parameter]:
    """What learns in both stages: the towers, and what an objective has of its own, such as a second task's head."""
    own = learner.objective.parameters() if isinstance(learner.objective, torch.nn.Module) else ()
    return [*learner.towers.parameters(), *own]


class Trainer:
    """Trains a learner in place.

    batches: (stage number, epoch) -> that epoch's batches, the same whenever asked.
    validate: the metric to maximise, or None where there is nothing to validate on.
    record: called with one flat row for each epoch, for logs.
    state_folder: where the resumable state is kept; fingerprint: what a resumed run must agree on.
    label: what the progress bar is called; by default the stage.
    """

    def __init__(
        self,
        learner: Learner,
        config: TrainingConfig,
        batches: Callable[[int, int], list[TrainBatch]],
        validate: Callable[[], float] | None,
        record: Callable[[dict[str, Any]], None],
        state_folder: Path,
        fingerprint: str,
        should_stop: Callable[[], bool] = lambda: False,
        label: str = "",
        show: bool = True,
    ) -> None:
        # accelerate keeps one precision for the whole process; ours is each training's own.
        self.accelerator = Accelerator(
            mixed_precision="no", cpu=not torch.cuda.is_available(), step_scheduler_with_optimizer=False
        )
        self.learner = learner.to(self.accelerator.device)
        self.learner.autocast = partial(autocast, self.accelerator.device, trains_in_bf16(config))
        self.config = config
        self.batches, self.validate, self.record = batches, validate, record
        self.state_folder, self.fingerprint = state_folder, fingerprint
        self.should_stop, self.label, self.show = should_stop, label, show
        self.state = TrainingState(fingerprint=fingerprint)
        self.costs: dict[Regime, StageCost] = {}

    def run(self, stages: list[Stage], resume: bool) -> TrainingReport:
        """Train all stages and leave the best weights in the learner. Raises Interrupted after saving, on a stop."""
        torch.manual_seed(self.config.seed)
        self._plan_ranks(stages)
        resumed = load_training_state(self.state_folder, self.fingerprint) if resume else None
        if resumed is not None:
            self.state = resumed
        for number, stage in enumerate(stages):
            if number < self.state.stage:
                continue
            self._run_stage(number, stage, resumed if resumed is not None and resumed.stage == number else None)
        if self.state.best:
            self._load(self.state.best)
        self.learner.eval()  # a resume behind the last epoch validates nothing, and what follows asks the learner
        stage_of_best = self.state.best_stage
        return TrainingReport(
            best_metric=self.state.best_metric,
            best_stage=stages[stage_of_best].regime if stage_of_best is not None else None,
            best_epoch=self.state.best_epoch,
            frozen_best=self.state.frozen_best or None,
            frozen_metric=self.state.frozen_metric,
            frozen_epoch=self.state.frozen_epoch,
            tuned_best=self.state.tuned_best or None,
            costs=self.costs,
            snapshots=_split(self.state.snapshots),
        )

    def _plan_ranks(self, stages: list[Stage]) -> None:
        """Tell an AdaLoRA how often the language model will step."""
        encoder, config = self.learner.encoder, self.config
        for number, stage in enumerate(stages):
            if encoder is not None and encoder.allocation is not None and stage.regime == "tuned":
                n_steps = -(-len(self.batches(number, 0)) // config.accumulate)
                encoder.allocation.begin(stage.n_epochs * self._encoder_steps(n_steps))

    def _passes_on(self, step: int, per_epoch: int) -> bool:
        """Whether what was gathered for the items' texts goes to the language model in this step of the second stage."""
        return (step + 1) % self.config.encoder_interval == 0 or step + 1 == per_epoch

    def _n_gathered(self, step: int, per_epoch: int) -> int:
        """Of how many steps' losses the language model has the gradient in this one; 0 where it does not step."""
        if self.learner.towers.user_model is None:
            return 1  # histories are read with it in each step
        return step % self.config.encoder_interval + 1 if self._passes_on(step, per_epoch) else 0

    def _encoder_steps(self, n_steps: int) -> int:
        """How often the language model steps in a second stage's epoch of so many steps; one that histories are read with
        steps each time."""
        return n_steps if self.learner.towers.user_model is None else -(-n_steps // self.config.encoder_interval)

    def _run_stage(self, number: int, stage: Stage, resumed: TrainingState | None) -> None:
        state, config = self.state, self.config
        if resumed is None:
            state.start_stage(number)
            if state.best:
                self._load(state.best)
        self.learner.regime = stage.regime
        optimizer = self._build_optimizer(stage)
        if resumed is not None:
            self._load(state.weights)
            restore_moments(optimizer, state.moments)
            if state.rng is not None:
                set_generators((state.rng, state.device_rng))
            state.averaged = {name: value.to(self.accelerator.device) for name, value in state.averaged.items()}
        optimizer = self.accelerator.prepare(optimizer)
        if config.ema is not None and not state.averaged:
            state.averaged = {name: weight.detach().clone() for name, weight in self._learning(stage).items()}
        n_steps: int | None = None
        tuned = stage.regime == "tuned"
        cost = self.costs[stage.regime] = StageCost(
            count_trainable(self.learner.towers), count_trainable(self.learner.encoder) if tuned else 0
        )
        with progress_bar(self.label or f"train, {stage.regime} PLM", self.show) as bar:
            # Within a cycle validation falls before it rises, and each has a snapshot at its end.
            while state.epoch < stage.n_epochs and (stage.n_cycles or state.n_bad < config.patience):
                batches = self.batches(number, state.epoch)
                # The first epoch's size stands for all, also after a resume: windows are cut anew, so others may differ.
                first = batches if n_steps or not state.epoch else self.batches(number, 0)
                n_steps = n_steps or stage.n_epochs * -(-len(first) // config.accumulate)
                with cost.epoch():
                    self._run_epoch(optimizer, stage, batches, n_steps, bar)
                    if tuned:
                        self.learner.refresh()
                self._end_epoch(stage, optimizer, bar)
        if stage.regime == "frozen":
            state.frozen_best = {k: v for k, v in (state.best or self._weights()).items() if k.startswith("towers.")}
            state.frozen_metric, state.frozen_epoch = state.best_metric, state.best_epoch

    def _run_epoch(self, optimizer: Any, stage: Stage, batches: list[TrainBatch], n_steps: int, bar: Bar) -> None:
        state, config = self.state, self.config
        self.learner.train()
        per_epoch = -(-len(batches) // config.accumulate)

        def set_rate_of(step: int) -> None:
            set_learning_rate(optimizer.param_groups, stage.factor(state.epoch, step, per_epoch, n_steps, config))

        set_rate_of(max(0, state.step - 1))  # a resumed epoch may have no step left, and its rate is recorded
        for step in range(state.step, per_epoch):
            group = batches[step * config.accumulate : (step + 1) * config.accumulate]
            set_rate_of(step)
            for place, batch in enumerate(group):
                rng = np.random.default_rng((config.seed, state.stage, state.epoch, step, place))
                for loss in self.learner.losses(batch.to(self.accelerator.device), rng):
                    if not torch.isfinite(loss):
                        raise TrainingError(
                            f"the loss is {loss.item()} in epoch {state.epoch + 1}, step {step + 1}. Lower the learning "
                            "rates (training.learning_rate, training.encoder_learning_rate), or look at extreme weights"
                        )
                    self.accelerator.backward(loss / len(group))
                    state.loss_sum += float(loss.detach()) / len(group)
            if stage.regime == "tuned" and self._passes_on(step, per_epoch):
                draw = np.random.default_rng((config.seed, state.stage, state.epoch, step))
                for surrogate in self.learner.pass_on(draw):
                    self.accelerator.backward(surrogate)
            if stage.regime == "tuned" and (n_gathered := self._n_gathered(step, per_epoch)):
                for penalty in self.learner.penalties():
                    self.accelerator.backward(n_gathered * penalty)
            # Each by itself: the language model's gradients come rarely and large, and must not shrink the towers'.
            for part in (beside_encoder(self.learner), [p for _, p in _named(self.learner.encoder)]):
                if part:
                    self.accelerator.clip_grad_norm_(part, config.max_grad_norm)
            optimizer.step()
            if self.learner.encoder is not None and self.learner.encoder.allocation is not None:
                self.learner.encoder.allocation.after_step()
            optimizer.zero_grad(set_to_none=True)
            if config.ema is not None:
                state.n_averaged += 1
                average_in(state.averaged, self._learning(stage), average_decay(config.ema, state.n_averaged))
            state.step = step + 1
            bar(state.epoch * per_epoch + state.step, stage.n_epochs * per_epoch)
            if self.should_stop():
                self._save(optimizer)
                raise Interrupted(
                    f"stopped in epoch {state.epoch + 1} after step {state.step} of {per_epoch}; nothing is lost. "
                    "Continue with the same command and --resume"
                )

    def _end_epoch(self, stage: Stage, optimizer: Any, bar: Bar) -> None:
        state = self.state
        row: dict[str, Any] = {
            "stage": stage.regime,
            "epoch": state.epoch + 1,
            "loss": state.loss_sum / max(1, state.step),
            "learning_rate": float(optimizer.param_groups[-1]["lr"]),
        }
        if stage.regime == "tuned":
            row["encoder_steps"] = self._encoder_steps(state.step)
        with self._averaged(stage):
            if self.validate is None:
                state.keep_last(self._weights())
            else:
                self.learner.eval()
                metric = row["validation"] = self.validate()
                if stage.regime == "tuned" and state.is_stage_best(metric):
                    state.tuned_best = {
                        k: v for k, v in self._weights().items() if k.startswith("towers.") or k == "text_vec"
                    }
                state.keep_if_better(metric, self._weights)
                bar.say(f"val {metric:.4f}")
        if stage.ends_cycle(state.epoch + 1):
            number = len(_split(state.snapshots))
            state.snapshots |= {f"{number}/{name}": value for name, value in self._weights().items()}
        self.record(row)
        state.next_epoch()
        self._save(optimizer)

    def _build_optimizer(self, stage: Stage) -> torch.optim.Optimizer:
        parts = [(beside_encoder(self.learner), stage.learning_rate)]
        if stage.regime == "tuned" and self.learner.encoder is not None:
            rates = layer_rates(self.learner.encoder, stage.encoder_learning_rate, self.config.layer_decay)
            parts = [*rates, *parts]
        vectors = self.learner.encoder.vectors if self.learner.encoder is not None else ()
        groups = parameter_groups(parts, self.config.weight_decay, vectors)
        return build_optimizer(self.config.optimizer, groups, self.config.momentum)

    def _learning(self, stage: Stage) -> dict[str, torch.nn.Parameter]:
        """What this stage changes, by name."""
        parts = ("towers.", "objective.", *(("encoder.",) if stage.regime == "tuned" else ()))
        return {k: p for k, p in self.learner.named_parameters() if p.requires_grad and k.startswith(parts)}

    @contextmanager
    def _averaged(self, stage: Stage) -> Iterator[None]:
        """The learner as the average of its weights, where one is kept; afterwards as it was."""
        if self.config.ema is None:
            yield
            return
        now = self._weights()
        self._load(self.state.averaged)
        if stage.regime == "tuned":
            self.learner.refresh()
        yield
        self._load(now)

    def _weights(self) -> Weights:
        """A copy of all that can change: towers, the cache, and the language model's trainable parameters."""
        frozen = {f"encoder.{name}" for name, p in _named(self.learner.encoder) if not p.requires_grad}
        return {k: v.detach().clone() for k, v in self.learner.state_dict().items() if k not in frozen}

    def _load(self, weights: Weights) -> None:
        missing = self.learner.load_state_dict(weights, strict=False)
        if missing.unexpected_keys:
            raise TrainingError(f"the saved weights hold '{missing.unexpected_keys[0]}', which this model has not")

    def _save(self, optimizer: Any) -> None:
        self.state.weights = self._weights()
        self.state.moments = moments_of(optimizer)
        self.state.rng, self.state.device_rng = generators()
        save_training_state(self.state_folder, self.state)


def _named(module: torch.nn.Module | None) -> list[tuple[str, torch.nn.Parameter]]:
    return list(module.named_parameters()) if module is not None else []


def _split(numbered: Weights) -> tuple[Weights, ...]:
    """Weights under names such as "0/towers.head" -> one dict for each number."""
    parts: dict[int, Weights] = {}
    for key, value in numbered.items():
        number, _, name = key.partition("/")
        parts.setdefault(int(number), {})[name] = value
    return tuple(parts[number] for number in sorted(parts))
