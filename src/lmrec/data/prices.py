"""Prices in words: the fifth of its catalog that each lies in, which says more to a language model than a bare number."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import polars as pl

PRICE: Final = "price"
PRICE_BAND: Final = "price_band"
PRICE_BANDS: Final = ("very low", "low", "medium", "high", "very high")
_CURRENCY: Final = r"(?:\p{Sc}|[A-Z]{3})?"
_NUMBER: Final = rf"^\s*{_CURRENCY}\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*{_CURRENCY}\s*$"
_POINTS: Final = r"^\D*[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?\D*$"


def read_prices(column: pl.Series, others: pl.Series | None = None) -> pl.Series:
    """(N,) float64: numbers, also where they are written with a currency (its sign, or three capitals), thousands apart or a
    decimal comma; null where a cell is none. Points set thousands apart where a comma follows, and in a column that has them
    nowhere but before three digits, and some numbers without. others: the cells that say how these are written.

    >>> read_prices(pl.Series(["$5.99", "1,234,567.00", "4,50 €", "₹ 1,299", "5e2", "ask", None])).to_list()
    [5.99, 1234567.0, 4.5, 1299.0, 500.0, None, None]
    >>> read_prices(pl.Series(["49 €", "1.299 €", "2.499,50 €", "1 299,00 EUR"])).to_list()
    [49.0, 1299.0, 2499.5, 1299.0]
    """
    if column.dtype.is_numeric():
        return column.cast(pl.Float64).fill_nan(None)
    words = _without_blanks(column.cast(pl.String))
    grouped = words.str.contains(_POINTS)
    if not _groups_by_points(words if others is None or others.dtype != pl.String else _without_blanks(others)):
        grouped &= words.str.contains(",", literal=True)
    words = pl.select(pl.when(grouped).then(words.str.replace_all(".", "", literal=True)).otherwise(words)).to_series()
    words = words.str.replace_all(r",(\d{3})\b", "${1}")  # thousands
    words = words.str.replace(r"^(\D*\d+),(\d{1,2}\D*)$", "${1}.${2}")  # a decimal comma
    return words.str.extract(_NUMBER).cast(pl.Float64)


def _without_blanks(words: pl.Series) -> pl.Series:
    """Without what sets thousands apart beside points and commas: blanks of all kinds, and apostrophes."""
    return words.str.replace_all(r"[\s\x{a0}\x{202f}'](\d{3})\b", "${1}")


def _groups_by_points(words: pl.Series) -> bool:
    """Whether the points of a column stand before three digits alone, and some of its numbers have none."""
    numbers = words.filter(words.str.contains(r"\d"))
    has_point = numbers.str.contains(r"\d\.\d")
    return bool((has_point == numbers.str.contains(_POINTS)).all()) and not bool(has_point.all())


def price_band(price: pl.Expr) -> pl.Expr:
    """The fifth of the catalog that a price lies in, as words from "very low" to "very high"; null without a price."""
    price = pl.when(price > 0).then(price)
    return _band((price.rank("average") - 0.5) / price.count())


def price_band_among(price: pl.Series, known: pl.Series) -> pl.Series:
    """As `price_band`, of prices that came after those that are known.

    >>> price_band_among(pl.Series([1.0, 9.0, None]), pl.Series([float(n) for n in range(1, 11)])).to_list()
    ['very low', 'very high', None]
    """
    known = known.filter(known > 0).sort()
    below, up_to = (known.search_sorted(price, side=side) for side in ("left", "right"))
    share = pl.when(pl.lit(price > 0)).then((pl.lit(below) + pl.lit(up_to)) / 2 / max(len(known), 1))
    return pl.select(_band(share)).to_series()


def _band(share: pl.Expr) -> pl.Expr:
    band = (share * len(PRICE_BANDS)).floor().clip(0, len(PRICE_BANDS) - 1).cast(pl.Int64)
    return band.replace_strict(dict(enumerate(PRICE_BANDS)), default=None, return_dtype=pl.String)


@dataclass(frozen=True, eq=False)
class PriceBands:
    """known: the prices of a catalog that says their bands; None for one that has none, or words of its own for them. written:
    its cells."""

    known: pl.Series | None
    written: pl.Series | None = None

    @classmethod
    def of(cls, catalog: pl.DataFrame) -> Self:
        """catalog: rows of items."""
        if not {PRICE, PRICE_BAND} <= set(catalog.columns):
            return cls(None)
        is_ours = catalog[PRICE_BAND].drop_nulls().is_in(list(PRICE_BANDS)).all()
        known = read_prices(catalog[PRICE])
        if not (is_ours and catalog[PRICE_BAND].dtype == pl.String and (known > 0).any()):
            return cls(None)
        return cls(known, catalog[PRICE])

    def added_to(self, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Items that came after the catalog, as their fields, each with the band of its price unless it says one itself."""
        if self.known is None:
            return list(items)
        prices = read_prices(pl.Series([item.get(PRICE) for item in items], strict=False), self.written)
        bands = price_band_among(prices, self.known)
        return [
            item if item.get(PRICE_BAND) is not None else {**item, PRICE_BAND: band}
            for item, band in zip(items, bands, strict=True)
        ]
