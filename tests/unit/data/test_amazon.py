"""Amazon's three formats give the same dataset; printed dicts are read without being run; broken lines are set aside."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lmrec.data.dataset import Dataset
from lmrec.data.sources import TablesConfig, read_amazon
from lmrec.data.sources.loose_json import MAX_LOOSE_CHARS
from lmrec.errors import DataError

LENIENT = TablesConfig(max_bad_share=1.0)
TIMES = [1_400_000_000, 1_400_000_100, 1_400_000_200]
PAIRS = [("u", "B1", 5.0), ("u", "B2", 3.0), ("v", "B1", 4.0)]


def reviews(user: str, item: str, rating: str, time: str, factor: int = 1) -> list[dict[str, Any]]:
    return [{user: u, item: i, rating: r, time: t * factor} for (u, i, r), t in zip(PAIRS, TIMES, strict=True)]


def lines(rows: list[Any]) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def write(folder: Path, **files: str) -> Path:
    """File names with dots are given with double underscores; those ending in gz are packed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return folder


OLD = reviews("reviewerID", "asin", "overall", "unixReviewTime")
META_2014 = [
    "{'asin': 'B1', 'title': \"Bob's Soap\", 'brand': 'Dove', 'categories': [['Beauty', 'Bath']], 'price': 3.5}",
    "{'asin': 'B2', 'title': 'Comb', 'description': 'A \\'fine\\' comb', 'categories': [['Beauty']], 'price': 7.0}",
    "{'asin': 'B9', 'title': 'Never reviewed'}",
]
META_2018 = [
    {"asin": "B1", "title": "Bob&#39;s <b>Soap</b>", "brand": "Dove", "category": ["Beauty", "Bath"], "price": "$3.50"},
    {"asin": "B2", "title": "Comb", "description": ["A 'fine'", "comb"], "category": ["Beauty"], "price": "$7.00"},
    {"asin": "B2", "title": "Comb, crawled again", "category": []},
]
META_2023 = [
    {"parent_asin": "B1", "title": "Bob's Soap", "store": "Dove", "categories": ["Beauty", "Bath"], "price": 3.5},
    {"parent_asin": "B2", "title": "Comb", "description": ["A 'fine' comb"], "categories": ["Beauty"], "price": 7},
]


def of_2014(folder: Path) -> Path:
    return write(folder, reviews_Beauty_5__json__gz=lines(OLD), meta_Beauty__json__gz=lines(META_2014))


def of_2018(folder: Path) -> Path:
    return write(folder, Beauty_5__json__gz=lines(OLD), meta_Beauty__json__gz=lines(META_2018))


def of_2023(folder: Path) -> Path:
    events = [row | {"asin": "variant"} for row in reviews("user_id", "parent_asin", "rating", "timestamp", 1000)]
    return write(folder, Beauty__jsonl=lines(events), meta_Beauty__jsonl=lines(META_2023))


def noted(dataset: Dataset, words: str) -> bool:
    return any(words in note for note in dataset.notes)


def test_three_years_agree(tmp_path: Path) -> None:
    datasets = [read_amazon(lay_out(tmp_path / lay_out.__name__)) for lay_out in (of_2014, of_2018, of_2023)]
    for dataset in datasets:
        rows = dataset.catalog.frame.select("item_id", "title", "brand", "categories", "description", "price_band")
        assert rows.rows() == [
            ("B1", "Bob's Soap", "Dove", "Beauty, Bath", None, "low"),
            ("B2", "Comb", None, "Beauty", "A 'fine' comb", "high"),
        ]
        assert dataset.interactions.time_ts.tolist() == TIMES
        assert dataset.interactions.rating is not None
        assert dataset.interactions.rating.tolist() == [5.0, 3.0, 4.0]
    assert len({dataset.interactions.fingerprint for dataset in datasets}) == 1
    assert datasets[0].catalog.text_columns == ("title", "brand", "categories", "description")
    assert "price_band" in datasets[0].catalog.attribute_columns
    assert noted(datasets[0], "1 products without a review were left out")
    assert noted(datasets[1], "1 lines describe a product again")


def test_unreviewed_products_can_stay(tmp_path: Path) -> None:
    assert read_amazon(of_2014(tmp_path), keep_unreviewed=True).catalog.ids == ["B1", "B2", "B9"]


