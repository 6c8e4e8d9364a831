"""The retriever: M(history) . M(item), both made of item words, with an id residual where there is data.

item words -> PLM -> text vector -> whitening -> projection + id residual = item vector      (N, D)
history's item vectors -> user model -> user vector                                          (B, D)
score = head(user vector, item vector)                                                       (B, N)
"""

from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from lmrec.fields import BoolArray, FloatArray
from lmrec.models.heads import CosineHead, DotHead, HeadConfig, build_head
from lmrec.models.user_model import UserModel, UserModelConfig, build_user_model


class ItemTowerConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=128, ge=2, description="Width of item and user vectors.")
    source: Literal["text+id", "text", "id"] = Field(
        default="text+id", description="What an item's vector is made of: words with an id residual, words, id alone."
    )
    whiten: int = Field(default=256, ge=0, description="Whitened directions of the text vectors kept; 0: no whitening.")
    id_dropout: float = Field(
        default=0.1, ge=0.0, lt=1.0, description="Share of items that train without their id residual in each batch."
    )


class ItemTower(nn.Module):
    """(N, Dt) text vectors -> (N, D) item vectors.

    The whitening (mean and principal directions of the un-tuned text vectors) is fixed; the projection is learnt. The
    id residual starts at zero and stays zero for every item without a training event (`item_seen`), so a new item is
    made of words alone, exactly as it will be when served.
    """

    def __init__(self, text_vec: FloatArray, item_seen: BoolArray, config: ItemTowerConfig) -> None:
        super().__init__()
        self.mean: Tensor
        self.directions: Tensor
        self.item_seen: Tensor
        mean, directions = whitening(text_vec, config.whiten)
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("directions", torch.from_numpy(directions))
        self.register_buffer("item_seen", torch.from_numpy(np.asarray(item_seen, np.bool_)))
        self.source = config.source
        self.id_dropout = config.id_dropout
        self.projection = nn.Linear(directions.shape[1], config.width) if config.source != "id" else None
        self.id_residual = nn.Embedding(len(item_seen), config.width) if config.source != "text" else None
        if self.id_residual is not None:
            # With words the ids are a correction of nothing; alone they need to differ from each other.
            nn.init.normal_(self.id_residual.weight, std=0.05 if config.source == "id" else 0.0)

    def whiten_as(self, other: "ItemTower") -> None:
        """Whiten as another tower of this shape does, whatever vectors this one was made with."""
        self.mean.copy_(other.mean)
        self.directions.copy_(other.directions)

    def project(self, text_vec: Tensor) -> Tensor:
        """(..., Dt) -> (..., D), words alone; zeros for an id-only tower."""
        if self.projection is None:
            width = self.id_residual.embedding_dim  # type: ignore[union-attr]
            return text_vec.new_zeros(*text_vec.shape[:-1], width)
        projected: Tensor = self.projection((text_vec - self.mean) @ self.directions)
        return projected

    def forward(self, text_vec: Tensor) -> Tensor:
        """(N, Dt), one row for each item that training knew, in catalog order -> (N, D).

        Rows beyond those (items added later) get no residual.
        """
        vectors = self.project(text_vec)
        if self.id_residual is None:
            return vectors
        keep = self.item_seen.unsqueeze(-1).to(vectors.dtype)
        if self.training and self.id_dropout and self.projection is not None:
            keep = keep * (torch.rand_like(keep) >= self.id_dropout)
        residual = self.id_residual.weight * keep
        n_new = len(vectors) - len(residual)
        return vectors + (nn.functional.pad(residual, (0, 0, 0, n_new)) if n_new else residual)


