"""A growing bank: rows come back as they went in, views never change, products run over base and tail alike."""

import numpy as np
import pytest
import torch

from lmrec.retrieval.bank import GrowingBank
from lmrec.retrieval.scorer import ItemBank


def rows(n: int, seed: int) -> ItemBank:
    source = torch.Generator().manual_seed(seed)
    return ItemBank(*(torch.randn(n, width, generator=source) for width in (6, 4, 5)))


def joined(banks: list[ItemBank]) -> ItemBank:
    return ItemBank(
        *(torch.cat([getattr(bank, part) for bank in banks]) for part in ("text_vec", "item_vec", "matrix"))
    )


@pytest.mark.parametrize("n_base", [0, 3, 100])
def test_all_rows_come_back(n_base: int) -> None:
    parts = [rows(n_base, 0)]
    bank = GrowingBank(parts[0])
    for seed, n in enumerate([1, 1, 70, 0, 200], start=1):
        earlier, before = bank.view(), bank.view().take(np.arange(bank.view().n_rows)).matrix.clone()
        parts.append(rows(n, seed))
        bank.append(parts[-1])
        whole, view = joined(parts), bank.view()
        assert view.n_rows == whole.n_items
        chosen = np.random.default_rng(seed).integers(whole.n_items, size=20)
        taken = view.take(chosen)
        for part in ("text_vec", "item_vec", "matrix"):
            assert torch.equal(getattr(taken, part), getattr(whole, part)[torch.from_numpy(chosen)])
        query = torch.randn(3, 5)
        torch.testing.assert_close(view.scores(query), query @ whole.matrix.T)
        assert view.scores(query).is_contiguous()
        torch.testing.assert_close(view.text_scores(torch.ones(1, 6)), whole.text_vec.sum(1)[None])
        torch.testing.assert_close(view.item_scores(torch.ones(1, 4)), whole.item_vec.sum(1)[None])
        assert torch.equal(earlier.take(np.arange(earlier.n_rows)).matrix, before)


def test_the_loaded_part_is_not_copied() -> None:
    base = rows(10, 0)
    bank = GrowingBank(base)
    bank.append(rows(2, 1))
    assert bank.view().base.matrix.data_ptr() == base.matrix.data_ptr()