def test_a_zip_is_read_in_place(tmp_path: Path) -> None:
    folder = of_2018(tmp_path / "files")
    with zipfile.ZipFile(tmp_path / "beauty.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"beauty/{file.name}")
    assert read_amazon(tmp_path / "beauty.zip").fingerprint == read_amazon(folder).fingerprint


@pytest.mark.parametrize(
    "line",
    [
        '{"reviewerID": "w", "asin": ',
        "__import__('os').system('true')",
        "{'asin': open('/etc/passwd')}",
        "{'asin': {1, 2}}",
        "[" * 5_000 + "]" * 5_000,
        "{'asin': 1e999}",
        "null",
        "{'a': '" + "x" * MAX_LOOSE_CHARS + "'}",
    ],
    ids=["cut", "call", "open", "set", "deep", "infinite", "null", "long"],
)
def test_a_broken_line_is_set_aside_with_its_number(tmp_path: Path, line: str) -> None:
    folder = write(tmp_path, B__json=lines([OLD[0], "", line, *OLD[1:]]), meta_B__json=lines(META_2018))
    dataset = read_amazon(folder, LENIENT)
    assert dataset.interactions.n_events == 3
    rows = dataset.quarantine.select("row", "reason").rows()
    assert rows == [(3, "the line is neither JSON nor a Python dict of plain values")]


def test_a_stray_backslash_in_a_printed_dict_is_no_error(tmp_path: Path) -> None:
    meta = ["{'asin': 'B1', 'title': 'a\\d soap'}", META_2014[1]]
    assert read_amazon(write(tmp_path, B__json=lines(OLD), meta_B__json=lines(meta))).catalog.titles[0] == "a\\d soap"


def test_bytes_that_are_no_utf8_cost_a_line(tmp_path: Path) -> None:
    folder = of_2018(tmp_path)
    (folder / "Beauty_5.json.gz").write_bytes(gzip.compress(lines(OLD).encode() + b'{"reviewerID": "\xff"}\n'))
    assert read_amazon(folder, LENIENT).quarantine["reason"].to_list() == ["bad UTF-8"]


def test_missing_fields_are_set_aside_by_the_common_checks(tmp_path: Path) -> None:
    more = [
        {"asin": "B1", "overall": 5, "unixReviewTime": 1},
        {"reviewerID": "w", "asin": "B1", "unixReviewTime": "soon"},
        {"reviewerID": "w", "asin": "unknown", "unixReviewTime": 1},
    ]
    folder = write(tmp_path, B__json=lines([*OLD, *more]), meta_B__json=lines(META_2018))
    assert sorted(read_amazon(folder, LENIENT).quarantine["row"].to_list()) == [4, 5, 6]
    with pytest.raises(DataError, match=r"B\.json, row 4: 3 of 6 rows cannot be used, over the limit of 5%"):
        read_amazon(folder)


def test_pieces_of_web_pages_are_no_title(tmp_path: Path) -> None:
    meta = [{"asin": "B1", "title": "var aPageStart = (new Date()).getTime();"}, {"asin": "B2", "title": "Comb"}]
    assert read_amazon(write(tmp_path, B__json=lines(OLD), meta_B__json=lines(meta))).catalog.titles == ["B1", "Comb"]


@pytest.mark.parametrize(
    "title",
    ["Clock with snooze function (white)", "Multi function ( 3 in 1 ) lamp", "var resistor kit", "Function (x) poster"],
)
def test_titles_that_sound_like_script_stay(tmp_path: Path, title: str) -> None:
    meta = [{"asin": "B1", "title": title}, {"asin": "B2", "title": "(function(f) {var _np=(window.P._namespace());"}]
    assert read_amazon(write(tmp_path, B__json=lines(OLD), meta_B__json=lines(meta))).catalog.titles == [title, "B2"]


def test_what_is_no_pair_of_files_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"needed one file of reviews and one of products .*found \['B\.json'\] and \[\]"
    ):
        read_amazon(write(tmp_path / "one", B__json=lines(OLD)))
    with pytest.raises(DataError, match="--source tables"):
        read_amazon(write(tmp_path / "tables", items__parquet="x", interactions__parquet="x"))
    damaged = of_2018(tmp_path / "damaged")
    (damaged / "Beauty_5.json.gz").write_bytes((damaged / "Beauty_5.json.gz").read_bytes()[:-20])
    with pytest.raises(DataError, match=r"Beauty_5\.json\.gz: the file is damaged"):
        read_amazon(damaged)
    with pytest.raises(DataError, match="no product of this file has a review"):
        read_amazon(write(tmp_path / "two", B__json=lines(OLD), meta_C__json=lines([{"asin": "Z", "title": "z"}])))


def test_what_macos_adds_to_an_archive_is_passed_over(tmp_path: Path) -> None:
    folder = of_2018(tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
            archive.writestr(f"__MACOSX/._{file.name}", b"notes")
    packed, plain = read_amazon(tmp_path / "packed.zip"), read_amazon(folder)
    assert packed.fingerprint == plain.fingerprint
