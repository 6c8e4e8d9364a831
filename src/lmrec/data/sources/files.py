"""The files of a data set as it was downloaded: a folder or a zip, read in place; and text files as numbered lines."""

import gzip
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import polars as pl

from lmrec.data.sources.reading import ROW, Table
from lmrec.errors import DataError

LINE = "line"
_FIELDS = "fields"
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True)
class SourceFiles:
    """Files by their own name, wherever in the folder or zip they lie. `ask` says how to get them, for messages."""

    path: Path
    readers: dict[str, Callable[[], bytes]]
    twice: frozenset[str] = frozenset()
    ask: str = "Give the folder or zip that holds it"

    @property
    def names(self) -> list[str]:
        return sorted(self.readers)

    def __contains__(self, name: str) -> bool:
        return name in self.readers

    def label(self, name: str) -> str:
        """What messages call a file."""
        return str(self.path / name) if self.path.is_dir() or self.path.suffix == ".zip" else str(self.path)

    def read(self, name: str) -> bytes:
        """The bytes of a file, unpacked where it ends in .gz. `DataError` where it is missing, twice or damaged."""
        if name not in self.readers:
            raise DataError(f"{name} is missing beside {self.names[:8]}. {self.ask}", file=name)
        if name in self.twice:
            raise DataError(f"{name} lies in more than one folder here. Give one of these folders", file=self.path)
        try:
            data = self.readers[name]()
            return gzip.decompress(data) if name.endswith(".gz") else data
        except (gzip.BadGzipFile, zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise DataError(
                f"the file is damaged or not packed as its name says ({error}). Fetch it again", file=self.label(name)
            ) from error

    def read_lines(self, name: str, encodings: Sequence[str] = ("utf-8",)) -> Table:
        """A text file as a table of numbered lines, blank ones left out, in the first encoding that fits the whole file.

        Where none fits, lines with bytes that are not in the first encoding are set aside.
        """
        text, lossy = _decode(self.read(name), encodings)
        frame = pl.DataFrame({LINE: text.split("\n")}, schema={LINE: pl.String})
        frame = frame.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(ROW))
        frame = frame.with_columns(pl.col(LINE).str.strip_chars_end("\r")).filter(pl.col(LINE).str.contains(r"\S"))
        if frame.is_empty():
            raise DataError("the file is empty: there are no lines. Fetch it again", file=self.label(name))
        table = Table(self.label(name), frame, frame.height)
        return table.set_aside(pl.col(LINE).str.contains(_REPLACEMENT, literal=True), "bad UTF-8") if lossy else table


def open_files(path: Path | str, wanted: str, ask: str = "") -> SourceFiles:
    """The files of a folder (and the folders in it), of a zip, or of a folder's one zip, where that holds `wanted` or is alone.

    A single file counts as a folder of its own. Raises `DataError` where there is nothing at `path`.
    """
    path = Path(path)
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        zips = [file for file in files if file.suffix == ".zip"]
        if len(zips) == 1 and not any(file.name == wanted for file in files):
            packed = _open_zip(zips[0], ask)
            if wanted in packed or len(files) == 1:
                return packed
        return _by_name(path, [(file.name, file.read_bytes) for file in files], ask)
    if zipfile.is_zipfile(path) and path.suffix.lower() != ".xlsx":
        return _open_zip(path, ask)
    if not path.exists():
        raise DataError(f"there is no such folder or file. Check the path. {ask}".strip(), file=path)
    return _by_name(path, [(path.name, path.read_bytes)], ask)


def split_fields(table: Table, separator: str, names: Sequence[str], *, header: bool = False) -> Table:
    """Lines into text columns, nothing being quoted; lines with another number of fields are set aside.

    `header` leaves out the first line, which names the columns; `names` are ours for them.
    """
    frame = table.frame.slice(1) if header else table.frame
    table = replace(table, frame=frame.with_columns(pl.col(LINE).str.split(separator).alias(_FIELDS)))
    wrong = pl.col(_FIELDS).list.len() != len(names)
    shown = "tabs" if separator == "\t" else f"'{separator}'"
    lines = table.frame.drop(_FIELDS)
    rejected = replace(table, frame=lines.filter(table.frame.select(wrong).to_series())).set_aside(
        pl.lit(True), f"the line has not {len(names)} fields between {shown}"
    )
    kept = table.frame.filter(~wrong).select(
        ROW, *(pl.col(_FIELDS).list.get(place).alias(name) for place, name in enumerate(names))
    )
    return replace(rejected, frame=kept)


def _open_zip(path: Path, ask: str) -> SourceFiles:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    return _by_name(path, [(Path(name).name, partial(_read_member, path, name)) for name in names], ask)


def _read_member(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def _by_name(path: Path, files: Sequence[tuple[str, Callable[[], bytes]]], ask: str) -> SourceFiles:
    files = [(name, read) for name, read in files if not name.startswith("._")]  # macOS' notes beside what it packs
    names = [name for name, _ in files]
    twice = frozenset(name for name in names if names.count(name) > 1)
    return SourceFiles(path, dict(files), twice, **({"ask": ask} if ask else {}))


def _decode(data: bytes, encodings: Sequence[str]) -> tuple[str, bool]:
    """(text, whether bytes had to be replaced)."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    for encoding in encodings:
        try:
            return data.decode(encoding), False
        except UnicodeDecodeError:
            continue
    return data.decode(encodings[0], errors="replace"), True
