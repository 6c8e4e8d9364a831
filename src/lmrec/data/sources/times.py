"""Any way to write a moment -> unix seconds: numbers by their size, ISO 8601 with or without a zone."""

from dataclasses import dataclass

import numpy as np
import polars as pl

_ISO = (
    r"^\s*(?P<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<minute>\d{2}:\d{2})(?::(?P<second>\d{2})(?P<fraction>[.,]\d+)?)?)?"
    r"\s*(?P<zone>Z|z|UTC|[+-]\d{2}(?::?\d{2})?)?\s*$"
)
# Seconds stay below this until the year 5138, milliseconds are above it since 1973.
_SECONDS_BELOW, _STEP = 1e11, 1e3
_UNITS = ("seconds", "milliseconds", "microseconds", "nanoseconds")


@dataclass(frozen=True, eq=False)
class ParsedTimes:
    """`seconds`: Float64 unix seconds, null where a value could not be read. `note` says how they were read."""

    seconds: pl.Series
    note: str


def parse_times(values: pl.Series) -> ParsedTimes:
    """Read a column of moments. The unit of numbers is told by their median size; no zone means UTC.

    >>> parse_times(pl.Series(["2024-01-01T01:00:00+01:00", "soon"])).seconds.to_list()
    [1704067200.0, None]
    """
    if values.dtype == pl.Date or isinstance(values.dtype, pl.Datetime):
        return _from_datetimes(values)
    numbers = values.cast(pl.Float64, strict=False)
    numbers = numbers.set(~numbers.is_finite().fill_null(False), None)
    seconds, notes = _from_numbers(numbers)
    if values.dtype == pl.String and seconds.null_count():
        iso, without_zone = _from_iso(values)
        if iso.null_count() < len(iso):
            zone = ", in UTC where no zone is given" if without_zone else ""
            notes.append(f"ISO 8601{zone}")
            seconds = seconds.fill_null(iso)
    return ParsedTimes(seconds.alias("seconds"), f"times read as {' and '.join(notes) or 'nothing'}")


def _from_datetimes(values: pl.Series) -> ParsedTimes:
    with_zone = isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is not None
    micros = values.cast(pl.Datetime("us", values.dtype.time_zone if isinstance(values.dtype, pl.Datetime) else None))
    note = "times read as dates" + (" with a zone" if with_zone else ", UTC assumed")
    return ParsedTimes((micros.to_physical().cast(pl.Float64) / 1e6).alias("seconds"), note)


def _from_numbers(numbers: pl.Series) -> tuple[pl.Series, list[str]]:
    known = numbers.drop_nulls().to_numpy()
    if not len(known):
        return numbers, []
    size = float(np.median(np.abs(known)))
    if 19_000_101 <= size <= 29_991_231:
        # As seconds these would be days of August to December 1970, which no log holds; as dates they are plain.
        dates = numbers.cast(pl.Int64).cast(pl.String).str.to_datetime("%Y%m%d", time_unit="us", strict=False)
        return dates.to_physical().cast(pl.Float64) / 1e6, ["dates written YYYYMMDD, UTC assumed"]
    power = min(int(max(0.0, np.ceil(np.log10(max(size, 1.0) / _SECONDS_BELOW) / 3))), len(_UNITS) - 1)
    return numbers / _STEP**power, [f"unix {_UNITS[power]}"]


def _from_iso(values: pl.Series) -> tuple[pl.Series, bool]:
    """(seconds or null, whether any value had no zone)."""
    parts = values.str.extract_groups(_ISO).struct.unnest()
    clock = pl.concat_str(
        "date", pl.lit(" "), pl.col("minute").fill_null("00:00"), pl.lit(":"), pl.col("second").fill_null("00")
    )
    local = (
        clock.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="us", strict=False).to_physical().cast(pl.Float64) / 1e6
    )
    fraction = pl.col("fraction").str.replace(",", ".").cast(pl.Float64, strict=False).fill_null(0.0)
    zone = pl.col("zone").str.replace(":", "")
    sign = pl.when(zone.str.starts_with("-")).then(-1.0).otherwise(1.0)
    hours = zone.str.slice(1, 2).cast(pl.Float64, strict=False).fill_null(0.0)
    minutes = zone.str.slice(3, 2).cast(pl.Float64, strict=False).fill_null(0.0)
    seconds = parts.select((local + fraction - sign * (hours * 3600 + minutes * 60)).alias("seconds")).to_series()
    without_zone = parts.select((pl.col("date").is_not_null() & pl.col("zone").is_null()).any()).item()
    return seconds, bool(without_zone)
