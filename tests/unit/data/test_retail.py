"""Online Retail: purchases by minute, returns that take back, goods with words and price bands."""

import csv
import sys
import zipfile
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from xlsxwriter import Workbook

from lmrec.data.dataset import Dataset
from lmrec.data.sources import TablesConfig, read_retail
from lmrec.errors import DataError, MissingExtraError

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
ROWS = [
    '536365,85123A,WHITE  HANGING HEART,6,12/1/2010 8:26,2.55,17850,"United Kingdom"',
    "536365,85123A,WHITE  HANGING HEART,2,12/1/2010 8:26,2.55,17850,United Kingdom",
    "536366,85123a,WHITE HANGING HEART,1,12/13/2010 9:00,2.55,17850,United Kingdom",
    "C53637,85123A,WHITE HANGING HEART,-3,12/14/2010 9:00,2.55,17850,United Kingdom",
    '536368,22423,"REGENCY CAKESTAND, 3 TIER",4,12/2/2010 8:26,12.75,13047,France',
    "536369,22423,damaged,1,12/3/2010 8:26,0,,France",
    "C53670,22423,REGENCY CAKESTAND,-1,12/1/2010 8:26,12.75,13047,France",
    "536371,POST,POSTAGE,1,12/2/2010 8:26,18,13047,France",
    "536372,21730,GLASS STAR,5,12/2/2010 8:26,4.25,13047,France",
    "C53673,21730,GLASS STAR,-5,12/5/2010 8:26,4.25,13047,France",
]


def write(folder: Path, rows: list[str], header: str = HEADER, encoding: str = "utf-8") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "online_retail.csv").write_bytes((header + "\n".join(rows) + "\n").encode(encoding))
    return folder


def kept(dataset: Dataset) -> list[tuple[str, str, float]]:
    log = dataset.interactions
    found = zip(log.user_idx, log.item_idx, log.weight, strict=True)
    return [(log.user_ids[user], dataset.catalog.ids[item], round(2.0**weight - 1)) for user, item, weight in found]


def noted(dataset: Dataset, words: str) -> bool:
    return any(words in note for note in dataset.notes)


def test_purchases_returns_and_goods(tmp_path: Path) -> None:
    dataset = read_retail(write(tmp_path, ROWS))
    # 8 at one minute, 1 later; 3 given back: the newest purchase wholly, then 2 of the older. The cake stand's return came
    # before anything was bought, so it takes nothing back. The star went back wholly.
    assert kept(dataset) == [("17850", "85123A", 6), ("13047", "22423", 4)]
    assert dataset.catalog.ids == ["85123A", "22423"]
    assert dataset.catalog.titles == [
        "White Hanging Heart",
        "Regency Cakestand",
    ]  # equally often: capitals, then the alphabet
    assert dataset.catalog.frame["price"].to_list() == [2.55, 12.75]
    assert dataset.catalog.frame["price_band"].null_count() == 0
    assert dataset.users is not None
    assert dict(dataset.users.frame.rows()) == {"17850": "United Kingdom", "13047": "France"}
    assert dataset.interactions.time_ts[0] == 1_291_191_960  # 1 December 2010, 08:26 UTC
    assert noted(dataset, "1 of 10 lines name no customer")
    assert noted(dataset, "1 lines are postage")
    assert noted(dataset, "3 returns took back 2 of them wholly")
    assert noted(dataset, "dates read as month/day/year")


def test_what_comes_later_may_be_a_return(tmp_path: Path) -> None:
    dataset = read_retail(write(tmp_path, ROWS))
    assert dataset.weighing.return_kinds == {"return": "purchase"}
    assert (dataset.weighing.no_kind, dataset.weighing.weight_scale) == ("purchase", "log")
    log = dataset.interactions
    assert log.amount is not None
    assert np.log2(1 + log.amount) == pytest.approx(log.weight), "so that it is known how many can come back"


