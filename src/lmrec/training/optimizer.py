"""The optimizer: parameter groups, and the learning rate as a pure function of the step."""

import math
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

from torch import nn

from lmrec.models.layers import parameter_parts

Schedule: TypeAlias = Literal["cosine", "linear", "constant"]


def parameter_groups(
    parts: Iterable[tuple[Iterable[nn.Parameter], float]], weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for an optimizer: each (parameters, learning rate), split into what decays and what does not.

    Norms, biases and other vectors or scalars do not decay. Frozen parameters and empty groups are left out.
    """
    groups: list[dict[str, Any]] = []
    for parameters, learning_rate in parts:
        trainable = [p for p in parameters if p.requires_grad]
        for decay, chosen in (
            (weight_decay, [p for p in trainable if p.ndim >= 2]),
            (0.0, [p for p in trainable if p.ndim < 2]),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": learning_rate, "base_lr": learning_rate, "weight_decay": decay})
    return groups


def layer_rates(model: nn.Module, learning_rate: float, decay: float) -> list[tuple[list[nn.Parameter], float]]:
    """A language model's parameters by layer, bottom first, each layer's rate `decay` times that of the one above it.

    What is above the layers learns at the rate of the top one, embeddings at `decay` times that of the lowest. Source: Howard
    and Ruder 2018 (ULMFiT's discriminative rates), https://arxiv.org/abs/1801.06146.
    """
    if decay == 1.0:
        return [(list(model.parameters()), learning_rate)]
    parts = parameter_parts(model)
    n_layers = len(parts.layers)
    rates = [learning_rate * decay ** (n_layers - depth) for depth in range(n_layers + 1)]
    return [*zip([parts.below, *parts.layers], rates, strict=True), (parts.above, learning_rate)]


def learning_rate_factor(step: int, n_steps: int, warmup_share: float, schedule: Schedule) -> float:
    """What the base learning rate is multiplied by at `step` (from 0) of `n_steps`.

    >>> [round(learning_rate_factor(s, 10, 0.2, "linear"), 2) for s in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.12]
    """
    n_warmup = math.ceil(warmup_share * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    done = (step - n_warmup) / max(1, n_steps - n_warmup)
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return max(0.0, 1.0 - done)
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


def set_learning_rate(groups: list[dict[str, Any]], factor: float) -> None:
    for group in groups:
        group["lr"] = group["base_lr"] * factor
