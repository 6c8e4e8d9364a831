"""The catalog: ids and rows, growing, saving."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from lmrec.data.catalog import Catalog
from lmrec.data.users import UserTable
from lmrec.errors import DataError, UnknownIdError

FRAME = pl.DataFrame({"item_id": ["a1", "b2"], "title": ["Red Kettle", " "], "price": [3.5, None]})
CATALOG = Catalog(FRAME, ("title",), ("price",))


def test_ids_rows_and_titles() -> None:
    assert CATALOG.ids == ["a1", "b2"]
    assert CATALOG.indices == {"a1": 0, "b2": 1}
    assert CATALOG.index_of("b2") == 1
    assert CATALOG.titles == ["Red Kettle", "b2"]
    assert (CATALOG.n_items, len(CATALOG)) == (2, 2)
    with pytest.raises(UnknownIdError, match=r"no item 'a11' among the 2 of the catalog\. Did you mean 'a1'"):
        CATALOG.index_of("a11")


def test_new_items_are_appended() -> None:
    grown = CATALOG.with_items(pl.DataFrame({"item_id": ["c3"], "title": ["Lamp"]}))
    assert grown.ids == ["a1", "b2", "c3"]
    assert grown.frame["price"].to_list() == [3.5, None, None]
    assert CATALOG.n_items == 2
    assert CATALOG.with_items(pl.DataFrame({"item_id": [4], "price": [1]})).ids[-1] == "4"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ({"item_id": ["b2"]}, r"item 'b2' is in the catalog already"),
        ({"item_id": ["x", "x"]}, r"ids must be present and unique; at fault: \['x'\]"),
        ({"item_id": ["x"], "titel": ["y"]}, r"no column 'titel' for the new items\. Did you mean 'title'"),
        ({"item_id": ["x"], "price": ["dear"]}, r"do not fit the catalog's column types"),
        ({"title": ["y"]}, r"new items need a column 'item_id'"),
    ],
)
def test_items_that_do_not_fit_are_refused(items: dict[str, list[str]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        CATALOG.with_items(pl.DataFrame(items))


def test_a_wrong_frame_is_refused() -> None:
    with pytest.raises(DataError, match=r"has no column \['words'\]"):
        Catalog(FRAME, ("words",))
    with pytest.raises(DataError, match=r"columns \['price'\] are not text"):
        Catalog(FRAME, ("price",))
    with pytest.raises(DataError, match=r"at fault: \[None\]"):
        Catalog(pl.DataFrame({"item_id": ["a", None]}), ())
    with pytest.raises(DataError, match=r"a user table needs a text column 'user_id'"):
        UserTable(FRAME)


def test_parquet_keeps_everything(tmp_path: Path) -> None:
    CATALOG.save_parquet(tmp_path / "catalog.parquet")
    back = Catalog.from_parquet(tmp_path / "catalog.parquet")
    assert (back.text_columns, back.attribute_columns, back.fingerprint) == (
        ("title",),
        ("price",),
        CATALOG.fingerprint,
    )
    users = UserTable(pl.DataFrame({"user_id": ["u"], "age": [3]}))
    users.save_parquet(tmp_path / "users.parquet")
    assert UserTable.from_parquet(tmp_path / "users.parquet").fingerprint == users.fingerprint
    with pytest.raises(DataError, match=r"users\.parquet: this parquet file is not a saved catalog"):
        Catalog.from_parquet(tmp_path / "users.parquet")


def test_fingerprint_sees_words_order_and_roles() -> None:
    others = [
        Catalog(FRAME.reverse(), ("title",), ("price",)),
        Catalog(FRAME, ("title",), ()),
        Catalog(FRAME.with_columns(title=pl.Series(["Red Kettl", "e "])), ("title",), ("price",)),
        Catalog(FRAME.with_columns(title=pl.Series(["Red Kettle", None])), ("title",), ("price",)),
        Catalog(FRAME.with_columns(price=pl.Series([3.5, 0.0])), ("title",), ("price",)),
    ]
    assert len({CATALOG.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert Catalog(FRAME.clone(), ("title",), ("price",)).fingerprint == CATALOG.fingerprint


def test_the_data_room_does_not_import_torch() -> None:
    modules = "lmrec.data.sources.registry, lmrec.data.summary"
    code = f"import sys, {modules}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(Path(__file__).parents[3] / "src")})
