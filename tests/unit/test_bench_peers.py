"""The rivals' benchmark: what is handed over is measured like everything else, steps are done once, tables say by what."""

import json
import pickle
import shutil
import sys
import time
from copy import copy
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from rich.console import Console

from benchmarks.peers import check, own, results, steps
from benchmarks.peers.__main__ import OUT_OF_TIME, choose_systems, main, plan
from benchmarks.peers.cells import Cell, choose_cells
from benchmarks.peers.exchange import measure_handed_over, write_split
from benchmarks.peers.kept import KS, METRICS, load_row, read_facts, save_row
from benchmarks.peers.rivals import INSIDE, OUTSIDE
from benchmarks.peers.spaces import draw_settings
from benchmarks.peers.windows import cut_long
from benchmarks.peers.work import Effort, Place, is_searched
from lmrec.artifacts.files import read_json, write_json
from lmrec.artifacts.run import RunFolder
from lmrec.errors import DataError, InputError, LmrecError
from lmrec.evaluation.evaluator import EvaluationConfig, evaluate
from lmrec.models.collaborative import Popularity
from lmrec.recipe import load_recipe
from lmrec.topk import exclude_items, top_k
from lmrec.workflows.counting import log_arrays
from lmrec.workflows.judge import judge_run, own_name
from lmrec.workflows.prepare import Prepared

