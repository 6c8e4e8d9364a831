"""NRMS's user model over item vectors: self-attention between what was read, then a weighted mean, then a plain product.

Source: Wu et al. 2019, https://aclanthology.org/D19-1671. There the news encoder reads words with the same two layers; here
an item comes as the vector of a language model, projected, so that the rival and ours stand on the same words.
"""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class NRMSConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=128, ge=2, description="Width of item and user vectors.")
    heads: int = Field(default=8, ge=1, description="Attention heads; must divide the width.")
    max_history: int = Field(default=50, ge=1, description="Newest items of a history that are looked at.")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="Dropout of projected items and of attended ones.")


class NRMS(nn.Module):
    """text_vec: (N, Dt) fixed vectors of the items' words."""

    text_vec: Tensor

    def __init__(self, text_vec: Tensor, config: NRMSConfig) -> None:
        super().__init__()
        centred = text_vec - text_vec.mean(0)
        self.register_buffer("text_vec", centred / centred.std(0).clamp(min=1e-6))
        self.config = config
        self.project = nn.Sequential(nn.Linear(text_vec.shape[1], config.width), nn.Dropout(config.dropout))
        self.attention = nn.MultiheadAttention(config.width, config.heads, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.importance = nn.Sequential(nn.Linear(config.width, 200), nn.Tanh(), nn.Linear(200, 1))

    def forward(self, history_idx: Tensor, history_mask: Tensor, candidate_idx: Tensor) -> Tensor:
        """(B, H) rows of items, (B, H) mask, (B, K) rows of candidates -> (B, K) scores; 0 for an empty history."""
        read = self.project(self.text_vec[history_idx])  # (B, H, D)
        some = history_mask.any(1)
        hidden = ~history_mask
        hidden = hidden & some.unsqueeze(1)  # a row without any key would be NaN; it is zeroed below
        attended, _ = self.attention(read, read, read, key_padding_mask=hidden, need_weights=False)
        attended = self.dropout(attended)
        importance = self.importance(attended).squeeze(-1).masked_fill(hidden, float("-inf"))
        user_vec = (importance.softmax(1).unsqueeze(-1) * attended).sum(1) * some.unsqueeze(-1)  # (B, D)
        candidates = self.project(self.text_vec[candidate_idx])  # (B, K, D)
        return torch.einsum("bd,bkd->bk", user_vec, candidates)
