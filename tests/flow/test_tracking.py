"""Curves, recipe, table and samples reach TensorBoard and Weights & Biases, the latter without a network."""

from pathlib import Path
from typing import Any

import pytest

from lmrec.errors import InputError, MissingExtraError
from lmrec.recipe import load_recipe
from lmrec.training.tracking import TrackingConfig
from lmrec.workflows import tracking
from lmrec.workflows.judge import judge_run
from lmrec.workflows.report import report_run
from lmrec.workflows.rerank import fit_reranker
from lmrec.workflows.tracking import check_tracking
from lmrec.workflows.train import fit_run

FEW_PAIRS = [
    "reranker.max_tokens=90",
    "reranker.top_k=6",
    *(f"reranker.{part}=20" for part in ("n_events", "validation_events", "search_cases", "judge_cases")),
]


def read_events(folder: Path) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Scalars and texts of all TensorBoard files below a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    scalars: dict[str, list[float]] = {}
    texts: dict[str, str] = {}
    for file in sorted(folder.rglob("events.*")):
        found: Any = EventAccumulator(str(file))
        found.Reload()
        for tag in found.Tags()["scalars"]:
            scalars.setdefault(tag, []).extend(event.value for event in found.Scalars(tag))
        for tag in found.Tags()["tensors"]:
            (value,) = tensor_util.make_ndarray(found.Tensors(tag)[0].tensor_proto).tolist()
            texts[tag.removesuffix("/text_summary")] = value.decode()
    return scalars, texts


def test_what_is_tracked(
    world_folder: Path, tmp_path: Path, quick_choices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    choices = [*quick_choices, 'tracking.to=["tensorboard", "wandb"]', "training.frozen_epochs=2"]
    run = fit_run(
        world_folder / "items.csv", world_folder / "events.csv", out=tmp_path / "run", overrides=choices, show=False
    ).run
    epochs = fit_reranker(run.path, FEW_PAIRS, show=False).epochs
    judge_run(run.path, show=False)
    report_run(run.path)
    scalars, texts = read_events(run.curves.tensorboard)
    rows = run.curves.read()
    frozen = [row for row in rows if row["stage"] == "frozen"]
    assert [row["validation_loss"] for row in rows if row["stage"] == "reranker"] == [epochs[0]["validation_loss"]]
    assert scalars["reranker/validation_loss"] == pytest.approx([epochs[0]["validation_loss"]], rel=1e-6)
    assert scalars["frozen/loss"] == pytest.approx([row["loss"] for row in frozen], rel=1e-6)
    assert scalars["frozen/validation"] == pytest.approx([row["validation"] for row in frozen], rel=1e-6)
    assert "frozen_epochs = 2" in texts["recipe"]
    assert "| popularity |" in texts["judgement"]
    assert "(took: " in texts["recommendations"]
    kept = b"".join(file.read_bytes() for file in (run.path / "wandb").rglob("*.wandb"))
    for word in (b"frozen/validation", b"frozen_epochs = 2", b"| popularity |", b"(took: "):
        assert word in kept
    # offline-run-INSTANT-ID, and -1 behind it where another began in the same second
    folders = {file.parent.name.split("-")[3] for file in (run.path / "wandb").rglob("*.wandb")}
    assert folders == {run.curves.wandb_id()}, "training and judging are one run"


def test_wandb_without_a_key_or_without_its_package_is_refused_before_any_work(
    world_folder: Path, tmp_path: Path, quick_choices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    choices = [*quick_choices, 'tracking.to=["wandb"]']
    with pytest.raises(InputError, match="WANDB_API_KEY is not set in the environment"):
        fit_run(world_folder / "items.csv", world_folder / "events.csv", out=tmp_path / "run", overrides=choices)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lmrec\[wandb\]'"):
        check_tracking(load_recipe(overrides=choices).tracking)
    (note,) = check_tracking(TrackingConfig())
    assert "TensorBoard events are not written" in note
