"""Several runs that answer as one.

By scores: a weighted sum of what the members say. A member's score is one product of a query and a row, so the sum is one
too, of queries and rows laid side by side: an ensemble has the shape of a single model, and is searched, explained and
served as one. By ranks: the sum of reciprocal ranks, which has no such shape; it recommends and is judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from lmrec.fields import IntArray, Ragged
from lmrec.models.blending import reciprocal_ranks
from lmrec.models.lending import N_LENDERS, Loans
from lmrec.retrieval.scorer import HistoryEncoder, ItemBank, Scorer


@dataclass(frozen=True, eq=False)
class EnsembleScorer:
    """score = sum of weight * member's score. `bank`: the members' rows side by side, text, item and matrix alike."""

    name: str
    members: tuple[Scorer, ...]
    weights: tuple[float, ...]

    @cached_property
    def bank(self) -> ItemBank:
        banks = [member.bank for member in self.members]
        return _side_by_side(banks)

    @property
    def max_history(self) -> int:
        return max(member.max_history for member in self.members)

    @property
    def reach(self) -> int:
        return max(member.reach for member in self.members)

    @property
    def trained(self) -> bool:
        return all(member.trained for member in self.members)

    @property
    def reads_words(self) -> bool:
        return any(member.reads_words for member, weight in self._weighted if weight)

    def over(self, bank: ItemBank) -> "EnsembleScorer":
        """The same members over another bank."""
        own = [_parts(member.bank) for member in self.members]
        split = [_split(part, [parts[at] for parts in own]) for at, part in enumerate(_parts(bank))]
        banks = [ItemBank(*(part[at] for part in split)) for at in range(len(self.members))]
        return replace(self, members=tuple(member.over(one) for member, one in zip(self.members, banks, strict=True)))

    def asked_over(self, bank: ItemBank, encode_histories: HistoryEncoder) -> "EnsembleScorer":
        """Members read item vectors, never texts of histories (`workflows.ensemble` refuses such)."""
        return self.over(bank)

    def project(self, text_vec: Tensor) -> Tensor:
        """As `Scorer.project`, the members' vectors side by side."""
        texts = _split(text_vec, [member.bank.text_vec for member in self.members])
        return torch.cat([member.project(text) for member, text in zip(self.members, texts, strict=True)], dim=1)

    def bank_rows(
        self,
        text_vec: Tensor,
        item_vec: Tensor | None = None,
        origin: IntArray | None = None,
        is_ranked: bool = True,
    ) -> ItemBank:
        """As `Scorer.bank_rows`, the members' vectors side by side."""
        texts = _split(text_vec, [member.bank.text_vec for member in self.members])
        items: Sequence[Tensor | None] = [None] * len(self.members)
        if item_vec is not None:
            items = _split(item_vec, [member.bank.item_vec for member in self.members])
        return _side_by_side(
            [
                member.bank_rows(text, item, origin, is_ranked)
                for member, text, item in zip(self.members, texts, items, strict=True)
            ]
        )

    def query(self, history: Ragged) -> Tensor:
        """(B, Q)."""
        return torch.cat([weight * member.query(history) for member, weight in self._weighted], dim=1)

    def sparse(self, history: Ragged, n_items: int) -> sp.csr_matrix | None:
        """(B, n_items) what is added to the product, None where no member has such a part."""
        found = [(member.sparse(history, n_items), weight) for member, weight in self._weighted]
        parts = [weight * part for part, weight in found if part is not None]
        return sum(parts[1:], parts[0]).tocsr() if parts else None

    def followers(self, history: IntArray) -> tuple[IntArray, npt.NDArray[np.float32]] | None:
        """One row of `sparse` as places and what each adds; a place may come more than once."""
        found = [(member.followers(history), weight) for member, weight in self._weighted]
        parts = [(part[0], part[1] * np.float32(weight)) for part, weight in found if part is not None]
        if not parts:
            return None
        return np.concatenate([items for items, _ in parts]), np.concatenate([worth for _, worth in parts])

    @property
    def borrows(self) -> bool:
        return any(member.borrows for member in self.members)

    @property
    def lowers(self) -> bool:
        return any(member.lowers for member in self.members)

    def loans_of(self, text_vec: Tensor) -> Loans:
        """As `Scorer.loans_of`, the members' side by side."""
        texts = _split(text_vec, [member.bank.text_vec for member in self.members])
        loans = [member.loans_of(text) for member, text in zip(self.members, texts, strict=True)]
        return Loans(
            np.concatenate([one.lenders for one in loans], axis=1),
            np.concatenate([one.shares for one in loans], axis=1),
        )

    def borrowed(self, history: IntArray, loans: Loans) -> npt.NDArray[np.float32]:
        """(n,) what is added to the product for items that came later and borrow so."""
        found = np.zeros(len(loans), np.float32)
        for at, (member, weight) in enumerate(self._weighted):
            own = slice(at * N_LENDERS, (at + 1) * N_LENDERS)
            found += weight * member.borrowed(history, Loans(loans.lenders[:, own], loans.shares[:, own]))
        return found

    def score(self, history: Ragged) -> npt.NDArray[np.float32]:
        """(B, N)."""
        return sum_of([np.float32(weight) * member.score(history) for member, weight in self._weighted])

    def scores_of(self, history: Ragged, query: Tensor, row: int) -> npt.NDArray[np.float32]:
        """(B,) the scores of one item; `query` (B, Q) is what the histories give."""
        scores: npt.NDArray[np.float32] = (query @ self.bank.matrix[row]).float().cpu().numpy()
        added = self.sparse(history, self.bank.n_items)
        return scores if added is None else scores + added[:, [row]].toarray()[:, 0].astype(np.float32)

    @property
    def _weighted(self) -> list[tuple[Scorer, float]]:
        return list(zip(self.members, self.weights, strict=True))


@dataclass(frozen=True, eq=False)
class RankedEnsemble:
    """score = sum of weight / (60 + rank by the member): no scale is shared, so any systems can be put together."""

    name: str
    members: tuple[Scorer, ...]
    weights: tuple[float, ...]

    def score(self, history: Ragged) -> npt.NDArray[np.float32]:
        """(B, N)."""
        pairs = zip(self.members, self.weights, strict=True)
        return sum_of([np.float32(weight) * reciprocal_ranks(member.score(history)) for member, weight in pairs])


def answering(fused: Scorer) -> "Scorer | RankedEnsemble":
    """The scorer as it makes lists: itself, or its parts put together by their ranks."""
    if not fused.fusion.weights.ranks:
        return fused
    parts = fused.fusion.weights.parts
    members = tuple(fused.fused(fused.fusion.of_part(part)) for part in parts)
    return RankedEnsemble(fused.name, members, tuple(float(getattr(fused.fusion.weights, part)) for part in parts))


AnyScorer: TypeAlias = Scorer | EnsembleScorer | RankedEnsemble


def sum_of(scores: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """The sum of arrays of one shape."""
    total = scores[0].copy()
    for part in scores[1:]:
        total += part
    return total


def _parts(bank: ItemBank) -> tuple[Tensor, Tensor, Tensor]:
    return bank.text_vec, bank.item_vec, bank.matrix


def _split(part: Tensor, like: Sequence[Tensor]) -> Sequence[Tensor]:
    """The columns of `part` in turn, as wide as those of `like`."""
    found: Sequence[Tensor] = torch.split(part, [one.shape[1] for one in like], dim=1)
    return found


def _side_by_side(banks: list[ItemBank]) -> ItemBank:
    return ItemBank(*(torch.cat(list(parts), dim=1) for parts in zip(*map(_parts, banks), strict=True)))
