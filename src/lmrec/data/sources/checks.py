"""Checks at the edge: what is wrong with a table, which rows can be set aside, and when too many are wrong."""

from dataclasses import replace

import numpy as np
import polars as pl

from lmrec.data.sources.reading import INTERNAL, ROW, Table
from lmrec.errors import DataError
from lmrec.fields import ADDED_AT, RATING, WEIGHT, IntArray

_PLACE, _IS_RATED = INTERNAL + "place", INTERNAL + "is_rated"
_MISSING_IDS = ["", "nan", "NaN", "null", "NULL", "None", "<NA>"]
_WHOLE_FLOAT = r"^-?\d+\.0+$"
_NUMBER = r"^-?\d+(\.0+)?$"
_WHOLE = (2.0**53, 2.0**24)  # below it a float holds every whole number: of 64 bits, of 32
SETTLED = INTERNAL + "settled"  # a number of its own for each line that counts, whatever else is like it


def normalise_ids(table: Table, column: str) -> Table:
    """Make an id column text and set aside rows without one. `1`, `1.0` and `"1"` are the same id, and that is said.

    Raises `DataError` for ids that are fractions or not scalars.
    """
    kind = table.frame.schema[column]
    if kind.is_float():
        fraction = table.frame.filter(pl.col(column).is_finite() & (pl.col(column) != pl.col(column).round()))
        if fraction.height:
            raise DataError(
                f"{column} {fraction[column][0]} is a fraction. Ids are texts or whole numbers: map another column",
                file=table.name,
                row=fraction[ROW][0],
            )
        whole = _WHOLE[kind == pl.Float32]
        beyond = table.frame.filter(pl.col(column).is_finite() & (pl.col(column).abs() >= whole))
        if beyond.height:
            raise DataError(
                f"{column} came as floats, and from {whole:.0f} on, such as at {beyond[column][0]:.0f}, they tell no two "
                "neighbours apart. Give these ids as text or as whole numbers (of pandas: Int64, or dtype=str when it reads)",
                file=table.name,
                row=beyond[ROW][0],
            )
        # NaN and infinity name nobody.
        ids = pl.when(pl.col(column).is_finite()).then(pl.col(column)).cast(pl.Int64).cast(pl.String)
        table = table.note(f"{column} came as floats and is read as whole numbers (1.0 is '1')")
    elif kind.is_integer() or kind == pl.String:
        ids = pl.col(column).cast(pl.String).str.strip_chars()
    else:
        raise DataError(
            f"{column} is of type {kind}. Ids are texts or whole numbers: map another column", file=table.name
        )
    frame = table.frame.with_columns(pl.when(~ids.is_in(_MISSING_IDS)).then(ids).alias(column))
    if kind == pl.String:
        known = frame[column].drop_nulls()
        if known.str.contains(_WHOLE_FLOAT).any() and known.str.contains(_NUMBER).all():
            frame = frame.with_columns(pl.col(column).str.replace(r"\.0+$", ""))
            table = table.note(f"{column} mixes whole numbers and floats and is read as whole numbers (1.0 is '1')")
        numeric = frame[column].str.contains(_NUMBER)
        if numeric.any() and not numeric.drop_nulls().all():
            rare = frame.filter(numeric == (numeric.sum() * 2 < len(known))).row(0, named=True)
            table = table.note(
                f"{column} mixes numbers and other texts (row {rare[ROW]}: '{rare[column]}'); all are read as text. Check "
                "that both tables write them alike"
            )
    return replace(table, frame=frame).set_aside(pl.col(column).is_null(), f"no {column}")


def drop_duplicated_items(table: Table, id_column: str) -> Table:
    """Keep the first row of each id. Identical rows are dropped and counted; later rows that differ are set aside."""
    distinct = table.frame.unique(subset=table.columns, keep="first", maintain_order=True)
    n_same = table.frame.height - distinct.height
    table = replace(table, frame=distinct)
    if n_same:
        table = table.note(f"{n_same:,} rows repeat an earlier row exactly and were dropped")
    return table.set_aside(~pl.col(id_column).is_first_distinct(), f"another row has the same {id_column}")


def drop_duplicated_events(table: Table, keys: list[str]) -> Table:
    """Keep the first of events that agree in all `keys`; count the others."""
    suspects = _hash_twins(table.frame, keys)
    if not len(suspects):
        return table
    is_first = table.frame[suspects].select(pl.struct(keys).is_first_distinct()).to_series().to_numpy()
    kept = np.ones(table.frame.height, np.bool_)
    kept[suspects[~is_first]] = False
    n_same = int((~kept).sum())
    table = replace(table, frame=table.frame.filter(kept))
    return table.note(f"{n_same:,} events repeat an earlier one and were dropped") if n_same else table


