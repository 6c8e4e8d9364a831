"""Moments in all spellings come out as unix seconds, and how they were read is said."""

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrec.data.sources.times import parse_times

TS = 1704164645.0  # 2024-01-02 03:04:05 UTC


@pytest.mark.parametrize(
    ("value", "note"),
    [
        (1704164645, "unix seconds"),
        (1704164645.0, "unix seconds"),
        ("1704164645", "unix seconds"),
        (1704164645_000, "unix milliseconds"),
        ("1704164645000", "unix milliseconds"),
        (1704164645_000_000, "unix microseconds"),
        (1704164645_000_000_000, "unix nanoseconds"),
        ("2024-01-02T03:04:05Z", "ISO 8601"),
        ("2024-01-02 03:04:05", "in UTC where no zone is given"),
        ("2024-01-02T04:04:05+01:00", "ISO 8601"),
        ("2024-01-01T19:04:05-0800", "ISO 8601"),
        ("2024-01-02T08:34:05 +05:30", "ISO 8601"),
        (datetime(2024, 1, 2, 3, 4, 5), "UTC assumed"),
        (datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), "with a zone"),
    ],
)
def test_spellings_of_one_moment(value: object, note: str) -> None:
    parsed = parse_times(pl.Series([value, None]))
    assert parsed.seconds.to_list() == [TS, None]
    assert note in parsed.note


def test_days_and_fractions() -> None:
    assert parse_times(pl.Series(["2024-01-02", "2024-01-02T00:00", "1970-01-01T00:00:01.250"])).seconds.to_list() == [
        1704153600.0,
        1704153600.0,
        1.25,
    ]
    days = parse_times(pl.Series([20240102, 20240103]))
    assert days.seconds.to_list() == [1704153600.0, 1704240000.0]
    assert "YYYYMMDD" in days.note
    assert parse_times(pl.Series([datetime(2024, 1, 2).date()])).seconds.to_list() == [1704153600.0]


@pytest.mark.parametrize(
    "value", ["soon", "", "2024-13-01", "2024-02-30", "12/1/2010 8:26", "nan", "inf", "2024-01-02T25:00"]
)
def test_what_is_no_moment_becomes_null(value: str) -> None:
    assert parse_times(pl.Series(["2024-01-02", value])).seconds.to_list()[1] is None


def test_a_mixed_column_is_read_value_by_value() -> None:
    assert parse_times(pl.Series(["1704164645", "2024-01-02T03:04:05Z"])).seconds.to_list() == [TS, TS]


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.timezones()))
def test_iso_text_equals_the_standard_library(moment: datetime) -> None:
    offset = moment.utcoffset()
    if offset is None or offset.seconds % 60:  # very old zones have offsets with seconds, which ISO 8601 has not
        return
    assert parse_times(pl.Series([moment.isoformat()])).seconds[0] == pytest.approx(moment.timestamp(), abs=1e-5)
