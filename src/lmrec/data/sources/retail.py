"""UCI Online Retail (and its second edition): one line an invoice position, as the original workbook, csv or parquet.

The stock code is the item and its commonest description the item's words; in a file without stock codes the description
is both. Lines of one customer, item and minute are one purchase, its weight the quantity. A negative quantity is a return:
it takes back the newest earlier purchases of the same customer and item, and no more than they were. What was given back
is no sign of liking, so a purchase fully returned leaves no event; this looks ahead, alike for training and test.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from lmrec.data.dataset import Dataset
from lmrec.data.prices import price_band, read_prices
from lmrec.data.sources.checks import require_few_bad
from lmrec.data.sources.files import open_files
from lmrec.data.sources.reading import ROW, Table, read_separated, read_table
from lmrec.data.sources.tables import TablesConfig, read_dataset
from lmrec.data.sources.times import parse_times
from lmrec.data.sources.workbooks import read_workbook
from lmrec.data.weights import left_after_returns
from lmrec.errors import DataError
from lmrec.fields import ITEM_ID, TIMESTAMP, USER_ID, WEIGHT

ATTRIBUTE_COLUMNS = ("price", "price_band")

_OURS: Mapping[str, tuple[str, ...]] = {
    "stock_code": ("stockcode",),
    "description": ("description",),
    "quantity": ("quantity",),
    "invoice_date": ("invoicedate",),
    "unit_price": ("unitprice", "price"),
    USER_ID: ("customerid",),
    "country": ("country",),
}
_NEEDED = ("description", "quantity", "invoice_date", USER_ID)
_INVOICE = ("InvoiceNo", "Invoice")
_ASK = "Give the xlsx, csv or parquet file of UCI Online Retail, or the zip or folder that holds it"
_SLASHED = ("%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M")
# Positions that are no goods: postage, fees, corrections, by their stock code or by their description.
_NO_GOODS_CODE = r"^(?:POST|DOT|M|D|S|B|C2|C3|PADS|CRUK|AMAZONFEE|BANK CHARGES|ADJUST\d*|TEST\d*|GIFT_.*)$"
_NO_GOODS = (
    r"^(?:(?:.* )?(?:POSTAGE|CARRIAGE|BAD DEBT)|MANUAL|DISCOUNT|BANK CHARGES|AMAZON FEE|CRUK COMMISSION|SAMPLES)$"
)
_LEFT = -1  # left_after_returns puts its column last


def read_retail(path: Path | str, config: TablesConfig | None = None) -> Dataset:
    """Goods as items with words, price and price band; purchases of known customers as interactions; countries of users.

    Lines without a customer are counted and set aside, as are positions that are no goods. Quantities weigh
    log2(1 + quantity) unless `config.weight_scale` says otherwise. Raises `DataError` where columns are missing or too
    many lines are broken.
    """
    config = config or TablesConfig()
    lines = _read_lines(Path(path))
    lines = _check_lines(lines, config.max_bad_share)
    items = _describe_goods(lines)
    lines = _known_customers(lines)
    events = _purchases(lines)
    items = replace(items, frame=items.frame.filter(pl.col(ITEM_ID).is_in(events.frame[ITEM_ID].unique().implode())))
    users = None
    if "country" in lines.columns:
        users = lines.frame.group_by(USER_ID, maintain_order=True).agg(pl.col("country").last())
    scale = config.weight_scale if "weight_scale" in config.model_fields_set else "log"
    chosen = {"text_columns": config.text_columns or ("title",), "weight_scale": scale}
    dataset = read_dataset(items, events, users, config.model_copy(update=chosen))
    # What comes later says its kind, which an invoice does not.
    live = dataset.weighing.model_copy(update={"return_kinds": {"return": "purchase"}, "no_kind": "purchase"})
    return replace(dataset, source=f"UCI Online Retail ({lines.name})", weighing=live)


def _read_lines(path: Path) -> Table:
    """The file as a table with our column names."""
    files = open_files(path, "", _ASK)
    found = [name for name in files.names if re.search(r"\.(csv|parquet)(\.gz)?$|\.xlsx$", name.lower())]
    if len(found) != 1:
        raise DataError(
            f"needed one xlsx, csv or parquet file; found {found or files.names[:8]}. {_ASK}", file=files.path
        )
    name = found[0]
    if name.endswith(".parquet"):
        table = read_table(pl.read_parquet(files.read(name)), files.label(name))
    elif name.lower().endswith(".xlsx"):
        table = read_workbook(files.label(name), files.read(name), whole=_INVOICE)
    else:
        data = files.read(name)
        try:
            data.decode()
        except UnicodeDecodeError:  # Excel's csv: the pound sign in a description is Latin-1
            data = data.decode("latin-1").encode()
        table = read_separated(files.label(name), data, tabs=False)
    plain = {re.sub(r"[^a-z]", "", column.lower()): column for column in reversed(table.columns)}
    renames = {plain[word]: ours for ours, names in _OURS.items() for word in names if word in plain}
    missing = [ours for ours in _NEEDED if ours not in renames.values()]
    if missing:
        raise DataError(f"there is no column for {missing}; found {table.columns}. {_ASK}", file=table.name)
    return replace(table, frame=table.frame.select(ROW, *renames).rename(renames))


def _check_lines(lines: Table, max_bad_share: float) -> Table:
    """Numbers and times parsed, item ids made; positions that are no goods left out."""
    text = pl.col("description").cast(pl.String).str.replace_all(r"\s+", " ").str.strip_chars()
    text = pl.when(text.str.len_bytes() > 0).then(text)
    code = pl.col("stock_code").cast(pl.String).str.strip_chars().str.to_uppercase()
    has_code = "stock_code" in lines.columns
    item = code if has_code else text.str.to_uppercase()
    has_price = "unit_price" in lines.columns
    price = pl.lit(read_prices(lines.frame["unit_price"])) if has_price else pl.lit(None, pl.Float64)
    frame = lines.frame.with_columns(
        item.alias(ITEM_ID),
        text.alias("description"),
        pl.col("quantity").cast(pl.Float64, strict=False),
        price.alias("unit_price"),
    )
    table, note = replace(lines, frame=frame), "the description is the item: there is no column of stock codes"
    table = table if has_code else table.note(note)
    no_goods = pl.col(ITEM_ID).str.contains(_NO_GOODS_CODE if has_code else _NO_GOODS)
    goods = frame.filter(~no_goods.fill_null(False))
    n_other = frame.height - goods.height
    table = replace(table, frame=goods).note(f"{n_other:,} lines are postage, fees and the like and were left out")
    seconds, note = _parse_minutes(table.frame["invoice_date"])
    table = replace(table, frame=table.frame.with_columns(seconds.alias(TIMESTAMP))).note(note)
    table = table.set_aside(~pl.col("quantity").is_finite().fill_null(False), "the quantity is not a number")
    table = table.set_aside(pl.col(TIMESTAMP).is_null(), "the invoice date cannot be read")
    if table.frame.is_empty():  # what is made of the lines would only say that nothing is left
        require_few_bad(table, max_bad_share)
    return table


def _parse_minutes(dates: pl.Series) -> tuple[pl.Series, str]:
    """Unix seconds, UTC assumed. Dates with slashes are read in the order, month or day first, that fits more of them."""
    if dates.dtype == pl.String and int(dates.str.contains("/", literal=True).sum()) * 2 > len(dates):
        whole = dates.str.replace(r"^(\s*\d+/\d+/)(\d{2}) ", "${1}20${2} ")  # as Excel writes them in some countries
        parts = whole.str.extract_groups(
            r"^\s*(\d+/\d+/\d{4} \d+:\d{2})(?::\d{2})?\s*(?:([AaPp])[Mm])?\s*$"
        ).struct.unnest()
        clock, half = parts["1"], parts["2"].str.to_uppercase().fill_null("")
        hour = clock.str.extract(r" (\d+):").cast(pl.Int64).fill_null(0)
        # 12 AM is midnight, 12 PM is noon.
        later = pl.when((half == "P") & (hour < 12)).then(12).when((half == "A") & (hour == 12)).then(-12).otherwise(0)
        added_s = pl.select(3600.0 * later).to_series()
        read = [clock.str.to_datetime(way, time_unit="us", strict=False) for way in _SLASHED]
        best = 0 if read[0].null_count() <= read[1].null_count() else 1
        order = ("month/day/year", "day/month/year")[best]
        return read[best].dt.epoch("us") / 1e6 + added_s, f"dates read as {order}, UTC assumed"
    parsed = parse_times(dates)
    return parsed.seconds, parsed.note


def _describe_goods(lines: Table) -> Table:
    """One row an item: its commonest description, its median price, and the band of that price."""
    priced = pl.when(pl.col("unit_price") > 0).then("unit_price")
    described = (
        lines.frame.drop_nulls([ITEM_ID, "description"]).group_by(ITEM_ID, "description").agg(pl.len().alias("n"))
    )
    described = described.sort(["n", "description"], descending=[True, False]).unique(ITEM_ID, keep="first")
    frame = (
        lines.frame.drop_nulls(ITEM_ID)
        .group_by(ITEM_ID, maintain_order=True)
        .agg(pl.col(ROW).first(), price=priced.median())
    )
    frame = frame.join(described, on=ITEM_ID, how="left", maintain_order="left")
    frame = frame.select(
        ROW,
        ITEM_ID,
        pl.col("description").str.to_titlecase().alias("title"),
        "price",
        price_band(pl.col("price")).alias("price_band"),
    )
    return Table(lines.name, frame, frame.height)


def _known_customers(lines: Table) -> Table:
    customer = pl.col(USER_ID)
    if lines.frame.schema[USER_ID].is_float():
        customer = pl.when(customer.is_finite()).then(customer).cast(pl.Int64)
    customer = customer.cast(pl.String).str.strip_chars().str.replace(r"\.0+$", "")
    frame = lines.frame.with_columns(customer.alias(USER_ID))
    kept = frame.filter(pl.col(USER_ID).str.len_bytes() > 0)
    n_without = frame.height - kept.height
    table = replace(lines, frame=kept)
    return (
        table.note(f"{n_without:,} of {lines.n_rows:,} lines name no customer and were set aside")
        if n_without
        else table
    )


def _purchases(lines: Table) -> Table:
    """One event for each (customer, item, minute) of which something was kept."""
    keys = [USER_ID, ITEM_ID, TIMESTAMP]
    bought = (
        lines.frame.drop_nulls(ITEM_ID)
        .group_by(keys, maintain_order=True)
        .agg(pl.col(ROW).first(), pl.col("quantity").sum())
    )
    left = left_after_returns(bought, [USER_ID, ITEM_ID], TIMESTAMP, "quantity")
    left = left.rename({left.columns[_LEFT]: WEIGHT})
    kept = left.filter(pl.col(WEIGHT) > 0).select(ROW, *keys, WEIGHT)
    n_returns = int((bought["quantity"] < 0).sum())
    n_purchases = int((bought["quantity"] > 0).sum())
    table = replace(lines, frame=kept, n_rows=kept.height + lines.quarantine.height)
    n_gone = n_purchases - kept.height
    return table.note(
        f"{n_purchases:,} purchases by customer, item and minute; {n_returns:,} returns took back {n_gone:,} of them wholly"
    )
