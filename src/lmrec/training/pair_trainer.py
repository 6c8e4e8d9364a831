"""The reranker's loop: epochs over tokenised pairs, the best epoch by validation kept, safe Ctrl-C and exact resume."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from lmrec.artifacts.training_state import TrainingState, load_training_state, save_training_state
from lmrec.errors import Interrupted, RecipeError, RunFolderError, TrainingError
from lmrec.fields import FloatArray, IntArray
from lmrec.models.adaptation import merge_adapter
from lmrec.models.cross_encoder import PairModel, pad_pairs, score_pairs
from lmrec.models.encoder import TextEncoder
from lmrec.models.layers import transformer_layers
from lmrec.models.pair_adapter import attach_pair_lora, learnt_weights, parts_on_top, put_learnt_weights
from lmrec.models.precision import autocast
from lmrec.progress import Bar, progress_bar
from lmrec.text.pairs import PairTokens
from lmrec.training.generators import generators, set_generators
from lmrec.training.optimizer import (
    learning_rate_factor,
    moments_of,
    parameter_groups,
    restore_moments,
    set_learning_rate,
)
from lmrec.training.pairs import RerankerConfig, pair_loss

RERANKER_STAGE = "reranker"  # what its epochs are told as
_WARMUP_SHARE = 0.1
_MAX_GRAD_NORM = 1.0
_BATCH_TOKENS = 4096
_SAVE_EVERY = 200  # steps: a kill loses no more


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """P pairs as tokens, and (P,) their labels."""

    tokens: PairTokens
    labels: FloatArray

    def __len__(self) -> int:
        return len(self.labels)


class PairTrainer:
    """Trains a cross-encoder in place.

    bf16: whether matrix products are computed in it. state_folder: where the resumable state is kept; fingerprint: of all
    that must be the same for it to be taken up again (else training begins anew). record: one flat row an epoch.
    """

    def __init__(
        self,
        model: PairModel,
        config: RerankerConfig,
        seed: int,
        bf16: bool,
        state_folder: Path,
        fingerprint: str,
        record: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool] = lambda: False,
        show: bool = True,
    ) -> None:
        self.accelerator = Accelerator(mixed_precision="no", cpu=not torch.cuda.is_available())
        self.autocast = partial(autocast, self.accelerator.device, bf16)
        self.adapted = choose_pair_weights(model, config)
        self.model = model.to(self.accelerator.device)
        self.config, self.seed = config, seed
        self.state_folder, self.fingerprint = state_folder, fingerprint
        self.record, self.should_stop, self.show = record, should_stop, show
        self.state = TrainingState(fingerprint=fingerprint)
        self.learnt: dict[str, Tensor] | None = None  # where an adapter did: all that is not the base

    def run(self, train: LabelledPairs, validation: LabelledPairs | None) -> float | None:
        """Leaves the best weights in the model, on the CPU and in eval. Returns their validation loss, None without one.

        Raises Interrupted after saving, on a stop.
        """
        torch.manual_seed(self.seed)
        parts = [
            (self.model.base.parameters(), self.config.learning_rate),
            (self.model.head.parameters(), self.config.head_learning_rate),
        ]
        optimizer = torch.optim.AdamW(parameter_groups(parts, self.config.weight_decay), fused=True)
        resumed = self._resumed()
        if resumed is not None:
            self.state = resumed
            put_learnt_weights(self.model, resumed.weights)
            restore_moments(optimizer, resumed.moments)
            assert resumed.rng is not None
            set_generators((resumed.rng, resumed.device_rng))
        else:
            self.state.start_stage(0)
        with progress_bar("train reranker", self.show) as bar:
            while self.state.epoch < self.config.epochs:
                self._run_epoch(train, optimizer, bar)
                self._end_epoch(validation, optimizer, bar)
        if self.state.best:
            put_learnt_weights(self.model, self.state.best)
        self.model.to("cpu").eval()
        if self.adapted is not None:
            self.learnt = learnt_weights(self.model)
            merge_adapter(self.adapted)
        return None if self.state.best_metric is None else -self.state.best_metric

    @torch.no_grad()
    def outputs(self, pairs: LabelledPairs) -> FloatArray:
        """(P, C)."""
        self.model.eval()
        with self.autocast():
            return score_pairs(self.model, pairs.tokens.ids, pairs.tokens.item_start, _BATCH_TOKENS)

    def _run_epoch(self, train: LabelledPairs, optimizer: Any, bar: Bar) -> None:
        state, config = self.state, self.config
        batches = epoch_of_pairs(train.tokens, config.batch_pairs, (self.seed, state.epoch))
        n_steps = config.epochs * len(batches)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.model.train()
        for step in range(state.step, len(batches)):
            done = state.epoch * len(batches) + step
            set_learning_rate(optimizer.param_groups, learning_rate_factor(done, n_steps, _WARMUP_SHARE, "linear"))
            loss = self._loss(train, batches[step])
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the reranker's loss is {loss.item()} in step {done + 1}. Lower reranker.learning_rate and "
                    "reranker.head_learning_rate"
                )
            self.accelerator.backward(loss)
            torch.nn.utils.clip_grad_norm_(parameters, _MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            state.loss_sum += float(loss.detach())
            state.step = step + 1
            bar(done + 1, n_steps)
            if self.should_stop():
                self._save(optimizer)
                raise Interrupted(
                    f"stopped after step {done + 1} of {n_steps}; nothing is lost. The same command goes on from there"
                )
            if (done + 1) % _SAVE_EVERY == 0:
                self._save(optimizer)

    def _loss(self, train: LabelledPairs, rows: IntArray) -> Tensor:
        ids, mask = pad_pairs(train.tokens.ids.take(rows), self.model.pad_id)
        device = self.accelerator.device
        with self.autocast():
            outputs = self.model(
                ids.to(device), mask.to(device), torch.from_numpy(train.tokens.item_start[rows]).to(device)
            )
        return pair_loss(self.config.task, outputs, torch.from_numpy(train.labels[rows]).to(device))

    def _end_epoch(self, validation: LabelledPairs | None, optimizer: Any, bar: Bar) -> None:
        state = self.state
        row: dict[str, Any] = {
            "stage": RERANKER_STAGE, "epoch": state.epoch + 1, "loss": state.loss_sum / max(1, state.step),
            "learning_rate": float(optimizer.param_groups[-1]["lr"]),
        }  # fmt: skip
        if validation is None:
            state.keep_last(learnt_weights(self.model))
        else:
            outputs = torch.from_numpy(self.outputs(validation))
            loss = float(pair_loss(self.config.task, outputs, torch.from_numpy(validation.labels)))
            row["validation_loss"] = loss
            state.keep_if_better(-loss, lambda: learnt_weights(self.model))
            bar.say(f"val loss {loss:.4f}")
        self.record(row)
        state.next_epoch()
        self._save(optimizer)

    def _save(self, optimizer: Any) -> None:
        self.state.weights = learnt_weights(self.model)
        self.state.moments = moments_of(optimizer)
        self.state.rng, self.state.device_rng = generators()
        save_training_state(self.state_folder, self.state)

    def _resumed(self) -> TrainingState | None:
        """What an interrupted training with the same fingerprint left; another one's is of no use."""
        try:
            return load_training_state(self.state_folder, self.fingerprint)
        except RunFolderError:
            return None


