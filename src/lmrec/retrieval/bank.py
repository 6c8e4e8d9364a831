"""The rows of an item bank that only ever grow: a loaded part that is never copied, and a tail that new rows go into."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmrec.fields import IntArray
from lmrec.retrieval.codes import Codes, Rough
from lmrec.retrieval.scorer import ItemBank

_BLOCK_ROWS = 4096
_FEW_QUERIES = 4


@dataclass(frozen=True, eq=False)
class BankView:
    """N rows as they were at one moment: `base` and, after it, `tail`. Nobody writes into a row that a view shows.

    `codes`: of the base's matrix, where they make a product quicker.
    """

    base: ItemBank
    tail: ItemBank
    codes: Codes | None = None

    @property
    def n_rows(self) -> int:
        return self.base.n_items + self.tail.n_items

    def take(self, rows: IntArray) -> ItemBank:
        """The named rows (M,), copied side by side."""
        chosen = torch.from_numpy(np.asarray(rows, np.int64))
        return ItemBank(*(_taken(*parts, chosen) for parts in zip(_parts(self.base), _parts(self.tail), strict=True)))

    def scores(self, query: Tensor, first: int = 0) -> Tensor:
        """(B, Q) -> (B, N - first), the product with every row of the matrix from `first` on."""
        n_base = self.base.n_items
        return _product(query, self.base.matrix[min(first, n_base) :], self.tail.matrix[max(first - n_base, 0) :])

    def rough_scores(self, query: Tensor) -> Rough:
        """(B, Q) -> `scores`, but as far off as the answer says."""
        if self.codes is None:
            return Rough(self.scores(query).numpy(), np.zeros(len(query), np.float32))
        rough = self.codes.product(query)
        if not self.tail.n_items:
            return rough
        return Rough(np.concatenate([rough.scores, (query @ self.tail.matrix.T).numpy()], axis=1), rough.off)

    def matrix_rows(self, rows: IntArray) -> Tensor:
        """(M,) -> (M, Q), the named rows of the matrix alone."""
        return _taken(self.base.matrix, self.tail.matrix, torch.from_numpy(np.asarray(rows, np.int64)))

    def text_scores(self, query: Tensor) -> Tensor:
        """(B, Dt) -> (B, N), the product with every text vector."""
        return _product(query, self.base.text_vec, self.tail.text_vec)

    def item_scores(self, query: Tensor) -> Tensor:
        """(B, D) -> (B, N), the product with every item vector."""
        return _product(query, self.base.item_vec, self.tail.item_vec)


class GrowingBank:
    """Appends rows; one writer at a time. `view` is what readers hold: later appends never change it.

    codes: of the base's matrix, for views from then on; without them its product is a plain one.
    """

    def __init__(self, base: ItemBank, codes: Codes | None = None) -> None:
        self._base = ItemBank(*(part.detach().contiguous() for part in _parts(base)))
        self._tail = ItemBank(*(part.new_empty(0, part.shape[1]) for part in _parts(self._base)))
        self._n_tail = 0
        self.codes = codes

    def append(self, rows: ItemBank) -> None:
        needed = self._n_tail + rows.n_items
        if needed > self._tail.n_items:
            # Twice the room each time; the old buffer lives on for as long as a reader looks at it.
            room = max(64, needed, 2 * self._tail.n_items)
            self._tail = ItemBank(*(_grown(part, self._n_tail, room) for part in _parts(self._tail)))
        for part, fresh in zip(_parts(self._tail), _parts(rows), strict=True):
            part[self._n_tail : needed] = fresh
        self._n_tail = needed

    def view(self) -> BankView:
        return BankView(self._base, ItemBank(*(part[: self._n_tail] for part in _parts(self._tail))), self.codes)


def _parts(bank: ItemBank) -> tuple[Tensor, Tensor, Tensor]:
    return bank.text_vec, bank.item_vec, bank.matrix


def _taken(base: Tensor, tail: Tensor, chosen: Tensor) -> Tensor:
    """(M, D) of the rows that base and tail hold one after the other."""
    if not len(chosen) or int(chosen.max()) < len(base):
        return base.index_select(0, chosen)
    in_tail = chosen >= len(base)
    taken = base.new_empty(len(chosen), base.shape[1])
    taken[~in_tail] = base[chosen[~in_tail]]
    taken[in_tail] = tail[chosen[in_tail] - len(base)]
    return taken


def _grown(part: Tensor, n_used: int, room: int) -> Tensor:
    grown = part.new_empty(room, part.shape[1])
    grown[:n_used] = part[:n_used]
    return grown


def _product(query: Tensor, base: Tensor, tail: Tensor) -> Tensor:
    result = query.new_empty(len(query), len(base) + len(tail))
    turned = query.T
    start = 0
    for part in (base, tail):
        # Rows times queries, then turned: for a few queries about twice as fast as the other way round. In blocks that
        # stay in the processor's cache the turning is free (a quarter faster at 16 queries); one query has none.
        block = _BLOCK_ROWS if len(query) > _FEW_QUERIES else max(1, len(part))
        for at in range(0, len(part), block):
            rows = part[at : at + block]
            result[:, start + at : start + at + len(rows)] = torch.mm(rows, turned).T
        start += len(part)
    return result
