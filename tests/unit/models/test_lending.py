"""Whoever has no events borrows of the nearest by words, in shares that make one whole."""

import numpy as np
import numpy.typing as npt

from lmrec.models.lending import MAX_LENDING, N_LENDERS, Loans, find_loans, who_lends


def unit(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    rows: npt.NDArray[np.float32] = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    return rows


def test_the_nearest_lend_most() -> None:
    rng = np.random.default_rng(0)
    lending_vec, lending = unit(rng.normal(size=(50, 6))), np.arange(100, 150)
    text_vec = unit(lending_vec[[3, 40]] + 0.05 * rng.normal(size=(2, 6)))
    loans = find_loans(text_vec, lending_vec, lending)
    assert loans.lenders.shape == (2, N_LENDERS)
    np.testing.assert_allclose(loans.shares.sum(axis=1), 1.0, rtol=1e-5)
    assert [int(row[share.argmax()]) for row, share in zip(loans.lenders, loans.shares, strict=True)] == [103, 140]
    cosine = text_vec @ lending_vec.T
    for row, near in zip(cosine, loans.lenders, strict=True):
        assert set(near - 100) == set(np.argsort(-row)[:N_LENDERS])


def test_what_is_expected_is_the_mean_by_shares_and_the_matrix_says_the_same() -> None:
    rng = np.random.default_rng(1)
    loans = find_loans(unit(rng.normal(size=(3, 4))), unit(rng.normal(size=(30, 4))), np.arange(30))
    known = rng.random(30)
    expected = [float(shares @ known[lenders]) for lenders, shares in zip(loans.lenders, loans.shares, strict=True)]
    np.testing.assert_allclose(loans.worth(known), expected, rtol=1e-5)
    matrix = loans.matrix(np.array([5, 0, 2]), (6, 30))
    np.testing.assert_allclose(matrix @ known, [expected[1], 0, expected[2], 0, 0, expected[0]], rtol=1e-5)
    both = Loans.joined(loans.take(np.array([2])), loans.take(np.array([0])))
    np.testing.assert_allclose(both.worth(known), [expected[2], expected[0]], rtol=1e-5)


def test_few_lenders_or_none_lend_what_they_have() -> None:
    text_vec = unit(np.eye(3, 5))
    few = find_loans(text_vec, unit(np.eye(2, 5)), np.array([7, 9]))
    assert few.lenders[0, few.shares[0].argmax()] == 7
    np.testing.assert_allclose(few.shares.sum(axis=1), [1.0, 1.0, 0.0])  # the third reads like nobody
    assert not find_loans(text_vec, np.zeros((0, 5), np.float32), np.zeros(0, np.int64)).shares.any()


def test_those_lend_that_follow_something() -> None:
    assert who_lends(np.array([0.0, 2.0, 0.0, 2.0])).tolist() == [1, 3]
    n = MAX_LENDING + 5
    popular = np.arange(n) >= 5
    assert who_lends(1.0 + popular).tolist() == np.flatnonzero(popular).tolist()