def choose_pair_weights(model: PairModel, config: RerankerConfig) -> TextEncoder | None:
    """Freeze all but what `config.train` names and what is on top; the language model as `merge_adapter` wants it, where it has
    got an adapter. Raises RecipeError where there are fewer layers, or no adapter fits."""
    if config.train == "lora":
        return attach_pair_lora(model, config.rank, config.name)
    model.requires_grad_(False)
    if config.train == "all":
        for part in (model.base, *parts_on_top(model)):
            part.requires_grad_(True)
        return None
    layers = transformer_layers(model)
    if config.n_layers > len(layers):
        raise RecipeError(
            f"reranker.n_layers is {config.n_layers}, and the model has {len(layers)} layers. Lower it, or set "
            "reranker.train to 'all'"
        )
    for part in (*layers[-config.n_layers :], *parts_on_top(model)):
        part.requires_grad_(True)
    return None


def epoch_of_pairs(tokens: PairTokens, batch_pairs: int, seed: tuple[int, ...]) -> list[IntArray]:
    """Rows of each batch, in random order; pairs of like length share one. The same seed gives the same."""
    rng = np.random.default_rng(seed)
    order = np.argsort(tokens.ids.lengths * rng.uniform(0.8, 1.25, len(tokens)), kind="stable")
    batches = [order[start : start + batch_pairs] for start in range(0, len(order), batch_pairs)]
    return [batches[place] for place in rng.permutation(len(batches))]
