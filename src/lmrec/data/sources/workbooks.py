"""Excel workbooks (.xlsx) -> `Table`, every cell as text, as a csv of the same sheet would be read."""

from collections.abc import Sequence

import polars as pl

from lmrec.data.sources.reading import INTERNAL, ROW, Table
from lmrec.errors import DataError, MissingExtraError

_SHEET = INTERNAL + "sheet"


def read_workbook(name: str, data: bytes, whole: Sequence[str] = ()) -> Table:
    """The sheets of a workbook one after the other; each has the same header, in its first row.

    whole: names that a column may have of which a value stands wholly in one sheet, such as an invoice's number: what a
    later sheet says again of it is left out. `ROW` counts on from sheet to sheet. Raises MissingExtraError without
    fastexcel, DataError where the file is damaged, has no rows, or its sheets have other columns.
    """
    sheets = {title: frame for title, frame in _sheets(name, data).items() if frame.width and frame.height}
    if not sheets:
        raise DataError("the workbook is empty: no sheet has a header and rows. Fetch it again", file=name)
    first, *others = sheets
    for title in others:
        if sheets[title].columns != sheets[first].columns:
            raise DataError(
                f"the sheet '{title}' has the columns {sheets[title].columns}, and '{first}' has {sheets[first].columns}. "
                "Give a workbook whose sheets are alike, or of one sheet",
                file=name,
            )
    numbered = []
    end = 0
    for at, frame in enumerate(sheets.values()):
        rows = pl.int_range(end + 2, end + 2 + pl.len(), dtype=pl.Int64)
        numbered.append(frame.with_columns(rows.alias(ROW), pl.lit(at).alias(_SHEET)))
        end += frame.height + 1
    frame = pl.concat(numbered)
    frame = frame.filter(~pl.all_horizontal(pl.exclude(ROW, _SHEET).is_null()))
    key = next((column for column in whole if column in frame.columns), None)
    n_read = frame.height
    if key is not None:
        frame = frame.filter(pl.col(key).is_null() | (pl.col(_SHEET) == pl.col(_SHEET).min().over(key)))
    table = Table(name, frame.drop(_SHEET), frame.height)
    if others:
        table = table.note(f"the sheets {', '.join(map(repr, sheets))} were read as one table, their rows counted on")
    again = n_read - frame.height
    return (
        table.note(f"{again:,} rows say again what an earlier sheet has, by '{key}', and were left out")
        if again
        else table
    )


def _sheets(name: str, data: bytes) -> dict[str, pl.DataFrame]:
    try:
        import fastexcel
    except ImportError:
        raise MissingExtraError(f"reading {name}", "fastexcel", "excel") from None
    try:
        book = fastexcel.read_excel(data)
        return {title: book.load_sheet(title, dtypes="string").to_polars() for title in book.sheet_names}
    except fastexcel.FastExcelError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the workbook is damaged or is no .xlsx ({reason}). Fetch it again", file=name) from error
