"""A trained model as something that scores the catalog for histories; judge, recommender and service share it.

A score is one product of a query (the user side) and a row of the item matrix, plus, where the model has it, a sparse
part: so a search index over the matrix answers exactly what the judge has judged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from lmrec.fields import IntArray, Ragged
from lmrec.models.factors import ItemFactors
from lmrec.models.fusion import Fusion
from lmrec.models.lending import Loans, find_loans, who_lends
from lmrec.models.two_tower import TwoTower

# Histories as item rows, and words of whom each is of -> (B, Dt) text vectors
HistoryEncoder = Callable[[list[IntArray], Sequence[str]], Tensor]

_LARGEST_OF_UNIT = 0.5  # about the largest number of a unit vector of some hundred numbers
_BATCH = 256  # histories computed together


@dataclass(frozen=True, eq=False)
class ItemBank:
    """What a model knows of N items: text_vec (N, Dt), item_vec (N, D) of the item tower, and matrix (N, Q), float32.

    Q is D; a fused model adds Dt columns where it looks at the bare words too, F where it looks at factors of ALS, and one
    where it looks at popularity.
    """

    text_vec: Tensor
    item_vec: Tensor
    matrix: Tensor

    @property
    def n_items(self) -> int:
        return len(self.matrix)


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores (B, N) of histories. `encode_histories` is needed where the user model reads text. See lmrec.models.fusion."""

    name: str
    towers: TwoTower
    bank: ItemBank
    max_history: int
    encode_histories: HistoryEncoder | None = None
    fusion: Fusion = field(default_factory=Fusion)
    _users_of: dict[tuple[object, ...], Tensor] | None = None

    @property
    def reach(self) -> int:
        """How many of the newest items of a history any part of the model looks at."""
        return max(self.max_history, self.fusion.reach)

    @property
    def trained(self) -> bool:
        """Whether item vectors have learnt something; otherwise text vectors say better what is like what."""
        return bool(self.fusion.weights.towers)

    @property
    def reads_words(self) -> bool:
        """Whether words in a history, which are no item of the log, move scores: by the towers, or by their bare vectors."""
        return bool(self.fusion.weights.towers or self.fusion.weights.content)

    def over(self, bank: ItemBank) -> "Scorer":
        """The same model over another bank; nothing is copied."""
        return replace(self, bank=bank, _users_of=None)

    def remembering(self) -> "Scorer":
        """The same model, which computes the user vectors of the same block of histories once, also where it is `fused` in
        many ways: for whoever asks the same questions over and over."""
        return replace(self, _users_of={})

    def asked_over(self, bank: ItemBank, encode_histories: HistoryEncoder) -> "Scorer":
        """The same model over rows that histories name, reading texts of histories by `encode_histories`."""
        return replace(self, bank=bank, encode_histories=encode_histories)

    @torch.no_grad()
    def project(self, text_vec: Tensor) -> Tensor:
        """(n, D) the item vectors of items that exist only as words, text_vec (n, Dt)."""
        vectors: Tensor = self.towers.item_tower.project(text_vec)
        return vectors

    @torch.no_grad()
    def bank_rows(
        self,
        text_vec: Tensor,
        item_vec: Tensor | None = None,
        origin: IntArray | None = None,
        is_ranked: bool = True,
    ) -> ItemBank:
        """Rows of the bank for items that exist only as words, text_vec (n, Dt), unless their item_vec (n, D) is given.

        origin: (n,) the rows that they had when the log was learnt, -1 for new ones; unset: all are new. is_ranked: unset for
        rows that histories alone name; how popular new ones may be expected to be, which takes long, is not found then.
        """
        vectors = self.project(text_vec) if item_vec is None else item_vec
        plain = build_bank(self.towers, text_vec, vectors)
        columns = [plain.matrix]
        if self.fusion.weights.content:
            columns.append(nn.functional.normalize(text_vec.float(), dim=-1))
        rows = np.full(len(text_vec), -1) if origin is None else origin
        if self.fusion.factors is not None:
            known = self.fusion.factors.of_origin(rows) / np.float32(self._factors_unit)
            columns.append(torch.from_numpy(known).to(text_vec))
        if self.fusion.popularity is not None:
            columns.append(self._popularity_of(rows, text_vec if is_ranked else None).to(text_vec))
        return replace(plain, matrix=torch.cat(columns, dim=1)) if len(columns) > 1 else plain

    @cached_property
    def _factors_unit(self) -> float:
        """As `_popularity_unit`, of the factors."""
        assert self.fusion.factors is not None
        return max(float(np.abs(self.fusion.factors.vectors).max(initial=0.0)) / _LARGEST_OF_UNIT, 1e-12)

    @cached_property
    def _popularity_unit(self) -> float:
        """What popularity is divided by in rows and multiplied by in queries. Undivided it would be the largest number of all
        rows, and the step of an index's 8-bit codes, too coarse for the unit vectors beside it."""
        return max(float(self.fusion.standing.max(initial=0.0)) / _LARGEST_OF_UNIT, 1e-12)

    def _popularity_of(self, origin: IntArray, text_vec: Tensor | None) -> Tensor:
        """(n, 1), what is expected by their words (n, Dt), or 0 without, of items that neither log nor loans know."""
        standing = self.fusion.standing
        unknown = (origin < 0) | (origin >= len(standing))
        worth = standing[np.where(unknown, 0, origin)] * ~unknown
        if text_vec is not None and self.fusion.expects and unknown.any():
            worth[unknown] = self.fusion.expected(self.loans_of(text_vec[torch.from_numpy(unknown)]))
        return torch.from_numpy((worth / self._popularity_unit).astype(np.float32)).unsqueeze(1)

    @property
    def columns(self) -> dict[str, slice]:
        """Where each part of the fusion that is a product has its columns, in rows and queries alike: `bank_rows`."""
        end = self.bank.matrix.shape[1]
        widths = {
            "popularity": int(self.fusion.popularity is not None),
            "als": 0 if self.fusion.factors is None else self.fusion.factors.width,
            "content": self.bank.text_vec.shape[1] if self.fusion.weights.content else 0,
        }
        found: dict[str, slice] = {}
        for part, width in widths.items():
            found[part] = slice(end - width, end)
            end -= width
        return {**found, "towers": slice(0, end)}

    def part(self, part: str) -> "Scorer":
        """What one part alone adds to the product by `followers` and `borrowed`; its rows stay the whole's."""
        return replace(self, fusion=self.fusion.of_part(part))

    def fused(self, fusion: Fusion) -> "Scorer":
        """The same towers with other scores beside them; who borrows of whom is found where the fusion does not say."""
        fused = replace(self, fusion=fusion)
        if fusion.borrows or fusion.expects:
            fused = replace(fused, fusion=replace(fusion, loans=fused._loans()))
        bank = fused.bank_rows(self.bank.text_vec, self.bank.item_vec, np.arange(self.bank.n_items))
        return replace(fused, bank=bank)

    def _loans(self) -> sp.csr_matrix:
        """(bank's N, fit's N): the fusion's own, and those of the bank's rows after them."""
        support, known = self.fusion.support, self.fusion.loans
        first = 0 if known is None else known.shape[0]
        if known is not None and first >= self.bank.n_items:
            return known
        lends = np.zeros(max(self.bank.n_items, len(support)), np.bool_)
        lends[: len(support)] = support > 0
        borrowers = first + np.flatnonzero(~lends[first : self.bank.n_items])
        found = self.loans_of(self.bank.text_vec[torch.from_numpy(borrowers)])
        fresh = found.matrix(borrowers - first, (self.bank.n_items - first, len(support)))
        return fresh if known is None else sp.vstack([known, fresh]).tocsr()

    def loans_of(self, text_vec: Tensor) -> Loans:
        """Of whom items of these words (n, Dt) borrow, if the log knows nothing of them."""
        lending, vectors = self._lending
        return find_loans(nn.functional.normalize(text_vec.float().cpu(), dim=-1).numpy(), vectors, lending)

    @cached_property
    def _lending(self) -> tuple[IntArray, npt.NDArray[np.float32]]:
        """(K,) the items that lend, and their unit text vectors (K, Dt)."""
        lending = np.asarray(who_lends(self.fusion.support), np.int64)
        vectors = nn.functional.normalize(self.bank.text_vec[torch.from_numpy(lending)].float().cpu(), dim=-1)
        return lending, vectors.numpy()

    @property
    def borrows(self) -> bool:
        return self.fusion.borrows

    @property
    def lowers(self) -> bool:
        """Whether something may be taken from a product: from items of the history, and from no other."""
        return self.fusion.weights.repeated < 0

    def borrowed(self, history: IntArray, loans: Loans) -> npt.NDArray[np.float32]:
        """(n,) what is added to the product for items that came later and borrow so: `loans_of`."""
        return self.fusion.borrowed(history, loans)

    @torch.no_grad()
    def query(self, history: Ragged) -> Tensor:
        """(B, Q). Histories of like length are computed together."""
        vectors = self._user_vectors(history.last(self.max_history))
        scaled: Tensor = self.fusion.weights.towers * self.towers.head.scale * self.towers.head.prepare(vectors)
        weights, columns = self.fusion.weights, [scaled]
        if weights.content:
            columns.append(weights.content * self._content(history))
        if self.fusion.factors is not None:
            columns.append(self._factors_asked(history, self.fusion.factors).to(scaled))
        if self.fusion.popularity is not None:
            columns.append(scaled.new_full((len(history), 1), weights.popularity * self._popularity_unit))
        return torch.cat(columns, dim=1) if len(columns) > 1 else scaled

    def _user_vectors(self, recent: Ragged) -> Tensor:
        """(B, D), zero where the towers do not count."""
        if not self.fusion.weights.towers:
            return self.bank.item_vec.new_zeros(len(recent), self.bank.item_vec.shape[1])
        if self._users_of is None:
            return self._compute_users(recent)
        profile = b"" if recent.profile is None else recent.profile.ids.padded().tobytes()
        asked = (recent.values.tobytes(), recent.offsets.tobytes(), tuple(recent.words), profile)
        if asked not in self._users_of:
            self._users_of[asked] = self._compute_users(recent)
        return self._users_of[asked]

    def _compute_users(self, recent: Ragged) -> Tensor:
        if self.towers.training:
            self.towers.eval()
        order = np.argsort(recent.lengths, kind="stable")
        vectors = self.bank.item_vec.new_zeros(len(recent), self.bank.item_vec.shape[1])
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[torch.from_numpy(rows)] = self._users(recent.take(rows))
        return vectors

    def sparse(self, history: Ragged, n_items: int) -> sp.csr_matrix | None:
        """(B, n_items) what is added to the product, None where the model has no such part."""
        return self.fusion.sparse(history, n_items)

    def followers(self, history: IntArray) -> tuple[IntArray, npt.NDArray[np.float32]] | None:
        """One row of `sparse` as places and what each adds; a place may come more than once."""
        return self.fusion.followers(history)

    @torch.no_grad()
    def score(self, history: Ragged) -> npt.NDArray[np.float32]:
        result: npt.NDArray[np.float32] = (self.query(history) @ self.bank.matrix.T).float().cpu().numpy()
        added = self.sparse(history, self.bank.n_items)
        if added is not None:
            cells = added.tocoo()
            result[cells.row, cells.col] += cells.data
        return result

    @torch.no_grad()
    def scores_of(self, history: Ragged, query: Tensor, row: int) -> npt.NDArray[np.float32]:
        """(B,) the scores of one item; `query` (B, Q) is what the histories give."""
        scores: npt.NDArray[np.float32] = (query @ self.bank.matrix[row]).float().cpu().numpy()
        return scores + self.fusion.of_item(history, row)

    def _factors_asked(self, history: Ragged, factors: ItemFactors) -> Tensor:
        """(B, F) the users' vectors of ALS. Those of the items come from the bank, whose rows alone histories name."""
        last = self.bank.matrix.shape[1] - (self.fusion.popularity is not None)
        recent = history.last(factors.n_last)
        rows, places = np.unique(np.asarray(recent.values, np.int64), return_inverse=True)
        own = self.bank.matrix[torch.from_numpy(rows).to(self.bank.matrix.device), last - factors.width : last]
        users = factors.fold_in(Ragged(places, recent.offsets), self._factors_unit * own.float().cpu().numpy())
        return torch.from_numpy(users * np.float32(self.fusion.weights.als * self._factors_unit))

    def _content(self, history: Ragged) -> Tensor:
        """(B, Dt) the direction of the newest texts, zero for an empty history."""
        newest = history.last(self.fusion.weights.n_last)
        weight = torch.from_numpy((self.fusion.weights.decay**newest.ages).astype(np.float32)).unsqueeze(1)
        text_vec = self.bank.text_vec
        texts = nn.functional.normalize(text_vec[torch.from_numpy(np.asarray(newest.values, np.int64))], dim=-1)
        rows = torch.from_numpy(np.asarray(newest.row_of_value, np.int64)).to(text_vec.device)
        sums = text_vec.new_zeros(len(history), text_vec.shape[1])
        return nn.functional.normalize(sums.index_add_(0, rows, texts * weight.to(text_vec.device)), dim=-1)

    def _users(self, block: Ragged) -> Tensor:
        device = self.bank.item_vec.device
        histories = [block[row] for row in range(len(block))]
        profile = None if block.profile is None else torch.from_numpy(block.profile.ids.padded()).to(device)
        if self.towers.user_model is None:
            assert self.encode_histories is not None, "a text user model needs the language model"
            words = block.words
            known = torch.tensor(
                [len(items) > 0 or said != "" for items, said in zip(histories, words, strict=True)], device=device
            )
            return self.towers.user_from_text(self.encode_histories(histories, words), known, profile)
        longest = max(1, max(len(items) for items in histories))
        history_idx = np.zeros((len(histories), longest), np.int64)
        history_mask = np.zeros((len(histories), longest), np.bool_)
        for row, items in enumerate(histories):
            history_idx[row, : len(items)] = items
            history_mask[row, : len(items)] = True
        mask = torch.from_numpy(history_mask).to(device)
        return self.towers.final_state(self.bank.item_vec, torch.from_numpy(history_idx).to(device), mask, profile)


@torch.no_grad()
def build_bank(towers: TwoTower, text_vec: Tensor, item_vec: Tensor | None = None) -> ItemBank:
    """The towers' bank of items from their text vectors (N, Dt); item_vec (N, D) where it is known already.

    A scorer may fuse more into the matrix: rows for its bank come from `Scorer.bank_rows`.
    """
    vectors = towers.item_tower(text_vec) if item_vec is None else item_vec
    return ItemBank(text_vec, vectors, towers.head.prepare(vectors))