class TwoTower(nn.Module):
    """Item tower, user model and head. The language model stays outside: its vectors come in as `text_vec`."""

    def __init__(
        self,
        text_vec: FloatArray,
        item_seen: BoolArray,
        item: ItemTowerConfig,
        user: UserModelConfig,
        head: HeadConfig,
        n_profile_values: int = 0,
    ) -> None:
        super().__init__()
        self.item_tower = ItemTower(text_vec, item_seen, item)
        self.user_model: UserModel | None = build_user_model(item.width, user)
        self.item_dropout = user.item_dropout
        self.head: CosineHead | DotHead = build_head(head, item.width)
        self.profile: nn.EmbeddingBag | None = None
        if n_profile_values:  # 0 is no value
            self.profile = nn.EmbeddingBag(n_profile_values + 1, item.width, mode="sum", padding_idx=0)
            nn.init.zeros_(self.profile.weight)
        if self.user_model is None:
            self.no_history = nn.Parameter(torch.randn(item.width) * 0.02)

    def with_profile(self, user_vec: Tensor, profile: Tensor | None) -> Tensor:
        """(B, ..., D) with what was learnt of people's attributes added. profile: (B, P) numbers of values, 0 for none."""
        if self.profile is None or profile is None:
            return user_vec
        known: Tensor = self.profile(profile).to(user_vec.dtype)
        return user_vec + (known if user_vec.dim() == 2 else known.unsqueeze(1))

    def user_states(
        self, item_vec: Tensor, history_idx: Tensor, history_mask: Tensor, profile: Tensor | None = None
    ) -> Tensor:
        """(N, D) item vectors, (B, H) rows of items, (B, H) mask -> (B, H + 1, D) states after every prefix."""
        assert self.user_model is not None, "a text user model has no states: use user_from_text"
        return self.with_profile(self.user_model(self._read(item_vec, history_idx), history_mask), profile)

    def final_state(
        self, item_vec: Tensor, history_idx: Tensor, history_mask: Tensor, profile: Tensor | None = None
    ) -> Tensor:
        """As `user_states`, but only those that know the whole history: (B, D)."""
        assert self.user_model is not None, "a text user model has no states: use user_from_text"
        return self.with_profile(self.user_model.final(self._read(item_vec, history_idx), history_mask), profile)

    def _read(self, item_vec: Tensor, history_idx: Tensor) -> Tensor:
        """(B, H, D) what the user model sees of histories; while learning, whole items are dropped."""
        return nn.functional.dropout1d(_directions(item_vec[history_idx]), self.item_dropout, self.training)

    def user_from_text(self, history_text_vec: Tensor, known: Tensor, profile: Tensor | None = None) -> Tensor:
        """(B, Dt) vectors of histories written as text, (B,) False where a history is empty -> (B, D)."""
        projected = self.item_tower.project(history_text_vec)
        return self.with_profile(torch.where(known.unsqueeze(-1), projected, self.no_history), profile)


def _directions(item_vec: Tensor) -> Tensor:
    """What the user model sees: vectors of one length, whatever the residuals' is: steadier, and as the head sees them."""
    directions: Tensor = nn.functional.normalize(item_vec, dim=-1) * item_vec.shape[-1] ** 0.5
    return directions


def whitening(text_vec: FloatArray, rank: int, epsilon: float = 1e-3) -> tuple[FloatArray, FloatArray]:
    """Mean (Dt,) and directions (Dt, R) so that (x - mean) @ directions has about unit variance in each direction.

    `epsilon`, relative to the largest variance, keeps noise directions from being blown up. Rank 0: no whitening, the
    directions are a scaled identity. Source: Su et al. 2021, https://arxiv.org/abs/2103.15316.
    """
    width = text_vec.shape[1]
    if rank == 0:
        return np.zeros(width, np.float32), np.eye(width, dtype=np.float32) * np.float32(width**0.5)
    mean = text_vec.mean(0, dtype=np.float64)
    centred = text_vec.astype(np.float64) - mean
    variance, directions = np.linalg.eigh(centred.T @ centred / max(1, len(centred)))
    variance, directions = variance[::-1][:rank], directions[:, ::-1][:, :rank]
    scale = 1.0 / np.sqrt(np.maximum(variance, 0.0) + epsilon * max(float(variance[0]), 1e-12))
    return mean.astype(np.float32), np.ascontiguousarray(directions * scale, dtype=np.float32)
