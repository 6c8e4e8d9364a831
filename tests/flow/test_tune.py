"""A search for a better recipe: by validation alone, resumable, prunable, and confirmed with fresh seeds."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import Result

from lmrec.errors import InputError, Interrupted, RecipeError, RunFolderError
from lmrec.recipe import Recipe, load_recipe, with_choices
from lmrec.training.search import Choices
from lmrec.workflows import train, tune
from lmrec.workflows.prepare import Prepared, prepare
from lmrec.workflows.train import fit_run
from lmrec.workflows.tune import tune_recipe

from .stopping import asks

Invoke = Callable[..., Result]
SPACE = """
[tune]
trials = 5
startup = 2

[tune.space]
training.learning_rate = {low = 1e-6, high = 1e-1, log = true}
"user_model.heads" = {choices = [2, 3]}
"""


@pytest.fixture(scope="module")
def recipe(quick_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    file = tmp_path_factory.mktemp("tune") / "recipe.toml"
    file.write_text(SPACE)
    more = ["item.width=18", "user_model.heads=2", "training.frozen_epochs=3", "encoder.train=none"]
    return load_recipe(file, [*quick_choices, *more, "training.validation_cases=40"])


@pytest.fixture(scope="module")
def prepared(world_folder: Path, recipe: Recipe) -> Prepared:
    return prepare(world_folder / "items.csv", world_folder / "events.csv", None, recipe)


def asked_for(out: Path) -> list[dict[str, Any]]:
    import optuna

    return [trial.params for trial in optuna.load_study(study_name="lmrec", storage=f"sqlite:///{out}/study.db").trials]


def test_trials_go_on_where_they_stopped_and_the_best_recipe_is_written_and_confirmed(
    prepared: Prepared, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    fitted: list[Recipe] = []

    def stopping(*args: Any, **named: Any) -> Any:
        if len(fitted) == 3:
            raise Interrupted("stopped in epoch 1")
        fitted.append(named["recipe"])
        return fit_run(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(tune, "fit_run", stopping)
        with pytest.raises(Interrupted, match="3 finished trials are kept. The same command goes on"):
            tune_recipe(prepared, recipe, out, show=False)
    with monkeypatch.context() as patch:  # all trials are done; what is confirmed goes on, too
        wish, _ = asks(lambda n: n == 1)
        tune_recipe(prepared, recipe, out, show=False)
        patch.setattr(train, "stop_on_interrupt", wish)
        with pytest.raises(Interrupted, match="5 finished trials are kept. The same command goes on"):
            tune_recipe(prepared, recipe, out, confirm=1, show=False)
    found = tune_recipe(prepared, recipe, out, confirm=1, show=False)
    assert found.n_whole + found.n_pruned + found.n_refused == 5
    assert found.n_refused == 0
    assert all(not fit.training.refit and not fit.tracking.to for fit in fitted)
    best = load_recipe(found.recipe_file)
    assert best.training.learning_rate == found.best["training.learning_rate"]
    assert best.user_model.heads == found.best["user_model.heads"]
    assert best.training.refit
    assert not best.tune.space
    assert sum(found.importance.values()) == pytest.approx(1.0) if found.importance else found.n_whole < 4
    assert (out / "history.png").read_bytes()[:4] == b"\x89PNG"
    assert found.confirmed is not None
    assert found.confirmed.seeds == (1,)
    assert found.confirmed.gain == found.confirmed.found[0] - found.confirmed.given[0]
    (confirmed,) = (out / "confirm").glob("found-1-*/run.json")
    assert json.loads(confirmed.read_text())["seed"] == 1
    assert not list(out.glob(".trial-*"))
    again = tune_recipe(prepared, recipe, out, confirm=1, show=False)  # nothing is left to do
    assert again == found
    drawn = [trial["training.learning_rate"] for trial in asked_for(out)]
    assert len(set(drawn)) == len(drawn) - 1, "only the one that was stopped is asked for twice"
    other = load_recipe(None, values={"tune.trials": 6})
    with pytest.raises(RunFolderError, match="holds a study of another recipe, language model or data"):
        tune_recipe(prepared, other, out, show=False)


def test_a_study_is_bound_to_what_its_trials_read(
    prepared: Prepared, recipe: Recipe, tiny_bert: Path, tmp_path: Path
) -> None:
    """Also where a trial alone reads it: a folder of a language model that is pretrained anew is another one."""
    base, other = (Path(shutil.copytree(tiny_bert, tmp_path / name)) for name in ("base", "other"))
    names = Choices(choices=(str(base), str(other)))
    searched = recipe.tune.model_copy(update={"trials": 1, "space": {"encoder.name": names}})
    varied = recipe.model_copy(update={"tune": searched})
    tune_recipe(prepared, varied, tmp_path / "study", show=False)
    tune_recipe(prepared, varied, tmp_path / "study", show=False)
    weights = load_file(other / "model.safetensors")
    save_file({name: -value for name, value in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunFolderError, match="another recipe, language model or data"):
        tune_recipe(prepared, varied, tmp_path / "study", show=False)


def test_after_more_trials_the_recipe_that_is_confirmed_is_the_one_that_is_written(
    prepared: Prepared, recipe: Recipe, tmp_path: Path
) -> None:
    rates: list[float] = []
    for n_trials in (1, 6):
        asked = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"trials": n_trials})})
        found = tune_recipe(prepared, asked, tmp_path / "study", confirm=1, show=False)
        rates.append(load_recipe(found.recipe_file).training.learning_rate)
    assert rates[0] != rates[1]
    runs = (tmp_path / "study" / "confirm").glob("found-1-*/recipe.toml")
    assert sorted(load_recipe(run).training.learning_rate for run in runs) == sorted(rates)


def test_a_bad_trial_is_stopped_and_choices_that_do_not_go_together_are_counted(
    prepared: Prepared, recipe: Recipe, tmp_path: Path
) -> None:
    """Some of the trials would give the transformer heads that do not divide the width."""
    tree = recipe.model_dump()
    tree["tune"]["space"] = {
        "user_model.heads": {"choices": [2, 4]},
        "item.width": {"choices": [16, 18]},
        "training.learning_rate": {"choices": [1e-30, 3e-2]},
    }
    tree["tune"]["trials"] = 10
    tree["item"]["width"] = 16
    tree["tune"]["sampler"] = "random"
    tree["training"]["frozen_epochs"] = 6
    found = tune_recipe(prepared, Recipe.model_validate(tree), tmp_path / "study", show=False)
    assert found.n_whole + found.n_pruned + found.n_refused == 10
    assert found.n_refused > 0
    assert found.n_pruned > 0
    assert (found.best["user_model.heads"], found.best["item.width"]) != (4, 18)


def test_a_trial_that_learns_nothing_ends_and_the_search_goes_on(
    world_folder: Path, quick_choices: list[str], tmp_path: Path
) -> None:
    diverging = ["training.optimizer=sgd", "training.max_grad_norm=1e9", "head.kind=dot", "tune.trials=4"]
    space = 'tune.space={"training.learning_rate" = {choices = [1e8, 1e-3]}}'
    choices = [
        *quick_choices,
        *diverging,
        space,
        "tune.sampler=random",
        "encoder.train=none",
        "training.frozen_epochs=2",
    ]
    recipe = load_recipe(overrides=[*choices, "training.validation_cases=20"])
    prepared = prepare(world_folder / "items.csv", world_folder / "events.csv", None, recipe)
    found = tune_recipe(prepared, recipe, tmp_path / "study", show=False)
    assert (found.n_whole + found.n_refused, found.best["training.learning_rate"]) == (4, 1e-3)
    assert found.n_refused > 0


def test_what_one_worker_was_stopped_in_is_asked_again_not_what_another_has_begun_since(
    prepared: Prepared, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna

    def meanwhile(*args: Any, **named: Any) -> Any:
        other = optuna.load_study(study_name="lmrec", storage=f"sqlite:///{tmp_path}/study/study.db")
        other.ask().suggest_float("training.learning_rate", 1e-6, 1e-1, log=True)
        raise Interrupted("stopped")

    monkeypatch.setattr(tune, "fit_run", meanwhile)
    with pytest.raises(Interrupted):
        tune_recipe(prepared, recipe, tmp_path / "study", show=False)
    study = optuna.load_study(study_name="lmrec", storage=f"sqlite:///{tmp_path}/study/study.db")
    stopped, running, waiting = study.trials
    assert (running.state.name, waiting.state.name) == ("RUNNING", "WAITING")
    assert waiting.system_attrs["fixed_params"] == stopped.params != running.params


def test_two_workers_on_one_study_finish_the_asked_number_of_trials_together(
    world_folder: Path, quick_choices: list[str], tmp_path: Path
) -> None:
    """Two processes of the real command line, started at once. Each trial is made by one of them; as docs/tuning/search.md
    says, the one that is at work when the last is done may add one."""
    words = ["--items", world_folder / "items.csv", "--interactions", world_folder / "events.csv"]
    words += ["--out", tmp_path / "study", "--trials", 6, "--confirm", 1, "--quiet", "--json"]
    more = ["encoder.train=none", "split.validation=0.05", "training.validation_cases=20", "tune.prune=false"]
    more += ['tune.space={"training.learning_rate" = {low = 1e-4, high = 1e-1, log = true}}', "tune.startup=9"]
    words += [word for choice in [*quick_choices, *more] for word in ("--set", choice)]
    command = [sys.executable, "-m", "lmrec.cli.app", "tune", *map(str, words)]
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        for _ in range(2)
    ]
    told = [worker.communicate(timeout=300) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
    import optuna

    study = optuna.load_study(study_name="lmrec", storage=f"sqlite:///{tmp_path}/study/study.db")
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    assert 6 <= len(study.trials) <= 7
    rates = [trial.params["training.learning_rate"] for trial in study.trials]
    assert len(set(rates)) == len(rates), "no worker repeats the other's trials"
    shown = study.trials_dataframe(("datetime_start", "datetime_complete")).sort_values("datetime_start")
    assert (shown.datetime_start[1:].values < shown.datetime_complete[:-1].values).any(), "they worked at the same time"
    best = study.best_value
    found = [json.loads(out) for out, _ in told]
    assert best in [one["best_value"] for one in found]
    assert [one["confirmed"]["seeds"] for one in found] == [[1], [1]]
    # The worker that was done first may have found another best; what is confirmed is each one's own.
    for name, most in (("given", 1), ("found", len({one["best_value"] for one in found}))):
        records = [*(tmp_path / "study" / "confirm").glob(f"{name}-1-*/run.json")]
        assert len(records) == most
        assert all(json.loads(record.read_text())["status"] == "trained" for record in records)
    assert not list((tmp_path / "study").glob(".trial-*"))


def test_a_key_that_is_idle_in_a_trial_fails_none_and_one_that_is_idle_in_all_is_refused(
    prepared: Prepared, recipe: Recipe, tmp_path: Path
) -> None:
    """A mean has no layers: where it wins, the best recipe says none, and can be read."""
    tree = recipe.model_dump()
    tree["training"]["frozen_epochs"] = 1
    layers = {"choices": [2, 3]}

    def varying(*kinds: str) -> Recipe:
        space = {"user_model.kind": {"choices": kinds}, "user_model.layers": layers}
        return Recipe.model_validate({**tree, "tune": {"trials": 2, "sampler": "random", "space": space}})

    with pytest.raises(RecipeError, match=r"varies user_model\.layers, .* without user_model\.kind 'transformer'"):
        tune_recipe(prepared, varying("mean", "attention"), tmp_path / "study", show=False)
    found = tune_recipe(prepared, varying("mean", "transformer"), tmp_path / "study", show=False)
    assert (found.n_whole + found.n_pruned, found.n_refused) == (2, 0)
    best = load_recipe(found.recipe_file)
    assert best.user_model.layers == (1 if best.user_model.kind == "mean" else found.best["user_model.layers"])


def test_a_recipe_that_no_trial_can_be_made_of_is_refused_before_the_first(
    prepared: Prepared, recipe: Recipe, tmp_path: Path
) -> None:
    """Snapshots beside a second stage live on the refit, which trials leave out; without that stage they are fine."""
    tree = recipe.model_dump()
    tree["training"] |= {"snapshots": 3, "tuned_epochs": 1}
    tree["encoder"]["train"] = "last_layers"

    def varying(space: dict[str, Any]) -> Recipe:
        return Recipe.model_validate({**tree, "tune": {"trials": 3, "sampler": "random", "space": space}})

    rate = {"training.learning_rate": {"low": 1e-3, "high": 1e-2}}
    with pytest.raises(RecipeError, match="without training.refit, .* what is served comes from the second stage"):
        tune_recipe(prepared, varying(rate), tmp_path / "study", show=False)
    assert not (tmp_path / "study").exists()
    found = tune_recipe(
        prepared, varying({"training.tuned_epochs": {"choices": [0, 1]}}), tmp_path / "study", show=False
    )
    assert found.n_whole + found.n_pruned + found.n_refused == 3
    assert found.best["training.tuned_epochs"] == 0


def test_where_every_trial_is_refused_the_first_reason_is_told(
    prepared: Prepared, recipe: Recipe, tmp_path: Path
) -> None:
    """How many layers there are is known only once the model is read."""
    tree = recipe.model_dump()
    tree["encoder"]["train"] = "last_layers"
    tree["tune"] = {"trials": 2, "space": {"encoder.n_layers": {"choices": [7, 8]}}}
    with pytest.raises(
        InputError, match="none of 2 trials .* Of the 2 that were refused the first: encoder.n_layers is [78]"
    ):
        tune_recipe(prepared, Recipe.model_validate(tree), tmp_path / "study", show=False)


def test_what_refuses_every_trial_alike_is_told_after_three(
    prepared: Prepared, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once it is mended the same command goes on."""

    def refuse(*_: Any, **__: Any) -> None:
        raise RecipeError("encoder.name 'far' could not be loaded")

    with monkeypatch.context() as patch:
        patch.setattr(tune, "fit_run", refuse)
        with pytest.raises(
            InputError, match="none of 3 trials came to its end.* encoder.name 'far' could not be loaded"
        ):
            tune_recipe(prepared, recipe, tmp_path / "study", show=False)
    assert tune_recipe(prepared, recipe, tmp_path / "study", show=False).n_refused == 3


