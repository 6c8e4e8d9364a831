"""Every wrong input has one message with the file, the row and the way out; what can be set aside is set aside."""

import gzip
import json
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from lmrec.data.catalog import Catalog
from lmrec.data.dataset import Dataset
from lmrec.data.prices import PriceBands, price_band, read_prices
from lmrec.data.sources import TablesConfig, read_dataset
from lmrec.data.sources.tables import read_new_items, read_table
from lmrec.data.users import learn_vocabulary, tags_of
from lmrec.errors import DataError, RecipeError
from lmrec.recipe import load_recipe
from lmrec.workflows.prepare import prepare

ITEMS = "item_id,title\na,Red Kettle\nb,Blue Lamp\nc,Green Chair\n"
EVENTS = "user_id,item_id,timestamp\nu,a,1700000000\nu,b,1700000100\nv,c,1700000050\n"
LENIENT = TablesConfig(max_bad_share=1.0)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(
    folder: Path, items: str | bytes = ITEMS, events: str | bytes = EVENTS, config: TablesConfig = LENIENT
) -> Dataset:
    return read_dataset(write(folder, "items.csv", items), write(folder, "events.csv", events), config=config)


def set_aside(dataset: Dataset) -> list[tuple[str, int, str]]:
    return [(Path(file).name, row, reason) for file, row, reason, _ in dataset.quarantine.iter_rows()]


def noted(dataset: Dataset, words: str) -> bool:
    return any(words in note for note in dataset.notes)


# --- what is right


def test_reads_two_small_tables(tmp_path: Path) -> None:
    dataset = read(tmp_path)
    assert dataset.catalog.ids == ["a", "b", "c"]
    assert dataset.catalog.text_columns == ("title",)
    log = dataset.interactions
    assert [log.user_ids[user] for user in log.user_idx] == ["u", "v", "u"]
    assert log.item_idx.tolist() == [0, 2, 1]
    assert log.time_ts.tolist() == [1700000000.0, 1700000050.0, 1700000100.0]
    assert log.weight.tolist() == [1.0, 1.0, 1.0]
    assert dataset.quarantine.is_empty()
    assert noted(dataset, "unix seconds")


def test_all_formats_give_the_same_dataset(tmp_path: Path) -> None:
    items, events = pl.read_csv(ITEMS.encode()), pl.read_csv(EVENTS.encode())
    expected = read(tmp_path).fingerprint
    items.write_parquet(tmp_path / "i.parquet")
    events.write_ndjson(tmp_path / "e.jsonl")
    write(tmp_path, "i.json", json.dumps(items.to_dicts()))
    write(tmp_path, "i.tsv", ITEMS.replace(",", "\t"))
    write(tmp_path, "e.csv.gz", gzip.compress(EVENTS.encode()))
    write(tmp_path, "e.jsonl.gz", gzip.compress((tmp_path / "e.jsonl").read_bytes()))
    write(tmp_path, "e.txt", EVENTS.replace(",", ";"))
    sources = [
        (tmp_path / "i.parquet", tmp_path / "e.jsonl"),
        (tmp_path / "i.json", tmp_path / "e.csv.gz"),
        (str(tmp_path / "i.tsv"), tmp_path / "e.jsonl.gz"),
        (items, tmp_path / "e.txt"),
        (items.lazy(), events),
    ]
    for item_source, event_source in sources:
        assert read_dataset(item_source, event_source).fingerprint == expected


def test_pandas_frames() -> None:
    pandas = pytest.importorskip("pandas")
    items = pandas.DataFrame({"item_id": [1, "2", None], "title": ["Kettle", "Lamp", "Nameless"], 0: [1, 2, 3]})
    events = pandas.DataFrame(
        {"user_id": [1.0, 2.0], "item_id": [1, 2], "timestamp": pandas.to_datetime(["2024-01-01"] * 2)}
    )
    dataset = read_dataset(items, events, config=LENIENT)
    assert dataset.catalog.ids == ["1", "2"]
    assert dataset.catalog.attribute_columns == ("0",)
    assert dataset.interactions.time_ts.tolist() == [1704067200.0] * 2
    assert set_aside(dataset) == [("items", 2, "no item_id")]


