"""Building the index of a catalog above a size: a sketch, lists or a graph, reading as much as the wanted recall takes."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lmrec.errors import InputError
from lmrec.fields import BoolArray, FloatArray, IntArray
from lmrec.retrieval.exact import Float32
from lmrec.retrieval.index import LEVELS, ItemIndex, encode_rows
from lmrec.retrieval.sketch import Sketch

if TYPE_CHECKING:
    import faiss

_CHUNK = 65_536  # rows coded at once
_PER_LIST = 50  # rows that k-means sees for each list
_ROUNDS = 8  # of k-means
_SEED = 0
_REBUILT_QUERIES = 64  # rows that ask a sketch that was built anew while answers go on
_DEPTH = 100  # recall is measured of the first 100
_NEIGHBOURS = 16  # links of a row on each floor of a graph
_BUILD_VIEW = 100  # rows in view while a row's neighbours are looked for (efConstruction)
_ROUNDING = 1e-5  # that products of one row may differ by, as a share
_LEAST = 16  # rows that letters are learnt from
_MOST_CANDIDATES = 0.1  # a sketch that has to name a larger share of the rows says too little


class IndexConfig(BaseModel):
    """Fields of the recipe's [index]. The measurements behind the defaults are in docs/decisions/003."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["auto", "exact", "sketch", "lists", "graph"] = Field(
        default="auto",
        description="exact: every item is scored; sketch: codes of 4 bits of every item name those that are; lists: codes of "
        "the items in lists near to the user do; graph: a walk through a graph of neighbours (HNSW) does; auto: exact up "
        "to `exact_mb`, above it a sketch, or lists where a sketch would have to name a tenth of the items.",
    )
    exact_mb: float = Field(
        default=10.0,
        gt=0,
        description="Codes (items x width bytes, in MB) up to which auto scores every item, which takes about a millisecond.",
    )
    recall: float = Field(
        default=0.995, gt=0, le=1, description="So much is read that this share of the true first 100 is found."
    )


def build_index(
    matrix: FloatArray, config: IndexConfig | None = None, queries: FloatArray | None = None
) -> ItemIndex | None:
    """(N, Q) float rows -> their index; None where every item is to be scored.

    queries: (M, Q) as they will be asked, to measure recall on; rows of the matrix where there are none.
    """
    config = config or IndexConfig()
    if config.kind == "exact" or not len(matrix) or (config.kind == "auto" and matrix.size <= config.exact_mb * 1e6):
        return None
    if queries is None or not len(queries):
        queries = _sample(matrix, 200)
    if config.kind in ("auto", "sketch") and len(matrix) >= _LEAST:
        most = len(matrix) if config.kind == "sketch" else int(_MOST_CANDIDATES * len(matrix))
        index = choose_depth(_build_sketch(matrix), matrix, queries, config.recall, most)
        if config.kind == "sketch" or index.recall >= config.recall:
            return index
    built = _build_graph(matrix, _step(matrix)) if config.kind == "graph" else _build_lists(matrix)
    return choose_n_probe(built, matrix, queries, config.recall)


def choose_n_probe(index: ItemIndex, matrix: FloatArray, queries: FloatArray, recall: float) -> ItemIndex:
    """The index with the smallest `n_probe` at which the queries find `recall` of their true first 100."""
    return _with_least(lambda n: replace(index, n_probe=n, wanted=recall), 1, index.n_lists, matrix, queries)


def choose_depth(
    index: ItemIndex, matrix: FloatArray, queries: FloatArray, recall: float, most: int | None = None
) -> ItemIndex:
    """The index whose sketch names as few candidates as find `recall` of the queries' true first 100, or `most`."""
    sketch = index.sketch
    assert sketch is not None
    return _with_least(
        lambda n: replace(index, sketch=replace(sketch, depth=n), wanted=recall),
        _DEPTH,
        max(_DEPTH, len(matrix) if most is None else most),
        matrix,
        queries,
    )


