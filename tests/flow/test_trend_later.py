"""What is made of runs whose towers learnt beside a popularity: they learn on beside it, as much of it as before."""

from pathlib import Path
from typing import Any

import pytest

from lmrec.artifacts.run import RunFolder
from lmrec.errors import InputError
from lmrec.feedback.events import Event
from lmrec.feedback.store import Store
from lmrec.models.fusion import FusionWeights
from lmrec.retrieval.recommender import Recommender
from lmrec.service.settings import default_store
from lmrec.training.distil import distil
from lmrec.training.trend import trend_of
from lmrec.workflows import distil as distilling
from lmrec.workflows import train as training
from lmrec.workflows.compress import compress_run
from lmrec.workflows.judge import FROZEN, judge_run
from lmrec.workflows.rerank import fit_reranker
from lmrec.workflows.soup import soup_runs
from lmrec.workflows.train import fit_run
from lmrec.workflows.update import update_run

from .test_reranker import QUICK as READS
from .test_reranker import set_weight

CHOICES = [
    "objective.trend_half_life_days=0.1",
    "training.refit=false",
    "training.tuned_epochs=0",
]  # the small world lasts half a day


@pytest.fixture(scope="module")
def choices(quick_choices: list[str]) -> list[str]:
    return [*quick_choices, *CHOICES, 'baselines.names=["popularity"]']


def fit(world_folder: Path, out: Path, choices: list[str]) -> Path:
    return fit_run(
        world_folder / "items.csv", world_folder / "events.csv", out=out, overrides=choices, show=False
    ).run.path


@pytest.fixture
def beside(world_folder: Path, choices: list[str], tmp_path: Path) -> Path:
    return fit(world_folder, tmp_path / "beside", choices)


def say_weight(run: Path, weight: float) -> None:
    RunFolder(run).update_record(trend_weight=weight)


def test_a_smaller_model_learns_beside_it_too(beside: Path, tmp_path: Path) -> None:
    small = ["compress.layers=[2]", "compress.kept=[1.0]", "compress.widths=[8]", "compress.tolerance=1"]
    quick = ["compress.epochs=1", "compress.tower_epochs=2"]
    made = compress_run(beside, tmp_path / "small", [*small, *quick], show=False)
    assert made.run is not None
    assert made.run.read_record()["trend_weight"] == RunFolder(beside).read_record()["trend_weight"]
    assert Recommender.load(made.run.path).recommend(users=["user0"], k=3)[0].items


def test_an_update_goes_on_from_the_weight_that_was_learnt(beside: Path) -> None:
    assert 0.4 < RunFolder(beside).read_record()["trend_weight"] < 1.0
    say_weight(beside, 3.0)
    known = Recommender.load(beside)
    items, now = known.catalog.ids, float(known.interactions.time_ts.max())
    events = [Event(f"e{n}", f"stranger{n % 9}", items[(5 * n) % 32], "click", now + n + 1) for n in range(90)]
    (beside / "service").mkdir(exist_ok=True)
    with Store.open(default_store(beside)) as heard:
        heard.add_events(events)
    result = update_run(beside, show=False, force=True)
    assert result.generation is not None
    record = RunFolder(beside / "generations" / result.generation).read_record()
    assert record["trend_weight"] == pytest.approx(3.0, abs=0.3)


def test_a_soup_is_tasted_beside_it(beside: Path, world_folder: Path, choices: list[str], tmp_path: Path) -> None:
    other = fit(world_folder, tmp_path / "other", [*choices, "training.seed=5", "training.start_seed=0"])
    made = soup_runs([beside, other], tmp_path / "soup", "uniform", show=False)
    alone = RunFolder(beside).read_record()["training"]["best_metric"]
    assert made.alone[0] == pytest.approx(alone, abs=1e-9)
    weights = [RunFolder(run).read_record()["trend_weight"] for run in (beside, other)]
    assert made.run.read_record()["trend_weight"] == pytest.approx(sum(weights) / 2)
    without = fit(world_folder, tmp_path / "without", [one for one in choices if "trend" not in one])
    with pytest.raises(
        InputError, match="towers that learnt beside another popularity. Fit all with one objective.trend"
    ):
        soup_runs([beside, without], tmp_path / "bad", "uniform", show=False)


def test_what_was_read_is_taught_beside_it(beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_reranker(beside, READS, show=False)
    set_weight(beside, 0.9)
    say_weight(beside, 3.0)
    told: list[Any] = []

    def listening(*arguments: Any) -> Any:
        told.extend(arguments)
        return distil(*arguments)

    monkeypatch.setattr(distilling, "distil", listening)
    distilling.distil_run(beside, tmp_path / "run", ["distil.n_events=40", "distil.epochs=1"], show=False)
    trend, lists = trend_of(told[3]), told[2]
    assert trend is not None
    assert trend.weight.item() == 3.0
    assert len(lists.times) == 40
    assert len(set(lists.times.tolist())) > 20


def test_parts_put_together_by_ranks_are_judged_and_told_by_ranks(
    world_folder: Path, choices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = FusionWeights(popularity=1.0, ranks=True)
    monkeypatch.setattr(training, "weights_by_recipe", lambda *arguments: (weights, None))
    run = fit(world_folder, tmp_path / "ranks", [*choices, "fusion.method=reciprocal_rank"])
    row = judge_run(run, show=False).table.row(FROZEN)
    assert (
        row.note == "reciprocal ranks by towers, popularity, beside which they learnt, as it stood when training ended"
    )
