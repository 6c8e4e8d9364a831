"""The index: exact scores always, and of the true first k as many as were asked for; all of them where all lists are read."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from lmrec.errors import InputError, RunFolderError
from lmrec.fields import IntArray
from lmrec.retrieval import exact
from lmrec.retrieval.ann import IndexConfig, build_index, rebuilt, share_found, true_kth
from lmrec.retrieval.bank import GrowingBank
from lmrec.retrieval.index import ItemIndex, RowMask
from lmrec.retrieval.nearest import merged, nearest_rows
from lmrec.retrieval.scorer import ItemBank

N, WIDTH, K = 9_000, 24, 50
LISTS = IndexConfig(kind="lists")
READS = ("near lists", "all lists", "graph", "whole graph", "sketch", "whole sketch")
EXACT = ("all lists", "whole graph", "whole sketch")

Matrix = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    """Unit vectors around 60 centres, as words make them."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, WIDTH))
    rows = centres[rng.integers(60, size=N)] + 0.8 * rng.normal(size=(N, WIDTH))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def queries(matrix: Matrix) -> Matrix:
    rng = np.random.default_rng(1)
    return (matrix[rng.integers(N, size=30)] * 7 + 0.8 * rng.normal(size=(30, WIDTH))).astype(np.float32)


def build(matrix: Matrix, queries: Matrix | None = None) -> ItemIndex:
    index = build_index(matrix, LISTS, queries)
    assert index is not None
    return index


@pytest.fixture(scope="module")
def indices(matrix: Matrix, queries: Matrix) -> dict[str, ItemIndex]:
    index = build(matrix, queries)
    graph = build_index(matrix, IndexConfig(kind="graph"), queries)
    sketch = build_index(matrix, IndexConfig(kind="sketch"), queries)
    assert graph is not None
    assert sketch is not None
    return {
        "near lists": index,
        "all lists": index.without_misses(),
        "graph": graph,
        "whole graph": graph.without_misses(),
        "sketch": sketch,
        "whole sketch": sketch.without_misses(),
    }


def plain(matrix: Matrix, queries: Matrix, k: int, shown: npt.NDArray[np.bool_] | None = None) -> IntArray:
    scores = queries @ matrix.T
    if shown is not None:
        scores[:, ~shown] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def mean_overlap(found: IntArray, truth: IntArray) -> float:
    shares = [len(np.intersect1d(own, true)) / len(true) for own, true in zip(found, truth, strict=True)]
    return float(np.mean(shares))


@pytest.mark.parametrize("read", EXACT)
def test_reading_all_finds_what_the_product_finds(
    indices: dict[str, ItemIndex], matrix: Matrix, queries: Matrix, read: str
) -> None:
    rows, scores = indices[read].search(queries, K, lambda at: matrix[at])
    assert (rows == plain(matrix, queries, K)).all()
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ matrix.T, rows, axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("read", ["near lists", "graph", "sketch"])
def test_the_share_that_was_asked_for_is_found_and_scores_are_exact(
    indices: dict[str, ItemIndex], matrix: Matrix, queries: Matrix, read: str
) -> None:
    index = indices[read]
    if index.sketch is None:
        assert 1 <= index.n_probe < index.n_lists
    else:
        assert 100 <= index.sketch.depth < N / 10
    assert index.recall >= LISTS.recall
    rows, scores = index.search(queries, 100, lambda at: matrix[at])
    assert share_found(scores, true_kth(matrix, queries, 100)) == pytest.approx(index.recall)
    assert mean_overlap(rows, plain(matrix, queries, 100)) == pytest.approx(index.recall, abs=0.001)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ matrix.T, rows, axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.6, 0.998, 1.0])
def test_only_shown_rows_are_found(
    indices: dict[str, ItemIndex], matrix: Matrix, queries: Matrix, read: str, share: float
) -> None:
    shown = np.random.default_rng(2).random(N) < share
    rows, _ = indices[read].search(queries, K, lambda at: matrix[at], RowMask.of(shown))
    expected = plain(matrix, queries, K, shown)
    if not shown.any():
        assert (rows == -1).all()
    elif read in EXACT or shown.sum() < 4_000:
        assert (rows == expected).all()
    else:
        assert shown[rows].all()
        assert mean_overlap(rows, expected) > 0.97


def test_codes_that_say_little_are_fetched_deeper(queries: Matrix) -> None:
    """Rows that differ by less than a step of the codes: the first fetch cannot be trusted, and is not."""
    rng = np.random.default_rng(3)
    close = np.ones((N, WIDTH), np.float32)
    close[:, 0] += rng.normal(size=N).astype(np.float32) * 1e-3
    index = build(close).without_misses()
    rows, scores = index.search(queries, 5, lambda at: close[at])
    best = (queries @ close.T).max(axis=1)
    np.testing.assert_allclose(scores[:, 0], best, rtol=1e-5)
    assert len(np.unique(rows[:, 0])) > 1


def test_more_is_asked_than_there_is(matrix: Matrix, queries: Matrix) -> None:
    index = build(matrix[:7])
    rows, scores = index.search(queries, 20, lambda at: matrix[:7][at])
    assert (rows[:, :7] == plain(matrix[:7], queries, 7)).all()
    assert (rows[:, 7:] == -1).all()
    assert np.isneginf(scores[:, 7:]).all()


