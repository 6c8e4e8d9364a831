"""The cache of text vectors: what was put in comes out, and a crash costs what was not yet whole."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrec.artifacts.vector_cache import VectorCache, text_keys
from lmrec.fields import FloatArray, IntArray, Ragged

WIDTH = 3


def keys_of(names: IntArray | range) -> list[bytes]:
    return text_keys(Ragged.from_rows([[int(name)] for name in names]))


def vectors_of(names: IntArray | range) -> FloatArray:
    return np.array([[name, name + 0.5, -name] for name in names], np.float32).reshape(-1, WIDTH)


@pytest.fixture
def cache(tmp_path: Path) -> VectorCache:
    return VectorCache(tmp_path / "model", WIDTH)


def test_nothing_is_known_at_first(cache: VectorCache) -> None:
    assert len(cache) == 0
    assert cache.find(keys_of(range(3))).tolist() == [-1, -1, -1]
    assert cache.read(np.zeros(0, np.int64)).shape == (0, WIDTH)


@given(
    parts=st.lists(st.lists(st.integers(0, 50), unique=True, max_size=6), max_size=4),
    asked=st.lists(st.integers(0, 60)),
)
@settings(max_examples=25)
def test_what_was_put_in_comes_out(
    parts: list[list[int]], asked: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    for part in parts:
        VectorCache(folder, WIDTH).append(keys_of(np.array(part, np.int64)), vectors_of(np.array(part, np.int64)))
    cache, known = VectorCache(folder, WIDTH), {name for part in parts for name in part}
    rows = cache.find(keys_of(np.array(asked, np.int64)))
    assert [row >= 0 for row in rows] == [name in known for name in asked]
    there = [name for name in asked if name in known]
    np.testing.assert_array_equal(cache.read(rows[rows >= 0]), vectors_of(np.array(there, np.int64)))


@pytest.mark.parametrize(("n_bytes_of_keys", "n_bytes_of_vectors", "whole"), [(40, 48, 2), (48, 20, 1), (48, 36, 3)])
def test_what_a_crash_left_half_written_is_cut_off(
    cache: VectorCache, n_bytes_of_keys: int, n_bytes_of_vectors: int, whole: int
) -> None:
    cache.append(keys_of(range(3)), vectors_of(range(3)))
    for name, size in (("keys.bin", n_bytes_of_keys), ("vectors.bin", n_bytes_of_vectors)):
        file = cache.folder / name
        file.write_bytes((file.read_bytes() + bytes(64))[:size])
    assert len(cache) == whole
    missing = [name for name in range(3) if cache.find(keys_of(range(3)))[name] < 0]
    assert missing == list(range(whole, 3))
    cache.append(keys_of(np.array([*missing, 9])), vectors_of(np.array([*missing, 9])))
    names = np.array([0, 1, 2, 9])
    np.testing.assert_array_equal(cache.read(cache.find(keys_of(names))), vectors_of(names))


def test_keys_tell_texts_apart_by_tokens_and_their_order() -> None:
    keys = text_keys(Ragged.from_rows([[1, 2], [2, 1], [1, 2], [], [1]]))
    assert keys[0] == keys[2]
    assert len(set(keys)) == 4
