"""Adapters: which small parts learn in place of the language model, and the bottlenecks among them.

A bottleneck (Houlsby et al. 2019, https://arxiv.org/abs/1902.00751) is x + up(gelu(down(x))) with few numbers in the
middle, put behind a sublayer's last linear map, in front of the residual. `up` starts at zero, so that it starts as the
identity, exactly. Two to a layer (behind attention and behind feed-forward) are Houlsby's; one, behind feed-forward
alone, is that of Pfeiffer et al. 2020 (AdapterFusion, https://arxiv.org/abs/2005.00247), about as good at half the size.
The other kinds come from the `peft` library: see lmrec.models.adaptation.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Self, TypeAlias

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from lmrec.models.layers import Sublayers, replace_module

AdapterKind: TypeAlias = Literal["none", "lora", "adalora", "ia3", "prefix", "houlsby", "pfeiffer"]

SETTINGS_OF_KIND: Final[Mapping[AdapterKind, tuple[str, ...]]] = {
    "none": (),
    "lora": ("rank", "alpha", "dropout", "targets"),
    "adalora": ("rank", "initial_rank", "alpha", "dropout", "targets", "orthogonality"),
    "ia3": (),
    "prefix": ("prefix_tokens",),
    "houlsby": ("bottleneck", "dropout"),
    "pfeiffer": ("bottleneck", "dropout"),
}


class AdapterConfig(BaseModel):
    """What learns in place of the language model's own weights. `encoder.train` says in which layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: AdapterKind = Field(
        default="none",
        description="none: the weights themselves learn; lora, adalora, ia3, prefix (peft library); houlsby, pfeiffer: "
        "bottlenecks of our own.",
    )
    rank: int = Field(default=8, ge=1, description="Rank of LoRA's update; for AdaLoRA the mean rank it ends with.")
    initial_rank: int = Field(default=12, ge=2, description="AdaLoRA: the rank that each update starts with.")
    alpha: float = Field(
        default=16.0, gt=0, description="The update is scaled by alpha / rank; of AdaLoRA by alpha / initial_rank."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout of what goes into an adapter while it learns.")
    targets: tuple[str, ...] = Field(
        default=(),
        description="LoRA and AdaLoRA: names of the linear maps of a layer that are updated; empty: queries and values.",
    )
    orthogonality: float = Field(
        default=0.1, ge=0, description="AdaLoRA: weight of the penalty that keeps its directions orthogonal."
    )
    prefix_tokens: int = Field(
        default=8, ge=1, le=256, description="Prefix tuning: learnt keys and values in each layer."
    )
    bottleneck: int = Field(default=48, ge=1, description="Houlsby and Pfeiffer: numbers in the middle of an adapter.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.kind == "adalora" and self.initial_rank <= self.rank:
            raise ValueError(
                f"encoder.adapter.initial_rank is {self.initial_rank} and must be above encoder.adapter.rank, which is "
                f"{self.rank}: AdaLoRA takes ranks away"
            )
        return self


class Bottleneck(nn.Module):
    """(..., D) -> (..., D), the identity until it has learnt."""

    def __init__(self, width: int, middle: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Linear(width, middle)
        self.up = nn.Linear(middle, width)
        nn.init.normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = nn.functional.gelu(self.down(self.dropout(hidden)))
        added: Tensor = self.up(inner)
        return hidden + added


class WithBottleneck(nn.Module):
    """A linear map and the bottleneck behind it."""

    def __init__(self, base_layer: nn.Module, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck = bottleneck

    def forward(self, hidden: Tensor) -> Tensor:
        adapted: Tensor = self.bottleneck(self.base_layer(hidden))
        return adapted


def insert_bottlenecks(layers: Sequence[nn.Module], names: Sublayers, width: int, config: AdapterConfig) -> None:
    """Put bottlenecks into these layers, in place."""
    places = (names.attention_out, names.feed_out) if config.kind == "houlsby" else (names.feed_out,)
    for layer in layers:
        for place in places:
            inner = layer.get_submodule(place)
            device = next(inner.parameters()).device
            with torch.device(device):
                fresh = Bottleneck(width, config.bottleneck, config.dropout)
            replace_module(layer, place, WithBottleneck(inner, fresh))
