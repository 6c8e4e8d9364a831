"""The table of techniques: a shared first stage is a whole fit's, and what is kept comes back or is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks import fitting
from benchmarks.peers.cells import DATA
from benchmarks.tuning import chart, first_stage
from benchmarks.tuning.bench import ROOT, TOWERS_ALONE, Bench
from benchmarks.tuning.chart import GROUPS, keep_gaps
from benchmarks.tuning.costs import measure_all, measured, read_costs
from benchmarks.tuning.fewer_labels import thin
from benchmarks.tuning.first_stage import KeepFirstStage, begin_from, is_kept, is_shared
from benchmarks.tuning.fits import read_reranker
from benchmarks.tuning.how_it_trains import MIXED
from benchmarks.tuning.pairs import reranker_rows
from benchmarks.tuning.results import METRICS, Answers, Question, average, read_answer
from benchmarks.tuning.rows import Row, slug
from benchmarks.tuning.run import ROWS as ROWS_OF_TABLE
from benchmarks.tuning.run import measure, read_results, reranked_section
from benchmarks.tuning.steps import steps_by_recipe, steps_of
from benchmarks.tuning.table import beside_controls, table, what_rows_set
from benchmarks.tuning.what_trains import LONGER
from lmrec.artifacts.files import read_json
from lmrec.artifacts.run import RunFolder
from lmrec.artifacts.training_state import load_training_state
from lmrec.evaluation.compare import bootstrap_interval, paired_difference
from lmrec.recipe import load_recipe, recipe_toml
from lmrec.workflows.judge import judge_run
from lmrec.workflows.prepare import Prepared, prepare
from lmrec.workflows.train import fit_run

MORE = ("training.refit=false", "training.frozen_epochs=2", "training.encoder_interval=1", "split.validation=0.05")
ROWS = {
    "another policy": ("encoder.train=all", "training.layer_decay=0.5", "regularisers.l2_sp=0.1"),
    "an adapter": ("encoder.train=all", "encoder.adapter.kind=lora", "training.encoder_learning_rate=1e-2"),
    "fewer weights": ("encoder.train=norms_and_biases", "training.tuned_learning_rate=1e-30"),
    "dropout and layers that run again": ("encoder.train=all", "encoder.dropout=0.1", "encoder.checkpointing=true"),
    "no second stage": ("encoder.train=none",),
}


@pytest.mark.parametrize("recipe", [data.recipe for data in DATA.values()])
def test_nothing_stands_beside_the_towers_whatever_a_recipe_asks_for(recipe: str) -> None:
    asked = load_recipe(ROOT / "recipes" / f"{recipe}.toml", [*TOWERS_ALONE, "objective.trend_half_life_days=0"])
    assert not asked.fusion.any
    assert not asked.training.refit


def test_every_row_is_a_recipe_on_both_data_sets(prepared: Prepared, tmp_path: Path) -> None:
    for name in ("movielens-100k", "amazon-scientific"):
        bench = Bench(DATA[name], prepared, TOWERS_ALONE, False, tmp_path, tmp_path)
        for row in ROWS_OF_TABLE:
            fits = [row.member_at(place, 0) for place in range(len(row.members))] or [row]
            assert {bench.recipe(0, fit.overrides).training.seed for fit in fits} <= {0, 100, 200}, row.name


@pytest.fixture(scope="module")
def plain_choices(quick_choices: list[str]) -> list[str]:
    return [*quick_choices, *MORE]


@pytest.fixture(scope="module")
def prepared(world_folder: Path, plain_choices: list[str]) -> Prepared:
    return prepare(world_folder / "items.csv", world_folder / "events.csv", None, load_recipe(overrides=plain_choices))


@pytest.fixture(scope="module")
def kept(prepared: Prepared, plain_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The end of the plain fit's first stage."""
    folder, recipe = tmp_path_factory.mktemp("plain"), load_recipe(overrides=plain_choices)
    place = folder / "first-stages" / "0"
    watch = KeepFirstStage(folder / "run", place)
    fit_run(None, None, out=folder / "run", recipe=recipe, prepared=prepared, show=False, watch=watch)
    assert is_kept(place, recipe, prepared)
    assert not is_kept(place, load_recipe(overrides=[*plain_choices, "training.seed=1"]), prepared)
    return place


