"""Small repairs of words and prices that several sources need."""

import polars as pl

PRICE, PRICE_BAND = "price", "price_band"
PRICE_BANDS = ("very low", "low", "medium", "high", "very high")
# &amp; comes last, so that &amp;lt; becomes &lt; and not a tag.
_ENTITIES = (("&quot;", '"'), ("&#34;", '"'), ("&#39;", "'"), ("&apos;", "'"), ("&nbsp;", " "), ("&lt;", "<"))
_MORE_ENTITIES = (("&gt;", ">"), ("&amp;", "&"))
_ESCAPES = (("\\n", " "), ("\\r", " "), ("\\t", " "), ('\\"', '"'), ("\\/", "/"), ("\\\\", "\\"))


def plain_words(text: pl.Expr) -> pl.Expr:
    """Text without HTML: tags become spaces, entities their characters, runs of white space one space; blank is null."""
    text = text.str.replace_all(r"<[^<>]*>", " ")
    for entity, character in (*_ENTITIES, *_MORE_ENTITIES):
        text = text.str.replace_all(entity, character, literal=True)
    text = text.str.replace_all(r"\s+", " ").str.strip_chars()
    return pl.when(text.str.len_bytes() > 0).then(text)


def join_json_list(text: pl.Expr, separator: str) -> pl.Expr:
    """All texts in a JSON list, however deep, joined; anything that is no list stays as it is."""
    inner = text.str.extract_all(r'"(?:[^"\\]|\\.)*"').list.eval(pl.element().str.slice(1).str.head(-1))
    joined = inner.list.join(separator).str.replace_all(r"\\u[0-9a-fA-F]{4}", " ")
    for escape, character in _ESCAPES:
        joined = joined.str.replace_all(escape, character, literal=True)
    return pl.when(text.str.starts_with("[")).then(joined).otherwise(text)


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
