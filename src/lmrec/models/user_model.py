"""User models: from the vectors of a history's items to the vector of the user, after every prefix of the history.

All share one shape. `(B, H, D)` item vectors, oldest first, right-padded, with `(B, H)` mask, become `(B, H + 1, D)`
states: state `p` knows the first `p` items and nothing later, state 0 is a user of whom nothing is known. One pass thus
answers for every prefix, which is what training on every event of a history needs; `last_state` picks the whole history.
"""

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from lmrec.errors import RecipeError

Kind = Literal["transformer", "attention", "mean", "text"]


class UserModelConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = Field(
        default="transformer",
        description="transformer: causal, sees order; attention: weighted mean; mean: plain mean; "
        "text: the history written as text and read by the language model itself.",
    )
    max_history: int = Field(default=100, ge=1, description="Newest items of a history that are looked at.")
    layers: int = Field(default=1, ge=1, description="transformer: number of layers.")
    heads: int = Field(default=4, ge=1, description="transformer: attention heads; must divide the width.")
    dropout: Annotated[float, Field(ge=0.0, lt=1.0, description="Dropout of history vectors and inside the layers.")] = 0.2


class MeanUserModel(nn.Module):
    """The mean of the history's item vectors, plus a learnt vector that counts as one more item."""

    def __init__(self, width: int, config: UserModelConfig) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(width, width)

    def forward(self, history_vec: Tensor, history_mask: Tensor) -> Tensor:
        items = self.dropout(history_vec) * history_mask.unsqueeze(-1)
        sums = _with_start(self.start, items).cumsum(1)  # (B, H + 1, D)
        count = torch.arange(1, sums.shape[1] + 1, device=sums.device)
        mean: Tensor = self.output(sums / count.view(1, -1, 1))
        return mean


class AttentionUserModel(nn.Module):
    """A mean weighted by a learnt importance of each item (additive attention, as in NRMS, Wu et al. 2019), prefix by
    prefix: softmax weights over a prefix are running sums of exponentials."""

    def __init__(self, width: int, config: UserModelConfig) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.importance = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))
        self.output = nn.Linear(width, width)

    def forward(self, history_vec: Tensor, history_mask: Tensor) -> Tensor:
        items = _with_start(self.start, self.dropout(history_vec))  # (B, H + 1, D)
        real = nn.functional.pad(history_mask, (1, 0), value=True).unsqueeze(-1)
        # Bounded, so that running sums of exponentials neither overflow nor vanish in fp32.
        weight = (5.0 * torch.tanh(self.importance(items))).exp() * real
        pooled: Tensor = self.output((weight * items).cumsum(1) / weight.cumsum(1))
        return pooled


class TransformerUserModel(nn.Module):
    """A causal transformer over the history (SASRec, Kang & McAuley 2018, https://arxiv.org/abs/1808.09781), pre-norm,
    with a learnt start vector so that an empty history has a state too."""

    def __init__(self, width: int, config: UserModelConfig) -> None:
        super().__init__()
        if width % config.heads:
            raise RecipeError(f"user_model.heads is {config.heads} and must divide item.width, which is {width}")
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.position = nn.Embedding(config.max_history + 1, width)
        nn.init.normal_(self.position.weight, std=0.1)
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            width, config.heads, 4 * width, config.dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, history_vec: Tensor, history_mask: Tensor) -> Tensor:
        # Padding stands at the right and the mask is causal: no real place can see it, so it needs no mask of its own.
        items = _with_start(self.start, history_vec)  # (B, H + 1, D)
        length = items.shape[1]
        places = self.position.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=items.device, dtype=items.dtype)
        states: Tensor = self.layers(self.dropout(items + places), mask=mask, is_causal=True)
        return states


UserModel = MeanUserModel | AttentionUserModel | TransformerUserModel


def build_user_model(width: int, config: UserModelConfig) -> UserModel | None:
    """The configured user model; None for kind "text", where the language model itself reads the history."""
    match config.kind:
        case "transformer":
            return TransformerUserModel(width, config)
        case "attention":
            return AttentionUserModel(width, config)
        case "mean":
            return MeanUserModel(width, config)
        case "text":
            return None


def last_state(states: Tensor, history_mask: Tensor) -> Tensor:
    """(B, H + 1, D) states and (B, H) mask -> (B, D), the state that knows the whole history."""
    return states[torch.arange(len(states), device=states.device), history_mask.long().sum(1)]


def _with_start(start: Tensor, items: Tensor) -> Tensor:
    """Put the start vector before (B, H, D) items -> (B, H + 1, D)."""
    return torch.cat([start.expand(len(items), 1, -1), items], dim=1)
