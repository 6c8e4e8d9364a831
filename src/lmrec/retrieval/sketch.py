"""A first look at every row through codes of four bits: a tenth of the time of 8-bit codes, and near enough to name candidates.

Each two columns of a row become one of 16 letters (product quantization, Jégou et al. 2011,
https://doi.org/10.1109/TPAMI.2010.57). The products of a query with all letters are small tables that stand in registers,
where 32 rows are summed at once (fast scan, André et al. 2015, https://www.vldb.org/pvldb/vol9/p288-andre.pdf, as faiss has
it). Half a byte for two columns says too little to rank by, so the candidates' exact scores come from the float rows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from lmrec.fields import BoolArray, FloatArray
from lmrec.retrieval.exact import Float32, Rows, RowsReader, best_of, scores_of

if TYPE_CHECKING:
    import faiss

_LETTER_BITS = 4
_COLUMNS = 2  # that share a letter
_SAMPLE = 8_192  # rows that letters are learnt from
_MEASURED_K = 100  # of so many first rows `depth` was chosen
_CHUNK = 65_536  # rows given to faiss at once
_DEVIATIONS = 3.0  # of the number of candidates that a filter leaves


@dataclass(frozen=True, eq=False)
class Sketch:
    """Letters of all rows, as they are kept (`plain`) and as they are scanned (`packed`).

    depth: how many candidates are scored exactly for the first 100; for more in proportion.
    """

    plain: "faiss.IndexPQ"
    packed: "faiss.IndexPQFastScan"
    depth: int

    @classmethod
    def build(cls, matrix: FloatArray) -> Self:
        """(n_rows, Q) float rows -> their sketch, of which every row is a candidate. Needs 16 rows."""
        import faiss

        n_rows, width = matrix.shape
        n_letters = width // _COLUMNS if width % _COLUMNS == 0 else width
        plain = faiss.IndexPQ(width, n_letters, _LETTER_BITS, faiss.METRIC_INNER_PRODUCT)
        plain.pq.cp.min_points_per_centroid = 1  # few rows are no reason to warn
        chosen = np.random.default_rng(0).choice(n_rows, min(n_rows, _SAMPLE), replace=False)
        plain.train(np.asarray(matrix[np.sort(chosen)], np.float32))
        return cls(plain, _add(plain, matrix), n_rows)

    @classmethod
    def open(cls, file: Path, depth: int, n_rows: int) -> Self:
        """Letters are mapped, and packed anew. Raises ValueError where they are of another number of rows."""
        import faiss

        plain = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
        if plain.ntotal != n_rows:
            raise ValueError(f"a sketch of {plain.ntotal} rows, not {n_rows}")
        return cls(plain, faiss.IndexPQFastScan(plain), depth)

    def save(self, file: Path) -> None:
        import faiss

        faiss.write_index(self.plain, str(file))

    def search(
        self, query: Float32, k: int, read_rows: RowsReader, shown: BoolArray | None
    ) -> tuple[Rows, Float32, BoolArray]:
        """(B, Q) -> (B, k) rows, best first, (B, k) exact scores, and (B,) whether enough candidates were met.

        shown: (at least n_rows,) who may be answered. Where those that may be are fewer among the candidates than in the
        whole, too few are met, and the answer is not to be trusted.
        """
        n_rows = self.plain.ntotal
        wanted = self.depth_of(k)
        n_shown = n_rows if shown is None else int(np.count_nonzero(shown[:n_rows]))
        # How many of the candidates a filter leaves is partly luck: some more are named, and some fewer do.
        margin = 0.0 if n_shown == n_rows else _DEVIATIONS * np.sqrt(wanted)
        depth = min(int(np.ceil((wanted + margin) * n_rows / max(n_shown, 1))), n_rows)
        _, rows = self.packed.search(query, depth)
        if shown is not None:
            rows = _without(rows, shown)
        n_met = np.count_nonzero(rows >= 0, axis=1)
        found, scores = best_of(rows, scores_of(query, rows, read_rows), k)
        return found, scores, (n_met >= wanted - margin) | (depth == n_rows)

    def depth_of(self, k: int) -> int:
        """How many candidates the first k take, if there are as many rows."""
        return max(int(np.ceil(self.depth * max(k, _MEASURED_K) / _MEASURED_K)), k)


def _without(rows: Rows, shown: BoolArray) -> Rows:
    """(B, M) row numbers -> (B, at most M) those that may be answered, in their order, then -1: others need not be read."""
    may = (rows >= 0) & shown[rows]
    order = np.argsort(~may, axis=1, kind="stable")[:, : may.sum(axis=1).max(initial=0)]
    return np.take_along_axis(np.where(may, rows, -1), order, axis=1)


def _add(plain: "faiss.IndexPQ", rows: FloatArray) -> "faiss.IndexPQFastScan":
    """Give `plain` more rows; all of them as they are scanned."""
    import faiss

    for start in range(0, len(rows), _CHUNK):
        plain.add(np.ascontiguousarray(rows[start : start + _CHUNK], np.float32))
    return faiss.IndexPQFastScan(plain)
