"""A run that has learnt a planted world, made once for all flow tests, and the control that nothing can learn."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from typer.testing import CliRunner, Result

from lmrec.cli.app import app
from lmrec.data.dataset import Dataset
from lmrec.data.sources.synthetic import planted_world

Invoke: TypeAlias = Callable[..., Result]
WORLD: dict[str, Any] = {"n_users": 200, "n_items": 64, "n_events_per_user": 24, "n_topics": 8, "seed": 1}


@dataclass(frozen=True)
class Fitted:
    """world: what is true. folder: items.csv and events.csv, and the run made of them, judged."""

    world: Dataset
    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    """Calls the command line and checks its exit code."""
    runner = CliRunner()

    def run(*words: object, code: int = 0) -> Result:
        result = runner.invoke(app, [str(word) for word in words])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture(scope="session")
def learning_choices(quick_choices: list[str]) -> list[str]:
    """Enough epochs for the rule of the planted world."""
    return [
        *quick_choices,
        "encoder.max_tokens=40",
        "item.width=32",
        "item.whiten=16",
        "item.id_dropout=0.5",  # words must carry what they can
        "user_model.max_history=32",
        "user_model.dropout=0.1",
        "training.batch_events=400",
        "training.frozen_epochs=12",
        "training.tuned_epochs=1",
        "training.patience=12",
        "training.learning_rate=1e-2",
        "training.max_encoded_items=64",
        'baselines.names=["popularity", "item_knn", "untuned"]',
    ]


@pytest.fixture(scope="session")
def learnt(learning_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fit_and_judge(planted_world(**WORLD), tmp_path_factory.mktemp("learnt"), learning_choices)


@pytest.fixture(scope="session")
def control(learning_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fit_and_judge(planted_world(**WORLD, shuffled=True), tmp_path_factory.mktemp("control"), learning_choices)


def fit_and_judge(world: Dataset, folder: Path, choices: list[str]) -> Fitted:
    from lmrec.workflows.judge import judge_run
    from lmrec.workflows.report import report_run
    from lmrec.workflows.train import fit_run

    shared().write_tables(world, folder)
    fitted = Fitted(world, folder)
    fit_run(folder / "items.csv", folder / "events.csv", out=fitted.run, overrides=choices, show=False)
    judge_run(fitted.run, show=False)
    report_run(fitted.run)
    return fitted


def shared() -> Any:
    """The module of tests/conftest.py, which pytest imports under no name that we could import it by."""
    spec = spec_from_file_location("shared_conftest", Path(__file__).parents[1] / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