def test_columns_are_guessed_and_said(tmp_path: Path) -> None:
    items = 'asin,title,brand,imageURL,price\na,Kettle,Acme,http://x/y.png,3.5\nb,"Lamp, blue",Acme,http://x/z.png,4\n'
    events = "reviewerID,asin,overall,unixReviewTime\nu,a,5,1700000000\nu,b,2,1700000001\n"
    dataset = read(tmp_path, items, events)
    assert noted(dataset, "item_id <- asin")
    assert noted(dataset, "user_id <- reviewerID, item_id <- asin, timestamp <- unixReviewTime, rating <- overall")
    assert dataset.catalog.text_columns == ("title", "brand")
    assert dataset.catalog.attribute_columns == ("imageURL", "price", "price_band")
    assert dataset.interactions.rating is not None
    assert dataset.interactions.rating.tolist() == [5.0, 2.0]


def test_columns_can_be_named(tmp_path: Path) -> None:
    items = "key,words,item_id\na,Red Kettle,1\nb,Blue Lamp,2\n"
    events = "who,what,when\nu,a,2024-01-01\nu,b,2024-01-02\n"
    config = TablesConfig(
        item_columns={"item_id": "key", "title": "words"},
        interaction_columns={"user_id": "who", "item_id": "what", "timestamp": "when"},
        text_columns=("words",),
    )
    dataset = read(tmp_path, items, events, config)
    assert dataset.catalog.ids == ["a", "b"]
    assert dataset.catalog.titles == ["Red Kettle", "Blue Lamp"]
    assert noted(dataset, "the columns ['item_id'] are replaced")


def test_optional_columns_are_kept() -> None:
    items = pl.DataFrame({"item_id": [1, 2], "title": ["Kettle", "Lamp"], "added_at": ["2024-01-01", "never"]})
    events = pl.DataFrame(
        {"user_id": [7, 7], "item_id": [2, 1], "position": [1, 0], "kind": ["buy", "view"], "weight": [2.0, 0.5]}
    )
    users = pl.DataFrame({"user_id": [7, 8], "age": [30, 40]})
    dataset = read_dataset(items, events, users)
    assert dataset.catalog.frame["added_at"].to_list() == [1704067200.0, None]
    assert noted(dataset, "1 values of added_at could not be read")
    log = dataset.interactions
    assert (log.time_kind, log.item_idx.tolist(), log.weight.tolist()) == ("position", [0, 1], [0.5, 2.0])
    assert log.kind is not None
    assert log.kind.tolist() == ["view", "buy"]
    assert dataset.users is not None
    assert dataset.users.frame.to_dicts() == [{"user_id": "7", "age": 30}, {"user_id": "8", "age": 40}]


def test_lists_of_words_become_text(tmp_path: Path) -> None:
    lines = '{"item_id":"a","title":"Kettle","tags":["hot","red"]}\n\n{"item_id":"b","title":"Lamp","tags":[]}\n'
    dataset = read_dataset(write(tmp_path, "items.jsonl", lines), pl.read_csv(EVENTS.encode()), config=LENIENT)
    assert dataset.catalog.frame["tags"].to_list() == ["hot, red", None]


@pytest.mark.parametrize("lossy", [b"", b'{"user_id":"\xff","likes":["sea"]}\n'])
def test_lists_of_users_keep_their_tags_apart(tmp_path: Path, lossy: bytes) -> None:
    lines = b'{"user_id":"7","likes":["hip hop","jazz"]}\n{"user_id":"8","likes":["jazz"]}\n'
    (tmp_path / "users.jsonl").write_bytes(lines + lossy)
    users = read_dataset(
        pl.read_csv(ITEMS.encode()), pl.read_csv(EVENTS.encode()), tmp_path / "users.jsonl", config=LENIENT
    ).users
    assert users is not None
    assert [tags_of(cell) for cell in users.frame["likes"]] == [["hip hop", "jazz"], ["jazz"]]
    assert learn_vocabulary(users, ["likes"]).values == {"likes": ("jazz",)}


