"""Files and frames -> `Table`: rows with their place in the source, so that every later message can name the row."""

import csv
import gzip
import io
import json
import zlib
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import polars as pl

from lmrec.data.dataset import empty_quarantine
from lmrec.data.sources.words import join_json_list
from lmrec.errors import DataError

INTERNAL = "__lmrec_"  # how the names of helper columns begin; they are never shown
ROW = INTERNAL + "row"
FORMATS = ".csv, .tsv, .txt, .parquet, .jsonl, .ndjson or .json, text also with .gz"
_REPLACEMENT = "\ufffd"
_MAX_CONTENT_CHARS = 1_000
_JSON_LIST = r'^\["(.*"\s*,\s*".*)*"\]$'


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of one source, and those set aside so far.

    `frame` has the columns of the source and `ROW`: the 1-based line of a text file (the header is line 1), the 0-based
    row of a parquet file, a JSON array or a data frame. `n_rows` is how many rows came in.
    """

    name: str
    frame: pl.DataFrame
    n_rows: int
    quarantine: pl.DataFrame = field(default_factory=empty_quarantine)
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns of the source, without helpers."""
        return [name for name in self.frame.columns if not name.startswith(INTERNAL)]

    def note(self, text: str) -> "Table":
        return replace(self, notes=(*self.notes, f"{self.name}: {text}"))

    def set_aside(self, bad: pl.Expr, reason: str) -> "Table":
        """Move the rows where `bad` is true into the quarantine."""
        bad = bad.fill_null(False)
        rows = self.frame.filter(bad)
        if rows.is_empty():
            return self
        # A row may hold a megabyte of text; what helps is its beginning.
        content = pl.struct(self.columns).struct.json_encode().str.head(_MAX_CONTENT_CHARS)
        moved = rows.select(
            file=pl.lit(self.name), row=pl.col(ROW).cast(pl.Int64), reason=pl.lit(reason), content=content
        )
        return replace(self, frame=self.frame.filter(~bad), quarantine=pl.concat([self.quarantine, moved]))


def read_table(source: object, name: str = "table", between: str = ", ") -> Table:
    """Read a path (by its ending), a polars frame or a pandas frame; `name` is what messages call a frame, `between` stands
    between the values of a cell that is a list.

    A `Table` that a source made passes through, with what it set aside.

    Every CSV and TSV column arrives as text, so that an id `007` stays what it is. Rows with bytes that are not UTF-8
    are set aside. Raises `DataError` for missing files, unknown endings, damaged content and tables without rows.
    """
    if isinstance(source, Table):
        table = source
    elif isinstance(source, str | Path):
        table = _read_file(Path(source), between)
    elif isinstance(source, pl.LazyFrame | pl.DataFrame):
        table = _number_rows(name, source.lazy().collect())
    elif type(source).__module__.partition(".")[0] == "pandas":
        table = _number_rows(name, _from_pandas(source, between))
    else:
        raise DataError(
            f"cannot read a {type(source).__name__}. Give a path, a polars or a pandas data frame", file=name
        )
    if not table.n_rows:
        raise DataError("the table is empty: there are no rows. Give a table with at least one row", file=table.name)
    return _flatten(table, between)


def _read_file(path: Path, between: str) -> Table:
    if not path.is_file():
        raise DataError("there is no such file. Check the path", file=path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] == ".gz"
    suffix = "".join(suffixes[-2:-1] if packed else suffixes[-1:])
    try:
        if suffix == ".parquet" and not packed:
            return _number_rows(str(path), pl.read_parquet(path))
        data = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        if suffix in (".csv", ".tsv", ".tab", ".txt"):
            return read_separated(str(path), data, tabs=suffix in (".tsv", ".tab"))
        if suffix in (".jsonl", ".ndjson", ".json"):
            return _read_json(str(path), data, between)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"the gzip file is damaged ({error}). Pack it again", file=path) from error
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the {suffix} file cannot be read ({error}). Save it again as {FORMATS}", file=path) from error
    raise DataError(f"the ending '{''.join(suffixes)}' is none that can be read. Use {FORMATS}", file=path)


def _number_rows(name: str, frame: pl.DataFrame) -> Table:
    return Table(name, frame.with_row_index(ROW), frame.height)


def read_separated(name: str, data: bytes, tabs: bool) -> Table:
    header = data[: data.find(b"\n")] if b"\n" in data else data
    try:
        head = header.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the header is not UTF-8 ({error.reason}). Save the file as UTF-8", file=name, row=1
        ) from error
    if not head.strip():
        raise DataError("the table is empty: there is no header line. Give column names and rows", file=name)
    separator = "\t" if tabs else _sniff_separator(head)
    # Tab-separated files mostly hold raw quotes; reading those as quoting would swallow lines.
    quote = '"' if separator != "\t" else None
    lossy = False
    try:
        frame = pl.read_csv(data, separator=separator, quote_char=quote, infer_schema=False)
    except pl.exceptions.ComputeError as error:
        if "utf-8" not in str(error):
            raise _explain_damage(name, data, separator, error) from error
        frame = pl.read_csv(data, separator=separator, quote_char=quote, infer_schema=False, encoding="utf8-lossy")
        lossy = True
    line = 2 + pl.int_range(pl.len())
    if quote is not None and b'"' in data:
        # A quoted field may span lines: a row starts after all line breaks inside the rows above it.
        inner = pl.sum_horizontal(pl.all().str.count_matches("\n").fill_null(0).cast(pl.Int64))
        line += inner.cum_sum().shift(1, fill_value=0)
    frame = frame.with_columns(line.alias(ROW))
    empty = pl.all_horizontal(pl.exclude(ROW).is_null())
    if frame.select(empty.any()).item():
        frame = frame.filter(~empty)
    if quote is None:
        frame = frame.with_columns(_unquote(column) for column in frame.columns if column != ROW)
    table = Table(name, frame, frame.height)
    return _set_aside_undecodable(table) if lossy else table


