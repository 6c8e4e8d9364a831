"""scripts/sequence_tables.py: what repositories of papers keep, as the two tables, from excerpts in their formats."""

import json
import os
from pathlib import Path

import polars as pl
import pytest

from lmrec.data.sources import read_source
from scripts.sequence_tables import main

SEQUENCES = {"0": [0, 1, 2, 3, 4], "1": [5, 6, 7, 8, 9, 3, 10]}
TITLES = """org_id remap_id title
B004756YJA 0 "OPI Nail Lacquer, Simmer and Shimmer, 0.5-Fluid Ounce"
B004ZT0SSG 1 "OPI Red Shatter Crackle Nail Polish E55 New"
B0020YLEYK 2 "SKIN79 The Prestige ""Beblesh"" Balm"
B0009P4PZC 3 "Cococare Coconut Oil 100% Pure 4 Oz"
B009HULFLW 4 Mascara
B00BZ1QN2C 5 "Freeman Facial Charcoal &amp; Black Sugar Polish Mask 6 oz."
B00G2TQNZ4 6 "Vitamin C Serum for Face 20%"
B00812ZWOS 7 "My Beauty Diary Facial Mask - Caviar Mask (10 Pcs)"
7806397051 8 "WAWO 15 Color Professionl Makeup Eyeshadow"
B002WLWX82 9 "Ruby Kisses"
B0000YUX4O 10 "Almay"
"""


def write(folder: Path) -> Path:
    (folder / "Beauty.inter.json").write_text(json.dumps(SEQUENCES))
    (folder / "item_list.txt").write_text(TITLES)
    words = {str(item): {"title": f"Ärmel {item}.", "description": "", "brand": "3M"} for item in range(11)}
    (folder / "Beauty.item.json").write_text(json.dumps(words))
    return folder


def convert(folder: Path, *choices: str) -> int:
    chosen = [str(folder / word) if word.endswith((".json", ".txt")) else word for word in choices]
    return main([*chosen, "--out", str(folder / "out")])


def test_sequences_and_items_become_tables_that_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(write(tmp_path), "Beauty.inter.json", "--items", "Beauty.item.json") == 0
    assert "2 users, 11 items and 12 interactions" in capsys.readouterr().out
    items, events = (pl.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("items", "interactions"))
    assert items.row(10) == ("10", "Ärmel 10.", "3M", "", "")
    assert events.filter(pl.col("user_id") == "1").rows()[-2:] == [("1", "3", 5), ("1", "10", 6)]
    dataset = read_source("tables", tmp_path / "out")
    assert (dataset.catalog.n_items, len(dataset.interactions)) == (11, 12)
    assert dataset.interactions.time_kind == "position"


def test_an_item_list_numbers_what_is_held_out_last(tmp_path: Path) -> None:
    assert convert(write(tmp_path), "Beauty.inter.json", "--titles", "item_list.txt") == 0
    items, events = (pl.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("items", "interactions"))
    assert items["title"].to_list()[2] == 'SKIN79 The Prestige "Beblesh" Balm'
    by_user = dict(events.group_by("user_id", maintain_order=True).agg("item_id").rows())
    assert by_user == {
        "0": "B004756YJA B004ZT0SSG B0020YLEYK 7806397051 B002WLWX82".split(),
        "1": "B0009P4PZC B009HULFLW B00BZ1QN2C B00G2TQNZ4 B00812ZWOS 7806397051 B0000YUX4O".split(),
    }


BEAUTY = Path(os.environ.get("LMREC_DATA", "../shared/data")) / "amazon-beauty"


@pytest.mark.skipif(not BEAUTY.exists(), reason=f"needs {BEAUTY}")
def test_beauty_is_made_again_from_its_sequences_and_its_item_list(tmp_path: Path) -> None:
    items, events = (pl.read_parquet(BEAUTY / f"{name}.parquet") for name in ("items", "interactions"))
    numbers = {item: number for number, item in enumerate(dict.fromkeys(events["item_id"].to_list()))}
    sequences = events.group_by("user_id", maintain_order=True).agg(pl.col("item_id").replace_strict(numbers))
    (tmp_path / "Beauty.inter.json").write_text(json.dumps(dict(enumerate(sequences["item_id"].to_list()))))
    lines = items.with_row_index("remap_id").select(pl.col("item_id").alias("org_id"), "remap_id", "title")
    lines.write_csv(tmp_path / "item_list.txt", separator=" ", quote_style="non_numeric")
    header = (tmp_path / "item_list.txt").read_text().replace('"org_id" "remap_id" "title"', "org_id remap_id title", 1)
    (tmp_path / "item_list.txt").write_text(header)
    assert convert(tmp_path, "Beauty.inter.json", "--titles", "item_list.txt") == 0
    assert pl.read_parquet(tmp_path / "out" / "items.parquet").equals(items)
    made = pl.read_parquet(tmp_path / "out" / "interactions.parquet")
    assert made.drop("user_id").equals(events.drop("user_id"))


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("Beauty.inter.json", "[1]", "no object of users or items"),
        ("Beauty.inter.json", "{", "this is not JSON"),
        ("Beauty.inter.json", '{"0": ["a"]}', "user '0' has no list of item numbers"),
        ("Beauty.inter.json", '{"0": [0, 99]}', "user '0' has the item '99', which has no words"),
        ("Beauty.item.json", '{"0": {"brand": "3M"}}', "item '0' has no title"),
        ("item_list.txt", "id title\n", "the first line is"),
        ("item_list.txt", "org_id remap_id title\nB1 7 tea\n", "is not an id, the number 0 and a title"),
        ("item_list.txt", "org_id remap_id title\nB1 0 tea\n", "it lists 1 items, and the sequences have 11"),
    ],
)
def test_what_cannot_be_used_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, reason: str
) -> None:
    (write(tmp_path) / name).write_text(text)
    words = ("--titles", "item_list.txt") if name == "item_list.txt" else ("--items", "Beauty.item.json")
    assert convert(tmp_path, "Beauty.inter.json", *words) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_files_that_are_missing_or_there_already_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(tmp_path, "Beauty.inter.json", "--items", "Beauty.item.json") == 2
    assert "cannot be read" in capsys.readouterr().err
    assert convert(write(tmp_path), "Beauty.inter.json", "--items", "Beauty.item.json") == 0
    assert convert(tmp_path, "Beauty.inter.json", "--items", "Beauty.item.json") == 2
    assert "Choose another --out" in capsys.readouterr().err
