"""The loop: a stop is no loss, the best is kept, and what goes wrong is said."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmrec.artifacts.training_state import load_training_state
from lmrec.data.dataset import Dataset
from lmrec.errors import Interrupted, RunFolderError, TrainingError
from lmrec.training.auxiliary import Categories, WithCategory
from lmrec.training.batches import TrainBatch
from lmrec.training.learner import Learner
from lmrec.training.losses import FullSoftmax
from lmrec.training.perturb import AdversarialConfig
from lmrec.training.regularisers import RegularisersConfig, pull_to
from lmrec.training.trainer import (
    Stage,
    Trainer,
    TrainingConfig,
    TrainingReport,
    check_snapshots,
    plan_stages,
    trains_in_bf16,
)
from lmrec.training.trend import PastPopularity, WithTrend

Batches = Callable[[int, int], list[TrainBatch]]
Weights = dict[str, Tensor]
CONFIG = TrainingConfig(frozen_epochs=2, tuned_epochs=2, precision="fp32", patience=5, encoder_learning_rate=1e-3)


class Session:
    """One process of training: a fresh learner, a folder for its state, and a wish to stop after some steps."""

    def __init__(
        self, learner: Learner, batches: Batches, folder: Path, config: TrainingConfig = CONFIG, validate: Any = None
    ) -> None:
        self.learner, self.rows, self.n_steps = learner, list[dict[str, Any]](), 0
        self.stop_after: int | None = None
        self.trainer = Trainer(
            learner,
            config,
            batches=batches,
            validate=validate,
            record=self.rows.append,
            state_folder=folder / "state",
            fingerprint="fp",
            should_stop=self.should_stop,
            show=False,
        )
        self.stages = plan_stages(config, can_tune=True)

    def should_stop(self) -> bool:
        self.n_steps += 1
        return self.n_steps == self.stop_after

    def run(self, resume: bool = False) -> TrainingReport:
        return self.trainer.run(self.stages, resume)

    @property
    def weights(self) -> Weights:
        return {name: value.clone() for name, value in self.learner.state_dict().items()}


def loss_validator(learner: Learner, batch: TrainBatch) -> Callable[[], float]:
    """Minus the loss on a fixed batch."""

    def validate() -> float:
        regime, learner.regime = learner.regime, "frozen"
        with torch.no_grad():
            value = -float(learner(batch, np.random.default_rng(0)))
        learner.regime = regime
        return value

    return validate


def assert_same(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert different == []


@pytest.fixture
def new_session(make_learner: Callable[..., Learner], world_batches: Batches, tmp_path: Path) -> Callable[..., Session]:
    def new(name: str = "run", config: TrainingConfig = CONFIG, validated: bool = True) -> Session:
        learner = make_learner()
        validate = loss_validator(learner, world_batches(0, 99)[0]) if validated else None
        return Session(learner, world_batches, tmp_path / name, config, validate)

    return new


@pytest.fixture(scope="module")
def whole_run() -> dict[str, Any]:
    """Filled by the first test that needs an uninterrupted training, to be trained once only."""
    return {}


@pytest.fixture
def uninterrupted(new_session: Callable[..., Session], whole_run: dict[str, Any]) -> dict[str, Any]:
    if not whole_run:
        session = new_session("whole")
        report = session.run()
        whole_run.update(weights=session.weights, rows=session.rows, n_steps=session.n_steps, report=report)
    return whole_run


def test_what_an_objective_learns_is_clipped_with_the_towers(
    make_learner: Callable[..., Learner], world_batches: Batches, tmp_path: Path
) -> None:
    """The norm is over both, so neither steps further than the rate times it."""
    learner = make_learner()
    projection = learner.towers.item_tower.projection
    assert projection is not None
    n_items = len(learner.text_vec)
    categories = Categories(("a", "b"), np.arange(n_items) % 2)
    learner.objective = WithCategory(FullSoftmax(), categories, projection.out_features, 50.0)
    begun = {name: value.clone() for name, value in learner.state_dict().items()}
    config = CONFIG.model_copy(
        update={
            "frozen_epochs": 1,
            "tuned_epochs": 0,
            "optimizer": "sgd",
            "momentum": 0.0,
            "weight_decay": 0.0,
            "learning_rate": 1.0,
            "max_grad_norm": 1e-4,
            "schedule": "constant",
            "warmup_share": 0.0,
        }
    )
    session = Session(learner, lambda stage, epoch: world_batches(0, 0)[:1], tmp_path, config)
    session.run()
    moved = {name: value - begun[name] for name, value in session.weights.items() if value.is_floating_point()}
    total = torch.stack([value.norm() for value in moved.values()]).norm()
    assert total == pytest.approx(1e-4, rel=1e-2)
    assert moved["objective.head.weight"].norm() > 0


def test_epochs_of_the_example_differ_in_length(world_batches: Batches) -> None:
    """Otherwise the tests below would not see a schedule that is counted anew after a stop."""
    assert len({len(world_batches(0, epoch)) for epoch in range(2)}) == 2


@pytest.mark.parametrize(
    "where",
    ["first step", "within an epoch", "last step of an epoch", "within a later epoch", "tuned", "tuned, later epoch"],
)
def test_a_stopped_and_resumed_training_ends_with_exactly_the_same_weights(
    where: str, new_session: Callable[..., Session], uninterrupted: dict[str, Any], world_batches: Batches
) -> None:
    frozen = [len(world_batches(0, epoch)) for epoch in range(2)]
    first_tuned = len(world_batches(1, 0))
    stop_after = {
        "first step": 1,
        "within an epoch": 4,
        "last step of an epoch": frozen[0],
        "within a later epoch": frozen[0] + 3,
        "tuned": sum(frozen) + 2,
        "tuned, later epoch": sum(frozen) + first_tuned + 2,
    }[where]
    stopped = new_session()
    stopped.stop_after = stop_after
    with pytest.raises(Interrupted, match=r"nothing is lost. Continue with the same command and --resume"):
        stopped.run()
    resumed = new_session()
    report = resumed.run(resume=True)
    assert_same(resumed.weights, uninterrupted["weights"])
    assert stopped.rows + resumed.rows == uninterrupted["rows"]
    assert stopped.n_steps + resumed.n_steps == uninterrupted["n_steps"]
    assert report.best_metric == uninterrupted["report"].best_metric
    assert_same(report.frozen_best or {}, uninterrupted["report"].frozen_best)


def test_a_training_stopped_again_and_again_ends_the_same(
    new_session: Callable[..., Session], uninterrupted: dict[str, Any]
) -> None:
    for attempt in range(50):
        session = new_session()
        session.stop_after = 7
        try:
            session.run(resume=attempt > 0)
        except Interrupted:
            continue
        break
    assert attempt >= 3
    assert_same(session.weights, uninterrupted["weights"])


def test_without_validation_the_last_weights_stay_and_resuming_is_as_exact(new_session: Callable[..., Session]) -> None:
    whole = new_session("whole", validated=False)
    report = whole.run()
    assert report.best_metric is None
    assert all("validation" not in row for row in whole.rows)
    stopped = new_session(validated=False)
    stopped.stop_after = whole.n_steps - 1
    with pytest.raises(Interrupted):
        stopped.run()
    resumed = new_session(validated=False)
    resumed.run(resume=True)
    assert_same(resumed.weights, whole.weights)


CHOICES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1},
    "adafactor": {"optimizer": "adafactor"},
    "average": {"ema": 0.9},
    "average, adafactor, other course": {"ema": 0.9, "optimizer": "adafactor", "schedule": "inverse_sqrt"},
    "snapshots": {"snapshots": 2},
    "attack": {},
    "two passes": {},
}


@pytest.mark.parametrize("stop_after", [5, -2], ids=["first stage", "second stage"])
@pytest.mark.parametrize("choice", list(CHOICES))
def test_however_it_trains_a_stop_is_no_loss(
    choice: str, stop_after: int, new_session: Callable[..., Session], world_batches: Batches
) -> None:
    config = CONFIG.model_copy(update=CHOICES[choice])

    def session(name: str) -> Session:
        made = new_session(name, config)
        made.trainer.batches = lambda stage, epoch: world_batches(stage, epoch)[:4]
        made.learner.adversarial = AdversarialConfig(kind="freelb" if choice == "attack" else "none")
        made.learner.regularisers = RegularisersConfig(r_drop=2.0 if choice == "two passes" else 0.0, l2_sp=0.01)
        made.learner.start_pull = pull_to(made.learner.encoder, 0.01) if made.learner.encoder else None
        return made

    whole = session("whole")
    report = whole.run()
    assert all(np.isfinite(row["loss"]) for row in whole.rows)
    stopped = session("stopped")
    stopped.stop_after = stop_after if stop_after > 0 else whole.n_steps + stop_after
    with pytest.raises(Interrupted):
        stopped.run()
    resumed = session("stopped")
    again = resumed.run(resume=True)
    assert_same(resumed.weights, whole.weights)
    assert stopped.rows + resumed.rows == whole.rows
    assert len(report.snapshots) == len(again.snapshots) == config.snapshots
    for one, other in zip(report.snapshots, again.snapshots, strict=True):
        assert_same(other, one)


def test_the_average_is_what_is_validated_and_kept_and_training_goes_on_from_the_last_step(
    make_learner: Callable[..., Learner], world_batches: Batches, tmp_path: Path
) -> None:
    learner, seen = make_learner(), list[Weights]()
    config = CONFIG.model_copy(update={"frozen_epochs": 2, "tuned_epochs": 1, "ema": 0.8})
    session = Session(learner, world_batches, tmp_path, config, scripted([0.1, 0.2, 0.3], learner, seen))
    session.run()
    state = session.trainer.state
    averaged = {name: value for name, value in seen[2].items() if name in state.averaged}
    assert_same(averaged, state.averaged)
    assert {name.split(".")[0] for name in averaged} == {"towers", "encoder"}
    assert_same(session.weights, seen[2])  # the best is the average, whose cache is what its own model says
    learner.refresh()
    torch.testing.assert_close(learner.text_vec, seen[2]["text_vec"], atol=1e-5, rtol=1e-5)
    names = [name for name in averaged if name.startswith("towers.")]
    assert not any(torch.equal(state.weights[name], averaged[name]) for name in names if averaged[name].numel() > 20)


def test_the_average_takes_in_what_an_objective_learns(
    make_learner: Callable[..., Learner], world_batches: Batches, world: Dataset, tmp_path: Path
) -> None:
    past = PastPopularity.of(world.interactions, world.catalog.n_items, half_life_days=2.0)
    learner, seen = make_learner(objective=WithTrend(FullSoftmax(), past)), list[Weights]()
    config = CONFIG.model_copy(update={"frozen_epochs": 1, "tuned_epochs": 0, "ema": 0.9})
    session = Session(learner, world_batches, tmp_path, config, scripted([0.1], learner, seen))
    session.run()
    state = session.trainer.state
    assert torch.equal(seen[0]["objective.weight"], state.averaged["objective.weight"])
    assert not torch.equal(seen[0]["objective.weight"], state.weights["objective.weight"])


def test_snapshots_are_taken_at_the_ends_of_cycles_that_begin_at_the_full_rate(
    new_session: Callable[..., Session],
) -> None:
    config = CONFIG.model_copy(update={"frozen_epochs": 4, "tuned_epochs": 0, "snapshots": 2, "warmup_share": 0.0})
    session = new_session("snapshots", config)
    report = session.run()
    first, second = report.snapshots
    assert_same(second, {name: value for name, value in session.trainer.state.weights.items() if name in second})
    assert not torch.equal(first["towers.user_model.start"], second["towers.user_model.start"])
    stage, n = session.stages[0], 10
    rates = [stage.factor(epoch, step, n, 4 * n, config) for epoch in range(4) for step in range(n)]
    assert rates[0] == rates[2 * n] == 1.0
    assert rates[: 2 * n] == rates[2 * n :] == sorted(rates[: 2 * n], reverse=True)
    assert rates[2 * n - 1] < 0.01


def test_every_cycle_ends_in_a_snapshot_also_where_validation_only_falls(
    make_learner: Callable[..., Learner], world_batches: Batches, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"frozen_epochs": 4, "tuned_epochs": 0, "snapshots": 4, "patience": 1})
    learner = make_learner()
    falling = scripted([0.4, 0.3, 0.2, 0.1], learner, list[Weights]())
    report = Session(learner, world_batches, tmp_path, config, falling).run()
    assert (len(report.snapshots), report.frozen_epoch) == (4, 1)


def test_penalties_of_the_language_model_count_once_for_each_batch_that_its_gradient_is_of(
    make_learner: Callable[..., Learner], world_batches: Batches, tmp_path: Path
) -> None:
    """What is charged in an epoch is the same, however many steps of the towers one of the language model gathers."""
    charged = {}
    for interval in (1, 3):
        learner = make_learner()
        factors: list[float] = []

        def penalties(factors: list[float] = factors, learner: Learner = learner) -> Iterator[Tensor]:
            assert learner.encoder is not None
            weight = next(p for p in learner.encoder.parameters() if p.requires_grad)
            weight_sum = weight.sum() * 0.0
            weight_sum.register_hook(lambda gradient: factors.append(float(gradient)))  # type: ignore[no-untyped-call]
            yield weight_sum

        learner.penalties = penalties  # type: ignore[method-assign]
        config = CONFIG.model_copy(update={"frozen_epochs": 0, "tuned_epochs": 1, "encoder_interval": interval})
        Session(learner, world_batches, tmp_path / str(interval), config).run()
        charged[interval] = factors
    assert set(charged[1]) == {1.0}
    assert charged[3][0] == 3.0
    assert sum(charged[3]) == sum(charged[1]) == len(charged[1])


@pytest.mark.parametrize(
    ("choices", "refits", "rule"),
    [
        ({"snapshots": 3, "frozen_epochs": 10}, True, "frozen_epochs is 10, and must be a multiple of it"),
        ({"snapshots": 2, "schedule": "linear"}, True, "training.schedule is 'linear'"),
        ({"snapshots": 2, "ema": 0.9}, True, "training.ema averages over"),
        ({"snapshots": 2}, False, "what is served comes from the second stage"),
    ],
)
def test_cycles_that_cannot_be_are_refused(choices: dict[str, Any], refits: bool, rule: str) -> None:
    with pytest.raises(ValueError, match=rf"training.snapshots is \d: .*{rule}"):
        check_snapshots(TrainingConfig.model_validate(choices), refits)


def test_training_lowers_the_loss_in_both_stages(uninterrupted: dict[str, Any]) -> None:
    rows = uninterrupted["rows"]
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("frozen", 1),
        ("frozen", 2),
        ("tuned", 1),
        ("tuned", 2),
    ]
    assert rows[1]["loss"] < rows[0]["loss"]
    assert rows[3]["loss"] < rows[0]["loss"]
    assert uninterrupted["report"].best_stage == "tuned"


def test_a_stop_state_of_another_recipe_is_refused(new_session: Callable[..., Session]) -> None:
    stopped = new_session()
    stopped.stop_after = 1
    with pytest.raises(Interrupted):
        stopped.run()
    with pytest.raises(RunFolderError, match="another recipe, seed or language model, or other data"):
        load_training_state(stopped.trainer.state_folder, "other")


def test_resuming_nothing_is_refused(new_session: Callable[..., Session]) -> None:
    with pytest.raises(RunFolderError, match=r"holds no interrupted training. Run fit without --resume"):
        new_session().run(resume=True)


def scripted(values: list[float], learner: Learner, seen: list[Weights]) -> Callable[[], float]:
    """A validator with known answers that remembers the weights it was asked about."""
    answers: Iterator[float] = iter(values)

    def validate() -> float:
        seen.append({name: value.clone() for name, value in learner.state_dict().items()})
        return next(answers)

    return validate


def test_early_stopping_ends_a_stage_and_restores_the_best(
    make_learner: Callable[..., Learner], world_batches: Batches, tmp_path: Path
) -> None:
    learner, seen = make_learner(), list[Weights]()
    config = CONFIG.model_copy(update={"frozen_epochs": 10, "tuned_epochs": 0, "patience": 2})
    session = Session(learner, world_batches, tmp_path, config, scripted([0.1, 0.5, 0.4, 0.5, 9.0], learner, seen))
    report = session.run()
    assert len(seen) == 4  # an equal value is not a better one: two bad epochs after the second
    assert (report.best_metric, report.best_epoch, report.best_stage) == (0.5, 2, "frozen")
    assert_same(session.weights, seen[1])
    assert not torch.equal(
        seen[1]["towers.item_tower.projection.weight"], seen[3]["towers.item_tower.projection.weight"]
    )


def test_the_second_stage_begins_at_the_best_of_the_first_and_loses_to_it_if_it_is_worse(
    make_learner: Callable[..., Learner], world_batches: Batches, tmp_path: Path
) -> None:
    learner, seen = make_learner(), list[Weights]()
    config = CONFIG.model_copy(update={"frozen_epochs": 3, "patience": 1})
    session = Session(learner, world_batches, tmp_path, config, scripted([0.5, 0.4, 0.3, 0.3, 9.0], learner, seen))
    report = session.run()
    assert len(seen) == 4  # patience 1: one bad epoch ends a stage, its first is the best that it has yet
    assert (report.best_metric, report.best_stage, report.frozen_metric) == (0.5, "frozen", 0.5)
    assert_same(session.weights, seen[0])
    assert_same(report.frozen_best or {}, {k: v for k, v in seen[0].items() if k.startswith("towers.")})


def test_a_second_stage_that_rises_from_below_the_first_goes_on(
    make_learner: Callable[..., Learner], world_batches: Batches, tmp_path: Path
) -> None:
    learner, seen = make_learner(), list[Weights]()
    config = CONFIG.model_copy(update={"frozen_epochs": 1, "tuned_epochs": 9, "patience": 2})
    told = [0.5, 0.2, 0.3, 0.4, 0.6, 0.5, 0.5, 9.0]
    report = Session(learner, world_batches, tmp_path, config, scripted(told, learner, seen)).run()
    assert (len(seen), report.best_metric, report.best_stage, report.best_epoch) == (7, 0.6, "tuned", 4)
    assert (report.frozen_metric, report.frozen_epoch) == (0.5, 1)


def test_only_what_is_asked_for_changes(
    make_learner: Callable[..., Learner], new_session: Callable[..., Session], uninterrupted: dict[str, Any]
) -> None:
    before = make_learner().state_dict()
    changed = {name for name, value in uninterrupted["weights"].items() if not torch.equal(value, before[name])}
    assert {name for name in changed if name.startswith("encoder.")} == {
        name for name in before if "encoder.layer.2." in name
    }
    assert "text_vec" in changed
    only_frozen = new_session("frozen", CONFIG.model_copy(update={"tuned_epochs": 0}))
    only_frozen.run()
    after = only_frozen.weights
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("towers."))


def test_the_cache_of_a_tuned_model_is_what_the_model_says_now(new_session: Callable[..., Session]) -> None:
    session = new_session("frozen", CONFIG.model_copy(update={"frozen_epochs": 1, "tuned_epochs": 1}))
    session.run()
    cached = session.learner.text_vec.clone()
    session.learner.refresh()
    torch.testing.assert_close(session.learner.text_vec, cached, atol=1e-5, rtol=1e-5)


def test_a_loss_that_is_no_number_stops_with_the_place_and_a_way_out(new_session: Callable[..., Session]) -> None:
    session = new_session()
    with torch.no_grad():
        session.learner.text_vec[0] = float("nan")
    with pytest.raises(TrainingError, match=r"the loss is nan in epoch 1, step 1. Lower the learning rates"):
        session.run()


def test_accumulated_batches_make_the_step_of_one_large_batch(
    make_learner: Callable[..., Learner], world_batches: Batches, tmp_path: Path
) -> None:
    """Of batches with equal weights: the mean of the gradients is the gradient of the mean."""
    one = world_batches(0, 0)[0]
    config = CONFIG.model_copy(update={"frozen_epochs": 1, "tuned_epochs": 0})
    results = []
    for name, batches, accumulate in (("one", [one], 1), ("three", [one] * 3, 3), ("apart", [one] * 3, 1)):
        learner = make_learner(dropout=0.0)
        session = Session(
            learner,
            lambda stage, epoch, batches=batches: batches,  # type: ignore[misc]
            tmp_path / name,
            config.model_copy(update={"accumulate": accumulate}),
        )
        session.run()
        results.append((session.n_steps, session.weights, session.rows[0]["loss"]))
    (single_steps, single, single_loss), (steps, accumulated, loss), (apart_steps, apart, _) = results
    assert (single_steps, steps, apart_steps) == (1, 1, 3)
    assert loss == pytest.approx(single_loss, rel=1e-5)
    # AdamW's first step is the gradient's sign: rounding shows where a gradient is nearly zero, as those of biases are.
    words = "towers.item_tower.projection.weight"
    torch.testing.assert_close(accumulated[words], single[words], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(apart[words], single[words])


def test_a_last_group_that_is_not_full_still_makes_a_step(
    make_learner: Callable[..., Learner], world_batches: Batches, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"frozen_epochs": 1, "tuned_epochs": 0, "accumulate": 2})
    session = Session(make_learner(), lambda stage, epoch: world_batches(0, 0)[:5], tmp_path, config)
    session.run()
    assert session.n_steps == 3


def test_gradients_are_clipped(
    make_learner: Callable[..., Learner], world_batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.stack([g.norm() for g in grads]).norm()))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    config = CONFIG.model_copy(update={"frozen_epochs": 1, "tuned_epochs": 0, "max_grad_norm": 1e-3})
    Session(make_learner(), world_batches, tmp_path, config).run()
    assert norms
    assert max(norms) <= 1.01e-3


def test_the_state_on_disk_is_safetensors_and_json_only(new_session: Callable[..., Session]) -> None:
    stopped = new_session()
    stopped.stop_after = 2
    with pytest.raises(Interrupted):
        stopped.run()
    files = sorted(path.name for path in stopped.trainer.state_folder.iterdir())
    assert files == ["state.json", "state.safetensors"]
    assert json.loads((stopped.trainer.state_folder / "state.json").read_text())["step"] == 2


def test_stages_without_epochs_or_anything_to_tune_fall_away() -> None:
    config = TrainingConfig(frozen_epochs=3, tuned_epochs=2)
    frozen, tuned = plan_stages(config, can_tune=True)
    assert (frozen.regime, frozen.n_epochs, tuned.regime, tuned.n_epochs) == ("frozen", 3, "tuned", 2)
    assert plan_stages(config, can_tune=False) == [frozen]
    assert plan_stages(config.model_copy(update={"frozen_epochs": 0}), can_tune=True) == [
        Stage("tuned", 2, config.tuned_learning_rate, config.encoder_learning_rate)
    ]


def test_precision_is_what_was_asked_or_what_the_machine_does_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trains_in_bf16(TrainingConfig(precision="bf16"))
    assert not trains_in_bf16(TrainingConfig(precision="fp32"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for able in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"amx_bf16": able})
        assert trains_in_bf16(TrainingConfig()) == able
