"""Codes: never further off than they say, so that the best rows found by them are the best rows."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmrec.retrieval.bank import GrowingBank
from lmrec.retrieval.codes import KERNELS, MIN_ROWS, Codes, Kernel, PackedKernel, quickest_codes, shortlist
from lmrec.retrieval.scorer import ItemBank
from lmrec.retrieval.standing import Standing


def rows_of(seed: int, n: int, width: int, uneven: float) -> torch.Tensor:
    """Rows of unlike lengths: `uneven` 0 makes them alike."""
    chance = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, width, generator=chance)
    return rows * (1.0 + uneven * torch.rand(n, 1, generator=chance) ** 8)


@given(
    seed=st.integers(0, 1_000),
    width=st.sampled_from([3, 32, 130]),
    uneven=st.sampled_from([0.0, 1.0, 50.0]),
    k=st.integers(1, 60),
    kind=st.sampled_from(KERNELS),
)
def test_the_best_rows_by_codes_are_the_best_rows(
    seed: int, width: int, uneven: float, k: int, kind: type[Kernel]
) -> None:
    rows, query = rows_of(seed, 500, width, uneven), rows_of(seed + 1, 3, width, uneven)
    exact = (query @ rows.T).numpy()
    rough = Codes.of(rows, kind).product(query)
    assert (np.abs(rough.scores - exact).max(axis=1) <= rough.off).all()
    for own, coded, off in zip(exact, rough.scores, rough.off, strict=True):
        best = set(np.argsort(-own, kind="stable")[:k].tolist())
        assert best <= set(shortlist(coded, k, 2 * off).tolist())
        found, score_of = Standing(coded, float(off), lambda at, own=own: own[at]).best(k)  # type: ignore[misc]
        assert set(found) == best
        assert [score_of[row] for row in found] == sorted((own[row] for row in found), reverse=True)


def test_a_shortlist_of_widely_spaced_scores_is_short() -> None:
    scores = np.arange(10_000, dtype=np.float32)
    assert shortlist(scores, 10, 0.5).tolist() == list(range(9_990, 10_000))


@pytest.mark.parametrize("coded", [True, False])
def test_a_bank_answers_the_same_with_and_without_codes(coded: bool) -> None:
    rows, late = rows_of(1, 300, 16, 1.0), rows_of(2, 40, 16, 1.0)
    growing = GrowingBank(ItemBank(rows, rows, rows), Codes.of(rows, PackedKernel) if coded else None)
    growing.append(ItemBank(late, late, late))
    view, query = growing.view(), rows_of(3, 2, 16, 0.0)
    rough = view.rough_scores(query)
    exact = (query @ torch.cat([rows, late]).T).numpy()
    assert (view.codes is not None) == coded
    assert (np.abs(rough.scores - exact).max(axis=1) <= rough.off + 1e-4).all()
    chosen = np.array([5, 299, 300, 339])
    assert torch.equal(view.matrix_rows(chosen), torch.cat([rows, late])[chosen])


def test_small_banks_have_no_codes() -> None:
    assert quickest_codes(torch.ones(MIN_ROWS - 1, 4)) is None


@pytest.mark.parametrize("kind", KERNELS)
def test_a_kernel_multiplies_whole_numbers_exactly(kind: type[Kernel]) -> None:
    """Also the largest, where pairs of products summed in 16 bits would overflow."""
    values = torch.full((40, 130), 127, dtype=torch.int8)
    values[1::2] = -127
    whole = torch.full((2, 130), float(kind.levels))
    whole[1] *= -1
    assert torch.equal(kind(values)(whole), whole @ values.float().T)
