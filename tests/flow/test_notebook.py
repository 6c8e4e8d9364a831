"""The notebook runs from top to bottom, on tiny data and choices in place of its own."""

from pathlib import Path

import nbformat
import pytest

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