def test_what_other_code_has_made_is_made_anew(
    kept: Path, prepared: Prepared, plain_choices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first stage, a pretrained language model, the copy that a reranker is taught in: rows name the commit of today."""
    made = tmp_path / "encoders" / "DAPT"

    def make(*what: str) -> bool:
        """Whether it had to be."""
        fitting.keep_if_made_of(made, *what)
        missing = not made.exists()
        made.mkdir(parents=True, exist_ok=True)
        return missing

    assert [make("a", "b"), make("a", "b"), make("a", "c")] == [True, False, True]
    for module in (fitting, first_stage):
        monkeypatch.setattr(module, "code_fingerprint", lambda: "another commit's")
    assert make("a", "c")
    assert not is_kept(kept, load_recipe(overrides=plain_choices), prepared)


@pytest.mark.parametrize("row", ROWS)
def test_a_fit_from_the_shared_first_stage_ends_with_the_weights_of_a_whole_fit(
    row: str, kept: Path, prepared: Prepared, plain_choices: list[str], tmp_path: Path
) -> None:
    assert is_shared(ROWS[row])
    recipe = load_recipe(overrides=[*plain_choices, *ROWS[row]])
    whole = fit_run(None, None, out=tmp_path / "whole", recipe=recipe, prepared=prepared, show=False).run
    begin_from(kept, tmp_path / "shared", recipe, prepared)
    shared = fit_run(None, None, out=tmp_path / "shared", recipe=recipe, prepared=prepared, show=False, resume=True).run
    learnt = [
        [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in run.curves.read()]
        for run in (whole, shared)
    ]
    assert learnt[0] == learnt[1]
    files = sorted(path.relative_to(whole.path) for path in whole.path.rglob("*.safetensors"))
    assert files == sorted(path.relative_to(shared.path) for path in shared.path.rglob("*.safetensors"))
    for file in files:
        one, other = load_file(whole.path / file), load_file(shared.path / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one), file


def test_what_changes_the_first_stage_does_not_share_it() -> None:
    for override in ("encoder.adapter.kind=prefix", "training.schedule=linear", "objective.label_smoothing=0.1"):
        assert not is_shared(("encoder.train=all", override))


def test_longer_tuning_and_its_control_step_the_towers_alike_and_the_control_leaves_the_language_model(
    kept: Path, prepared: Prepared, plain_choices: list[str], tmp_path: Path
) -> None:
    short = ("training.tuned_batch_events=100", "training.tuned_epochs=2")
    epochs, moved = [], []
    for row in (LONGER[0], LONGER[-1]):
        assert is_shared(row.overrides)
        recipe = load_recipe(overrides=[*plain_choices, *row.overrides, *short])
        out = tmp_path / slug(row.name)
        begin_from(kept, out, recipe, prepared)
        began = encoder_in(RunFolder(out))
        later: list[dict[str, torch.Tensor]] = []

        def watch(_row: object, out: Path = out, later: list[dict[str, torch.Tensor]] = later) -> None:
            later.append(encoder_in(RunFolder(out)))  # of the last epoch's end

        run = fit_run(None, None, out=out, recipe=recipe, prepared=prepared, show=False, resume=True, watch=watch).run
        moved.append(max(float((later[-1][name] - value).abs().max()) for name, value in began.items()))
        told, counted = steps_of(run), steps_by_recipe(recipe, prepared.split.train)
        assert (told["taken"], told["epochs"]) == (counted["taken"], 2)
        assert steps_of(run, judges_tuned=False)["judged"] == 0
        assert (told["taken"] == 0) == (row is LONGER[0])
        epochs.append(run.curves.read())
    assert moved[0] < 1e-25 < 1e-4 < moved[1]
    assert [row["learning_rate"] for row in epochs[0]] == [row["learning_rate"] for row in epochs[1]]
    assert epochs[0][-1]["loss"] != epochs[0][-2]["loss"]  # the control's towers learn on
    assert epochs[0][-1]["loss"] != epochs[1][-1]["loss"]


def encoder_in(run: RunFolder) -> dict[str, torch.Tensor]:
    """What is learnt of the language model, in a fit's state on disk."""
    fingerprint = read_json(run.training_state / "state.json")["fingerprint"]
    state = load_training_state(run.training_state, fingerprint)
    assert state is not None
    return {name: value for name, value in state.weights.items() if name.startswith("encoder.")}


def test_kept_sums_give_the_intervals_of_the_cases(fitted: Path, tmp_path: Path) -> None:
    judged = judge_run(fitted, show=False)
    found = next(iter(judged.evaluations.values()))
    other = judged.evaluations[list(judged.evaluations)[-1]]
    question = Question("a, row", 0, ("a=1",), "data")
    Answers.of(found, question.as_dict()).save(question.file(tmp_path))
    assert question.file(tmp_path).stat().st_size < 8000
    held, why = read_answer(tmp_path, question)
    assert held is not None
    assert not why
    metric, groups = "ndcg@10", found.groups
    assert held.mean(metric) == pytest.approx(found.aggregate[metric], abs=1e-5)
    assert held.mean("auc") == pytest.approx(found.aggregate["auc"], abs=1e-5)
    exact = bootstrap_interval(found.metrics[metric], groups)
    assert bootstrap_interval(held.by_case(metric), held.groups) == pytest.approx(exact, abs=1e-5)
    gap = paired_difference(found.metrics[metric], other.metrics[metric], groups)
    kept_gap = paired_difference(held.by_case(metric), Answers.of(other, {}).by_case(metric), held.groups)
    assert (kept_gap.mean, kept_gap.low, kept_gap.high) == pytest.approx((gap.mean, gap.low, gap.high), abs=1e-5)


def test_a_result_of_another_question_is_not_used_and_it_is_said_why(tmp_path: Path) -> None:
    question = Question("row", 0, ("a=1",), "data")
    answers(0.5, question.as_dict()).save(question.file(tmp_path))
    for changed, told in (({"overrides": ("a=2",)}, "overrides"), ({"data": "other"}, "data")):
        found, why = read_answer(tmp_path, replace(question, **changed))
        assert found is None
        assert why == f"row-0.npz is not used: it is of other {told}"
    assert read_answer(tmp_path, replace(question, seed=1)) == (None, "")


def test_the_table_says_how_many_seeds_a_row_has_and_names_those_that_are_missing() -> None:
    results = {
        "plain": {0: answers(0.2), 1: answers(0.4)},
        "row": {1: answers(0.5)},
    }
    shown = table(["plain", "row", "as plain", "late"], results, "plain", {"as plain": "plain"})
    paired = [Row("plain", (), "", beside="row"), Row("row", (), ""), Row("late", (), "", beside="row")]
    assert beside_controls(paired, results) == ["| plain | row | -0.1000 [-0.1000, -0.1000] * |"]  # seed 1 of both
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines()[2:5]]
    assert [line[0] for line in cells] == ["plain", "row", "as plain"]
    assert cells[0][1].startswith("0.3000")
    assert cells[0][2] == ""
    assert cells[0][5:7] == ["2", "0.2000 to 0.4000"]
    assert cells[1][2] == "+0.1000 [+0.1000, +0.1000] *"  # to plain's seed 1 alone
    assert cells[2][1] == "the same as plain here"
    assert len({len(line) for line in cells}) == 1
    assert shown.endswith("Not measured yet: late.")


