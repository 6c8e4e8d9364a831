"""The optimizer: which one, its parameter groups, its state as plain tensors, and the rate as a function of the step.

| kind      | step                                                    | state a weight | paper                          |
|-----------|---------------------------------------------------------|----------------|--------------------------------|
| adamw     | gradient / its running size, decay apart from it        | 2 numbers      | Loshchilov & Hutter 2019       |
| sgd       | running sum of gradients, decay inside the gradient     | 1 number       | Polyak 1964, Sutskever 2013    |
| adafactor | as adamw without momentum, sizes kept by row and column | 1 / width      | Shazeer & Stern 2018           |
"""

import math
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lmrec.errors import RecipeError
from lmrec.models.layers import parameter_parts

OptimizerKind: TypeAlias = Literal["adamw", "sgd", "adafactor"]
Schedule: TypeAlias = Literal["cosine", "linear", "constant", "inverse_sqrt"]

DEFAULT_MOMENTUM = 0.9
_NUMBER = "number:"  # marks what an optimizer keeps as a plain number and not as a tensor


def build_optimizer(
    kind: OptimizerKind, groups: list[dict[str, Any]], momentum: float | None = None
) -> torch.optim.Optimizer:
    """momentum: of sgd, 0.9 where it is not said. Learning rates are those of the groups.

    adamw: https://arxiv.org/abs/1711.05101. sgd: https://proceedings.mlr.press/v28/sutskever13.html. adafactor:
    https://arxiv.org/abs/1804.04235, as transformers writes it and with absolute steps: the paper's steps, in proportion to
    a weight's own size, would leave an id residual near the zero that it starts from (torch's form knows only those).
    """
    match kind:
        case "adamw":
            return torch.optim.AdamW(groups, fused=True)
        case "sgd":
            return torch.optim.SGD(groups, lr=0.0, momentum=DEFAULT_MOMENTUM if momentum is None else momentum)
        case "adafactor":
            from transformers.optimization import Adafactor

            absolute: Any = {"lr": 0.0, "scale_parameter": False, "relative_step": False, "warmup_init": False}
            return Adafactor(groups, **absolute)  # type: ignore[no-untyped-call]


def moments_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that an optimizer remembers of its parameters, under flat names such as "3.exp_avg"; plain numbers as tensors."""
    moments: dict[str, Tensor] = {}
    for place, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                moments[f"{place}.{name}"] = value
            elif value is not None:
                exact = torch.int64 if isinstance(value, int) else torch.float64
                moments[f"{place}.{_NUMBER}{name}"] = torch.tensor(value, dtype=exact)
    return moments


def restore_moments(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    """The reverse of `moments_of`, exactly."""
    nested: dict[int, dict[str, Any]] = {}
    for key, value in moments.items():
        place, name = key.split(".", 1)
        is_number = name.startswith(_NUMBER)
        nested.setdefault(int(place), {})[name.removeprefix(_NUMBER)] = value.item() if is_number else value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": nested})


def parameter_groups(
    parts: Iterable[tuple[Iterable[nn.Parameter], float]], weight_decay: float, vectors: Iterable[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """Groups for an optimizer: each (parameters, learning rate), split into what decays and what does not.

    Norms, biases and other vectors or scalars do not decay. vectors: more of them, which are kept as matrices of one row or
    column (`TextEncoder.vectors`). Frozen parameters and empty groups are left out.
    """
    groups: list[dict[str, Any]] = []
    still = {id(p) for p in vectors}
    for parameters, learning_rate in parts:
        trainable = [p for p in parameters if p.requires_grad]
        for decay, chosen in (
            (weight_decay, [p for p in trainable if p.ndim >= 2 and id(p) not in still]),
            (0.0, [p for p in trainable if p.ndim < 2 or id(p) in still]),
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


def check_layer_decay(model: nn.Module, decay: float, name: str) -> None:
    """Raises RecipeError where a language model of this name learns in places of one rate alone, so that nothing decays."""
    rates = {rate for part, rate in layer_rates(model, 1.0, decay) if any(p.requires_grad for p in part)}
    if decay != 1.0 and len(rates) == 1:
        raise RecipeError(
            f"training.layer_decay is {decay:g}, and what learns of {name} stands in one layer: nothing would come of it. Let "
            "more layers learn (encoder.train, encoder.n_layers), or leave it out"
        )


def learning_rate_factor(step: int, n_steps: int, warmup_share: float, schedule: Schedule) -> float:
    """What the base learning rate is multiplied by at `step` (from 0) of `n_steps`; warm-up is a straight line.

    cosine: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983. inverse_sqrt never reaches zero, so that training
    can be longer than was planned.

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
        case "inverse_sqrt":
            # From the end of warm-up on, in units of its length: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762.
            return math.sqrt(max(1, n_warmup) / (step + 1))


def set_learning_rate(groups: list[dict[str, Any]], factor: float) -> None:
    for group in groups:
        group["lr"] = group["base_lr"] * factor
