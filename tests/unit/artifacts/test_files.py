"""Whole or not at all: what stands under a name is complete, whatever happens while it is made."""

from pathlib import Path

import pytest

from lmrec.artifacts.files import fingerprint_files, read_json, replaced_folder, write_json
from lmrec.errors import RunFolderError


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with replaced_folder(target) as fresh:
        (fresh / "a.txt").write_text("new")
        assert not target.exists()
    assert contents(tmp_path / "deep") == {"target/a.txt": "new"}


def test_nothing_of_the_old_folder_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with replaced_folder(target) as fresh:
        (fresh / "new.txt").write_text("new")
        assert contents(target) == {"old.txt": "old"}
    assert contents(tmp_path) == {"target/new.txt": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_folder_and_no_rubbish(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "old.txt").write_text("old")

    def fill() -> None:
        with replaced_folder(target) as fresh:
            (fresh / "half.txt").write_text("half")
            raise error

    with pytest.raises(error):
        fill()
    assert contents(tmp_path) == {"target/old.txt": "old"}


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".target.new").mkdir()
    (tmp_path / ".target.new" / "half.txt").write_text("half")
    with replaced_folder(tmp_path / "target") as fresh:
        (fresh / "a.txt").write_text("new")
    assert contents(tmp_path) == {"target/a.txt": "new"}


def test_json_comes_back_as_it_was_and_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"title": "Amélie", "values": [1, 2.5, None]})
    with pytest.raises(ValueError, match="Out of range float"):  # NaN is no JSON
        write_json(file, {"loss": float("nan")})
    assert read_json(file) == {"title": "Amélie", "values": [1, 2.5, None]}
    assert "Amélie" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", [b"", b'{"half": ', b"\xff\xfe"])
def test_damaged_json_is_named_with_a_way_out(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "a.json").write_bytes(damage)
    with pytest.raises(RunFolderError, match=r"a.json is damaged .* fit the run again"):
        read_json(tmp_path / "a.json")


def test_missing_json_is_an_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="a.json is missing: this run is unfinished or not a run"):
        read_json(tmp_path / "a.json")


def test_a_fingerprint_follows_the_contents_and_their_order(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_bytes(b"a" * 3_000_000)
    second.write_bytes(b"b")
    found = fingerprint_files(first, second)
    assert len(found) == 16
    assert fingerprint_files(first, second) == found
    assert fingerprint_files(second, first) != found
    second.write_bytes(b"c")
    assert fingerprint_files(first, second) != found
