"""Building the index of a catalog above a measured size, in lists or as a graph, reading as much as the wanted recall takes."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lmrec.fields import BoolArray, FloatArray, IntArray
from lmrec.retrieval.index import LEVELS, Float32, ItemIndex, Rows, encode_rows

if TYPE_CHECKING:
    import faiss

_CHUNK = 65_536  # rows coded at once
_PER_LIST = 50  # rows that k-means sees for each list
_ROUNDS = 8  # of k-means
_SEED = 0
_DEPTH = 100  # recall is measured of the first 100
_NEIGHBOURS = 16  # links of a row on each floor of a graph
_BUILD_VIEW = 100  # rows in view while a row's neighbours are looked for (efConstruction)
_TIMED = 50  # queries that two indices are timed with


class IndexConfig(BaseModel):
    """Fields of the recipe's [index]. The measurements behind the defaults are in docs/decisions/003."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["auto", "exact", "lists", "graph"] = Field(
        default="auto",
        description="exact: every item is scored; lists: those in lists near to the user; graph: those that a walk through a "
        "graph of neighbours (HNSW) meets; auto: exact up to `lists_mb`, above it lists, or where items are at most "
        "`graph_items` the quicker of lists and graph, timed on questions of users when the run is saved.",
    )
    lists_mb: float = Field(
        default=30.0, gt=0, description="Codes (items x width bytes, in MB) above which auto makes lists."
    )
    graph_items: int = Field(
        default=0,
        ge=0,
        description="auto: the largest catalog for which a graph is tried too. Building one takes 0.3 to 1 ms an item, and "
        "again when many items have gone.",
    )
    recall: float = Field(
        default=0.992, gt=0, le=1, description="So much is read that this share of the true first 100 is found."
    )


def build_index(
    matrix: FloatArray, config: IndexConfig | None = None, queries: FloatArray | None = None
) -> ItemIndex | None:
    """(N, Q) float rows -> their index; None where every item is to be scored.

    queries: (M, Q) as they will be asked, to measure recall on; rows of the matrix where there are none.
    """
    config = config or IndexConfig()
    if config.kind == "exact" or not len(matrix) or (config.kind == "auto" and matrix.size <= config.lists_mb * 1e6):
        return None
    if queries is None or not len(queries):
        queries = _sample(matrix, 200)
    found = []
    if config.kind != "graph":
        found.append(choose_n_probe(_build_lists(matrix), matrix, queries, config.recall))
    if config.kind == "graph" or (config.kind == "auto" and len(matrix) <= config.graph_items):
        found.append(choose_n_probe(_build_graph(matrix, _step(matrix)), matrix, queries, config.recall))
    return found[0] if len(found) == 1 else min(found, key=lambda index: seconds_a_query(index, matrix, queries))


def seconds_a_query(index: ItemIndex, matrix: FloatArray, queries: FloatArray) -> float:
    """The median of the processor's seconds for one query alone, the first 100 wanted."""
    seconds = []
    for query in queries[:_TIMED]:
        began = time.thread_time()
        index.search(query[None], min(_DEPTH, len(matrix)), lambda at: _read(matrix, at))
        seconds.append(time.thread_time() - began)
    return float(np.median(seconds))


def choose_n_probe(index: ItemIndex, matrix: FloatArray, queries: FloatArray, recall: float) -> ItemIndex:
    """The index with the smallest `n_probe` at which the queries find `recall` of their true first 100."""
    truth = true_first(matrix, queries, _DEPTH)

    def recall_at(n_probe: int) -> float:
        rows, _ = replace(index, n_probe=n_probe).search(queries, truth.shape[1], lambda at: _read(matrix, at))
        return mean_overlap(rows, truth)

    low, high = 1, index.n_lists  # the answer lies in low..high; recall grows with the lists read
    while low < high:
        middle = (low * high) ** 0.5 if high > 4 * low else (low + high) / 2
        at = min(max(int(middle), low), high - 1)
        if recall_at(at) >= recall:
            high = at
        else:
            low = at + 1
    return replace(index, n_probe=high, recall=recall_at(high))


def true_first(matrix: FloatArray, queries: FloatArray, k: int) -> Rows:
    """(M, k) the rows with the highest products, in no order; the plain way."""
    k = min(k, len(matrix))
    firsts = []
    for start in range(0, len(queries), 16):
        scores = queries[start : start + 16] @ matrix.T
        firsts.append(np.argpartition(scores, len(matrix) - k, axis=1)[:, len(matrix) - k :])
    return np.concatenate(firsts)


def mean_overlap(found: IntArray, truth: IntArray) -> float:
    """The mean share of each row of `truth` (M, k) that stands in the same row of `found`.

    >>> mean_overlap(np.array([[1, 2], [3, 4]]), np.array([[2, 1], [3, 9]]))
    0.75
    """
    shares = [len(np.intersect1d(own, true)) / len(true) for own, true in zip(found, truth, strict=True)]
    return float(np.mean(shares))


def rebuilt(index: ItemIndex, living: BoolArray, matrix: FloatArray) -> ItemIndex:
    """The index of `matrix` (N, Q): the index's rows that live (living: (n_rows,)), in their order, and then new rows.

    Lists keep their centres and codes; only new rows are coded and given to lists. A graph takes new rows too, but cannot
    forget: where rows have gone it is built anew.
    """
    import faiss

    if index.is_graph:
        if not living.all():
            return replace(_build_graph(matrix, index.step), n_probe=index.n_probe, recall=index.recall)
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
    return grown


def _build_lists(matrix: FloatArray) -> ItemIndex:
    import faiss

    n_items, width = matrix.shape
    step = _step(matrix)
    n_lists = max(1, min(2 ** round(np.log2(2.0 * np.sqrt(n_items))), n_items // _PER_LIST))
    sample = encode_rows(_sample(matrix, n_lists * _PER_LIST), step)
    clustering = faiss.Kmeans(
        width, n_lists, niter=_ROUNDS, seed=_SEED, spherical=True, max_points_per_centroid=_PER_LIST
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
    return max(largest, 1e-12) / LEVELS


def _sample(matrix: FloatArray, n: int) -> Float32:
    if n >= len(matrix):
        return np.asarray(matrix, np.float32)
    rows = np.random.default_rng(_SEED).choice(len(matrix), n, replace=False)
    return np.asarray(matrix[np.sort(rows)], np.float32)


def _read(matrix: FloatArray, rows: IntArray) -> Float32:
    return np.asarray(matrix[rows], np.float32)