def test_auto_makes_a_sketch_above_a_size(matrix: Matrix) -> None:
    assert build_index(matrix, IndexConfig(exact_mb=1.0)) is None
    made = build_index(matrix, IndexConfig(exact_mb=0.2))
    assert made is not None
    assert made.sketch is not None
    assert build_index(matrix, IndexConfig(exact_mb=0.2, kind="exact")) is None
    assert build_index(matrix[:0], LISTS) is None


def test_auto_makes_lists_where_a_sketch_says_too_little() -> None:
    """Rows that differ only in what sixteen letters for two columns cannot say."""
    rng = np.random.default_rng(5)
    outliers = rng.normal(size=(40, WIDTH)) * 100
    close = np.concatenate([outliers, np.ones((N, WIDTH)) + 1e-2 * rng.normal(size=(N, WIDTH))]).astype(np.float32)
    index = build_index(close, IndexConfig(exact_mb=0.2), close[100:200] - 1)
    assert index is not None
    assert index.sketch is None
    sketch = build_index(close, IndexConfig(kind="sketch"), close[100:200] - 1)
    assert sketch is not None
    assert sketch.sketch is not None
    assert sketch.sketch.depth > N / 10


def test_candidates_that_a_filter_mostly_hides_are_not_trusted(matrix: Matrix, queries: Matrix) -> None:
    """Half of all rows may be answered, but hardly any near to the query: the codes are read."""
    index = build_index(matrix, IndexConfig(kind="sketch"), queries)
    assert index is not None
    for query in queries[:5]:
        shown = matrix @ query < np.median(matrix @ query)
        rows, _ = index.search(query[None], K, lambda at: matrix[at], RowMask.of(shown))
        assert (rows == plain(matrix, query[None], K, shown)).all()


@pytest.mark.parametrize("hidden", [0.001, 0.05, 0.5, 0.7])
def test_a_filter_that_hides_rows_at_random_is_answered_by_the_sketch(
    indices: dict[str, ItemIndex], matrix: Matrix, queries: Matrix, hidden: float
) -> None:
    sketch = indices["sketch"].sketch
    assert sketch is not None
    shown = np.random.default_rng(6).random(N) > hidden
    rows, _, enough = sketch.search(queries, K, lambda at: matrix[at], shown)
    assert enough.mean() > 0.9
    assert mean_overlap(rows, plain(matrix, queries, K, shown)) > 0.97


def test_an_index_of_few_rows_answers_in_full_when_they_are_many(matrix: Matrix, queries: Matrix) -> None:
    few = build_index(matrix[:20], IndexConfig(kind="sketch"))
    assert few is not None
    grown = rebuilt(few, np.ones(20, np.bool_), matrix)
    assert grown.recall >= grown.wanted == IndexConfig().recall
    for k in (5, 100, 300):
        rows, _ = grown.search(queries, k, lambda at: matrix[at])
        assert (rows >= 0).all()
        assert mean_overlap(rows, plain(matrix, queries, k)) > 0.97


def test_letters_are_learnt_anew_from_rows_of_another_kind(matrix: Matrix) -> None:
    index = build_index(matrix, IndexConfig(kind="sketch"))
    assert index is not None
    rng = np.random.default_rng(7)
    others = np.asarray(matrix[rng.permutation(N)] * 4 + rng.normal(size=(N, WIDTH)), np.float32)
    both = np.concatenate([matrix, others])
    grown = rebuilt(index, np.ones(N, np.bool_), both)
    rows, _ = grown.search(others[:50], 100, lambda at: both[at])
    assert mean_overlap(rows, plain(both, others[:50], 100)) > 0.98


def test_rows_that_are_not_finite_are_refused_and_none_answers_nothing(matrix: Matrix, queries: Matrix) -> None:
    broken = matrix.copy()
    broken[7, 3] = np.nan
    with pytest.raises(InputError, match="not finite"):
        build_index(broken, IndexConfig(kind="sketch"))
    for kind in (IndexConfig(kind="sketch"), LISTS):
        index = build_index(matrix[:300], kind)
        assert index is not None
        gone = rebuilt(index, np.zeros(300, np.bool_), matrix[:0])
        rows, scores = gone.search(queries, 3, lambda at: matrix[at])
        assert (rows == -1).all()
        assert np.isneginf(scores).all()


def test_rows_of_one_vector_are_one_as_good_as_another(matrix: Matrix, queries: Matrix) -> None:
    """Where most rows have twins, which of them are found is luck, and no reason to name ever more candidates."""
    twins = np.concatenate([matrix, matrix, matrix])
    index = build_index(twins, IndexConfig(kind="sketch"), queries)
    assert index is not None
    assert index.sketch is not None
    assert index.recall >= index.wanted
    assert index.sketch.depth < 2_000