def test_costs_are_kept_row_by_row_and_stand_in_the_table(
    prepared: Prepared, plain_choices: list[str], tmp_path: Path
) -> None:
    bench = Bench(DATA["movielens-100k"], prepared, tuple(plain_choices), True, tmp_path / "runs", tmp_path / "results")
    rows = [row for row in ROWS_OF_TABLE if row.name in ("plain", "head only", "lora", "DAPT mlm", "uniform soup")]
    asked: list[str] = []

    def here(row: Row) -> dict[str, object] | None:
        asked.append(row.name)
        return measured(bench, row)

    measure_all(bench, rows, False, here)
    measure_all(bench, rows, False, here)
    assert asked == ["plain", "head only", "lora"]  # each once; others have no costs of their own
    costs = read_costs(bench, rows)
    assert costs["plain"]["tuned_seconds"] > 0 < costs["plain"]["frozen_seconds"]
    assert "tuned_seconds" not in costs["head only"]
    assert costs["lora"]["kept_mb"] < costs["plain"]["kept_mb"]
    assert costs["lora"]["peak_mb"] > 100
    shown = table(
        ["plain", "head only"], {"plain": {0: answers(0.2)}, "head only": {0: answers(0.2)}}, "plain", {}, costs
    )
    plain, head = ([cell.strip() for cell in line.split("|")[1:-1]] for line in shown.splitlines()[2:4])
    assert plain[-1] == f"{costs['plain']['peak_mb']:,.0f}"
    assert (head[-2], plain[-2] != "") == ("", True)
    assert read_costs(replace(bench, common=()), rows) == {}  # of another recipe