@pytest.mark.parametrize("shape", ["json lines", "pandas", "arrays"])
def test_lists_of_users_beside_plain_values_keep_their_tags_apart(tmp_path: Path, shape: str) -> None:
    ids, likes = ["7", "8", "9"], [["hip hop", "jazz"], "jazz", '[New] "age" music']
    users: object = pl.DataFrame({"user_id": ids, "likes": [["hip hop", "jazz"], ["jazz", "tea"], ["a", "b"]]}).cast(
        {"likes": pl.Array(pl.String, 2)}
    )
    if shape == "pandas":
        users = pytest.importorskip("pandas").DataFrame({"user_id": ids, "likes": likes})
    if shape == "json lines":
        rows = [json.dumps({"user_id": one, "likes": like}) for one, like in zip(ids, likes, strict=True)]
        users = write(tmp_path, "users.jsonl", "\n".join(rows))
    table = read_dataset(pl.read_csv(ITEMS.encode()), pl.read_csv(EVENTS.encode()), users, config=LENIENT).users
    assert table is not None
    found = [tags_of(cell) for cell in table.frame["likes"]]
    assert found[0] == ["hip hop", "jazz"]
    assert shape == "arrays" or found[1:] == [["jazz"], ['[New] "age" music']]


def test_columns_of_any_type_come_through(tmp_path: Path) -> None:
    items = pl.read_csv(ITEMS.encode()).with_columns(
        picture=pl.lit(b"\xff"),
        shown_for=pl.lit(timedelta(days=1)),
        day=pl.lit(date(2024, 1, 1)),
        shelf=pl.lit("x").cast(pl.Categorical),
        maker=pl.struct(name=pl.lit("Acme"), since=pl.lit(1900)),
        year=pl.lit(1999),
    )
    conflicting = pl.concat([items, items.head(1).with_columns(title=pl.lit("Other"))])
    config = TablesConfig(text_columns=("title", "year"), max_bad_share=1)
    dataset = read_dataset(conflicting, pl.read_csv(EVENTS.encode()), config=config)
    assert dataset.catalog.frame["year"].to_list() == ["1999"] * 3
    assert dataset.catalog.attribute_columns == ("shown_for", "day", "shelf", "maker")
    assert noted(dataset, "the columns ['picture'] hold bytes and were left out")
    assert json.loads(dataset.quarantine["content"][0])["title"] == "Other"
    dataset.catalog.save_parquet(tmp_path / "catalog.parquet")
    assert Catalog.from_parquet(tmp_path / "catalog.parquet").fingerprint == dataset.catalog.fingerprint


