"""The registry of formats, the tables of a folder, and a look at the real data where it lies on this machine."""

import os
from pathlib import Path

import polars as pl
import pytest

from lmrec.cli.tables import Input, parse_column_map
from lmrec.data.sources import SOURCES, TablesConfig, read_dataset, read_source
from lmrec.data.split import SplitConfig, split_interactions
from lmrec.errors import DataError, InputError
from lmrec.recipe import load_recipe

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("LMREC_DATA", str(ROOT.parent / "shared" / "data")))
ITEMS = "sku,title\na,Red Kettle\nb,Blue Lamp\n"
EVENTS = "user_id,item_id,timestamp\nu,a,1700000000\nu,b,1700000100\nv,a,1700000050\n"


def write(folder: Path, items: str = ITEMS, events: str = EVENTS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "items.csv").write_text(items)
    (folder / "events.csv").write_text(events)
    return folder


def test_tables_of_a_folder_are_found_by_name(tmp_path: Path) -> None:
    folder = write(tmp_path)
    expected = read_dataset(folder / "items.csv", folder / "events.csv").fingerprint
    assert read_source("tables", folder).fingerprint == expected
    (folder / "interactions.csv").write_text(EVENTS)
    with pytest.raises(DataError, match="more than one file could be meant"):
        read_source("tables", folder)
    for name in ("interactions.csv", "events.csv"):
        (folder / name).unlink()
    with pytest.raises(DataError, match=r"there is no table \['interactions'\]"):
        read_source("tables", folder)
    with pytest.raises(DataError, match="this is no folder"):
        read_source("tables", folder / "items.csv")


def test_unknown_names_and_places_are_said(tmp_path: Path) -> None:
    assert set(SOURCES) == {"amazon", "lastfm", "mind", "movielens", "retail", "tables"}
    with pytest.raises(InputError, match="Did you mean 'amazon'"):
        read_source("amazn", tmp_path)
    for name in SOURCES:
        with pytest.raises(DataError, match="there is no such folder or file"):
            read_source(name, tmp_path / "nowhere")
        with pytest.raises(DataError):
            read_source(name, tmp_path)


# --- what the command line says


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "--items and --interactions missing"),
        ({"items": Path("i")}, "--interactions missing"),
        ({"source": "mind"}, "--source mind says which format, but not where"),
        ({"path": Path("p")}, "--path p says where, but not in which format"),
        ({"source": "mind", "path": Path("p"), "items": Path("i")}, "--items cannot be given beside --source"),
        ({"path": Path("p"), "users": Path("u")}, "--users cannot be given beside"),
    ],
)
def test_one_way_to_say_what_to_read(given: dict[str, object], message: str) -> None:
    words = {"items": None, "interactions": None, "users": None, "source": None, "path": None} | given
    with pytest.raises(InputError, match=message):
        Input(**words).check()  # type: ignore[arg-type]


def test_a_source_is_prepared_like_its_tables(tmp_path: Path) -> None:
    folder = write(tmp_path)
    recipe = load_recipe(overrides=["split.kind=none"])
    by_source = Input(None, None, None, "tables", folder).prepare(recipe)
    by_tables = Input(folder / "items.csv", folder / "events.csv", None, None, None).prepare(recipe)
    assert by_source.dataset.fingerprint == by_tables.dataset.fingerprint


# --- columns named for whichever table has them


def test_a_map_without_a_prefix_goes_where_the_column_is(tmp_path: Path) -> None:
    odd = ITEMS.replace("sku", "thing")
    folder = write(tmp_path, odd)
    config = TablesConfig.model_validate({"columns": {"item_id": "thing"}})
    assert parse_column_map(["item_id=thing"]) == {"data.columns.item_id": "thing"}
    assert parse_column_map(["items.item_id=thing"]) == {"data.item_columns.item_id": "thing"}
    assert read_source("tables", folder, config).catalog.ids == ["a", "b"]
    both = write(tmp_path / "both", odd, EVENTS.replace("item_id", "thing"))
    assert read_source("tables", both, config).interactions.n_events == 3
    with pytest.raises(DataError, match=r"there is no column 'thin' for item_id in any table\. Did you mean 'thing'"):
        read_source("tables", folder, TablesConfig.model_validate({"columns": {"item_id": "thin"}}))
    with pytest.raises(DataError, match=r"data\.columns has no 'item'\. Did you mean 'item_id'"):
        read_source("tables", folder, TablesConfig.model_validate({"columns": {"item": "thing"}}))
    with pytest.raises(InputError, match="the table items has no user_id"):
        parse_column_map(["items.user_id=thing"])


def test_a_prefix_wins_and_stays_strict(tmp_path: Path) -> None:
    folder = write(tmp_path)
    with pytest.raises(DataError, match=r"events\.csv: there is no column 'sku' for interaction_columns\.item_id"):
        read_source("tables", folder, TablesConfig.model_validate({"interaction_columns": {"item_id": "sku"}}))


# --- an order that is called a time


@pytest.mark.parametrize(("column", "shown"), [("timestamp", "timestamp"), ("time", "time")])
def test_small_whole_numbers_as_times_are_questioned(tmp_path: Path, column: str, shown: str) -> None:
    events = f"user_id,item_id,{column}\nu,a,0\nu,b,1\nv,a,250\n"
    folder = write(tmp_path, events=events)
    notes = read_source("tables", folder).notes
    words = f"the times in '{shown}' are whole numbers up to 250, and as seconds all lie in January 1970"
    assert any(words in note and f"--map interactions.position={shown}" in note for note in notes)
    config = load_recipe(values=parse_column_map([f"interactions.position={shown}"])).data
    named = read_source("tables", folder, config)
    assert named.interactions.time_kind == "position"
    assert not any("1970" in note for note in named.notes)


def test_real_times_are_not_questioned(tmp_path: Path) -> None:
    assert not any("1970" in note for note in read_source("tables", write(tmp_path)).notes)


# --- recipes and the real data


def recipes() -> list[Path]:
    return sorted((ROOT / "recipes").glob("*.toml"))


@pytest.mark.parametrize("file", recipes(), ids=lambda file: file.stem)
def test_every_recipe_can_be_read(file: Path) -> None:
    load_recipe(file)


@pytest.mark.parametrize(
    ("recipe", "name", "folder", "n_users", "n_items", "n_events"),
    [
        ("amazon-scientific", "tables", "amazon-scientific", 8_317, 4_344, 58_492),
        ("amazon-beauty", "tables", "amazon-beauty", 22_363, 12_101, 198_502),
        ("amazon-gift-cards", "amazon", "amazon-gift-cards", 458, 148, 2_969),
        ("mind", "mind", "mind", 4_637, 22_592, 146_474),
        ("lastfm", "lastfm", "lastfm", 1_892, 17_632, 142_465),
        ("online-retail", "retail", "online-retail", 4_324, 3_838, 383_307),
    ],
)
def test_the_real_data_is_read_as_the_pages_say(
    recipe: str, name: str, folder: str, n_users: int, n_items: int, n_events: int
) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip(f"{DATA / folder} is not on this machine")
    chosen = load_recipe(ROOT / "recipes" / f"{recipe}.toml")
    dataset = read_source(name, DATA / folder, chosen.data)
    log = dataset.interactions
    assert (log.n_users, dataset.catalog.n_items, log.n_events) == (n_users, n_items, n_events)
    assert dataset.quarantine.height <= 0.02 * n_events
    split = split_interactions(log, dataset.catalog.n_items, SplitConfig(kind="last"))
    assert len(split.test) > 0
    assert isinstance(dataset.catalog.frame, pl.DataFrame)