def test_each_row_says_what_it_sets_and_which_epoch_is_judged() -> None:
    rows = [Row("a", ("x=1",), "one"), Row("b", (), "two", members=(Row("c", ("y=2",), ""),), mix="uniform")]
    steps = {"taken": 200, "judged": 120, "epochs": 5, "epoch": 3}
    told = what_rows_set(rows, {"a": {0: answers(0.1, {"lm_steps": [steps]})}})
    assert told == [
        "- **a**: one. `x=1`. seed 0: epoch 3 of 5 of the second stage.",
        "- **b**: two. fits: `y=2`.",
    ]


def answers(value: float, facts: dict[str, object] | None = None) -> Answers:
    users, n_cases = np.arange(20), np.tile([1, 2], 10)
    means = {name: np.full(20, value) for name in ("ndcg@10", "recall@10", "auc")}
    return Answers(users, n_cases, means, json.loads(json.dumps({"cost": {}, **(facts or {})})))


def test_seeds_are_averaged_case_by_case() -> None:
    assert average([answers(0.2), answers(0.4)], "auc").tolist() == pytest.approx([0.3] * 30)


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_fewer_labels_are_whole_users_and_the_questions_stay(prepared: Prepared, share: float) -> None:
    split = prepared.split
    few = thin(split, share, 0)
    assert abs(few.train.n_events - share * split.train.n_events) <= np.bincount(split.train.user_idx).max()
    assert (few.validation, few.test) == (split.validation, split.test)
    kept = np.unique(few.train.user_idx)
    whole = np.bincount(split.train.user_idx, minlength=few.train.n_users)
    assert (np.bincount(few.train.user_idx, minlength=few.train.n_users)[kept] == whole[kept]).all()
    assert np.isin(few.train_and_validation.user_idx, kept).all() or share == 1.0
    if share < 1:
        assert thin(split, share, 1).train.n_events != few.train.n_events or not np.array_equal(
            np.unique(thin(split, share, 1).train.user_idx), kept
        )


def test_the_picture_has_every_row_that_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_groups = [row.name for rows in GROUPS.values() for row in rows]
    assert sorted(in_groups) == sorted(
        row.name for row in ROWS_OF_TABLE if row.name not in ("plain", "back-translation")
    )
    users, two = np.arange(40), np.full(40, 2)

    def of_seed(shift: float, seed: int) -> Answers:
        means = np.random.default_rng(seed).uniform(0.1, 0.2, 40) + shift
        return Answers(users, two, dict.fromkeys(METRICS, means), {})

    results = {
        "plain": {seed: of_seed(0.0, seed) for seed in range(3)},
        "lora": {seed: of_seed(0.004, seed) for seed in range(2)},
        "sgd with momentum": {0: of_seed(-0.05, 0)},
    }
    monkeypatch.setattr(chart, "FOLDER", tmp_path)
    monkeypatch.setattr(chart, "PICTURE", tmp_path / "techniques.png")
    keep_gaps("movielens-100k", results, ["last 2"])
    found = json.loads((tmp_path / "movielens-100k.json").read_text())
    assert found["lora"] == {"mean": 0.004, "low": 0.004, "high": 0.004, "clear": True, "seeds": 2}
    assert found["sgd with momentum"]["mean"] == -0.05
    assert found["last 2"] == {}
    assert "plain" not in found
    few = (tmp_path / "techniques.png").stat().st_size
    keep_gaps("amazon-scientific", results, [])
    assert (tmp_path / "techniques.png").stat().st_size > few  # two panels