N_ITEMS, N_USERS = 30, 40
EFFORT = Effort(trials=3, seeds=2, search_cases=20)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A small world under the name of a real one: two tastes, an order for each user."""
    data = tmp_path_factory.mktemp("data")
    (data / "amazon-beauty").mkdir()
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", position)
        for user in range(N_USERS)
        for position, item in enumerate(15 * (user % 2) + rng.permutation(15)[: 5 + user % 4])
    ]
    pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row").write_parquet(
        data / "amazon-beauty" / "interactions.parquet"
    )
    items = pl.DataFrame(
        {"item_id": [f"i{n}" for n in range(N_ITEMS)], "title": [f"thing number {n}" for n in range(N_ITEMS)]}
    )
    items.write_parquet(data / "amazon-beauty" / "items.parquet")
    cell = choose_cells("amazon-beauty", "P1")[0]
    here = replace(cell, data=replace(cell.data, folder=str(data / "amazon-beauty")))
    return Place(tmp_path_factory.mktemp("work"), here, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def prepared(place: Place) -> Prepared:
    found = steps.prepare_cell(place, EFFORT)[0]
    vectors = np.random.default_rng(1).normal(size=(N_ITEMS, 8)).astype(np.float32)
    place.folder.mkdir(parents=True, exist_ok=True)
    write_split(found, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), place.split)
    return found


def popularity_of(prepared: Prepared) -> Popularity:
    return Popularity().fit(log_arrays(prepared.split.train_and_validation, N_ITEMS))


@pytest.mark.parametrize("length", [1, 3, 50])
def test_a_log_that_is_cut_has_every_pair_of_neighbours_once(length: int) -> None:
    user, item = np.random.default_rng(0).integers(0, 7, 200), np.arange(200)

    def neighbours(users: npt.NDArray[np.int64], items: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        rows = [items[users == one].tolist() for one in np.unique(users)]
        return sorted(pair for row in rows for pair in pairwise(row))

    parts = cut_long(user, item, length)
    assert np.bincount(parts[0]).max() <= length + 1
    assert neighbours(*parts) == neighbours(user, item)
    assert [len(one) for one in cut_long(user[:0], item[:0], length)] == [0, 0]


def test_a_split_of_other_data_is_not_taken_for_this_one(
    place: Place,
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    here = Place(tmp_path, place.cell, tmp_path / "kept")
    shutil.copytree(place.split, here.split)
    steps.export_split(here, EFFORT)  # it lies there, of these data: nothing is encoded
    facts = read_json(here.split / "facts.json")
    monkeypatch.setattr(steps, "encode_words", lambda *_: np.zeros((N_ITEMS, 2)))
    for what in ("data_fingerprint", "question"):
        write_json(here.split / "facts.json", {**facts, what: "of yesterday"})
        (here.folder / "sasrec" / "trial-1").mkdir(parents=True)
        steps.export_split(here, EFFORT)
        assert read_json(here.split / "facts.json") == facts
        assert not (here.folder / "sasrec").exists()
        assert "of yesterday" in capsys.readouterr().out
    assert np.load(here.split / "text_vec.npy").shape == (N_ITEMS, 2)


@pytest.mark.parametrize("exclude", [True, False])
def test_lists_handed_over_are_worth_what_the_judge_says_of_their_scores(prepared: Prepared, exclude: bool) -> None:
    test, config = prepared.split.test, EvaluationConfig(ks=(5, 10), exclude_seen=exclude)
    scorer = popularity_of(prepared)
    scores = scorer.score(test.history)
    items = top_k(exclude_items(scores, test.history) if exclude else scores, 12)
    values = np.take_along_axis(scores, items.astype(np.int64), axis=1)
    stand_in = np.zeros(N_ITEMS, np.float32)
    found = measure_handed_over("lists", items, values, test, N_ITEMS, config, stand_in)
    judged = evaluate(scorer, test, N_ITEMS, config)
    for metric, value in found.metrics.items():
        np.testing.assert_allclose(value, judged.metrics[metric], err_msg=metric)
    assert "auc" not in found.metrics  # a list says nothing of what it leaves out


def test_who_is_handed_no_list_is_answered_with_popularity(prepared: Prepared) -> None:
    test, config = prepared.split.test, EvaluationConfig(ks=(10,))
    nothing = np.full((len(test), 5), -1, np.int32)
    popularity = log_arrays(prepared.split.train_and_validation, N_ITEMS).popularity()
    found = measure_handed_over("none", nothing, np.full((len(test), 5), -np.inf), test, N_ITEMS, config, popularity)
    judged = evaluate(popularity_of(prepared), test, N_ITEMS, config)
    np.testing.assert_allclose(found.metrics["ndcg@10"], judged.metrics["ndcg@10"])


@pytest.mark.parametrize(
    ("items", "scores", "said"),
    [
        ([3, 3, 1], [3.0, 2.0, 1.0], "one item twice"),
        ([3, 2, 1], [1.0, 2.0, 3.0], "not best first"),
        ([3, 2, N_ITEMS], [3.0, 2.0, 1.0], "outside the catalog"),
    ],
)
def test_what_is_no_ranked_list_is_refused(
    prepared: Prepared, items: list[int], scores: list[float], said: str
) -> None:
    test = prepared.split.test
    many = np.tile(np.array(items, np.int32), (len(test), 1)), np.tile(np.array(scores), (len(test), 1))
    with pytest.raises(DataError, match=said):
        measure_handed_over("bad", *many, test, N_ITEMS, EvaluationConfig(ks=(10,)), np.zeros(N_ITEMS))


def test_rivals_outside_never_see_the_answers_of_the_test(place: Place, prepared: Prepared) -> None:
    with np.load(place.split / "test.npz") as test, np.load(place.split / "train_and_validation.npz") as log:
        assert set(test) == {"history", "history_offsets"}
        np.testing.assert_array_equal(test["history"], prepared.split.test.history.values)
        asked = set(zip(prepared.split.test.user_idx, prepared.split.test.relevant.values, strict=True))
        assert not asked & set(zip(log["user"], log["item"], strict=True))


@pytest.mark.parametrize("name", [*INSIDE, *OUTSIDE])
def test_every_rival_has_as_many_different_trials(name: str) -> None:
    space = (INSIDE.get(name) or OUTSIDE[name]).space
    drawn = draw_settings(space, 6)
    n_all = int(np.prod([len(values) for values in space.values()], dtype=np.int64))
    assert len({json.dumps(settings, sort_keys=True) for settings in drawn}) == min(6, n_all)
    assert drawn == draw_settings(space, 6)


@pytest.mark.parametrize("name", [name for name, rival in INSIDE.items() if rival.asked])
def test_a_fit_that_is_asked_otherwise_answers_as_a_fit_of_its_own(prepared: Prepared, place: Place, name: str) -> None:
    rival, log, asked = INSIDE[name], log_arrays(prepared.split.train, N_ITEMS), prepared.split.test.history
    text_vec = np.load(place.split / "text_vec.npy")
    first, *others = draw_settings(rival.space, 1, rival.asked)
    fitted, answers = rival.make(first, 0, text_vec).fit(log), []
    for settings in others:
        made = rival.make(settings, 0, text_vec)
        shared = copy(fitted)
        shared.config = made.config
        answers.append(shared.score(asked))
        np.testing.assert_allclose(answers[-1], made.fit(log).score(asked), rtol=1e-4, atol=1e-5)
    assert any(not np.allclose(fitted.score(asked), one) for one in answers), "how it is asked makes a difference here"


@pytest.mark.parametrize("name", [name for name, rival in INSIDE.items() if rival.fits_of_product])
def test_what_the_product_tries_of_a_rival_is_tried_here_too(name: str) -> None:
    """By its judge, and before it fuses it; of what makes an EASE smaller the whole one is tried."""
    rival = INSIDE[name]
    drawn = Effort(trials=1).draw(rival.space, rival.asked, rival.fits_of_product)
    configs = [rival.make(settings, 0, None).config for settings in drawn]
    for scorer in rival.judge():
        config = scorer.config
        if name == "transitions" and config.n_last == 1:  # how a history fades is no matter where one item is asked
            config = config.model_copy(update={"history_decay": configs[0].history_decay})
        assert config in configs
    fitted = [{key: value for key, value in settings.items() if key not in rival.asked} for settings in drawn]
    for config in rival.fusion:
        assert {key: getattr(config, key) for key in rival.space if key not in rival.asked} in fitted


def test_rows_of_an_earlier_choice_do_not_stand_for_a_search(place: Place, prepared: Prepared, tmp_path: Path) -> None:
    chosen = {"regularization": 50.0, "n_last": 1}
    fresh = Place(tmp_path / "work", place.cell, tmp_path / "kept")
    shutil.copytree(place.split, fresh.split)
    steps.run_known(fresh, "ease", {"x": chosen, "i": chosen}, 1, EFFORT)
    (search,) = [step for step in plan(fresh, EFFORT, ("ease",)) if step[0].endswith(": ease")]
    assert not search[1]()
    steps.run_inside(fresh, "ease", EFFORT)
    assert search[1]()


@pytest.mark.parametrize("name", INSIDE)
def test_a_rival_is_searched_on_validation_and_leaves_a_row_for_each_form(
    place: Place, prepared: Prepared, name: str
) -> None:
    steps.run_inside(place, name, EFFORT)
    search = read_json(place.search(name))
    fits = [{k: v for k, v in one["settings"].items() if k not in INSIDE[name].asked} for one in search["trials"]]
    assert len(search["trials"]) == len(fits)
    assert search["data_fingerprint"] == prepared.dataset.fingerprint
    assert len({json.dumps(one, sort_keys=True) for one in fits}) <= EFFORT.trials + len(INSIDE[name].fits_of_product)
    for form in ("x", "i"):
        best = max(trial["validation"][form] for trial in search["trials"])
        assert search["best"][form]["validation"][form] == best
        facts, evaluation = load_row(place.row(form, name, 0), prepared.split.test)
        assert facts["settings"] == search["best"][form]["settings"]
        assert facts["form"] == f"P1{form}"
        assert set(METRICS) <= set(evaluation.metrics)
        assert place.row(form, name, 1).exists() is INSIDE[name].is_seeded
        again = INSIDE[name].make(facts["settings"], 0, np.load(place.split / "text_vec.npy"))
        fitted = again.fit(log_arrays(prepared.split.train_and_validation, N_ITEMS))
        config = EvaluationConfig(ks=(10, 20), exclude_seen=form == "x")
        judged = evaluate(fitted, prepared.split.test, N_ITEMS, config)
        np.testing.assert_allclose(evaluation.metrics["ndcg@10"], judged.metrics["ndcg@10"], atol=1e-6)


def test_a_shared_fit_gives_what_a_fit_of_its_own_gives(prepared: Prepared) -> None:
    rival, train = INSIDE["ease"], log_arrays(prepared.split.train, N_ITEMS)
    drawn = draw_settings(rival.space, 20)
    recipes = {"x": EFFORT.recipe(choose_cells("amazon-beauty", "P1")[0], "x")}
    asked = prepared.split.validation
    for trial in steps.try_inside(rival, drawn, np.zeros((N_ITEMS, 1)), train, asked, recipes):
        alone = evaluate(rival.make(trial["settings"], 0, None).fit(train), asked, N_ITEMS, recipes["x"].evaluation)
        assert trial["validation"]["x"] == pytest.approx(alone.aggregate["ndcg@10"])


def test_lmrec_fits_its_recipe_and_leaves_its_row_beside_its_parts(
    place: Place, prepared: Prepared, quick_choices: list[str], tmp_path: Path
) -> None:
    quick = tuple(choice for choice in quick_choices if not choice.startswith(("data.", "template.")))
    here, effort = Place(tmp_path, place.cell, tmp_path / "kept"), replace(EFFORT, own_overrides=quick)
    assert not own.is_made(here, effort, "x", 0)
    own.run_own(here, effort, "x", 0)
    assert own.is_made(here, effort, "x", 0)
    facts, evaluation = load_row(here.row("x", own.OWN, 0), prepared.split.test)
    assert facts["seconds"] > 0
    assert facts["peak_mb"] > 0
    assert set(facts["settings"]) == {"recipe", "set", "fusion"}
    assert own.title_of(own.OWN, facts["settings"]).endswith(", ".join(quick))
    judged = judge_run(here.folder / own.OWN / "x-0", ["baselines.names=[]"])
    served = judged.evaluations[own_name(RunFolder(here.folder / own.OWN / "x-0"))]
    np.testing.assert_array_equal(evaluation.metrics["ndcg@10"], served.metrics["ndcg@10"])
    parts = {system for system, _ in here.rows("x")}
    assert parts <= set(own.TITLES)
    assert len(parts) == len(judged.evaluations)
    made = RunFolder(here.folder / own.OWN / "x-0").read_record()["created"], read_facts(here.row("x", own.OWN, 0))
    own.run_own(here, effort, "x", 0)  # the fit stands, and is judged again
    assert RunFolder(here.folder / own.OWN / "x-0").read_record()["created"] == made[0]
    other = replace(effort, own_overrides=(*quick, "objective.label_smoothing=0.1"))
    assert not own.is_made(here, other, "x", 0)
    own.run_own(here, other, "x", 0)
    assert load_recipe(here.folder / own.OWN / "x-0" / "recipe.toml").objective.label_smoothing == 0.1
    assert read_facts(here.row("x", own.OWN, 0))["recipe"] != made[1]["recipe"]


def test_the_table_compares_with_the_best_rival(place: Place, prepared: Prepared) -> None:
    for name in ("popularity", "als"):
        steps.run_inside(place, name, EFFORT)
    text = results.build_results([place], EFFORT)
    found = read_json(place.kept / "amazon-beauty-P1x.json")
    assert found["data_fingerprint"] == prepared.dataset.fingerprint
    assert found["systems"]["als"]["seeds"] == [0, 1]
    best = max(found["table"]["rows"], key=lambda row: row["metrics"]["ndcg@10"]["value"])["name"]
    assert found["table"]["best_baseline"] == best
    assert "### amazon-beauty, P1i" in text
    assert results.known_results(place.kept) == text
    assert text.count("### amazon-beauty, P1x") == 1


def test_a_row_that_is_kept_is_the_evaluation_it_was(prepared: Prepared, tmp_path: Path) -> None:
    file, config = tmp_path / "row.npz", EvaluationConfig(ks=KS)
    judged = evaluate(popularity_of(prepared), prepared.split.test, N_ITEMS, config)
    save_row(file, judged, {"system": judged.name, "settings": {}})
    facts, found = load_row(file, prepared.split.test)
    assert found.metrics.keys() == judged.metrics.keys() - {"auc"}
    for metric, value in found.metrics.items():
        np.testing.assert_array_equal(value, judged.metrics[metric])
        assert found.aggregate[metric] == pytest.approx(facts.get(metric, found.aggregate[metric]))
    assert found.aggregate.keys() == judged.aggregate.keys() - {"auc"}
    for other in (prepared.split.validation, prepared.split.test.take(np.arange(len(judged.cases))[::-1])):
        with pytest.raises(DataError, match="answers other questions"):
            load_row(file, other)
    assert [path.name for path in tmp_path.iterdir()] == ["row.npz"]


def test_seeds_that_were_made_otherwise_than_the_newest_are_not_averaged_with_it(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = evaluate(popularity_of(prepared), prepared.split.test, N_ITEMS, EvaluationConfig(ks=KS))
    made: dict[str, dict[str, Any]] = {
        "a-0": {"recipe": "old", "settings": {"fusion": 1}},
        "a-1": {"recipe": "new", "settings": {"fusion": 2}},
        "a-2": {"recipe": "new", "settings": {"fusion": 3}},
        "b-0": {"settings": {"lr": 1}},
        "b-1": {"settings": {"lr": 2}},
    }
    rows = []
    for second, (name, facts) in enumerate(made.items()):
        monkeypatch.setattr(time, "strftime", lambda *_, now=f"2026-01-01T00:00:0{second}Z": now)
        save_row(tmp_path / f"{name}.npz", judged, facts)
        rows.append((name[0], tmp_path / f"{name}.npz"))
    found = results.alike(rows)
    assert {system: [path.stem for path in paths] for system, paths in found.items()} == {
        "a": ["a-1", "a-2"],
        "b": ["b-1"],
    }


def test_rows_of_which_there_is_the_table_alone_stand_as_they_were_found(
    place: Place, prepared: Prepared, tmp_path: Path
) -> None:
    here = Place(tmp_path / "work", place.cell, tmp_path / "kept")
    shutil.copytree(place.split, here.split)
    for name in ("popularity", "als", "transitions"):
        steps.run_inside(here, name, EFFORT)
    before_text = results.build_results([here], EFFORT)
    before = read_json(here.kept / "amazon-beauty-P1x.json")
    for lost in ("rows", "searches"):
        shutil.rmtree(here.kept / lost)
    assert results.build_results([here], EFFORT) == before_text

    steps_of_known = [step for step in plan(here, EFFORT, ["lmrec"]) if "as chosen before" in step[0]]
    assert len(steps_of_known) == len(here.cell.protocol.forms)
    best, facts = before["table"]["best_baseline"], before["systems"]
    steps.run_known(here, best, {"x": facts[best]["settings"]}, len(facts[best]["seeds"]), EFFORT)
    other = "item_knn"  # stands for what is new
    steps.run_known(here, other, {"x": draw_settings(INSIDE[other].space, 1)[0]}, 1, EFFORT)
    results.build_results([here], EFFORT)
    after = read_json(here.kept / "amazon-beauty-P1x.json")
    assert set(after["systems"]) == {*facts, other}
    assert after["systems"][best]["trials"] == facts[best]["trials"]
    rows = {row["name"]: row for row in after["table"]["rows"]}
    assert after["table"]["best_baseline"] in (best, other)
    for row in before["table"]["rows"]:
        assert rows[row["name"]]["metrics"]["ndcg@10"]["value"] == pytest.approx(row["metrics"]["ndcg@10"]["value"])
    if after["table"]["best_baseline"] == best:
        assert rows[other]["differences"]["ndcg@10"]["mean"] < 0
        assert rows["als"]["differences"] == next(
            row["differences"] for row in before["table"]["rows"] if row["name"] == "als"
        )
    assert set(after["table"]["slices"][0]["values"]) == set(rows)

    # What was compared with a weaker setting of the best rival has no difference to the one found since.
    for row in before["table"]["rows"]:
        if row["name"] == best:
            row["metrics"]["ndcg@10"]["value"] *= 0.9
    write_json(here.kept / "amazon-beauty-P1x.json", before)
    results.build_results([here], EFFORT)
    later = read_json(here.kept / "amazon-beauty-P1x.json")
    assert not next(row["differences"] for row in later["table"]["rows"] if row["name"] == "als")


def test_what_is_known_of_other_data_stands_in_no_table(place: Place, prepared: Prepared) -> None:
    for name in ("popularity", "als"):
        steps.run_inside(place, name, EFFORT)
    results.build_results([place], EFFORT)
    file = place.kept / "amazon-beauty-P1x.json"
    values = {**read_json(file), "data_fingerprint": "another"}
    values["systems"]["gone"] = values["systems"]["als"]
    file.write_text(json.dumps(values), encoding="utf-8")
    found = results.tabulate(place, "x", EFFORT)
    assert found is not None
    assert "gone" not in found["systems"]


def test_trials_of_an_outside_rival_join_those_made_before_and_count_with_their_best_epoch(
    place: Place, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Place(tmp_path / "work", place.cell, tmp_path / "kept")
    curves: list[list[tuple[float, float]]] = [[(0.1, 0.3), (0.2, 0.1)], [(0.4, 0.1), (0.3, 0.2), (0.1, 0.1)]]

    def train(_place: Place, _name: str, out: Path, *_: Any, **__: Any) -> Path:
        out.mkdir(parents=True)
        epochs = [{"epoch": n + 1, "validation": {"x": x, "i": i}} for n, (x, i) in enumerate(curves.pop(0))]
        write_json(out / "result.json", {"epochs": epochs, "seconds": 1.0, "cpu_seconds": 1.0})
        return out / "result.json"

    monkeypatch.setattr(steps, "_train", train)
    first, second = EFFORT.draw_outside(OUTSIDE["sasrec"].space)[:2]
    judged = evaluate(popularity_of(prepared), prepared.split.test, N_ITEMS, EvaluationConfig(ks=KS))
    steps.train_outside(there, "sasrec", EFFORT, 0)
    for form in ("x", "i"):
        save_row(there.row(form, "sasrec", 0), judged, {"settings": {**first, "epochs": 1}})
    shutil.rmtree(there.work)  # what only passes by
    assert steps.is_tried(there, "sasrec", EFFORT, 0)
    assert not steps.is_tried(there, "sasrec", EFFORT, 1)
    kept = read_json(there.search("sasrec"))
    for changed in (
        {"most_epochs": 2},
        {"cut_long": None},
    ):  # ended by the cap of then; learnt from the newest events alone
        write_json(there.search("sasrec"), {**kept, "trials": [{**kept["trials"][0], **changed}]})
        assert not steps.is_tried(there, "sasrec", EFFORT, 0)
        assert steps.is_tried(there, "sasrec", replace(EFFORT, epochs=2), 0) == ("most_epochs" in changed)
    write_json(there.search("sasrec"), kept)
    steps.train_outside(there, "sasrec", EFFORT, 1)
    best = read_json(there.search("sasrec"))["best"]
    assert (best["x"]["settings"], best["x"]["epochs"]["x"]) == (second, 1)
    assert (best["i"]["settings"], best["i"]["epochs"]["i"]) == (first, 1)
    assert not there.row("x", "sasrec", 0).exists()  # of a search that had chosen otherwise
    assert there.row("i", "sasrec", 0).exists()


def test_fewer_trials_outside_are_the_first_of_the_same_draw() -> None:
    space = OUTSIDE["sasrec"].space
    assert Effort(outside_trials=2).draw_outside(space) == Effort().draw_outside(space)[:2]
    assert len(Effort(outside_trials=2).draw(space)) == Effort().trials


def test_a_missing_environment_of_the_rivals_says_what_to_type(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(steps, "PEERS_PYTHON", tmp_path / "python")
    with pytest.raises(LmrecError, match="make bench-peers-setup"):
        steps.train_outside(Place(tmp_path, place.cell, tmp_path / "kept"), "sasrec", EFFORT, 0)


def test_what_a_step_is_told_travels_to_its_process() -> None:
    for cell in choose_cells(None, None):
        sent = Place(Path("work"), cell, Path("kept"))
        assert pickle.loads(pickle.dumps((sent, EFFORT))) == (sent, EFFORT)


def test_a_step_that_fails_in_its_process_is_told() -> None:
    with pytest.raises(LmrecError, match="exit code 3"):
        steps.in_own_process(leave, 3)


def leave(code: int) -> None:
    """`sys.exit` itself cannot be sent to another process once wandb, of another test, has put its own in its place."""
    sys.exit(code)


def test_time_that_is_over_stops_before_the_next_step(tmp_path: Path) -> None:
    options = ["--dataset", "movielens-100k", "--protocol", "P2", "--work", str(tmp_path), "--minutes", "-1", "--small"]
    assert main(options) == OUT_OF_TIME
    assert not (tmp_path / "movielens-100k-P2").exists()


def test_unknown_names_are_refused_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match="sasrec"):
        choose_systems("sasrek")
    with pytest.raises(InputError, match="amazon-beauty"):
        choose_cells("amazon-beuty", None)
    assert main(["--protocol", "P9"]) == 2


def test_the_check_tells_same_from_different_and_skips_what_is_not_there(
    place: Place, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Here(check.Expectation):
        @property
        def cell(self) -> Cell:
            return place.cell

    class Elsewhere(check.Expectation):
        @property
        def cell(self) -> Cell:
            return replace(place.cell, data=replace(place.cell.data, folder="/nowhere"))

    out = StringIO()
    steps.run_inside(place, "popularity", EFFORT)
    results.build_results([place], EFFORT)
    monkeypatch.setattr(check, "KEPT", place.kept)
    values: dict[str, Any] = {"data": "toy", "protocol": "P1", "system": "popularity", "tolerance": 0.001}
    wrong = Here(**values).expected + 0.1
    found = list(
        check.check([Here(**values), Here(**values, value=wrong), Elsewhere(**values)], Console(file=out, width=200))
    )
    with pytest.raises(InputError, match="no such rival"):
        assert Here(**{**values, "system": "sasrec"}).expected
    assert [one.verdict for one in found] == ["as expected", "DIFFERENT", "skipped"]
    equal = Here(**values, above="popularity")
    (no_better,) = check.check([equal], Console(file=out))
    assert no_better.verdict == "DIFFERENT"
    assert str(check.as_table([no_better]).columns[3]._cells[0]).endswith(f"above popularity's {equal.expected:.4f}")
    said = out.getvalue()
    assert said.count("SKIPPED") == 1
    assert "SKIPPED toy, P1x: popularity: there is no /nowhere" in said
    assert check.summary(found) == (
        "1 as expected, 1 different, 1 skipped and NOT CHECKED, for want of /nowhere (LMREC_DATA says where data lie)."
    )
    assert [check.exit_code(some) for some in (found, found[:1], found[::2], found[2:], [])] == [1, 0, 0, 1, 1]


def test_what_is_expected_names_only_what_there_is() -> None:
    for one in check.read_expected(check.EXPECTED):
        assert one.form in one.cell.protocol.forms
        if one.system == "lmrec":
            assert one.value is not None
            assert one.above is not None
            assert 0 < one.floor < one.value
        else:
            assert one.value is None
            assert 0 < one.expected < 1
            INSIDE[one.system].make(one.settings, 0, np.zeros((1, 1), np.float32))


def test_what_is_fetched_covers_what_the_check_is_for() -> None:
    """Without LMREC_DATA too: counts, vectors and a training, warm and cold, in both forms."""
    fetched = [one for one in check.read_expected(check.EXPECTED) if one.cell.data.path is None]
    assert {"lmrec", "als", "ease", "transitions", "content"} <= {one.system for one in fetched}
    assert {one.cell.protocol.form_name(one.form) for one in fetched} == {"P1i", "P2", "P4"}


def test_new_items_first_changes_no_order_among_new_or_known_ones(prepared: Prepared, place: Place) -> None:
    text_vec, test = np.load(place.split / "text_vec.npy"), prepared.split.test
    whole = log_arrays(prepared.split.train_and_validation, N_ITEMS)
    is_new = np.arange(N_ITEMS) % 3 == 0
    log = replace(
        whole,
        user_idx=whole.user_idx[~is_new[whole.item_idx]],
        item_idx=whole.item_idx[~is_new[whole.item_idx]],
        time_ts=whole.time_ts[~is_new[whole.item_idx]],
        weight=whole.weight[~is_new[whole.item_idx]],
    )
    settings = {"n_last": 3, "decay": 0.7}
    plain, first = (
        INSIDE[name].make(settings, 0, text_vec).fit(log).score(test.history) for name in ("content", "content_new")
    )
    assert (first[:, is_new].min(axis=1) > first[:, ~is_new].max(axis=1)).all()
    np.testing.assert_array_equal(first[:, is_new], plain[:, is_new])
    np.testing.assert_array_equal(np.argsort(first[:, ~is_new], axis=1), np.argsort(plain[:, ~is_new], axis=1))
    assert [INSIDE["content_new"].is_asked(protocol) for protocol in ("P1", "P4")] == [False, True]


def test_a_search_on_other_data_counts_for_nothing(place: Place, prepared: Prepared, tmp_path: Path) -> None:
    steps.run_inside(place, "popularity", EFFORT)
    assert is_searched(place, "popularity", 1)
    other = replace(place, work=tmp_path)
    other.split.mkdir(parents=True)
    (other.split / "facts.json").write_text('{"data_fingerprint": "another"}')
    assert not is_searched(other, "popularity", 1)
