"""User models: from the vectors of a history's items to the vector of the user, after every prefix of the history.

All share one shape. `(B, H, D)` item vectors, oldest first, right-padded, with `(B, H)` mask, become `(B, H + 1, D)`
states: state `p` knows the first `p` items and nothing later, state 0 is a user of whom nothing is known. One pass thus
answers for every prefix, which is what training on every event of a history needs; `last_state` picks the whole history.
"""

from typing import Annotated, Literal, cast

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
    dropout: Annotated[
        float, Field(ge=0.0, lt=1.0, description="Dropout of history vectors and inside the layers.")
    ] = 0.2
    item_dropout: Annotated[
        float, Field(ge=0.0, lt=1.0, description="Share of a history's items that vanish whole while training.")
    ] = 0.0
    profile: tuple[str, ...] = Field(
        default=(),
        description="Columns of the user table (age, interests, ...) whose values are added to a user's vector. Numbers are "
        "cut into 8 bands, several values in a cell stand between '|'; unknown ones add nothing.",
    )


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

    def final(self, history_vec: Tensor, history_mask: Tensor) -> Tensor:
        """(B, D) the states that know the whole history."""
        return last_state(self(history_vec, history_mask), history_mask)


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

    def final(self, history_vec: Tensor, history_mask: Tensor) -> Tensor:
        """(B, D) the states that know the whole history."""
        return last_state(self(history_vec, history_mask), history_mask)


class TransformerUserModel(nn.Module):
    """A causal transformer over the history (SASRec, Kang & McAuley 2018, https://arxiv.org/abs/1808.09781), pre-norm.

    A learnt start vector gives an empty history a state too. Places are known by distance: each head learns a bias for
    every number of steps back (Raffel et al. 2020, https://arxiv.org/abs/1910.10683, without buckets), so that "the
    item before" means the same at the beginning and at the end of a history.
    """

    def __init__(self, width: int, config: UserModelConfig) -> None:
        super().__init__()
        if width % config.heads:
            raise RecipeError(f"user_model.heads is {config.heads} and must divide item.width, which is {width}")
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            CausalBlock(width, config.heads, config.max_history + 1, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, history_vec: Tensor, history_mask: Tensor) -> Tensor:
        # Padding stands at the right and attention is causal: no real place can see it, so it needs no mask of its own.
        states = self.dropout(_with_start(self.start, history_vec))  # (B, H + 1, D)
        for block in self.blocks:
            states = block(states)
        normed: Tensor = self.norm(states)
        return normed

    def final(self, history_vec: Tensor, history_mask: Tensor) -> Tensor:
        """(B, D) the states that know the whole history; of the last block only their own places are computed, which is
        most of a pass of one block."""
        states = self.dropout(_with_start(self.start, history_vec))
        *earlier, last = cast("list[CausalBlock]", list(self.blocks))
        for block in earlier:
            states = block(states)
        normed: Tensor = self.norm(last.at(states, history_mask.long().sum(1)))
        return normed


class CausalBlock(nn.Module):
    """Attention to the past and a feed-forward, each on a normed copy, added. (B, L, D) -> (B, L, D).

    Written out because torch's layer drops attention weights, which on a CPU forces its slow path (docs/LOG.md).
    """

    def __init__(self, width: int, heads: int, max_length: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.distance_bias = nn.Parameter(torch.zeros(heads, max_length))
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        length = states.shape[1]
        query, key, value = self._split(self.query_key_value(self.attention_norm(states)), 3)
        place = torch.arange(length, device=states.device)
        mixed = self._attend(query, key, value, place[:, None] - place[None, :])
        return self._finish(states, mixed)

    def at(self, states: Tensor, places: Tensor) -> Tensor:
        """(B, L, D), (B,) -> (B, D): what `forward` gives at one place of each row, without computing the others."""
        rows = torch.arange(len(states), device=states.device)
        normed = self.attention_norm(states)
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        width = states.shape[2]
        (query,) = self._split(nn.functional.linear(normed[rows, places][:, None], weight[:width], bias[:width]), 1)
        key, value = self._split(nn.functional.linear(normed, weight[width:], bias[width:]), 2)
        distance = places[:, None] - torch.arange(states.shape[1], device=states.device)  # (B, L)
        mixed = self._attend(query, key, value, distance[:, None])
        return self._finish(states[rows, places][:, None], mixed)[:, 0]

    def _split(self, joined: Tensor, n_parts: int) -> Tensor:
        """(B, L, n * D) -> (n, B, heads, L, D / heads)."""
        batch, length, width = joined.shape
        return joined.view(batch, length, n_parts, self.heads, width // (n_parts * self.heads)).permute(2, 0, 3, 1, 4)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, distance: Tensor) -> Tensor:
        """distance: (Lq, L), or (B, Lq, L), how many steps back; what lies ahead (below 0) is not seen. -> (B, Lq, D)."""
        bias = self.distance_bias[:, distance.clamp(min=0)].masked_fill(distance < 0, float("-inf"))
        if distance.dim() == 3:
            bias = bias.transpose(0, 1)  # (B, heads, Lq, L)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype))
        return mixed.transpose(1, 2).flatten(2)

    def _finish(self, states: Tensor, mixed: Tensor) -> Tensor:
        states = states + self.dropout(self.attention_output(mixed))
        result: Tensor = states + self.dropout(self.feed_forward(states))
        return result


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