def test_min_rating_keeps_what_was_liked() -> None:
    events = pl.DataFrame({"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "time": [1, 2, 3], "rating": [5, 2, None]})
    dataset = read_dataset(pl.read_csv(ITEMS.encode()), events, config=TablesConfig(min_rating=4))
    assert dataset.interactions.item_idx.tolist() == [0]
    assert noted(dataset, "2 events rated below 4 or not at all were left out")


def test_quotes_in_tab_separated_text_do_not_swallow_lines(tmp_path: Path) -> None:
    items = 'item_id\ttitle\na\t"Wow" says man\nb\t"Half open\nc\t"All ""quoted"""\n'
    dataset = read_dataset(write(tmp_path, "items.tsv", items), pl.read_csv(EVENTS.encode()))
    assert dataset.catalog.titles == ['"Wow" says man', '"Half open', 'All "quoted"']


# --- tables that cannot be used


def test_missing_file_and_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.csv: there is no such file\. Check the path"):
        read_table(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"items\.xlsx: the ending '\.xlsx' is none that can be read\. Use \.csv"):
        read_table(write(tmp_path, "items.xlsx", "x"))
    with pytest.raises(DataError, match=r"items: cannot read a dict\. Give a path, a polars or a pandas data frame"):
        read_table({"a": [1]}, "items")


@pytest.mark.parametrize(("name", "content"), [("e.csv", ""), ("e.csv", "user_id,item_id\n"), ("e.jsonl", "\n")])
def test_empty_tables(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(DataError, match=r"e\.\w+: the table is empty.*Give"):
        read_table(write(tmp_path, name, content))
    with pytest.raises(DataError, match=r"items: the table is empty: there are no rows"):
        read_table(pl.DataFrame(schema={"item_id": pl.String}), "items")


def test_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.parquet: the \.parquet file cannot be read"):
        read_table(write(tmp_path, "x.parquet", "not parquet"))
    with pytest.raises(DataError, match=r"x\.csv\.gz: the gzip file is damaged.*Pack it again"):
        read_table(write(tmp_path, "x.csv.gz", "not gzip"))
    packed = bytearray(gzip.compress(b"a,b\n" + b"1,2\n3,4\n5,7\n" * 400))
    packed[20:24] = b"\xff\xff\xff\xff"  # past the head: what is packed is not what it says
    with pytest.raises(DataError, match=r"y\.csv\.gz: the gzip file is damaged.*Pack it again"):
        read_table(write(tmp_path, "y.csv.gz", bytes(packed)))
    with pytest.raises(DataError, match=r"x\.csv, row 3: the row has 3 fields, the header 2\. Quote fields that hold"):
        read_table(write(tmp_path, "x.csv", "a,b\n1,2\n3,4,5\n"))
    with pytest.raises(DataError, match=r"x\.jsonl, row 3: the line is not JSON .*Write one JSON object a line"):
        read_table(write(tmp_path, "x.jsonl", '{"a": 1}\n\n{"a": \n'))


def test_missing_columns(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"items\.csv: there is no column 'item_id'.*item_columns\.item_id = \"YOUR COLUMN\""
    ):
        read(tmp_path, items="key,title\na,Kettle\n")
    with pytest.raises(DataError, match=r"events\.csv: there is no column 'timestamp'.*interaction_columns\.timestamp"):
        read(tmp_path, events="user_id,item_id\nu,a\n")
    with pytest.raises(DataError, match=r"no column 'rating'.*found \['user_id'"):
        read(tmp_path, config=TablesConfig(min_rating=3))
    with pytest.raises(
        DataError, match=r"items\.csv: there is no column 'titel' for item_columns\.title\. Did you mean 'title'"
    ):
        read(tmp_path, config=TablesConfig(item_columns={"title": "titel"}))
    with pytest.raises(DataError, match=r"there is no text column 'titel'\. Did you mean 'title'"):
        read(tmp_path, config=TablesConfig(text_columns=("titel",)))
    with pytest.raises(DataError, match=r"interaction_columns has no 'timestam'\. Did you mean 'timestamp'"):
        read(tmp_path, config=TablesConfig(interaction_columns={"timestam": "time"}))
    with pytest.raises(DataError, match=r"no column holds words to describe the items.*text_columns"):
        read(tmp_path, items="item_id,price\na,1\nb,2\nc,3\n")


def test_unknown_option_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_bad"):
        TablesConfig(max_bad=0.1)  # type: ignore[call-arg]


# --- rows that can be set aside


def test_duplicated_items(tmp_path: Path) -> None:
    dataset = read(tmp_path, items=ITEMS + "a,Red Kettle\nb,Another Lamp\n")
    assert noted(dataset, "1 rows repeat an earlier row exactly and were dropped")
    assert set_aside(dataset) == [("items.csv", 6, "another row has the same item_id")]
    assert "Another Lamp" in dataset.quarantine["content"][0]
    assert dataset.catalog.titles[1] == "Blue Lamp"


def test_events_of_unknown_items(tmp_path: Path) -> None:
    dataset = read(tmp_path, events=EVENTS + "u,zzz,1700000200\n")
    assert set_aside(dataset) == [("events.csv", 5, "the item is not in the catalog")]
    assert json.loads(dataset.quarantine["content"][0]) == {"user_id": "u", "item_id": "zzz", "timestamp": "1700000200"}


def test_times_that_cannot_be(tmp_path: Path) -> None:
    tomorrow = int(time.time()) + 3 * 86_400
    dataset = read(tmp_path, events=EVENTS + f"u,c,soon\nu,c,{tomorrow}\nv,a,\n")
    assert set_aside(dataset) == [
        ("events.csv", 5, "the time is neither unix seconds nor ISO 8601"),
        ("events.csv", 7, "the time is neither unix seconds nor ISO 8601"),
        ("events.csv", 6, "the time is in the future"),
    ]
    positions = "user_id,item_id,position\nu,a,0\nu,b,1.5\n"
    assert set_aside(read(tmp_path, events=positions)) == [("events.csv", 3, "the position is not a whole number")]


def test_rows_without_ids(tmp_path: Path) -> None:
    dataset = read(tmp_path, items=ITEMS + ",Nameless\n", events=EVENTS + "NaN,a,1700000000\nu,,1700000000\n")
    assert set_aside(dataset) == [
        ("items.csv", 5, "no item_id"),
        ("events.csv", 5, "no user_id"),
        ("events.csv", 6, "no item_id"),
    ]


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (np.nan, "weight is not a finite number"),
        (np.inf, "weight is not a finite number"),
        (None, "weight is not a finite number"),
        (-1.0, "weight is below 0"),
    ],
)
def test_weights_that_are_not_finite_or_negative(weight: float | None, reason: str) -> None:
    events = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [1, 2], "weight": [1.0, weight]})
    dataset = read_dataset(pl.read_csv(ITEMS.encode()), events, config=LENIENT)
    assert set_aside(dataset) == [("interactions", 1, reason)]
    assert dataset.interactions.n_events == 1


