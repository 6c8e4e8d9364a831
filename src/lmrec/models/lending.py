"""What is expected of an item that nothing is known to follow: what holds of the items that read most like it. No torch.

Item transitions know an item by its events, so beside the towers an item without events gets nothing and sinks below all
that have some. It borrows: the transitions of its `N_LENDERS` nearest items by words, weighted by cosine^POWER, times a
factor found on validation (`FusionWeights.borrowed`). An item without events is expected to be as popular as those, times
`FusionWeights.newcomer`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from lmrec.fields import FloatArray, IntArray

N_LENDERS = 20
POWER = 8
MAX_LENDING = 20_000  # those followed most; more would make finding the nearest long, and have little to lend
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Loans:
    """lenders: (n, N_LENDERS) rows of items; shares: (n, N_LENDERS), of each row 1 together, or 0 where nobody lends."""

    lenders: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.lenders)

    def worth(self, known: FloatArray) -> npt.NDArray[np.float32]:
        """(N,) what each item of the fit is worth -> (n,) what is expected of the borrowers."""
        found: npt.NDArray[np.float32] = np.einsum("nm,nm->n", known[self.lenders], self.shares).astype(np.float32)
        return found

    def take(self, rows: IntArray) -> "Loans":
        return Loans(self.lenders[rows], self.shares[rows])

    def matrix(self, rows: IntArray, shape: tuple[int, int]) -> sp.csr_matrix:
        """`shape`, row rows[k] of it what the k-th borrows of each item of the fit; other rows are empty."""
        places = np.repeat(np.asarray(rows, np.int64), N_LENDERS)
        kept = self.shares.ravel() > 0
        cells = self.shares.ravel()[kept], (places[kept], self.lenders.ravel()[kept])
        return sp.csr_matrix(cells, shape=shape, dtype=np.float32)

    @classmethod
    def joined(cls, first: "Loans", second: "Loans") -> "Loans":
        return cls(np.concatenate([first.lenders, second.lenders]), np.concatenate([first.shares, second.shares]))


def who_lends(support: FloatArray) -> IntArray:
    """The items that have something to lend, at most `MAX_LENDING`, those that have most, in order. support: (N,)."""
    most = np.argsort(-support, kind="stable")[:MAX_LENDING]
    return np.sort(most[support[most] > 0])


def find_loans(text_vec: FloatArray, lending_vec: FloatArray, lending: IntArray) -> Loans:
    """Of whom items borrow that have unit vectors text_vec (n, Dt); lending: (K,) rows of items with unit vectors
    lending_vec (K, Dt)."""
    loans = Loans(np.zeros((len(text_vec), N_LENDERS), np.int64), np.zeros((len(text_vec), N_LENDERS), np.float32))
    n_near = min(N_LENDERS, len(lending))
    if not n_near:
        return loans
    for start in range(0, len(text_vec), _BLOCK):
        cosine = text_vec[start : start + _BLOCK] @ lending_vec.T
        near = np.argpartition(-cosine, n_near - 1, axis=1)[:, :n_near]
        shares = np.take_along_axis(cosine, near, axis=1).clip(0.0) ** POWER
        loans.lenders[start : start + _BLOCK, :n_near] = lending[near]
        loans.shares[start : start + _BLOCK, :n_near] = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    return loans
