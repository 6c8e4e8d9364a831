"""What the reranker has read, taught to the retriever: its softmax over a list moves towards that of the list read.

A cross-encoder sees more and is too slow to ask about everything; two towers that have learnt its order answer at their own
speed (RocketQAv2, Ren et al. 2021, https://arxiv.org/abs/2110.07367; the temperature: Hinton et al. 2015,
https://arxiv.org/abs/1503.02531). What was really chosen is learnt on beside it, so that the rest of the catalog stays put.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from lmrec.errors import Interrupted
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.encoder import pad_tokens
from lmrec.models.two_tower import TwoTower
from lmrec.progress import Progress
from lmrec.training.losses import Objective
from lmrec.training.objectives import Asked, Seen
from lmrec.training.optimizer import parameter_groups


class DistilConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    n_events: int = Field(default=2000, ge=1, description="Training events whose lists are read: top_k passes each.")
    epochs: int = Field(default=3, ge=1, description="Passes over the lists; the best by validation is kept, or none.")
    batch_lists: int = Field(default=64, ge=1, description="Lists in a step.")
    learning_rate: float = Field(default=3e-4, gt=0, description="Of the towers.")
    temperature: float = Field(default=1.0, gt=0, description="Both softmaxes are flattened by it.")
    weight: float = Field(default=1.0, gt=0, description="What the lists count beside what was really chosen.")


@dataclass(frozen=True, eq=False)
class TaughtLists:
    """G lists of K: history (G rows, oldest first), items (G, K), teacher (G, K) scores in the retriever's units, chosen (G,)
    what really came, and times (G,) when, as the log has it.

    beside: (G, K) what stands beside the towers in the retriever's scores, such as transitions and popularity: it is not
    learnt and is added again when the towers serve. weight: what the towers' scores are multiplied by there.
    """

    history: Ragged
    items: IntArray
    teacher: FloatArray
    chosen: IntArray
    times: FloatArray
    beside: FloatArray
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.chosen)


def list_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """() T^2 * mean KL(softmax(teacher / T) || softmax(student / T)), of scores (B, K), in nats a list; 0 where equal."""
    wanted, own = (one.float().div(temperature).log_softmax(-1) for one in (teacher, student))
    return temperature**2 * (wanted.exp() * (wanted - own)).sum(-1).mean()


def distil(
    towers: TwoTower,
    text_vec: Tensor,
    lists: TaughtLists,
    objective: Objective,
    config: DistilConfig,
    seed: int,
    mask_seen: bool,
    validate: Callable[[], float],
    record: Callable[[dict[str, Any]], None],
    progress: Progress,
    should_stop: Callable[[], bool],
) -> tuple[list[float], int]:
    """Teach the towers in place; what the objective has learnt stays. Returns the validation metric before and after each
    epoch, and the epoch that is kept: the best, 0 where none beats the start. Each is told to `record` as a row, the start
    as epoch 0. Raises Interrupted on a stop; then the towers are worth nothing."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(parameter_groups([(towers.parameters(), config.learning_rate)], 0.0), fused=True)
    metrics, best, kept = [validate()], _copy(towers), 0
    n_steps = config.epochs * -(-len(lists) // config.batch_lists)
    step = 0
    record({"stage": "distil", "epoch": 0, "validation": metrics[0]})
    for epoch in range(config.epochs):
        losses: list[float] = []
        towers.train()
        for rows in _batches(len(lists), config.batch_lists, (seed, epoch)):
            rng = np.random.default_rng((seed, epoch, step))
            loss = _loss(towers, text_vec, lists, rows, objective, config, mask_seen, rng)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(towers.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
            step += 1
            progress(step, n_steps)
            if should_stop():
                raise Interrupted("stopped; the run that is distilled is as it was, and nothing is kept. Type it again")
        towers.eval()
        metrics.append(validate())
        told = {"loss": float(np.mean(losses)), "validation": metrics[-1], "learning_rate": config.learning_rate}
        record({"stage": "distil", "epoch": epoch + 1, **told})
        if metrics[-1] > metrics[kept]:
            best, kept = _copy(towers), epoch + 1
    towers.load_state_dict(best)
    return metrics, kept


def _loss(
    towers: TwoTower,
    text_vec: Tensor,
    lists: TaughtLists,
    rows: IntArray,
    objective: Objective,
    config: DistilConfig,
    mask_seen: bool,
    rng: np.random.Generator,
) -> Tensor:
    item_vec = towers.item_tower(text_vec)
    history_idx, history_mask = pad_tokens(lists.history.take(rows))
    known = lists.history.profile
    profile = None if known is None else torch.from_numpy(known.ids.take(rows).padded())
    users = towers.head.prepare(towers.final_state(item_vec, history_idx, history_mask, profile))
    items = towers.head.prepare(item_vec)
    chosen = torch.from_numpy(lists.chosen[rows])
    seen = Seen(history_idx, history_mask) if mask_seen else None
    asked = Asked(
        users,
        items,
        chosen,
        torch.ones(len(rows)),
        towers.head.scale.float(),
        seen,
        times=torch.from_numpy(lists.times[rows]),
    )
    own = towers.head.scale * (items[torch.from_numpy(lists.items[rows])] @ users.unsqueeze(2)).squeeze(2)
    student = lists.weight * own + torch.from_numpy(lists.beside[rows])
    taught = list_divergence(student, torch.from_numpy(lists.teacher[rows]), config.temperature)
    return objective(asked, rng) + config.weight * taught


def _batches(n: int, size: int, seed: tuple[int, ...]) -> Iterator[IntArray]:
    order = np.random.default_rng(seed).permutation(n)
    for start in range(0, n, size):
        yield order[start : start + size]


def _copy(towers: TwoTower) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in towers.state_dict().items()}
