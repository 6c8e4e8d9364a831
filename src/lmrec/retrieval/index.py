"""The index of a large catalog: rows as codes, whole, in lists or in a graph, and exact scores of the candidates they propose.

k-means gives each row a list; a query reads the lists nearest to it, and their codes, a quarter of the bytes of floats, name
candidates, whose scores are then computed from the float rows. So a score is always the model's own, and only the choice of
candidates can miss. How many candidates are fetched is decided by what is seen: their exact scores tell how far off the
codes are, and more are fetched until the k-th exact score lies six such deviations above the last candidate's coded score.

Above the codes stands a sketch (`lmrec.retrieval.sketch`), letters of four bits that name candidates in a tenth of the time;
how many are scored exactly is found by measuring, as the number of lists is.

In a graph (HNSW, Malkov & Yashunin 2016, https://arxiv.org/abs/1603.09320) a query walks from row to nearer row instead. A
walk among mostly hidden rows ends too early, so where less than a quarter of the rows may be answered all codes are read.

Smaller catalogs are scored whole (`lmrec.retrieval.codes`); where an index is quicker was measured: docs/decisions/003.
`lmrec.retrieval.ann` builds it and measures its recall. Lists are faiss' IVF, https://arxiv.org/abs/2401.08281.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from lmrec.artifacts.files import read_json, replaced_folder, write_json
from lmrec.errors import RunFolderError
from lmrec.fields import BoolArray, FloatArray
from lmrec.retrieval.exact import Float32, Rows, RowsReader, best_of, nothing_found, score_all, scores_of
from lmrec.retrieval.sketch import Sketch

if TYPE_CHECKING:
    import faiss

INDEX_FORMAT = 2
_SKETCH = "sketch.faiss"
LEVELS = 127  # a code is a whole number from -127 to 127
_MARGIN = 6.0  # deviations of the codes
_SPARE = 32  # candidates beyond 2 k
_SELECTIVE = 4_096  # so few rows are scored outright
_FEW_HIDDEN = 64  # so few hidden rows are dropped from what was found
_MOSTLY = 0.25  # share of shown rows above which a graph is walked and a sketch is read


@dataclass(frozen=True, eq=False)
class RowMask:
    """Which rows may be answered, as a boolean for each and packed for the scan."""

    shown: BoolArray  # (n_rows,)
    n_shown: int
    bits: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, shown: BoolArray) -> Self:
        return cls(shown, int(np.count_nonzero(shown)), np.packbits(shown, bitorder="little"))


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """Finds rows of a matrix (n_rows, Q) that it holds as codes alone: value / step, rounded.

    n_probe: how many lists each query reads; of a graph, how many rows its walk keeps in view (efSearch). recall: of the first
    100, as measured when it was built; wanted: what it should be. sketch: where there is one it is asked, and the codes where a
    filter leaves few rows.
    """

    codes: "faiss.IndexIVFScalarQuantizer | faiss.IndexHNSWSQ"
    step: float
    n_probe: int
    recall: float = 1.0
    wanted: float = 1.0
    sketch: Sketch | None = None

    @property
    def n_rows(self) -> int:
        return int(self.codes.ntotal)

    @property
    def is_graph(self) -> bool:
        return hasattr(self.codes, "hnsw")

    @property
    def n_lists(self) -> int:
        """The `n_probe` that misses nothing: of a graph, all rows."""
        return self.n_rows if self.is_graph else int(self.codes.nlist)

    def search(
        self, query: FloatArray, k: int, read_rows: RowsReader, mask: RowMask | None = None
    ) -> tuple[Rows, Float32]:
        """(B, Q) -> (B, k) rows, best first, and (B, k) their exact scores; -1 and -inf fill places nobody takes.

        read_rows: the float rows that were coded. mask: over the first n_rows rows, who may be answered.
        """
        query = np.ascontiguousarray(query, np.float32)
        if not self.n_rows:
            return nothing_found(len(query), k)
        if mask is not None and mask.n_shown <= max(k, _SELECTIVE):
            return score_all(query, np.flatnonzero(mask.shown[: self.n_rows]), k, read_rows)
        found, scores = nothing_found(len(query), k)
        open_queries = np.arange(len(query))
        if self.sketch is not None and (mask is None or mask.n_shown >= _MOSTLY * self.n_rows):
            found, scores, enough = self.sketch.search(query, k, read_rows, None if mask is None else mask.shown)
            open_queries = np.flatnonzero(~enough)
        # To look up every row in a mask costs more than to drop a few that were found.
        n_hidden = 0 if mask is None else len(mask.shown) - mask.n_shown
        dropped = mask.shown if mask is not None and n_hidden <= _FEW_HIDDEN else None
        depth = min(2 * k + _SPARE + (n_hidden if dropped is not None else 0), self.n_rows)
        while len(open_queries) and depth:
            coded, rows = self._scan(query[open_queries], depth, None if dropped is not None else mask)
            exact = scores_of(query[open_queries], rows, read_rows)
            if dropped is not None:
                exact[(rows >= 0) & ~dropped[rows]] = -np.inf
            best = best_of(rows, exact, k)
            found[open_queries], scores[open_queries] = best
            if depth == self.n_rows:
                break
            open_queries = open_queries[~_deep_enough(coded, exact, best[1])]
            depth = min(4 * depth, self.n_rows)
        return found, scores

    def without_misses(self) -> Self:
        """The same index reading every list, or every code."""
        return replace(self, n_probe=self.n_lists, recall=1.0, sketch=None)

    def save(self, folder: Path, origin: str) -> None:
        """`origin`: the fingerprint of the checkpoint that made the vectors; `open` wants the same."""
        import faiss

        with replaced_folder(folder) as fresh:
            faiss.write_index(self.codes, str(fresh / "codes.faiss"))
            if self.sketch is not None:
                self.sketch.save(fresh / _SKETCH)
            write_json(
                fresh / "index.json",
                {
                    "format": INDEX_FORMAT,
                    "origin": origin,
                    "n_rows": self.n_rows,
                    "width": int(self.codes.d),
                    "step": self.step,
                    "n_probe": self.n_probe,
                    "recall": self.recall,
                    "wanted": self.wanted,
                    "depth": None if self.sketch is None else self.sketch.depth,
                },
            )

    @classmethod
    def open(cls, folder: Path, origin: str, width: int) -> Self:
        """Mapped, not read: pages come from the disk as queries touch them. Raises RunFolderError where it does not fit."""
        import faiss

        try:
            values = read_json(folder / "index.json")
            if (values["format"], values["origin"]) != (INDEX_FORMAT, origin):
                raise ValueError("it was made of other vectors")
            codes = faiss.read_index(str(folder / "codes.faiss"), faiss.IO_FLAG_MMAP_IFC)
            if (codes.ntotal, codes.d) != (values["n_rows"], width):
                raise ValueError(f"{codes.ntotal} rows of {codes.d}, not {values['n_rows']} of {width}")
            sketch = (
                None if values["depth"] is None else Sketch.open(folder / _SKETCH, int(values["depth"]), codes.ntotal)
            )
            found = {name: float(values[name]) for name in ("step", "recall", "wanted")}
            return cls(codes, n_probe=int(values["n_probe"]), sketch=sketch, **found)
        except (KeyError, TypeError, ValueError, RuntimeError, RunFolderError) as error:
            reason = str(error).splitlines()[0]
            raise RunFolderError(
                f"the index in {folder} cannot be used ({reason}). Type: lmrec index {folder.parent}"
            ) from error

    def _scan(self, query: Float32, depth: int, mask: RowMask | None) -> tuple[Float32, Rows]:
        """(B, depth) coded scores in the query's own units and rows, -1 where there are no more."""
        import faiss

        unit = np.maximum(np.abs(query).max(axis=1, keepdims=True), 1e-30) / LEVELS
        selector = None if mask is None else faiss.IDSelectorBitmap(mask.bits)
        # A filter spreads the first k over more lists than its share says: twice as many are read.
        shown = 1.0 if mask is None else max(mask.n_shown, 1) / self.n_rows
        effort = min(self.n_lists, int(np.ceil(self.n_probe * (1.0 if shown == 1.0 else 2.0 / shown))))
        codes: faiss.Index = self.codes
        if not self.is_graph:
            params = faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        elif shown < _MOSTLY or effort >= self.n_rows:
            codes, params = faiss.downcast_index(self.codes.storage), faiss.SearchParameters(sel=selector)
        else:
            params = faiss.SearchParametersHNSW(efSearch=max(effort, depth), sel=selector)
        coded, rows = codes.search(np.rint(query / unit), depth, params=params)
        scores: Float32 = np.multiply(coded, unit * np.float32(self.step), dtype=np.float32)
        return scores, rows


def encode_rows(rows: FloatArray, step: float) -> Float32:
    """(M, Q) -> (M, Q) whole numbers from -127 to 127; what lies beyond is cut."""
    levels: Float32 = np.rint(np.asarray(rows, np.float32) / np.float32(step))
    return np.clip(levels, -LEVELS, LEVELS, out=levels)


def _deep_enough(coded: Float32, exact: Float32, best: Float32) -> BoolArray:
    """(B,) whether nothing better can be expected below the last candidate. Where one is missing there are no more."""
    exhausted = np.isneginf(coded[:, -1])
    with np.errstate(invalid="ignore"):
        off = np.where(np.isfinite(exact), exact - coded, 0.0)
    deviation = np.sqrt(np.mean(np.square(off), axis=1))
    return np.asarray(exhausted | (coded[:, -1] + _MARGIN * deviation <= best[:, -1]))