def test_ratings_that_are_not_numbers(tmp_path: Path) -> None:
    events = "user_id,item_id,timestamp,rating\nu,a,1,5\nu,b,2,good\nu,c,3,\n"
    dataset = read(tmp_path, events=events)
    assert set_aside(dataset) == [("events.csv", 3, "rating is not a finite number")]
    assert np.isnan(dataset.interactions.rating[1])  # type: ignore[index]


def test_mixed_id_types_are_one_id(tmp_path: Path) -> None:
    items = "item_id,title\n1,Kettle\n2,Lamp\n"
    events = "user_id,item_id,timestamp\n7.0,1.0,1\n7,2.0,2\n"
    dataset = read(tmp_path, items, events)
    assert dataset.interactions.user_ids == ["7"]
    assert dataset.interactions.item_idx.tolist() == [0, 1]
    assert noted(dataset, "item_id mixes whole numbers and floats and is read as whole numbers")

    floats = pl.DataFrame({"user_id": [7.0, None], "item_id": [1, 2], "timestamp": [1, 2]})
    dataset = read_dataset(pl.read_csv(items.encode()), floats, config=LENIENT)
    assert dataset.interactions.user_ids == ["7"]
    assert set_aside(dataset) == [("interactions", 1, "no user_id")]


def test_ids_that_are_no_ids() -> None:
    events = pl.DataFrame({"user_id": [1.0, 1.5], "item_id": ["a", "b"], "timestamp": [1, 2]})
    with pytest.raises(
        DataError, match=r"interactions, row 1: user_id 1\.5 is a fraction\. Ids are texts or whole numbers"
    ):
        read_dataset(pl.read_csv(ITEMS.encode()), events)
    with pytest.raises(DataError, match=r"interactions: user_id is of type Boolean"):
        read_dataset(pl.read_csv(ITEMS.encode()), events.with_columns(user_id=pl.lit(True)))


def test_leading_zeros_stay(tmp_path: Path) -> None:
    dataset = read(tmp_path, "item_id,title\n007,Kettle\n7,Lamp\n", "user_id,item_id,timestamp\n01,007,1\n1,7,2\n")
    assert dataset.catalog.ids == ["007", "7"]
    assert dataset.interactions.user_ids == ["01", "1"]