def test_every_row_is_named_once_and_members_know_their_seed() -> None:
    rows = [*ROWS_OF_TABLE, *reranker_rows()]
    assert len({slug(row.name) for row in rows}) == len(rows)
    mixed = [row for row in ROWS_OF_TABLE if row.mix]
    assert {row.mix for row in mixed} == {"snapshots", "ensemble", "ranks", "uniform", "greedy"}
    for row in mixed:
        for seed in range(3):
            recipes = [
                load_recipe(overrides=[f"training.seed={seed}", *row.member_at(place, seed).overrides])
                for place in range(len(row.members))
            ]
            if row.mix in ("uniform", "greedy"):
                assert {recipe.training.start_seed for recipe in recipes} == {seed}
            if row.mix in ("ensemble", "ranks"):
                assert len({recipe_toml(recipe) for recipe in recipes}) == 3
            if row.members and row.members[1].name == "plain, other seed":
                assert [recipe.training.seed for recipe in recipes] == [seed, 100 + seed, 200 + seed]
    assert len({row.asked for row in mixed}) == len(mixed)


def test_every_kind_of_row_is_answered_by_one_command_and_only_once(
    prepared: Prepared, plain_choices: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain with what it answers besides, a row that shares its first stage, all mixtures, a history as text, a reranker."""
    bench = Bench(DATA["movielens-100k"], prepared, tuple(plain_choices), True, tmp_path / "runs", tmp_path / "results")
    bench.runs.mkdir()
    wanted = ("plain", "un-tuned PLM", "head only", "lora", "history as text", *(row.name for row in MIXED))
    rows = [row for row in ROWS_OF_TABLE if row.name in wanted]
    reranker, *_, taught = bench.reranker_rows
    assert measure(bench, [*rows, reranker, taught], [0], (), until=0.0) == {}
    assert "time is over" in capsys.readouterr().out
    assert measure(bench, [*rows, reranker, taught], [0], ()) == {}
    done = [line for line in capsys.readouterr().out.splitlines() if "done" in line]
    assert len(done) == len(rows)  # two of them are answered by plain's fit, and the rerankers come on top
    found = read_results(bench)
    assert set(found) == set(wanted)
    assert found["head only"][0].facts["judged"] != found["plain"][0].facts["judged"]
    assert set(found["greedy soup"][0].facts["soup"]) <= {0, 1, 2, 3} == set(found["uniform soup"][0].facts["soup"])
    told, _ = read_reranker(bench, reranker, 0)
    assert told is not None
    assert told["row"] == reranker.name
    assert told["list_read"]["k"] == 20
    assert told["list_read"]["processor_p50"] > 2 * told["ms_a_list_plain"]["processor_p50"]  # whatever its weight is
    learnt, _ = read_reranker(bench, taught, 0)
    assert learnt is not None
    assert learnt["difference"][0] == pytest.approx(learnt["distilled"] - learnt["own"])
    assert learnt["epoch"] < len(learnt["validation"]) == 4
    shown = reranked_section(bench, 1)
    assert "Not measured: rerankers that learn stars. This log has no ratings." in shown
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown if line.startswith("| ")]
    assert {len(cells) for cells in lines} == {11, 7}
    assert {path.name for path in bench.runs.iterdir()} <= {".made-of", "first-stages", "plain-0", "plain-0-rerankers"}
    assert measure(bench, [*rows, reranker, taught], [0], ()) == {}
    assert "done" not in capsys.readouterr().out
