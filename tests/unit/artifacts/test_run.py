"""The run folder: it is made once, opened only when it can be used, and says what is wrong otherwise."""

import json
from pathlib import Path

import pytest

from lmrec.artifacts.run import RunFolder, create_run, describe_environment, open_run, processor_name
from lmrec.errors import RunFolderError


def test_a_new_run_is_an_empty_folder_or_none_yet(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "deep" / "new"):
        assert create_run(path, resume=False).data.is_dir()


def test_a_folder_with_something_in_it_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(RunFolderError, match="exists and is not empty"):
        create_run(tmp_path, resume=False)
    file = tmp_path / "thesis.txt"
    with pytest.raises(RunFolderError, match="exists and is not empty"):
        create_run(file, resume=False)


def test_only_a_run_can_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="there is no run folder"):
        create_run(tmp_path / "none", resume=True)
    with pytest.raises(RunFolderError, match=r"holds no run.json"):
        create_run(tmp_path, resume=True)


def test_a_run_in_training_can_be_looked_at_and_not_used(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", resume=False)
    run.update_record(status="training")
    assert open_run(run.path, trained=False) == run
    with pytest.raises(RunFolderError, match=r"is training. Finish it with the same fit command and --resume"):
        open_run(run.path)
    run.update_record(status="trained")
    assert open_run(str(run.path)) == run


def test_the_record_is_updated_key_by_key(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", resume=False)
    run.update_record(status="training", seed=3)
    run.update_record(status="trained")
    assert run.read_record() == {"format": 1, "status": "trained", "seed": 3}


def test_a_run_of_a_later_format_is_refused(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", resume=False)
    run.record_file.write_text(json.dumps({"format": 99, "status": "trained"}))
    with pytest.raises(RunFolderError, match="has format 99, this lmrec reads 1"):
        open_run(run.path)


def test_metrics_are_lines_in_order(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.curves.read() == []
    for epoch in (1, 2):
        run.curves.append({"epoch": epoch, "loss": 1 / epoch})
    assert [row["epoch"] for row in run.curves.read()] == [1, 2]
    assert len(run.curves.metrics_file.read_text().splitlines()) == 2


def test_the_environment_names_what_a_repetition_needs() -> None:
    found = describe_environment()
    assert {"python", "torch", "transformers", "polars"} <= set(found["versions"])
    assert processor_name() in found["machine"]
    assert "cores" in found["machine"]
    json.dumps(found)


def test_processors_of_one_name_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nflags : a\n\nmodel name : other\n")
    assert processor_name(file) == "AMD EPYC (family 25, model 17)"
    file.write_text("Processor : ARM\n")
    assert processor_name(file) == processor_name(tmp_path / "none") != ""
