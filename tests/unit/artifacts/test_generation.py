"""Generations: whole or not there, one pointer, and a way back from any damage."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lmrec.artifacts.generation import (
    discard_generation,
    finish_generation,
    generation_path,
    list_generations,
    new_generation_folder,
    pointer_file,
    promote,
    read_pointer,
    read_serving,
    rollback,
)
from lmrec.artifacts.run import RunFolder
from lmrec.errors import RunFolderError


def fill(folder: Path) -> Path:
    """What a recommender reads, as far as can be told without reading it."""
    run = RunFolder(folder)
    tables = ("catalog.parquet", "interactions.parquet", "weighing.json")
    for file in (*(run.data / name for name in tables), run.checkpoint / "checkpoint.json"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    run.vectors_file.parent.mkdir()
    run.vectors_file.write_text("")
    run.update_record(status="trained")
    return folder


def add(run: Path, why: str = "better") -> str:
    return finish_generation(fill(new_generation_folder(run)), why, {"ndcg@10": 0.1}).name


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fill(tmp_path / "run")


def test_without_a_pointer_the_run_itself_is_served(run: Path) -> None:
    assert read_serving(run) == "0"
    (only,) = list_generations(run)
    assert (only.name, only.path, only.serving, only.metrics) == ("0", run, True, {})
    assert generation_path(run, "0") == run


def test_generation_0_has_what_the_judge_measured_of_its_own_model(run: Path) -> None:
    rows = [
        {"is_baseline": False, "metrics": {"ndcg@10": {"value": 0.1}}},
        {
            "is_baseline": False,
            "metrics": {"ndcg@10": {"value": 0.2}, "mrr@10": {"value": 0.15}, "hit@5": {"value": 1}},
        },
        {"is_baseline": True, "metrics": {"ndcg@10": {"value": 0.3}}},
    ]
    (run / "evaluation.json").write_text(json.dumps({"rows": rows}))
    assert list_generations(run)[0].metrics == {"ndcg@10": 0.2, "mrr@10": 0.15}
    for damaged in ("{", "[]", '{"rows": [1]}', '{"rows": []}'):
        (run / "evaluation.json").write_text(damaged)
        assert list_generations(run)[0].metrics == {}


def test_generations_are_numbered_and_served_once_promoted(run: Path) -> None:
    assert [add(run, "first"), add(run, "second")] == ["0001", "0002"]
    assert read_serving(run) == "0"
    promote(run, "0002", "beats 0 by 5 %")
    assert read_serving(run) == "0002"
    found = list_generations(run)
    assert [(one.name, one.serving, one.why) for one in found[1:]] == [
        ("0001", False, "first"),
        ("0002", True, "second"),
    ]
    assert found[2].metrics == {"ndcg@10": 0.1}
    assert found[2].path == generation_path(run, "0002")
    pointer = json.loads(pointer_file(run).read_text())
    assert pointer["format"] == 1
    assert (pointer["generation"], pointer["previous"], pointer["why"]) == ("0002", "0", "beats 0 by 5 %")
    assert pointer["since"].endswith("+00:00")


def test_who_asks_while_generations_come_and_go_gets_one_that_is_there(run: Path) -> None:
    def come_and_go() -> None:
        for _ in range(50):
            name = add(run)
            promote(run, name, "better")
            rollback(run, "worse")
            shutil.rmtree(generation_path(run, name))

    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(come_and_go)
        seen = set()
        while not going.done():
            seen.add(read_serving(run))
        going.result()
    assert "0" in seen
    assert len(seen) > 1


def test_a_damaged_description_is_said_and_the_list_goes_on(run: Path) -> None:
    first, second = add(run), add(run)
    for name, text in ((first, "{"), (second, '{"created": 1}')):
        (generation_path(run, name) / "generation.json").write_text(text)
    assert ["damaged" in one.why for one in list_generations(run)] == [False, True, True]
    promote(run, first, "its weights are whole")
    assert read_serving(run) == first


def test_rollback_goes_one_back_each_time(run: Path) -> None:
    for _ in range(3):
        promote(run, add(run), "better")
    promote(run, "0003", "again")
    assert [rollback(run, "worse") for _ in range(3)] == ["0002", "0001", "0"]
    assert read_serving(run) == "0"
    with pytest.raises(RunFolderError, match="nothing to go back to"):
        rollback(run, "worse")
    promote(run, "0003", "after all")
    assert read_pointer(run).previous == "0"


def test_rollback_passes_over_generations_that_are_gone(run: Path) -> None:
    for _ in range(3):
        promote(run, add(run), "better")
    shutil.rmtree(run / "generations" / "0002")
    assert rollback(run, "worse") == "0001"


def test_an_unfinished_generation_is_nowhere_and_keeps_its_number(run: Path) -> None:
    first = new_generation_folder(run)
    assert [one.name for one in list_generations(run)] == ["0"]
    assert add(run) == "0002"
    fill(first)
    assert finish_generation(first).name == "0001"
    discarded = new_generation_folder(run)
    discard_generation(discarded)
    assert not discarded.exists()
    with pytest.raises(RunFolderError, match="finished already"):
        finish_generation(run / "generations" / "0001")


def test_what_is_not_trained_is_not_finished(run: Path) -> None:
    folder = new_generation_folder(run)
    with pytest.raises(RunFolderError, match=r"holds no run.json"):
        finish_generation(folder)
    assert [one.name for one in list_generations(run)] == ["0"]


@pytest.mark.parametrize(
    "part", ["run.json", "data/catalog.parquet", "checkpoint/checkpoint.json", "vectors/item_vectors.safetensors"]
)
def test_what_is_not_whole_is_neither_promoted_nor_served(run: Path, part: str) -> None:
    name = add(run)
    other = add(run)
    (run / "generations" / name / part).unlink()
    with pytest.raises(RunFolderError, match="generation 0001 of .* cannot be served"):
        promote(run, name, "better")
    assert read_serving(run) == "0"
    promote(run, other, "better")
    (run / "generations" / other / part).unlink()
    with pytest.raises(RunFolderError, match="lmrec rollback"):
        read_serving(run)
    assert rollback(run, "broken") == "0"
    assert read_serving(run) == "0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"format": 2, "generation": "0", "trail": [], "since": null, "why": ""}',
        '{"format": 1, "generation": "../../etc", "trail": [], "since": null, "why": ""}',
        '{"format": 1, "generation": "0", "trail": ["x"], "since": null, "why": ""}',
        '{"format": 1, "generation": "0", "trail": 5, "since": null, "why": ""}',
    ],
)
def test_a_damaged_pointer_is_said_and_can_be_replaced(run: Path, text: str) -> None:
    name = add(run)
    promote(run, name, "better")
    pointer_file(run).write_text(text)
    with pytest.raises(RunFolderError, match=r"serving.json is damaged .* Type `lmrec rollback"):
        read_serving(run)
    with pytest.raises(RunFolderError, match="is damaged"):
        promote(run, name, "better")
    assert not any(one.serving for one in list_generations(run))
    assert rollback(run, "damaged") == "0"
    assert read_serving(run) == "0"
    promote(run, name, "again")
    assert read_serving(run) == name


@pytest.mark.parametrize("name", ["1", "..", "0003", "latest", ""])
def test_names_that_lead_nowhere(run: Path, name: str) -> None:
    with pytest.raises(RunFolderError):
        promote(run, name, "better")
    assert not pointer_file(run).exists()


def test_no_run_no_generations(tmp_path: Path) -> None:
    for call in (read_serving, new_generation_folder, lambda path: rollback(path, "")):
        with pytest.raises(RunFolderError, match="there is no run folder"):
            call(tmp_path / "nothing")


def test_a_pointer_that_cannot_be_written_leaves_the_old_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = add(run), add(run)
    promote(run, first, "better")

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunFolderError, match="No space left on device"):
        promote(run, second, "better")
    assert read_serving(run) == first


def test_only_so_many_generations_are_remembered(run: Path) -> None:
    names = [add(run), add(run)]
    for turn in range(110):
        promote(run, names[turn % 2], "to and fro")
    assert len(read_pointer(run).trail) == 100
