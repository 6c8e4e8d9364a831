"""A product with every row that is quick and knows how far off it can be: whole numbers of 8 bits instead of floats.

Rows become multiples of one step, a quarter of the bytes, and a query is turned into such numbers as well; one pass over the
codes answers all queries of a batch. With q = q' + dq and v = v' + dv, where q' and v' are what the codes say,

    |q.v - q'.v'| <= |q| |dv| + |dq| |v'|          (Cauchy-Schwarz)

so who takes every row within twice that bound of the k-th best has the best k for certain, and scores those few exactly.
"""

import time
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LEVELS: Final = 127
MIN_ROWS: Final = 16_384
"""Fewer rows are not worth codes: the float product takes less than a millisecond."""

_BLOCKS: Final = 32
_ROUNDING: Final = 1e-5  # of float32 sums, relative to the largest score there can be


@dataclass(frozen=True, eq=False)
class Rough:
    """scores: (B, N) float32. off: (B,) by how much a score can be wrong, at most."""

    scores: npt.NDArray[np.float32]
    off: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Codes:
    """values: (N, Q) int8, of which `step` times one is a number of the row. row_off: the largest |dv|; row_length: the
    largest |v'|."""

    values: Tensor
    step: float
    row_off: float
    row_length: float

    @classmethod
    def of(cls, rows: Tensor) -> Self:
        """(N, Q) float32 rows as codes."""
        step = max(float(rows.abs().max()), 1e-30) / LEVELS
        values = torch.empty(rows.shape, dtype=torch.int8)
        off = length = 0.0
        for start in range(0, len(rows), MIN_ROWS):  # in parts, so that no second copy in floats is made
            part = rows[start : start + MIN_ROWS]
            whole = (part / step).round_()
            values[start : start + MIN_ROWS] = whole.to(torch.int8)
            whole *= step
            length = max(length, float(whole.norm(dim=1).max()))
            off = max(off, float((part - whole).norm(dim=1).max()))
        return cls(values, step, off, length)

    def product(self, query: Tensor) -> Rough:
        """(B, Q) -> the rough product with every row."""
        unit = query.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / LEVELS  # (B, 1)
        whole = (query / unit).round()
        products = torch._int_mm(whole.to(torch.int8), self.values.T)  # (B, N) int32
        scores = products.to(torch.float32).mul_(unit * self.step)
        length = query.norm(dim=1)
        query_off = (query - whole * unit).norm(dim=1)
        bound = length * self.row_off + query_off * self.row_length + _ROUNDING * length * self.row_length
        return Rough(scores.numpy(), bound.numpy())


def worth_codes(rows: Tensor) -> bool:
    """Whether this machine multiplies codes quicker than floats, which takes a processor with 8-bit products: tried out."""
    if len(rows) < MIN_ROWS:
        return False
    sample = rows[:MIN_ROWS]
    codes, query = Codes.of(sample), sample[:2]
    try:
        coded_s = _least_seconds(lambda: codes.product(query))
    except (RuntimeError, NotImplementedError, AttributeError):  # a torch without the product
        return False
    return coded_s < _least_seconds(lambda: sample @ query.T)


def shortlist(scores: npt.NDArray[np.float32], k: int, slack: float) -> npt.NDArray[np.int64]:
    """Rows whose score is at most `slack` below the k-th best, and maybe a few more; never one of -inf.

    The k-th best of the maxima of blocks is a bar that at least k rows reach, found without sorting all rows.

    >>> shortlist(np.array([0.5, 3.0, -np.inf, 2.9, 1.0], np.float32), k=1, slack=0.2).tolist()
    [1, 3]
    """
    whole = len(scores) - len(scores) % _BLOCKS
    tops = np.concatenate([scores[:whole].reshape(_BLOCKS, -1).max(axis=0), scores[whole:]])
    if len(tops) <= 2 * k:
        tops = scores
    bar = np.partition(tops, len(tops) - k)[len(tops) - k] if len(tops) > k else -np.inf
    found = scores >= bar - np.float32(slack) if bar > -np.inf else scores > -np.inf
    return np.flatnonzero(found)


def _least_seconds(work: "object") -> float:
    assert callable(work)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
