"""A product with every row that is quick and knows how far off it can be: whole numbers of 8 bits instead of floats.

Rows become multiples of one step, a quarter of the bytes, and a query is turned into such numbers as well; one pass over the
codes answers all queries of a batch. With q = q' + dq and v = v' + dv, where q' and v' are what the codes say,

    |q.v - q'.v'| <= |q| |dv| + |dq| |v'|          (Cauchy-Schwarz)

so who takes every row within twice that bound of the k-th best has the best k for certain, and scores those few exactly.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LEVELS: Final = 127
MIN_ROWS: Final = 16_384
"""Fewer rows are not worth codes: the float product takes less than a millisecond."""

_BLOCKS: Final = 32
_TRIALS: Final = 4
_PLAINLY: Final = 2.0
_ROUNDING: Final = 1e-5  # of float32 sums, relative to the largest score there can be


@dataclass(frozen=True, eq=False)
class Rough:
    """scores: (B, N) float32. off: (B,) by how much a score can be wrong, at most."""

    scores: npt.NDArray[np.float32]
    off: npt.NDArray[np.float32]


class Kernel(Protocol):
    """A way to multiply codes. levels: a query is written in whole numbers from -levels to levels."""

    levels: int

    def __init__(self, values: Tensor) -> None:
        """values: (N, Q) int8."""

    def __call__(self, whole: Tensor) -> Tensor:
        """(B, Q) whole numbers as float32 -> (B, N) float32, exact."""


class IntKernel:
    """8 bits by 8 bits, for processors that multiply them as such (VNNI, AMX)."""

    levels = 127

    def __init__(self, values: Tensor) -> None:
        self._values = values

    def __call__(self, whole: Tensor) -> Tensor:
        return torch._int_mm(whole.to(torch.int8), self._values.T).to(torch.float32)


class PackedKernel:
    """8 bits by 7, packed for the processor's cache (FBGEMM, https://arxiv.org/abs/2101.05615): quick without VNNI too, where
    two products are summed in 16 bits, which 8 bits by 8 would overflow."""

    levels = 63

    def __init__(self, values: Tensor) -> None:
        with warnings.catch_warnings():
            # Torch means to take these tensors out one day; `quickest_codes` then finds another way, or none.
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            weights = torch._make_per_tensor_quantized_tensor(values, 1.0, 0)
        self._packed = torch.ops.quantized.linear_prepack(weights, None)

    def __call__(self, whole: Tensor) -> Tensor:
        product: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            whole, 1.0, self.levels + 1, self._packed
        )
        return product


KERNELS: Final[tuple[type[Kernel], ...]] = (PackedKernel, IntKernel)


@dataclass(frozen=True, eq=False)
class Codes:
    """Rows (N, Q) as whole numbers inside a `kernel`, of which `step` times one is a number of the row. row_off: the largest
    |dv|; row_length: the largest |v'|."""

    kernel: Kernel
    step: float
    row_off: float
    row_length: float

    @classmethod
    def of(cls, rows: Tensor, kind: type[Kernel]) -> Self:
        """(N, Q) float32 rows as codes."""
        (codes,) = cls.of_kinds(rows, (kind,))
        return codes

    @classmethod
    def of_kinds(cls, rows: Tensor, kinds: Iterable[type[Kernel]]) -> Iterator[Self]:
        """The same codes in one kernel after the other; kinds that this torch or processor lacks are passed over."""
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
        for kind in kinds:
            with suppress(RuntimeError, NotImplementedError, AttributeError):
                yield cls(kind(values), step, off, length)

    def product(self, query: Tensor) -> Rough:
        """(B, Q) -> the rough product with every row."""
        unit = query.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / self.kernel.levels  # (B, 1)
        whole = (query / unit).round()
        scores = self.kernel(whole).mul_(unit * self.step)
        length = query.norm(dim=1)
        query_off = (query - whole * unit).norm(dim=1)
        bound = length * self.row_off + query_off * self.row_length + _ROUNDING * length * self.row_length
        return Rough(scores.numpy(), bound.numpy())


def quickest_codes(rows: Tensor) -> Codes | None:
    """Codes in the kernel that this machine multiplies all the rows with quickest; None where floats are quicker. Tried out on
    the rows themselves: of a few, floats fit into the processor's cache, and tell nothing of many."""
    if len(rows) < MIN_ROWS:
        return None
    query = rows[:2].clone()
    best, least_s = None, _least_seconds(lambda: torch.mm(rows, query.T))
    for codes in Codes.of_kinds(rows, KERNELS):
        try:
            seconds = _least_seconds(lambda codes=codes: codes.product(query), least_s)  # type: ignore[misc]
        except (RuntimeError, NotImplementedError, AttributeError):
            continue
        if seconds < least_s:
            best, least_s = codes, seconds
    return best


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


def _least_seconds(work: Callable[[], object], beaten_by: float = math.inf) -> float:
    """Of four runs; of fewer where it is plain that `beaten_by` seconds are less."""
    seconds: list[float] = []
    while len(seconds) < _TRIALS and (not seconds or min(seconds) < _PLAINLY * beaten_by):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