def test_bad_utf8_names_the_line(tmp_path: Path) -> None:
    broken = b'item_id,title\na,"Red\nKettle"\nb,caf\xe9\nc,Green Chair\n'
    dataset = read(tmp_path, items=broken)
    # The quoted title spans lines 2 and 3, so item b is on line 4.
    assert ("items.csv", 4, "bad UTF-8") in set_aside(dataset)
    assert dataset.catalog.ids == ["a", "c"]
    lines = b'{"item_id":"a","title":"Kettle"}\n\n{"item_id":"b","title":"caf\xe9"}\n'
    dataset = read_dataset(write(tmp_path, "items.jsonl", lines), tmp_path / "events.csv", config=LENIENT)
    assert ("items.jsonl", 3, "bad UTF-8") in set_aside(dataset)
    with pytest.raises(DataError, match=r"items\.csv, row 1: the header is not UTF-8.*Save the file as UTF-8"):
        read(tmp_path, items=b"item_id,caf\xe9\na,Kettle\n")


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"items\.csv, row 2: 2 of 2 rows cannot be used.*2 x bad UTF-8 \(row 2"):
        read(tmp_path, items="item_id,title\na,café\nb,thé\n".encode("latin-1"), config=TablesConfig())


def test_a_very_long_text_is_cut_and_counted(tmp_path: Path) -> None:
    dataset = read(tmp_path, items=ITEMS + "d," + "long word " * 100_000 + "\n")
    assert noted(dataset, "1 items had a text over 20,000 characters, which was cut (item 'd', row 5)")
    assert len(dataset.catalog.titles[3]) <= 20_000
    assert dataset.quarantine.is_empty()


def test_an_item_without_text_stays(tmp_path: Path) -> None:
    dataset = read(tmp_path, items=ITEMS + 'd,"  "\n')
    assert dataset.catalog.ids == ["a", "b", "c", "d"]
    assert dataset.catalog.titles[3] == "d"
    assert noted(dataset, "1 items have no text and can only be told by their id (item 'd', row 5)")


def test_duplicated_events_keep_the_first(tmp_path: Path) -> None:
    dataset = read(tmp_path, events=EVENTS + "u,a,1700000000\n")
    assert dataset.interactions.n_events == 3
    assert noted(dataset, "1 events repeat an earlier one and were dropped")


def test_blank_lines_do_not_shift_rows(tmp_path: Path) -> None:
    dataset = read(tmp_path, events=EVENTS.replace("\nv", "\n\nv") + "u,zzz,1\n")
    assert set_aside(dataset) == [("events.csv", 6, "the item is not in the catalog")]


def test_too_many_bad_rows_stop_the_reading(tmp_path: Path) -> None:
    events = EVENTS + "u,zzz,1700000000\nu,yyy,1700000000\nu,a,soon\n"
    with pytest.raises(DataError) as caught:
        read(tmp_path, events=events, config=TablesConfig())
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'events.csv'}, row 5: 3 of 6 rows cannot be used, over the limit of 5%")
    assert "2 x the item is not in the catalog (row 5" in message
    assert "1 x the time is neither unix seconds nor ISO 8601 (row 7" in message
    assert message.endswith("Mend the table, or raise the limit: --set data.max_bad_share=0.2")


def test_nothing_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"events\.csv: no event is left after the checks"):
        read(tmp_path, events="user_id,item_id,timestamp\nu,zzz,1\n")


def test_ids_of_mixed_types_are_text_and_said() -> None:
    pandas = pytest.importorskip("pandas")
    items = pandas.DataFrame(
        {"item_id": [1, "b", 3.0, "4"], "title": ["one thing", "two things", "three things", "more"]}
    )
    events = pl.DataFrame({"user_id": ["u"] * 4, "item_id": ["1", "b", "3", "4"], "timestamp": [1_600_000_000] * 4})
    dataset = read_dataset(items, events)
    assert dataset.catalog.ids == ["1", "b", "3", "4"]
    assert len(dataset.interactions) == 4
    assert any("item_id mixes numbers and other texts (row 1: 'b')" in note for note in dataset.notes)


def priced(prices: Sequence[object]) -> pl.DataFrame:
    return pl.DataFrame({"item_id": [f"i{at}" for at in range(len(prices))], "title": "Red Kettle", "price": prices})


