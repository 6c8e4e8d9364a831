"""Amazon reviews and product data in the formats of 2014, 2018 and 2023, plain or gzip, one product category a folder.

| year | reviews                              | products                                                     |
|------|--------------------------------------|--------------------------------------------------------------|
| 2014 | reviews_Beauty_5.json.gz             | meta_Beauty.json.gz, printed Python dicts instead of JSON    |
| 2018 | Gift_Cards_5.json.gz                 | meta_Gift_Cards.json.gz                                      |
| 2023 | All_Beauty.jsonl.gz, times in ms     | meta_All_Beauty.jsonl.gz, joined by parent_asin              |
"""

import re
from dataclasses import replace
from pathlib import Path

import polars as pl

from lmrec.data.dataset import Dataset
from lmrec.data.prices import price_band
from lmrec.data.sources import words
from lmrec.data.sources.checks import require_few_bad
from lmrec.data.sources.files import SourceFiles, open_files
from lmrec.data.sources.loose_json import read_fields
from lmrec.data.sources.reading import Table
from lmrec.data.sources.tables import TablesConfig, read_dataset
from lmrec.errors import DataError
from lmrec.fields import ITEM_ID, RATING, TIMESTAMP, USER_ID

TEXT_COLUMNS = ("title", "brand", "categories", "description")
ATTRIBUTE_COLUMNS = ("brand", "categories", "main_category", "price", "price_band")

_REVIEW_FIELDS = {
    USER_ID: ("reviewerID", "user_id"),
    ITEM_ID: ("parent_asin", "asin"),
    RATING: ("overall", "rating"),
    TIMESTAMP: ("unixReviewTime", "timestamp"),
}
_PRODUCT_FIELDS = {
    ITEM_ID: ("parent_asin", "asin"),
    "title": ("title",),
    "brand": ("brand", "store"),
    "categories": ("categories", "category"),
    "description": ("description",),
    "features": ("features", "feature"),
    "main_category": ("main_category", "main_cat"),
    "price": ("price",),
}
_LISTS = {"categories": ", ", "description": " ", "features": " "}
_LINES = re.compile(r"\.(json|jsonl)(\.gz)?$")
# Pieces of web pages that the crawl of 2018 took for texts; "Clock with snooze function (white)" is none.
_SCRIPT = r"getTime\(\)|function\s*\w*\s*\([\w\s,]*\)\s*\{|^\s*var\s+\w+\s*=|P\.when\("
_ASK = "Give a folder with one reviews file and its meta file, such as Beauty_5.json.gz and meta_Beauty.json.gz"


def read_amazon(path: Path | str, config: TablesConfig | None = None, *, keep_unreviewed: bool = False) -> Dataset:
    """Reviews as rated interactions, products as items with title, brand, categories and description.

    Products without a review in the file are left out and counted, as in published tables; `keep_unreviewed` keeps
    them as cold items. Raises `DataError` where the two files are not found, or too many lines are broken.
    """
    config = config or TablesConfig()
    files = open_files(path, "", _ASK)
    reviews_name, meta_name = _find_pair(files)
    reviews = read_fields(files.read_lines(reviews_name), _REVIEW_FIELDS)
    products = read_fields(files.read_lines(meta_name), _PRODUCT_FIELDS)
    for table in (reviews, products):
        require_few_bad(table, config.max_bad_share)
    if not keep_unreviewed:
        products = _keep_reviewed(products, reviews)
    products = _first_of_each(_tidy(products))
    config = config.model_copy(update={"text_columns": config.text_columns or TEXT_COLUMNS})
    dataset = read_dataset(products, reviews, config=config)
    catalog = replace(dataset.catalog, attribute_columns=ATTRIBUTE_COLUMNS)
    return replace(dataset, catalog=catalog, source=f"Amazon reviews ({files.label(reviews_name)})")


def _find_pair(files: SourceFiles) -> tuple[str, str]:
    """(the reviews file, the products file)."""
    names = [name for name in files.names if _LINES.search(name.lower())]
    meta = [name for name in names if name.lower().startswith("meta")]
    reviews = [name for name in names if name not in meta]
    if len(meta) == 1 and len(reviews) == 1:
        return reviews[0], meta[0]
    hint = "These look like plain tables: --source tables. " if "items.parquet" in files else ""
    raise DataError(
        f"needed one file of reviews and one of products (meta_*), each .json or .jsonl, plain or .gz; found "
        f"{reviews} and {meta}. {hint}{_ASK}",
        file=files.path,
    )


def _keep_reviewed(products: Table, reviews: Table) -> Table:
    known = products.frame[ITEM_ID].is_in(reviews.frame[ITEM_ID].drop_nulls().unique().implode())
    n_left_out = int((~known.fill_null(True)).sum())
    products = replace(products, frame=products.frame.filter(known.fill_null(True)))
    if products.frame.is_empty():
        raise DataError(
            "no product of this file has a review in the other. Give files of one category", file=products.name
        )
    return products.note(f"{n_left_out:,} products without a review were left out") if n_left_out else products


def _first_of_each(products: Table) -> Table:
    """The crawl holds some products more than once, in slightly different states; one is enough."""
    first = pl.col(ITEM_ID).is_null() | pl.col(ITEM_ID).is_first_distinct()
    kept = products.frame.filter(first)
    n_more = products.frame.height - kept.height
    products = replace(products, frame=kept)
    return products.note(f"{n_more:,} lines describe a product again and were left out") if n_more else products


def _tidy(products: Table) -> Table:
    """Lists joined, HTML and script taken out, the price as a number and as a band of this catalog."""
    lists = [words.join_json_list(pl.col(name), separator).alias(name) for name, separator in _LISTS.items()]
    texts = [name for name in _PRODUCT_FIELDS if name not in (ITEM_ID, "price")]
    frame = products.frame.with_columns(lists)
    frame = frame.with_columns(pl.when(~pl.col(texts).str.contains(_SCRIPT)).then(pl.col(texts)))
    frame = frame.with_columns(words.plain_words(pl.col(name)).alias(name) for name in texts)
    price = pl.col("price").str.replace_all(",", "").str.extract(r"^\s*\$?\s*(\d+(?:\.\d+)?)").cast(pl.Float64)
    frame = frame.with_columns(price.alias("price")).with_columns(price_band(pl.col("price")).alias("price_band"))
    return replace(products, frame=frame)
