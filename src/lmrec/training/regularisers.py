"""What keeps a model from learning its training events by heart, beyond dropout and weight decay.

| choice                    | penalty, added to the loss                                | cost of a step        |
|---------------------------|-----------------------------------------------------------|-----------------------|
| objective.label_smoothing | e (score of the right item - mean score of candidates)    | next to nothing       |
| regularisers.r_drop       | a/4 (KL(p1, p2) + KL(p2, p1)) of two passes' softmaxes    | two passes of towers  |
| regularisers.l2_sp        | a |w - w0|^2, w0 the language model's pretrained weights  | a copy of them        |
| user_model.item_dropout   | none: whole items of a history vanish                     | nothing               |
| item.id_dropout           | none: the id residuals of some items vanish               | nothing               |

Sources: label smoothing Szegedy et al. 2016, https://arxiv.org/abs/1512.00567; R-Drop Liang et al. 2021,
https://arxiv.org/abs/2106.14448; L2-SP below. The first two are pure functions in `objectives.py`, in nats a target;
early stopping (training.patience) and decay are the trainer's.
"""

from collections.abc import Callable

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

Pull = Callable[[nn.Module], Tensor]  # a module as it is now -> a penalty, a scalar


class RegularisersConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    r_drop: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the divergence between two passes of one batch under different dropout (R-Drop); 0: one pass.",
    )
    l2_sp: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the squared distance of the language model to its pretrained weights, in the second stage.",
    )


def pull_to(module: nn.Module, strength: float) -> Pull | None:
    """strength * the squared distance of the weights that learn to those that the module has now; None at strength 0.

    To pretrained weights it is L2-SP (Li et al. 2018, https://arxiv.org/abs/1802.01483), to those that are served the
    plain form of elastic weight consolidation (Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796).
    """
    if not strength:
        return None
    old = {name: weight.detach().clone() for name, weight in module.named_parameters() if weight.requires_grad}

    def pull(now: nn.Module) -> Tensor:
        parts = [
            ((weight - old[name].to(weight.device)) ** 2).sum()
            for name, weight in now.named_parameters()
            if name in old
        ]
        return strength * torch.stack(parts).sum()

    return pull