def test_day_first_iso_latin_1_and_the_second_edition_agree(tmp_path: Path) -> None:
    expected = read_retail(write(tmp_path / "a", ROWS)).interactions.fingerprint
    day_first = [
        row.replace("12/13/2010", "13/12/2010").replace("12/14/2010", "14/12/2010").replace("12/5/", "5/12/")
        for row in ROWS
    ]
    day_first = [row.replace("12/1/", "1/12/").replace("12/2/", "2/12/").replace("12/3/", "3/12/") for row in day_first]
    assert read_retail(write(tmp_path / "b", day_first)).interactions.fingerprint == expected
    pound = [row.replace("GLASS STAR", "GLASS STAR £5") for row in ROWS]
    assert read_retail(write(tmp_path / "c", pound, encoding="latin-1")).interactions.fingerprint == expected
    second = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
    floats = [row.replace(",17850,", ",17850.0,").replace(",13047,", ",13047.0,") for row in ROWS]
    assert read_retail(write(tmp_path / "d", floats, second)).interactions.fingerprint == expected
    frame = pl.read_csv(tmp_path / "a" / "online_retail.csv")
    clock = pl.col("InvoiceDate").str.to_datetime("%m/%d/%Y %H:%M")
    (tmp_path / "e").mkdir()
    frame.with_columns(clock, pl.col("CustomerID").cast(pl.Float64)).write_parquet(tmp_path / "e" / "r.parquet")
    assert read_retail(tmp_path / "e" / "r.parquet").interactions.fingerprint == expected
    frame.with_columns(clock.dt.to_string("%Y-%m-%d %H:%M:%S")).write_csv(tmp_path / "e" / "r.csv")
    assert read_retail(tmp_path / "e" / "r.csv").interactions.fingerprint == expected


