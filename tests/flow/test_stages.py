"""Both stages stand in the table, whichever of them is served."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lmrec.artifacts.run import RunFolder
from lmrec.artifacts.training_state import save_training_state
from lmrec.cli.app import app
from lmrec.errors import Interrupted, RunFolderError
from lmrec.recipe import load_recipe
from lmrec.training import trainer
from lmrec.workflows import train
from lmrec.workflows.judge import FROZEN, FUSED, REFIT, TUNED, judge_run
from lmrec.workflows.prepare import prepare
from lmrec.workflows.train import training_fingerprint, training_text

from .stopping import asks


@pytest.mark.parametrize(("frozen_epochs", "tuned_rate", "served"), [(12, 5.0, "frozen"), (1, 0.003, "tuned")])
def test_the_table_has_the_tuned_row_whichever_stage_is_served(
    world_folder: Path,
    tmp_path: Path,
    tiny_bert: Path,
    quick_choices: list[str],
    frozen_epochs: int,
    tuned_rate: float,
    served: str,
) -> None:
    out, base = tmp_path / "run", Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    choices = [
        *quick_choices,
        f"encoder.name={base}",
        *(
            "encoder.train=last_layers",
            "encoder.n_layers=1",
            f"training.frozen_epochs={frozen_epochs}",
            "training.tuned_epochs=2",
        ),
        f"training.tuned_learning_rate={tuned_rate}",
        'baselines.names=["popularity"]',
    ]
    tables = ["--items", str(world_folder / "items.csv"), "--interactions", str(world_folder / "events.csv")]
    words = ["fit", *tables, "--out", str(out), "--quiet", "--no-judge"]
    result = CliRunner().invoke(app, [*words, *(word for choice in choices for word in ("--set", choice))])
    assert result.exit_code == 0, result.output
    recipe = load_recipe(None, choices)
    prepared = prepare(world_folder / "items.csv", world_folder / "events.csv", None, recipe)
    began_with = training_fingerprint(recipe, prepared)
    judgement = judge_run(out, show=False)
    record = json.loads((out / "run.json").read_text())["training"]
    assert record["best_stage"] == served
    served_row = {FUSED, REFIT} & set(judgement.evaluations)
    assert len(served_row) == 1
    assert {"popularity", FROZEN, TUNED} == set(judgement.evaluations) - served_row
    assert record["refit_epochs"] > 0
    first, second = (judgement.evaluations[name].aggregate["ndcg@10"] for name in (FROZEN, TUNED))
    assert first != second
    told = "this run serves the first stage" in judgement.table.form.sentence
    assert told == (served == "frozen")
    # The folder that encoder.name leads to is pretrained anew: what was fitted stays what it is, or says what it lacks.
    weights = load_file(base / "model.safetensors")
    save_file({name: -value for name, value in weights.items()}, base / "model.safetensors", metadata={"format": "pt"})
    if served == "frozen":
        again = judge_run(out, show=False)
        assert again.evaluations[FROZEN].aggregate == judgement.evaluations[FROZEN].aggregate
    else:
        with pytest.raises(RunFolderError, match="began with a language model with the fingerprint .* now has"):
            judge_run(out, show=False)
    assert training_fingerprint(recipe, prepared) != began_with  # nor is a stopped fit resumed on it


def test_what_only_judges_changes_no_fingerprint_of_a_fit() -> None:
    plain = load_recipe(None)
    others = ("tracking.to=[]", "index.kind=exact", "update.epochs=5", "tune.trials=7", "pretrain.epochs=9")
    for judged in (
        "baselines.search_cases=7",
        "reranker.top_k=7",
        "distil.epochs=7",
        "compress.tolerance=0.5",
        *others,
    ):
        assert training_text(load_recipe(None, [judged])) == training_text(plain), judged
    assert training_text(load_recipe(None, ["training.patience=7"])) != training_text(plain)


@pytest.mark.parametrize("more", [(), ("objective.trend_half_life_days=0.1",)], ids=["plain", "beside what is popular"])
def test_learning_again_can_be_stopped_and_resumed_to_equal_weights(
    more: tuple[str, ...],
    world_folder: Path,
    tmp_path: Path,
    quick_choices: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables = world_folder / "items.csv", world_folder / "events.csv"
    choices = [*quick_choices, "encoder.train=none", "training.frozen_epochs=2", *more]
    never, times = asks(lambda n: False)
    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_on_interrupt", never)
        whole = train.fit_run(*tables, out=tmp_path / "whole", overrides=choices, show=False).run
    near_the_end, _ = asks(lambda n: n == len(times) - 2)
    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_on_interrupt", near_the_end)
        with pytest.raises(Interrupted):
            train.fit_run(*tables, out=tmp_path / "stopped", overrides=choices, show=False)
    assert (tmp_path / "stopped" / "refit_state" / "state.json").exists()
    stopped = train.fit_run(*tables, out=tmp_path / "stopped", overrides=choices, resume=True, show=False).run
    assert not stopped.refit_state.exists()
    name = "checkpoint/towers.safetensors"
    assert (stopped.path / name).read_bytes() == (whole.path / name).read_bytes()
    weights = [run.read_record().get("trend_weight") for run in (stopped, whole)]
    assert weights[0] == weights[1]
    assert (weights[0] is not None) == bool(more)


def test_an_epoch_that_was_told_before_a_kill_is_not_told_again(
    world_folder: Path, tmp_path: Path, quick_choices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its row is written before its state: a kill between them has the epoch learnt once more."""
    tables = world_folder / "items.csv", world_folder / "events.csv"
    choices = [*quick_choices, "encoder.train=none", "training.frozen_epochs=3"]

    def told(run: RunFolder) -> list[tuple[str, int, int]]:
        return [(row["stage"], row["epoch"], row["step"]) for row in run.curves.read()]

    whole = train.fit_run(*tables, out=tmp_path / "whole", overrides=choices, show=False).run
    for n_saved, resume in ((0, False), (1, True)):
        out, saved = tmp_path / f"killed {n_saved}", list[int]()

        def save(*args: Any, n_saved: int = n_saved, saved: list[int] = saved) -> None:
            if len(saved) == n_saved:
                raise ProcessLookupError("killed")
            saved.append(1)
            save_training_state(*args)

        with monkeypatch.context() as patch:
            patch.setattr(trainer, "save_training_state", save)
            with pytest.raises(ProcessLookupError):
                train.fit_run(*tables, out=out, overrides=choices, show=False)
        assert len(RunFolder(out).curves.read()) == n_saved + 1
        # Where nothing was kept, the corrected command begins anew, and what the killed one told is no part of it.
        corrected = choices if resume else [*choices, "training.learning_rate=0.02"]
        again = train.fit_run(*tables, out=out, overrides=corrected, resume=True, show=False).run
        assert told(again) == told(whole), resume
        same = again.curves.read()[0]["loss"] == whole.curves.read()[0]["loss"]
        assert same == resume


def test_without_refit_what_validation_chose_is_served(
    world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    tables = world_folder / "items.csv", world_folder / "events.csv"
    choices = [*quick_choices, "training.refit=false", 'baselines.names=["popularity"]']
    run = train.fit_run(*tables, out=tmp_path / "run", overrides=choices, show=False).run
    assert run.read_record()["training"]["refit_epochs"] == 0
    rows = set(judge_run(run.path, show=False).evaluations)
    assert rows - {FUSED} in ({"popularity", FROZEN}, {"popularity", FROZEN, TUNED})