def _with_least(
    index_of: Callable[[int], ItemIndex], low: int, high: int, matrix: FloatArray, queries: FloatArray
) -> ItemIndex:
    """The index of the smallest effort in low..high that finds the wanted share of the true first 100, or of the highest.

    Recall grows with the effort, and so does what measuring it costs: efforts are doubled until one is enough, then halved.
    """
    k = min(_DEPTH, len(matrix))
    kth = true_kth(matrix, queries, k)

    def measured(effort: int) -> ItemIndex:
        index = index_of(effort)
        _, scores = index.search(queries, k, lambda at: _read(matrix, at))
        return replace(index, recall=share_found(scores, kth))

    below, effort = low - 1, low
    best = measured(effort)
    while best.recall < best.wanted and effort < high:
        below, effort = effort, min(2 * effort, high)
        best = measured(effort)
    while best.recall >= best.wanted and effort - below > max(1, effort // 16):
        middle = (below + effort) // 2
        found = measured(middle)
        if found.recall >= found.wanted:
            best, effort = found, middle
        else:
            below = middle
    return best


def true_kth(matrix: FloatArray, queries: FloatArray, k: int) -> Float32:
    """(M,) the k-th highest product of each query, or the lowest where there are fewer; the plain way."""
    place = max(len(matrix) - k, 0)
    kth = np.zeros(len(queries), np.float32)
    for start in range(0, len(queries), 16):
        scores = queries[start : start + 16] @ matrix.T
        kth[start : start + 16] = np.partition(scores, place, axis=1)[:, place]
    return kth


def share_found(scores: Float32, kth: Float32) -> float:
    """The mean share of places (M, K) that are taken by a row as good as the true k-th (M,), to rounding.

    Rows of one score are one as good as another, so rows themselves are not compared: texts that were cut at the same word have
    the same vector, and there are many of them in a large catalog.

    >>> share_found(np.array([[3.0, 2.0], [5.0, 1.0]], np.float32), np.array([2.0, 4.0], np.float32))
    0.75
    """
    slack = _ROUNDING * np.maximum(np.abs(kth), 1e-30)
    return float(np.mean(scores >= (kth - slack)[:, None]))


def rebuilt(index: ItemIndex, living: BoolArray, matrix: FloatArray) -> ItemIndex:
    """The index of `matrix` (N, Q): the index's rows that live (living: (n_rows,)), in their order, and then new rows.

    Lists keep their centres and codes: only new rows are coded and given to lists. A graph takes new rows too, but cannot
    forget: where rows have gone it is built anew. A sketch always is, in some ten seconds a million rows, for letters that were
    learnt from other rows say less and less; it names at least as many candidates as it did.
    """
    import faiss

    if index.sketch is not None and len(matrix) >= _LEAST:
        fresh = choose_depth(_build_sketch(matrix), matrix, _sample(matrix, _REBUILT_QUERIES), index.wanted)
        assert fresh.sketch is not None
        return replace(fresh, sketch=replace(fresh.sketch, depth=max(fresh.sketch.depth, index.sketch.depth)))
    if index.is_graph:
        if not living.all():
            return replace(
                _build_graph(matrix, index.step), n_probe=index.n_probe, recall=index.recall, wanted=index.wanted
            )
        # Not `clone_index`: what is mapped from a file stays so, and cannot grow.
        grown = replace(index, codes=faiss.deserialize_index(faiss.serialize_index(index.codes)))
        _add(grown, matrix[index.n_rows :], index.n_rows)
        return grown
    codes = _empty_lists(index.codes.quantizer.reconstruct_n(0, index.n_lists))
    new_row = np.cumsum(living) - 1
    lists = index.codes.invlists
    for at in range(index.n_lists):
        size = lists.list_size(at)
        if not size:
            continue
        rows = faiss.rev_swig_ptr(lists.get_ids(at), size).copy()
        kept = living[rows]
        coded = faiss.rev_swig_ptr(lists.get_codes(at), size * index.codes.code_size).reshape(size, -1)[kept]
        if len(coded):
            ids = np.ascontiguousarray(new_row[rows[kept]], np.int64)
            coded = np.ascontiguousarray(coded)
            codes.invlists.add_entries(at, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(coded))
    n_kept = int(np.count_nonzero(living))
    codes.ntotal = n_kept
    grown = replace(index, codes=codes)
    _add(grown, matrix[n_kept:], n_kept)
    return replace(grown, sketch=None)


def _build_sketch(matrix: FloatArray) -> ItemIndex:
    """Over codes of all rows in one list, for filters that leave few rows."""
    step = _step(matrix)
    index = ItemIndex(_empty_lists(np.zeros((1, matrix.shape[1]), np.float32)), step, n_probe=1)
    _add(index, matrix, 0)
    return replace(index, sketch=Sketch.build(matrix))


def _build_lists(matrix: FloatArray) -> ItemIndex:
    import faiss

    n_items, width = matrix.shape
    step = _step(matrix)
    n_lists = max(1, min(2 ** round(np.log2(2.0 * np.sqrt(n_items))), n_items // _PER_LIST))
    sample = encode_rows(_sample(matrix, n_lists * _PER_LIST), step)
    clustering = faiss.Kmeans(
        width,
        n_lists,
        niter=_ROUNDS,
        seed=_SEED,
        spherical=True,
        min_points_per_centroid=1,  # few rows are no reason to warn
        max_points_per_centroid=_PER_LIST,
    )
    clustering.train(sample)
    index = ItemIndex(_empty_lists(clustering.centroids), step, n_probe=n_lists)
    _add(index, matrix, 0)
    return index


def _build_graph(matrix: FloatArray, step: float) -> ItemIndex:
    """Source: Malkov & Yashunin 2016, https://arxiv.org/abs/1603.09320, as faiss has it, over the same codes as lists."""
    import faiss

    kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
    codes = faiss.IndexHNSWSQ(matrix.shape[1], kind, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    codes.hnsw.efConstruction = _BUILD_VIEW
    codes.is_trained = True  # codes of this kind have nothing to learn
    index = ItemIndex(codes, step, n_probe=len(matrix))
    _add(index, matrix, 0)
    return index


def _empty_lists(centres: Float32) -> "faiss.IndexIVFScalarQuantizer":
    import faiss

    nearest = faiss.IndexFlatIP(centres.shape[1])
    nearest.add(centres)
    kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
    codes = faiss.IndexIVFScalarQuantizer(nearest, *centres.shape[::-1], kind, faiss.METRIC_INNER_PRODUCT, False)
    codes.is_trained = True  # the centres are there, and codes of this kind have nothing to learn
    return codes


def _add(index: ItemIndex, rows: FloatArray, first: int) -> None:
    for start in range(0, len(rows), _CHUNK):
        coded = encode_rows(rows[start : start + _CHUNK], index.step)
        if index.is_graph:
            index.codes.add(coded)  # a graph numbers its rows as they come
            continue
        numbers = np.arange(first + start, first + start + len(coded), dtype=np.int64)
        index.codes.add_with_ids(coded, numbers)


def _step(matrix: FloatArray) -> float:
    """What one step of a code is worth: the largest value is the last level."""
    largest = max(float(np.abs(matrix[start : start + _CHUNK]).max()) for start in range(0, len(matrix), _CHUNK))
    if not np.isfinite(largest):
        raise InputError(
            "item vectors hold values that are not finite, so no index can be made. Fit with a smaller learning rate"
        )
    return max(largest, 1e-12) / LEVELS


def _sample(matrix: FloatArray, n: int) -> Float32:
    if n >= len(matrix):
        return np.asarray(matrix, np.float32)
    rows = np.random.default_rng(_SEED).choice(len(matrix), n, replace=False)
    return np.asarray(matrix[np.sort(rows)], np.float32)


def _read(matrix: FloatArray, rows: IntArray) -> Float32:
    return np.asarray(matrix[rows], np.float32)
