"""A trained model as something that scores the catalog for histories; judge, recommender and service share it.

A score is one product of a query (the user side) and a row of the item matrix, plus, where the model has it, a sparse
part: so a search index over the matrix answers exactly what the judge has judged.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from lmrec.fields import IntArray, Ragged
from lmrec.models.two_tower import TwoTower
from lmrec.models.user_model import last_state

HistoryEncoder = Callable[[list[IntArray]], Tensor]  # histories as item rows -> (B, Dt) text vectors

_BATCH = 256  # histories computed together


@dataclass(frozen=True, eq=False)
class ItemBank:
    """What a model knows of N items: text_vec (N, Dt), item_vec (N, D) of the item tower, and matrix (N, Q), float32."""

    text_vec: Tensor
    item_vec: Tensor
    matrix: Tensor

    @property
    def n_items(self) -> int:
        return len(self.matrix)


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores (B, N) of histories. `encode_histories` is needed where the user model reads text."""

    name: str
    towers: TwoTower
    bank: ItemBank
    max_history: int
    encode_histories: HistoryEncoder | None = None

    def over(self, bank: ItemBank) -> "Scorer":
        """The same model over another bank; nothing is copied."""
        return replace(self, bank=bank)

    @torch.no_grad()
    def bank_rows(self, text_vec: Tensor) -> ItemBank:
        """Rows of the bank for items that exist only as words: text_vec (n, Dt)."""
        return build_bank(self.towers, text_vec, self.towers.item_tower.project(text_vec))

    @torch.no_grad()
    def query(self, history: Ragged) -> Tensor:
        """(B, Q). Histories of like length are computed together."""
        self.towers.eval()
        recent = history.last(self.max_history)
        order = np.argsort(recent.lengths, kind="stable")
        vectors = self.bank.item_vec.new_zeros(len(history), self.bank.item_vec.shape[1])
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[torch.from_numpy(rows)] = self._users([recent[int(row)] for row in rows])
        scaled: Tensor = self.towers.head.scale * self.towers.head.prepare(vectors)
        return scaled

    def sparse(self, history: Ragged, n_items: int) -> sp.csr_matrix | None:
        """(B, n_items) what is added to the product, None where the model has no such part."""
        return None

    @torch.no_grad()
    def score(self, history: Ragged) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = (self.query(history) @ self.bank.matrix.T).float().cpu().numpy()
        added = self.sparse(history, self.bank.n_items)
        if added is not None:
            result += added.toarray()
        return result

    def _users(self, histories: list[IntArray]) -> Tensor:
        device = self.bank.item_vec.device
        if self.towers.user_model is None:
            assert self.encode_histories is not None, "a text user model needs the language model"
            known = torch.tensor([len(items) > 0 for items in histories], device=device)
            return self.towers.user_from_text(self.encode_histories(histories), known)
        longest = max(1, max(len(items) for items in histories))
        history_idx = np.zeros((len(histories), longest), np.int64)
        history_mask = np.zeros((len(histories), longest), np.bool_)
        for row, items in enumerate(histories):
            history_idx[row, : len(items)] = items
            history_mask[row, : len(items)] = True
        mask = torch.from_numpy(history_mask).to(device)
        states = self.towers.user_states(self.bank.item_vec, torch.from_numpy(history_idx).to(device), mask)
        return last_state(states, mask)


@torch.no_grad()
def build_bank(towers: TwoTower, text_vec: Tensor, item_vec: Tensor | None = None) -> ItemBank:
    """The bank of items from their text vectors (N, Dt); item_vec (N, D) where it is known already."""
    vectors = towers.item_tower(text_vec) if item_vec is None else item_vec
    return ItemBank(text_vec, vectors, towers.head.prepare(vectors))