def join_events(table: Table, keys: list[str]) -> Table:
    """One event for those that agree in all `keys` and, being no repeats, differ in what they weigh: weights are added up.
    Where they differ in their rating, the last one given takes the place of the others, but of lines that count by
    themselves (SETTLED)."""
    values = [name for name in (WEIGHT, RATING) if name in table.columns]
    twins = _hash_twins(table.frame, keys) if values else np.zeros(0, np.int64)
    if not len(twins):
        return table
    frame = table.frame.with_row_index(_PLACE)
    rated = pl.col(RATING).drop_nulls() if RATING in values else pl.lit(None, pl.Float32)
    weight = pl.when(_IS_RATED).then(pl.col(WEIGHT).last().over(keys)).otherwise(pl.col(WEIGHT).sum().over(keys))
    now = {WEIGHT: weight, RATING: rated.last().over(keys)}  # a rating that is missing takes nobody's place
    is_rated = rated.n_unique().over(keys) > 1
    if SETTLED in frame.columns:
        is_rated &= pl.col(SETTLED).is_null()
    joined = frame[twins].with_columns(is_rated.alias(_IS_RATED))
    joined = joined.with_columns(now[name].alias(name) for name in values)
    is_first = pl.struct(keys).is_first_distinct()
    counts = joined.filter(~is_first)[_IS_RATED].value_counts()
    n_joined = {bool(rated): int(n) for rated, n in counts.iter_rows()}
    frame = pl.concat([frame.filter(~pl.col(_PLACE).is_in(twins)), joined.filter(is_first).drop(_IS_RATED)])
    table = replace(table, frame=frame.sort(_PLACE).drop(_PLACE))
    if n := n_joined.get(False):
        table = table.note(
            f"{n:,} events came at the time of another of the same user and item and were joined with it; weights were added up"
        )
    if n := n_joined.get(True):
        table = table.note(f"{n:,} events were rated anew at the same time; the last rating counts")
    return table


def _hash_twins(frame: pl.DataFrame, keys: list[str]) -> IntArray:
    """Places of the rows whose hash over `keys` another row has: all that repeat a row, and hardly any more.

    Sorting hashes is a third of the work of telling all rows apart, and most logs hold few repeats.
    """
    hashes = frame.select(pl.struct(keys).hash()).to_series().to_numpy()
    in_order = np.sort(hashes)
    return np.flatnonzero(np.isin(hashes, in_order[1:][in_order[1:] == in_order[:-1]]))


def parse_numbers(table: Table, column: str, *, required: bool, at_least: float = -np.inf) -> Table:
    """Make a column Float32; set aside rows whose value is not a finite number, is below `at_least`, or is missing
    although `required`."""
    number = pl.col(column).cast(pl.Float64, strict=False)
    wrong = ~number.is_finite().fill_null(False)
    if not required:
        wrong &= pl.col(column).is_not_null()
    table = table.set_aside(wrong, f"{column} is not a finite number")
    table = table.set_aside(number < at_least, f"{column} is below {at_least:g}")
    return replace(table, frame=table.frame.with_columns(number.cast(pl.Float32)))


def clean_texts(table: Table, text_columns: tuple[str, ...], id_column: str, max_chars: int) -> Table:
    """Text columns as text, blanks null, the very long cut. Nothing is set aside: an item without words stays."""
    texts = pl.col(text_columns).cast(pl.String)
    frame = table.frame.with_columns(pl.when(texts.str.contains(r"\S")).then(texts))
    long = frame.filter(pl.any_horizontal(pl.col(text_columns).str.len_chars() > max_chars))
    table = replace(table, frame=frame.with_columns(pl.col(text_columns).str.head(max_chars)))
    if long.height:
        example = f"item '{long[id_column][0]}', row {long[ROW][0]}"
        table = table.note(f"{long.height:,} items had a text over {max_chars:,} characters, which was cut ({example})")
    blank = frame.filter(pl.all_horizontal(pl.col(text_columns).is_null()))
    if blank.height:
        example = f"item '{blank[id_column][0]}', row {blank[ROW][0]}"
        table = table.note(f"{blank.height:,} items have no text and can only be told by their id ({example})")
    return table


def parse_added_at(table: Table, seconds: pl.Series) -> Table:
    """Put parsed times into `added_at`; those that could not be read become null, and are counted."""
    lost = int((seconds.is_null() & table.frame[ADDED_AT].is_not_null()).sum())
    table = replace(table, frame=table.frame.with_columns(seconds.alias(ADDED_AT)))
    return table.note(f"{lost:,} values of {ADDED_AT} could not be read and were left out") if lost else table


def require_few_bad(table: Table, max_bad_share: float) -> None:
    """`DataError` where more than `max_bad_share` of the rows were set aside; names the commonest reasons."""
    bad = table.quarantine
    if bad.height <= max_bad_share * table.n_rows:
        return
    reasons = bad.group_by("reason", maintain_order=True).agg(pl.len(), pl.first("row"), pl.first("content"))
    reasons = reasons.sort("len", descending=True, maintain_order=True).head(3)
    shown = "; ".join(f"{n:,} x {why} (row {row}: {content[:200]})" for why, n, row, content in reasons.iter_rows())
    raise DataError(
        f"{bad.height:,} of {table.n_rows:,} rows cannot be used, over the limit of {max_bad_share:.0%}: {shown}. "
        "Mend the table, or raise the limit: --set data.max_bad_share=0.2",
        file=table.name,
        row=reasons["row"][0],
    )