def workbook(file: Path, sheets: dict[str, list[str]], header: str = HEADER) -> Path:
    """Cells typed as Excel has them: numbers, dates and, in one column, numbers beside texts."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with Workbook(file) as book:
        for title, rows in sheets.items():
            sheet = book.add_worksheet(title)
            sheet.write_row(0, 0, header.strip().split(","))
            clock = book.add_format({"num_format": "m/d/yyyy h:mm"})
            for at, cells in enumerate(csv.reader(rows), start=1):
                for column, cell in enumerate(cells):
                    if "/" in cell:
                        sheet.write_datetime(at, column, datetime.strptime(cell, "%m/%d/%Y %H:%M"), clock)
                    elif cell:
                        sheet.write_number(at, column, float(cell)) if is_number(cell) else sheet.write(
                            at, column, cell
                        )
    return file


def is_number(cell: str) -> bool:
    return cell.lstrip("-").replace(".", "", 1).isdigit()


def test_the_original_workbook_is_read_as_the_csv_is(tmp_path: Path) -> None:
    expected = read_retail(write(tmp_path / "csv", ROWS))
    file = workbook(tmp_path / "UCI" / "Online Retail.xlsx", {"Online Retail": ROWS})
    packed = tmp_path / "zip" / "online+retail.zip"
    packed.parent.mkdir()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(file, "Online Retail.xlsx")
    for path in (file, file.parent, packed, packed.parent):
        found = read_retail(path)
        assert found.fingerprint == expected.fingerprint, path
        assert kept(found) == kept(expected)
        assert found.users is not None
        assert dict(found.users.frame.rows()) == {"17850": "United Kingdom", "13047": "France"}
        assert noted(found, "1 of 10 lines name no customer")
    broken = workbook(tmp_path / "broken.xlsx", {"One": [*ROWS, "1,22423,REGENCY,many,12/1/2010 8:26,1,13047,France"]})
    found = read_retail(broken, TablesConfig(max_bad_share=1.0))
    assert found.quarantine.select("row", "reason").rows() == [(12, "the quantity is not a number")]


def test_both_years_of_the_second_edition_are_read_and_their_shared_days_once(tmp_path: Path) -> None:
    header = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n"
    years = {"Year 2009-2010": ROWS[:6], "Year 2010-2011": ROWS[4:], "Empty": []}
    found = read_retail(workbook(tmp_path / "II" / "online_retail_II.xlsx", years, header))
    assert found.interactions.fingerprint == read_retail(write(tmp_path / "csv", ROWS)).interactions.fingerprint
    assert noted(found, "2 rows say again what an earlier sheet has, by 'Invoice'")
    assert noted(found, "the sheets 'Year 2009-2010', 'Year 2010-2011' were read as one table")


def test_a_workbook_that_cannot_be_used_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no sheet has a header and rows"):
        read_retail(workbook(tmp_path / "a.xlsx", {"Empty": []}))
    unlike = tmp_path / "b.xlsx"
    with Workbook(unlike) as book:
        for title, columns in {"One": ["Description", "Quantity"], "Two": ["Pages"]}.items():
            sheet = book.add_worksheet(title)
            sheet.write_row(0, 0, columns)
            sheet.write_row(1, 0, ["tea", 1][: len(columns)])
    with pytest.raises(DataError, match=r"the sheet 'Two' has the columns \['Pages'\]"):
        read_retail(unlike)
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(MissingExtraError, match=r"Type: pip install 'lmrec\[excel\]'") as error:
        read_retail(unlike)
    assert error.value.exit_code == 2


def test_without_stock_codes_the_description_is_the_item(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    frame = pl.read_csv(tmp_path / "online_retail.csv").drop("StockCode", "InvoiceNo")
    frame.write_csv(tmp_path / "online_retail.csv")
    dataset = read_retail(tmp_path)
    assert dataset.catalog.ids == ["WHITE HANGING HEART", "REGENCY CAKESTAND, 3 TIER"]
    assert noted(dataset, "1 lines are postage")


def test_quantities_weigh_as_they_are_where_asked(tmp_path: Path) -> None:
    dataset = read_retail(write(tmp_path, ROWS), TablesConfig(weight_scale="linear"))
    assert dataset.interactions.weight.tolist() == [6.0, 4.0]
    dataset = read_retail(tmp_path, TablesConfig(weight_from="none"))
    assert dataset.interactions.weight.tolist() == [1.0, 1.0]


def test_broken_lines_are_set_aside(tmp_path: Path) -> None:
    broken = [
        "1,22423,REGENCY,many,12/1/2010 8:26,1,13047,France",
        "2,22423,REGENCY,1,soon,1,13047,France",
    ]
    dataset = read_retail(write(tmp_path, ROWS + broken), TablesConfig(max_bad_share=1.0))
    assert dataset.quarantine.select("row", "reason").rows() == [
        (12, "the quantity is not a number"),
        (13, "the invoice date cannot be read"),
    ]
    with pytest.raises(DataError, match="over the limit"):
        read_retail(tmp_path)


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no column for \['invoice_date', 'user_id'\]"):
        read_retail(write(tmp_path / "a", ["1,2"], "Description,Quantity\n"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "Online Retail.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"the workbook is damaged or is no \.xlsx .* Fetch it again"):
        read_retail(tmp_path / "b")
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="needed one xlsx, csv or parquet file"):
        read_retail(tmp_path / "c")


def test_years_of_two_digits_are_read_and_no_date_at_all_is_said(tmp_path: Path) -> None:
    short = [row.replace("/2010 ", "/10 ") for row in ROWS]
    assert kept(read_retail(write(tmp_path / "short", short))) == kept(read_retail(write(tmp_path / "long", ROWS)))
    none = [row.replace("/2010 ", " of 2010 ") for row in ROWS]
    with pytest.raises(DataError, match="the invoice date cannot be read"):
        read_retail(write(tmp_path / "none", none))


def test_clocks_of_twelve_hours_are_read_and_other_tails_are_set_aside(tmp_path: Path) -> None:
    expected = read_retail(write(tmp_path / "long", ROWS))

    def at(name: str, early: str, late: str) -> Dataset:
        rows = [row.replace("8:26,", early + ",").replace("9:00,", late + ",") for row in ROWS]
        return read_retail(write(tmp_path / name, rows))

    assert kept(at("before noon", "8:26 AM", "9:00:00 am")) == kept(expected)
    later = at("after noon", "8:26 PM", "9:00PM").interactions
    assert (later.time_ts - expected.interactions.time_ts).tolist() == [12 * 3600.0] * len(later)
    midnight, noon = (at(half, f"12:26 {half}", f"12:40 {half}").interactions.time_ts[0] for half in ("AM", "PM"))
    assert noon - midnight == 12 * 3600
    with pytest.raises(DataError, match="the invoice date cannot be read"):
        at("tail", "8:26 o'clock", "9:00")
