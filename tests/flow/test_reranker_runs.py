"""A reranker on every kind of run: ids alone, histories as text, an ensemble; an adapter's run names another model."""

import shutil
from pathlib import Path

import pytest

from lmrec.errors import InputError
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.distil import distil_run
from lmrec.workflows.ensemble import ensemble_runs
from lmrec.workflows.judge import judge_run
from lmrec.workflows.rerank import fit_reranker
from lmrec.workflows.train import fit_run

QUICK = [
    "reranker.max_tokens=90", "reranker.n_events=20", "reranker.validation_events=10", "reranker.search_cases=5",
    "reranker.judge_cases=5", "reranker.top_k=4", "reranker.train=last_layers", "reranker.n_layers=1",
]  # fmt: skip


def check(run: Path) -> None:
    fit_reranker(run, QUICK, show=False)
    judged = judge_run(run, show=False).reranking
    assert judged is not None
    assert judged.table.form.n_cases == 5
    assert len(Recommender.load(run).recommend(users=["user0"], k=3)[0].items) == 3


@pytest.mark.parametrize("choice", ["item.source=id", "user_model.kind=text"])
def test_it_reads_what_its_retriever_does_not(
    choice: str, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    run = tmp_path / "run"
    choices = [*quick_choices, "training.tuned_epochs=0", choice]
    fit_run(world_folder / "items.csv", world_folder / "events.csv", out=run, overrides=choices, show=False)
    check(run)
    if choice == "user_model.kind=text":
        with pytest.raises(InputError, match="reads histories as text"):
            distil_run(run, tmp_path / "other", show=False)


def test_it_reads_for_an_ensemble(fitted: Path, tmp_path: Path) -> None:
    twin = Path(shutil.copytree(fitted, tmp_path / "twin"))
    ensemble_runs([fitted, twin], tmp_path / "both")
    check(tmp_path / "both")
    with pytest.raises(InputError, match="is an ensemble; distil its members"):
        distil_run(tmp_path / "both", tmp_path / "other", show=False)


def test_an_adapter_reads_no_pairs(world_folder: Path, tmp_path: Path, quick_choices: list[str]) -> None:
    run = tmp_path / "run"
    choices = [*quick_choices, "encoder.adapter.kind=lora", "training.frozen_epochs=0"]
    fit_run(world_folder / "items.csv", world_folder / "events.csv", out=run, overrides=choices, show=False)
    with pytest.raises(
        InputError, match="keeps its language model as an adapter .lora., which reads no pairs. Name one"
    ):
        fit_reranker(run, QUICK, show=False)
