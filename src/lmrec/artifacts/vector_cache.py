"""Vectors of texts on disk, one for each text and for ever: a grown catalog runs the language model for new texts only.

keys.bin     16 bytes a text: a digest of its token ids
vectors.bin  fp32 rows in the same order

Both only grow. Rows go first and keys after them, so that a key never names a row that is not there; what a crash left
half written is cut off by the next writer. Read through a memory map.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lmrec.fields import FloatArray, IntArray, Ragged

_KEY = 16


class VectorCache:
    """The vectors (each `width` wide) of one model, whose fingerprint the folder is named by."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder, self.width = folder, width
        self._keys_file, self._vectors_file = folder / "keys.bin", folder / "vectors.bin"

    def __len__(self) -> int:
        """Texts whose key and vector are whole."""
        n_keys = _size(self._keys_file) // _KEY
        return min(n_keys, _size(self._vectors_file) // (4 * self.width))

    def find(self, keys: list[bytes]) -> IntArray:
        """(N,) the row of each key, or -1."""
        known = self._keys_file.read_bytes()[: len(self) * _KEY] if self._keys_file.exists() else b""
        row_of = {known[at : at + _KEY]: at // _KEY for at in range(0, len(known), _KEY)}
        return np.fromiter((row_of.get(key, -1) for key in keys), np.int64, len(keys))

    def read(self, rows: IntArray) -> FloatArray:
        """(M, D) the vectors of these rows."""
        if not len(rows):
            return np.zeros((0, self.width), np.float32)
        vectors = np.memmap(self._vectors_file, np.float32, "r", shape=(len(self), self.width))
        return np.asarray(vectors[rows])

    def append(self, keys: list[bytes], vectors: FloatArray) -> None:
        """Add texts. Another process that appends at the same time waits for its turn."""
        with self._writing():
            n_known = len(self)
            _append(self._vectors_file, np.ascontiguousarray(vectors, np.float32).tobytes(), n_known * 4 * self.width)
            _append(self._keys_file, b"".join(keys), n_known * _KEY)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def text_keys(tokens: Ragged) -> list[bytes]:
    """A digest of each text's token ids, which is all that a language model sees of it."""
    return [hashlib.blake2b(tokens[row].tobytes(), digest_size=_KEY).digest() for row in range(len(tokens))]


def _append(file: Path, data: bytes, at: int) -> None:
    """Write at byte `at`, which is the end of what is whole."""
    with file.open("r+b" if file.exists() else "w+b") as stream:
        stream.truncate(at)
        stream.seek(at)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
