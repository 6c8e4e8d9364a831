"""The trained towers as something that scores the catalog for histories; the judge and the recommender share it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmrec.fields import IntArray, Ragged
from lmrec.models.two_tower import TwoTower
from lmrec.models.user_model import last_state

HistoryEncoder = Callable[[list[IntArray]], Tensor]  # histories as item rows -> (B, Dt) text vectors


class TowerScorer:
    """Scores (B, N) of histories. `encode_histories` is needed where the user model reads text."""

    def __init__(
        self,
        name: str,
        towers: TwoTower,
        item_vec: Tensor,
        max_history: int,
        encode_histories: HistoryEncoder | None = None,
        batch_size: int = 256,
    ) -> None:
        self.name = name
        self.towers = towers
        self.item_vec = item_vec  # (N, D), as the item tower gives them
        self.max_history = max_history
        self.encode_histories = encode_histories
        self.batch_size = batch_size
        self._prepared = towers.head.prepare(item_vec)

    @torch.no_grad()
    def user_vectors(self, history: Ragged) -> Tensor:
        """(B, D) user vectors, prepared for the head's product. Histories of like length are computed together."""
        self.towers.eval()
        recent = history.last(self.max_history)
        order = np.argsort(recent.lengths, kind="stable")
        vectors = self.item_vec.new_zeros(len(history), self.item_vec.shape[1])
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            vectors[torch.from_numpy(rows)] = self._users([recent[int(row)] for row in rows])
        return self.towers.head.prepare(vectors)

    @torch.no_grad()
    def score(self, history: Ragged) -> npt.NDArray[np.float32]:
        scores: Tensor = self.towers.head.scale * self.user_vectors(history) @ self._prepared.T
        result: npt.NDArray[np.float32] = scores.float().cpu().numpy()
        return result

    def _users(self, histories: list[IntArray]) -> Tensor:
        if self.towers.user_model is None:
            assert self.encode_histories is not None, "a text user model needs the language model"
            known = torch.tensor([len(items) > 0 for items in histories], device=self.item_vec.device)
            return self.towers.user_from_text(self.encode_histories(histories), known)
        longest = max(1, max(len(items) for items in histories))
        history_idx = np.zeros((len(histories), longest), np.int64)
        history_mask = np.zeros((len(histories), longest), np.bool_)
        for row, items in enumerate(histories):
            history_idx[row, : len(items)] = items
            history_mask[row, : len(items)] = True
        device = self.item_vec.device
        mask = torch.from_numpy(history_mask).to(device)
        states = self.towers.user_states(self.item_vec, torch.from_numpy(history_idx).to(device), mask)
        return last_state(states, mask)
