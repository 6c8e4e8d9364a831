"""Both stages stand in the table, whichever of them is served."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmrec.cli.app import app
from lmrec.workflows.judge import FROZEN, FUSED, TUNED, judge_run


@pytest.mark.parametrize(("frozen_epochs", "tuned_rate", "served"), [(12, 5.0, "frozen"), (1, 0.003, "tuned")])
def test_the_table_has_the_tuned_row_whichever_stage_is_served(
    world_folder: Path, tmp_path: Path, quick_choices: list[str], frozen_epochs: int, tuned_rate: float, served: str
) -> None:
    out = tmp_path / "run"
    choices = [
        *quick_choices,
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
    judgement = judge_run(out, show=False)
    record = json.loads((out / "run.json").read_text())["training"]
    assert record["best_stage"] == served
    assert {"popularity", FROZEN, TUNED} == set(judgement.evaluations) - {FUSED}
    first, second = (judgement.evaluations[name].aggregate["ndcg@10"] for name in (FROZEN, TUNED))
    assert first != second
    told = "this run serves the first stage" in judgement.table.form.sentence
    assert told == (served == "frozen")