def test_prices_that_are_numbers_have_bands(tmp_path: Path) -> None:
    prices = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "", "0"]
    priced(prices).write_csv(tmp_path / "items.csv")
    events = pl.DataFrame({"user_id": ["u"], "item_id": ["i0"], "timestamp": [1_700_000_000]})
    dataset = read_dataset(tmp_path / "items.csv", events)
    frame, bands = dataset.catalog.frame, ("very low", "low", "medium", "high", "very high")
    assert frame["price_band"].to_list() == [*(band for band in bands for _ in range(2)), None, None]
    assert frame["price"].to_list() == prices, "prices stay as they are"
    assert dataset.catalog.text_columns == ("title",)
    assert "price_band" in dataset.catalog.attribute_columns
    assert any(note.endswith("from 'very low' to 'very high'") for note in dataset.notes)
    same = pl.DataFrame({"price": [float(price or 0) for price in prices]}).select(price_band(pl.col("price")))
    assert same.to_series().to_list() == frame["price_band"].to_list(), "as sources that band prices themselves do"
    chosen = read_dataset(tmp_path / "items.csv", events, config=TablesConfig(text_columns=("title", "price_band")))
    assert chosen.catalog.text_columns == ("title", "price_band")


def test_new_items_are_banded_among_the_catalogs_prices() -> None:
    events = pl.DataFrame({"user_id": ["u"], "item_id": ["i0"], "timestamp": [1_700_000_000]})
    catalog = read_dataset(priced([float(price) for price in range(1, 11)]), events).catalog
    new = pl.DataFrame({"item_id": ["n1", "n2", "n3"], "title": "Blue Lamp", "price": [9.5, 99.0, None]})
    assert read_new_items(new, catalog)["price_band"].to_list() == ["very high", "very high", None]
    said = read_new_items(new.with_columns(price_band=pl.lit("low")), catalog)
    assert said["price_band"].to_list() == ["low"] * 3, "what the table says stands"


@pytest.mark.parametrize(
    ("prices", "told"),
    [(["1", "2", "ask"], "2 of 3"), ([None, None], ""), (["0", "0"], "0 of 2"), (["cheap", "dear"], "0 of 2")],
)
def test_what_is_no_number_has_no_bands(prices: list[object], told: str) -> None:
    events = pl.DataFrame({"user_id": ["u"], "item_id": ["i0"], "timestamp": [1_700_000_000]})
    dataset = read_dataset(priced(prices), events)
    assert "price_band" not in dataset.catalog.frame.columns
    notes = [note for note in dataset.notes if "price_band" in note]
    assert notes == ([f"items: no price_band: {told} values of price are numbers above 0"] if told else [])


def test_signs_of_currencies_and_a_few_other_words_leave_the_bands() -> None:
    events = pl.DataFrame({"user_id": ["u"], "item_id": ["i0"], "timestamp": [1_700_000_000]})
    dataset = read_dataset(priced([*(f"${price},000.99" for price in range(1, 11)), "N/A"]), events)
    bands = [band for band in ("very low", "low", "medium", "high", "very high") for _ in range(2)]
    assert dataset.catalog.frame["price_band"].to_list() == [*bands, None]
    assert any("1 of 11 values of price are no numbers" in note for note in dataset.notes)
    new = pl.DataFrame({"item_id": ["n1", "n2", "n3"], "title": "Blue Lamp", "price": ["9,500", "€ 1", "ask"]})
    assert read_new_items(new, dataset.catalog)["price_band"].to_list() == ["very high", "very low", None]
    assert read_new_items(new[2:], dataset.catalog)["price_band"].to_list() == [None], "alone, too"
    millions = read_dataset(priced([f"{price},000,000" for price in range(1, 11)]), events).catalog
    assert millions.frame["price_band"].to_list() == bands
    posted = PriceBands.of(dataset.catalog.frame).added_to([{"price": "$9,500"}, {"price": None}, {}])
    assert [item["price_band"] for item in posted] == ["very high", None, None], "in a running service, too"