def _sniff_separator(header: str) -> str:
    """The comma, unless the header has none but a tab or a semicolon."""
    return next((mark for mark in (",", "\t", ";") if mark in header), ",")


def _unquote(column: str) -> pl.Expr:
    """Take off quotes that were clearly put around a whole field by a writer, inner ones being doubled."""
    text = pl.col(column)
    quoted = text.str.contains(r'^"(?:[^"]|"")*"$')
    return pl.when(quoted).then(text.str.slice(1, text.str.len_chars() - 2).str.replace_all('""', '"')).otherwise(text)


def _set_aside_undecodable(table: Table) -> Table:
    """Rows of a file that is not wholly UTF-8, in which some bytes had to be replaced."""
    texts = [name for name in table.columns if table.frame.schema[name] == pl.String]
    damaged = pl.any_horizontal(pl.col(texts).str.contains(_REPLACEMENT, literal=True).fill_null(False))
    return table.set_aside(damaged, "bad UTF-8")


def _explain_damage(name: str, data: bytes, separator: str, error: Exception) -> DataError:
    """The first row with more fields than the header, by the slow reader; only ever run on the way to an error."""
    reader = csv.reader(io.StringIO(data.decode(errors="replace")), delimiter=separator)
    width, last_row = len(next(reader)), reader.line_num + 1
    begins = last_row
    for fields in reader:
        last_row, begins = begins, reader.line_num + 1
        if len(fields) > width:
            rule = f"the row has {len(fields)} fields, the header {width}. Quote fields that hold a '{separator}'"
            return DataError(rule, file=name, row=reader.line_num)
    return DataError(
        "a quote is opened and never closed, or the file is damaged in another way "
        f"({str(error).splitlines()[0]}); the last row begins here. Close the quote",
        file=name,
        row=last_row,
    )


def _read_json(name: str, data: bytes, between: str) -> Table:
    try:
        text, lossy = data.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        text, lossy = data.decode("utf-8-sig", errors="replace"), True
    if not text.strip():
        raise DataError("the table is empty: there are no rows. Give a table with at least one row", file=name)
    if text.lstrip().startswith("["):
        table = _number_rows(name, pl.read_json(text.encode(), infer_schema_length=None))
    else:
        table = _read_json_lines(name, text)
    # A column of lists and plain values comes as text, its lists as JSON.
    texts = [pl.col(one) for one, kind in table.frame.schema.items() if kind == pl.String]
    joined = [
        pl.when(text.str.contains(_JSON_LIST)).then(join_json_list(text, between)).otherwise(text) for text in texts
    ]
    table = replace(table, frame=table.frame.with_columns(joined))
    return _set_aside_undecodable(_flatten(table, between)) if lossy else table


def _read_json_lines(name: str, text: str) -> Table:
    lines = text.split("\n")
    numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
    try:
        frame = pl.read_ndjson(text.encode(), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        for number in numbers:
            try:
                json.loads(lines[number - 1])
            except json.JSONDecodeError as fault:
                rule = f"the line is not JSON ({fault.msg}). Write one JSON object a line"
                raise DataError(rule, file=name, row=number) from error
        raise
    if frame.height != len(numbers):
        raise DataError("a JSON object spans several lines. Write one JSON object a line", file=name)
    return Table(name, frame.with_columns(pl.Series(ROW, numbers, dtype=pl.Int64)), frame.height)


def _from_pandas(source: object, between: str) -> pl.DataFrame:
    pandas_frame = cast(Any, source).copy(deep=False)
    twice = pandas_frame.columns[pandas_frame.columns.duplicated()].tolist()
    if twice:
        raise DataError(f"two columns are called '{twice[0]}'. Rename or drop one", file="a pandas frame")
    for column in pandas_frame.columns:
        values = pandas_frame[column]
        if values.dtype == object and values.dropna().map(type).nunique() > 1:
            pandas_frame[column] = values.map(partial(_plain_text, between=between), na_action="ignore")
    pandas_frame.columns = [str(column) for column in pandas_frame.columns]
    return pl.from_pandas(pandas_frame)


def _plain_text(value: object, between: str) -> str:
    """pandas makes 3 into 3.0 where a number is missing; as an id both must be '3'. A list beside plain values is joined."""
    if isinstance(value, list | tuple):
        return between.join(_plain_text(one, between) for one in value if one is not None)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _flatten(table: Table, between: str) -> Table:
    """Nested columns as text: lists of words joined by `between`, anything deeper as JSON. Bytes are left out."""
    raw = [name for name in table.columns if "Binary" in str(table.frame.schema[name])]
    if raw:
        table = replace(table, frame=table.frame.drop(raw)).note(f"the columns {raw} hold bytes and were left out")
    changed = []
    for name in table.columns:
        kind = table.frame.schema[name]
        if isinstance(kind, pl.List | pl.Array) and not kind.inner.is_nested():
            changed.append(pl.col(name).cast(pl.List(pl.String)).list.join(between, ignore_nulls=True))
        elif kind.is_nested():
            changed.append(pl.struct(name).struct.json_encode().alias(name))
        elif kind == pl.Object:
            changed.append(pl.col(name).map_elements(str, return_dtype=pl.String))
        elif isinstance(kind, pl.Categorical | pl.Enum) or kind == pl.Null:
            changed.append(pl.col(name).cast(pl.String))
    return replace(table, frame=table.frame.with_columns(changed))