def test_rows_are_read_in_bounded_memory(
    indices: dict[str, ItemIndex], matrix: Matrix, queries: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = indices["sketch"].search(queries, K, lambda at: matrix[at])
    monkeypatch.setattr(exact, "_READ_VALUES", 20_000)
    most = 0

    def read(at: IntArray) -> Matrix:
        nonlocal most
        most = max(most, len(at) * WIDTH)
        return matrix[at]

    rows, scores = indices["sketch"].search(queries, K, read)
    np.testing.assert_array_equal(rows, wanted[0])
    np.testing.assert_allclose(scores, wanted[1], rtol=1e-6)
    assert most <= 20_000


@pytest.mark.parametrize("read", READS)
def test_rows_leave_and_join_without_a_rebuild(
    indices: dict[str, ItemIndex], matrix: Matrix, queries: Matrix, read: str
) -> None:
    rng = np.random.default_rng(4)
    living = rng.random(N) < 0.7
    changed = np.concatenate([matrix[living], matrix[:500] * 0.9 + 0.02])
    index = rebuilt(indices[read], living, changed)
    assert index.n_rows == len(changed)
    assert index.n_probe == indices[read].n_probe
    assert index.wanted == indices[read].wanted
    rows, scores = index.search(queries, K, lambda at: changed[at])
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ changed.T, rows, axis=1), rtol=1e-4, atol=1e-5)
    assert mean_overlap(rows, plain(changed, queries, K)) > (0.999 if read in EXACT else 0.97)
    assert (rows >= living.sum()).any()


@pytest.mark.parametrize("read", READS)
def test_a_saved_index_is_opened_mapped_and_answers_alike(
    indices: dict[str, ItemIndex], matrix: Matrix, queries: Matrix, read: str, tmp_path: Path
) -> None:
    indices[read].save(tmp_path / "index", "origin")
    opened = ItemIndex.open(tmp_path / "index", "origin", WIDTH)
    assert (opened.n_probe, opened.recall) == (indices[read].n_probe, indices[read].recall)
    for got, wanted in zip(
        opened.search(queries, K, lambda at: matrix[at]),
        indices[read].search(queries, K, lambda at: matrix[at]),
        strict=True,
    ):
        np.testing.assert_array_equal(got, wanted)
    larger = np.concatenate([matrix, matrix[:3] * 1.5])
    grown = rebuilt(opened, np.ones(N, np.bool_), larger)
    assert grown.n_rows == N + 3
    assert (grown.search(matrix[:3], 1, lambda at: larger[at])[0][:, 0] == N + np.arange(3)).all()
    assert opened.n_rows == N


def test_an_index_that_does_not_fit_is_refused(indices: dict[str, ItemIndex], tmp_path: Path) -> None:
    indices["near lists"].save(tmp_path / "index", "origin")
    with pytest.raises(RunFolderError, match="made of other vectors"):
        ItemIndex.open(tmp_path / "index", "another", WIDTH)
    with pytest.raises(RunFolderError, match="rows of 24, not 9000 of 32"):
        ItemIndex.open(tmp_path / "index", "origin", WIDTH + 8)
    indices["sketch"].save(tmp_path / "other", "origin")
    few = build_index(np.eye(WIDTH, dtype=np.float32), IndexConfig(kind="sketch"))
    assert few is not None
    assert few.sketch is not None
    few.sketch.save(tmp_path / "other" / "sketch.faiss")
    with pytest.raises(RunFolderError, match="a sketch of 24 rows, not 9000"):
        ItemIndex.open(tmp_path / "other", "origin", WIDTH)
    (tmp_path / "index" / "codes.faiss").write_bytes(b"not codes")
    with pytest.raises(RunFolderError, match="cannot be used"):
        ItemIndex.open(tmp_path / "index", "origin", WIDTH)


@pytest.mark.parametrize("read", READS)
def test_rows_after_the_index_are_found_too(
    indices: dict[str, ItemIndex], matrix: Matrix, queries: Matrix, read: str
) -> None:
    growing = GrowingBank(ItemBank(*(torch.from_numpy(matrix) for _ in range(3))))
    better = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    growing.append(ItemBank(*(torch.from_numpy(better) for _ in range(3))))
    view = growing.view()
    rows, scores = nearest_rows(indices[read], view, torch.from_numpy(queries), K)
    assert (rows[:, 0] == N + np.arange(len(queries))).all()
    np.testing.assert_allclose(scores[:, 0], np.linalg.norm(queries, axis=1), rtol=1e-4)
    shown = np.ones(view.n_rows, np.bool_)
    shown[N] = False
    rows, _ = nearest_rows(indices[read], view, torch.from_numpy(queries), K, RowMask.of(shown))
    assert N not in rows
    assert (rows[1:, 0] == N + np.arange(1, len(queries))).all()


def test_merged_takes_the_better_knowledge_and_drops_what_is_excluded() -> None:
    rows, scores = np.array([3, 5, 8, -1]), np.array([9.0, 7.0, 6.0, -np.inf])
    assert merged(rows, scores, np.zeros(0, np.int64), np.zeros(0), (), 2) == ([3, 5], [9.0, 7.0])
    assert merged(rows, scores, np.array([8, 1]), np.array([8.0, 6.5]), {3}, 9) == ([8, 5, 1], [8.0, 7.0, 6.5])
