"""Heads: how a user vector and item vectors become scores."""

import math
from typing import Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class HeadConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["cosine", "dot"] = Field(
        default="cosine", description="cosine with learnt temperature, or plain dot."
    )
    temperature: float = Field(default=0.07, gt=0.0, description="Where the cosine's temperature starts.")
    width: int | None = Field(
        default=None,
        ge=2,
        description="Compare only the first so many numbers of user and item vectors; unset: all. `lmrec compress` teaches "
        "them to stand alone, and sets it.",
    )


class Head(Protocol):
    """Prepared users and items meet in one product: score = scale * user . item."""

    def prepare(self, vectors: Tensor) -> Tensor:
        """(..., D) -> (..., Q) as the product wants them; Q is D, or less where the head looks at the first numbers alone."""
        ...

    @property
    def scale(self) -> Tensor:
        """() the factor on the product."""
        ...


class CosineHead(nn.Module):
    """cos(u, v) / temperature. The inverse temperature is learnt as its logarithm and kept in [1, 100].

    Source: the CLIP parametrisation, Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 2.3.
    """

    def __init__(self, temperature: float, width: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.log_scale = nn.Parameter(torch.tensor(math.log(1.0 / temperature)))

    def prepare(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors[..., : self.width].float(), dim=-1)

    @property
    def scale(self) -> Tensor:
        return self.log_scale.clamp(0.0, math.log(100.0)).exp()


class DotHead(nn.Module):
    """u . v / sqrt(D), so that scores start at about unit size."""

    def __init__(self, full_width: int, width: int | None = None) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("fixed_scale", torch.tensor(full_width**-0.5))

    def prepare(self, vectors: Tensor) -> Tensor:
        return vectors[..., : self.width].float()

    @property
    def scale(self) -> Tensor:
        fixed: Tensor = self.fixed_scale  # type: ignore[assignment]
        return fixed


def build_head(config: HeadConfig, width: int) -> CosineHead | DotHead:
    if config.kind == "cosine":
        return CosineHead(config.temperature, config.width)
    return DotHead(width, config.width)


def score(head: Head, user_vec: Tensor, item_vec: Tensor) -> Tensor:
    """(B, D) users, (N, D) items -> (B, N) scores, higher is better."""
    return head.scale * head.prepare(user_vec) @ head.prepare(item_vec).T