def test_floats_that_cannot_tell_ids_apart_are_refused() -> None:
    """What pandas makes of large ids where one is missing."""
    events = pl.DataFrame({"user_id": [1.0, 1234567890123456789.0], "item_id": ["a", "b"], "timestamp": [1e9, 1e9]})
    with pytest.raises(
        DataError, match=r"user_id came as floats, and from 9007199254740992 on, such as at 12345\d+, .*dtype=str"
    ):
        read_dataset(pl.DataFrame({"item_id": ["a", "b"], "title": ["Red Kettle", "Blue Lamp"]}), events)
    for first, second, of in ((2.0**53, 1.0, pl.Float64), (2.0**24, 1.0, pl.Float32)):
        merged = events.with_columns(pl.Series("user_id", [first, second], of))
        with pytest.raises(DataError, match="tell no two neighbours apart"):
            read_dataset(pl.DataFrame({"item_id": ["a", "b"], "title": ["Red Kettle", "Blue Lamp"]}), merged)
    exact = events.with_columns(pl.Series("user_id", [1, 2**64 - 1], pl.UInt64))
    read_ids = read_dataset(
        pl.DataFrame({"item_id": ["a", "b"], "title": ["Red Kettle", "Blue Lamp"]}), exact
    ).interactions.user_ids
    assert set(read_ids) == {"1", "18446744073709551615"}


@pytest.mark.parametrize(
    ("written", "prices"),
    [
        (["49 €", "999 €", "1.299 €"], [49.0, 999.0, 1299.0]),
        (["1.299,00 €", "1 299,00 €", "12,50 EUR", "4.50"], [1299.0, 1299.0, 12.5, 4.5]),
        (["1.299", "1.359"], [1.299, 1.359]),  # of petrol, say: nothing tells that these are thousands
        (["0.125", "3"], [0.125, 3.0]),
        (["$5.99", "1.299"], [5.99, 1.299]),
        (["1'299.00", "USD 1\u202f299.50", "5 kg"], [1299.0, 1299.5, None]),
        (["1 234 567 €", "1'234'567.50", "CHF 12 345 678"], [1234567.0, 1234567.5, 12345678.0]),
        (["1.299", "1.349", "ask", "", None], [1.299, 1.349, None, None, None]),
    ],
)
def test_prices_are_read_as_their_column_is_written(written: list[str], prices: list[float | None]) -> None:
    assert read_prices(pl.Series(written)).to_list() == prices


def test_a_price_that_comes_later_is_read_as_the_catalogs_are() -> None:
    prices = [f"{n} €" for n in range(10, 100, 10)] + ["1.299 €"]
    items = pl.DataFrame({"item_id": [str(n) for n in range(10)], "title": ["Lamp"] * 10, "price": prices})
    catalog = read_dataset(items, pl.DataFrame({"user_id": ["u"], "item_id": ["1"], "timestamp": [1e9]})).catalog
    bands = PriceBands.of(catalog.frame)
    for beside in ([], [{"item_id": "y", "price": "12.50 €"}], [{"item_id": "y", "price": 12.5}]):
        later = bands.added_to([{"item_id": "x", "price": "1.500 €"}, *beside])
        assert [item["price_band"] for item in later] == ["very high", "very low"][: len(later)]


def test_words_of_ones_own_are_asked_for_before_anything_is_learnt() -> None:
    items = pl.DataFrame({"item_id": ["a", "b"], "name": ["Red Kettle", "Blue Lamp"]})
    events = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [1e9, 1e9 + 1]})
    with pytest.raises(
        DataError, match=r"there is no text column 'title'.*--set 'data.text_columns=\[\"YOUR COLUMN\"\]'"
    ):
        read_dataset(items, events, config=TablesConfig(text_columns=("title",)))
    recipe = load_recipe(overrides=["template.item={title}", "split.kind=none"])
    with pytest.raises(
        RecipeError, match=r"names the column 'title', .* Write your own: --set 'template.item=\{YOUR COLUMN\}'"
    ):
        prepare(items, events, None, recipe)