def test_no_trial_sees_the_test_part(
    prepared: Prepared, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmrec.workflows import judge

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("judged during the search")

    monkeypatch.setattr(judge, "judge_run", refuse)
    one = recipe.model_copy(update={"tune": recipe.tune.model_copy(update={"trials": 1})})
    assert tune_recipe(prepared, one, tmp_path / "study", show=False).n_whole == 1


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ('"training.learning_rat" = {low = 1, high = 2}', "unknown key 'training.learning_rat'. Did you mean"),
        ('"evaluation.metric" = {choices = ["auc", "mrr@10"]}', "cannot vary 'evaluation.metric'"),
        ('"training.seed" = {low = 1, high = 2}', "cannot vary 'training.seed'"),
        ('"training.start_seed" = {low = 1, high = 2}', "cannot vary 'training.start_seed': the luckiest seed"),
        (
            '"training.refit" = {choices = [true, false]}',
            "cannot vary 'training.refit': a trial is worth what is validated",
        ),
        ('"training.validation_cases" = {low = 5, high = 50}', "would be compared on different cases"),
        ('"fusion.transitions" = {choices = [true, false]}', "before anything is fused"),
        ('"fusion.method" = {choices = ["auto", "learnt"]}', "before anything is fused"),
        ('"distil.epochs" = {low = 1, high = 5}', "cannot vary 'distil.epochs': no trial does what it is about"),
        ('"item.width" = {low = 0, high = 64}', "item.width = 0 is no recipe: item.width = 0: "),
        ('"head.kind" = {choices = ["cosine", "cosin"]}', "head.kind = 'cosin' is no recipe"),
        ('"item.width" = {low = 64, high = 32}', "low must be below high"),
        ('"training.learning_rate" = {low = 0, high = 1, log = true}', "on a log scale it must be above 0"),
        ('"item.width" = {low = 8, high = 32, log = true, step = 8}', "log and step do not go together"),
        ('"item.width" = {low = 16, high = 32, step = 2.5}', "step is 2.5 between whole numbers"),
        ('"item.width" = {low = 16.0, high = 32.0}', "item.width = 21.09.* is no recipe"),
        ('"item.width" = {low = 16.0, high = 32.0, step = 0.5}', "item.width = 16.5 is no recipe"),
    ],
)
def test_a_space_that_is_none_is_refused_when_the_recipe_is_read(space: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(f"[tune.space]\n{space}\n")
    with pytest.raises(RecipeError, match=told.replace("[", r"\[")):
        load_recipe(file)


def test_the_command_line(
    invoke: Invoke, world_folder: Path, quick_choices: list[str], tmp_path: Path, prepared: Prepared
) -> None:
    tables = ["--items", world_folder / "items.csv", "--interactions", world_folder / "events.csv"]
    words = [word for choice in [*quick_choices, "encoder.train=none"] for word in ("--set", choice)]
    words += ["--set", 'tune.space={"user_model.dropout" = {low = 0.0, high = 0.5}}', "--quiet"]
    shown = invoke("tune", *tables, "--out", tmp_path / "study", *words, "--trials", 2, "--json").stdout
    assert json.loads(shown)["n_whole"] + json.loads(shown)["n_pruned"] == 2
    told = invoke("tune", *tables, "--out", tmp_path / "study", *words, "--trials", 2)
    assert "user_model.dropout" in told.stdout
    assert "best.toml" in told.stderr
    assert "holds no study" in invoke("tune", *tables, "--out", world_folder, *words, code=2).stderr
    none = prepare(
        world_folder / "items.csv", world_folder / "events.csv", None, load_recipe(values={"split.kind": "none"})
    )
    with pytest.raises(InputError, match="--confirm judges on the test part"):
        tune_recipe(none, load_recipe(), tmp_path / "other", confirm=1)


def test_a_trial_is_the_fit_that_its_recipe_makes(recipe: Recipe) -> None:
    """A prefix changes vectors before it has learnt: where nothing tunes, no trial has one, as no recipe may."""
    drawn = {"encoder.adapter.kind": "prefix", "training.tuned_epochs": 0}
    trial = tune._trial_recipe(with_choices(recipe, {"encoder.train": "all"}), drawn)
    assert trial.encoder.adapter.kind == "none"
    assert not [one for one in trial.idle if one.refused]
