"""The notebook runs from top to bottom, on tiny data and choices in place of its own."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from packaging.requirements import Requirement

NOTEBOOK = Path(__file__).parents[2] / "examples" / "movielens.ipynb"


# Jupyter's own packages warn of each other.
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_runs(world_folder: Path, tmp_path: Path, quick_choices: list[str]) -> None:
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not kept in the repository"
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    said = {
        "ITEMS": str(world_folder / "items.csv"),
        "INTERACTIONS": str(world_folder / "events.csv"),
        "OUT": "run",
        "CHOICES": quick_choices,
    }
    assert all(name in parameters.source for name in said)
    parameters.source = "\n".join(f"{name} = {value!r}" for name, value in said.items())
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = {
        cell.source: "".join(
            output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    said_of = [text for source, text in shown.items() if "recommender.recommend" in source]
    assert len(said_of) == 2
    assert all(len(text.strip().splitlines()) == 5 for text in said_of), "five items each"
    assert any("popularity" in text for text in shown.values())
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("place", ["in the checkout", "elsewhere", "where it is installed"])
def test_the_notebook_installs_from_its_checkout_or_its_one_address(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is installed: what pip would be called with is looked at. Nobody has tried the address."""
    calls: list[list[str]] = []
    found: dict[str, Any] = {}

    def note(command: list[str], check: bool) -> None:
        assert check, "what fails must show"
        calls.append(command)

    monkeypatch.setattr(subprocess, "run", note)
    monkeypatch.chdir(NOTEBOOK.parent if place == "in the checkout" else tmp_path)
    if place != "where it is installed":
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    cells = nbformat.read(NOTEBOOK, as_version=4).cells  # type: ignore[no-untyped-call]
    (install,) = [cell.source for cell in cells if "pip" in cell.source]
    exec(install, found)
    if place == "where it is installed":
        assert calls == []
        return
    ((*pip, wanted),) = calls
    assert pip == [sys.executable, "-m", "pip", "install", "-q"]
    if place == "in the checkout":
        assert wanted == f"{NOTEBOOK.parents[1]}[service,tensorboard]"
    else:
        asked = Requirement(wanted)
        assert (asked.name, asked.url, asked.extras) == ("lmrec", found["ADDRESS"], {"service", "tensorboard"})
    assert sum(cell.source.count("github.com") for cell in cells) == 1, "the address stands in one place"
