"""Lists that were shown, judged beside the catalog: on a planted world where the taste decides, and nothing leaks."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lmrec.artifacts.generation import generation_path
from lmrec.artifacts.run import RunFolder
from lmrec.data.dataset import Dataset
from lmrec.data.impressions import Impressions
from lmrec.data.sources.synthetic import planted_world
from lmrec.data.split import split_interactions
from lmrec.errors import InputError, RecipeError, RunFolderError
from lmrec.evaluation.casefile import JudgedLists
from lmrec.evaluation.impressions import ImpressionTable
from lmrec.feedback.events import Event
from lmrec.feedback.store import ItemPut, Store
from lmrec.fields import Ragged
from lmrec.models.live_stack import OWN_PARTS, TOWERS, counts_at_end
from lmrec.recipe import load_fitted, load_recipe
from lmrec.retrieval.live import LiveQuery, LiveRecommender
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.compare import compare_shown
from lmrec.workflows.compress import compress_run
from lmrec.workflows.ensemble import ensemble_runs
from lmrec.workflows.impressions import OwnModel, read_impression_table, stacked_pair
from lmrec.workflows.judge import judge_run
from lmrec.workflows.list_stack import split_lists
from lmrec.workflows.prepare import prepare_dataset
from lmrec.workflows.soup import soup_runs
from lmrec.workflows.train import fit_run
from lmrec.workflows.update import update_run

from .conftest import WORLD, Invoke
from .running import NEW_ITEM, running, until

N_SHOWN = 8


def with_impressions(world: Dataset, seed: int = 0) -> Dataset:
    """Every eighth event was a click on one of eight shown at its instant, the others drawn from the catalog."""
    events, rng = world.interactions, np.random.default_rng(seed)
    events = events.select(np.arange(len(events)) % 8 == 0)
    rows = []
    for item in events.item_idx:
        others = rng.permutation(world.catalog.n_items)
        rows.append(rng.permutation(np.append(others[others != item][: N_SHOWN - 1], item)))
    shown = Ragged.from_rows(rows)
    clicked = shown.values == np.repeat(events.item_idx, N_SHOWN)
    names = [f"i{at}" for at in range(len(events))]
    return replace(world, impressions=Impressions(names, events.user_idx, events.time_ts, shown, clicked))


@pytest.fixture(scope="module")
def judged(learning_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("impressions") / "run"
    choices = [*learning_choices, "training.frozen_epochs=4", "training.tuned_epochs=0", "objective.shown=0.5"]
    recipe = load_recipe(overrides=[*choices, 'baselines.names=["popularity"]'])
    prepared = prepare_dataset(with_impressions(planted_world(**WORLD)), recipe)
    fit_run(None, None, out=out, recipe=recipe, prepared=prepared, show=False)
    return out


def test_evaluate_judges_what_was_shown_too(invoke: Invoke, judged: Path) -> None:
    answer = json.loads(invoke("evaluate", judged, "--json", "--quiet").stdout)["impressions"]
    rows = {row["name"]: row["metrics"] for row in answer["rows"]}
    assert answer["base_rate"] == pytest.approx(1 / N_SHOWN)
    assert rows["popularity"]["auc"]["value"] < 0.65
    assert rows["lmrec + live counts"]["auc"]["value"] > 0.75
    assert rows["categories + cosine, not trained"]["auc"]["value"] > rows["popularity"]["auc"]["value"]
    assert {"categories, not trained", "cosine, not trained"} <= set(rows)
    notes = {row["name"]: row["note"] for row in json.loads((judged / "impressions.json").read_text())["rows"]}
    assert "words 0" not in notes["categories + cosine, not trained"]
    assert "labels 0.0" in notes["cosine, not trained"]
    assert rows["lmrec + live counts"]["auc"]["low"] > rows["popularity"]["auc"]["high"]
    assert rows["lmrec + live counts"]["auc"]["value"] > rows["the same without lmrec"]["auc"]["value"]
    table = read_impression_table(RunFolder(judged))
    assert table is not None
    assert table.as_dict()["best_baseline"] == answer["best_baseline"]
    shown = invoke("inspect", judged).stdout
    assert "Impressions" in shown
    assert "NRMS on the same vectors" in shown


def test_runs_are_compared_on_what_was_shown_or_refused(invoke: Invoke, judged: Path, tmp_path: Path) -> None:
    invoke("evaluate", judged, "--json", "--quiet")
    answer = json.loads(invoke("compare", judged, "--shown", "--json", "--out", tmp_path / "page.html").stdout)
    table = read_impression_table(RunFolder(judged))
    assert table is not None
    values = {row.name: row.metrics["auc"].value for row in table.rows}
    assert {name: cell["value"] for name, cell in answer["estimates"]["auc"].items()} == pytest.approx(values)
    against_popularity = next(pair for pair in answer["pairs"] if pair["second"] == "popularity")
    assert against_popularity["marks"] in ("**", "***")
    assert table.sentence in (tmp_path / "page.html").read_text()
    twin = tmp_path / "twin"
    shutil.copytree(judged, twin)
    found = compare_shown([judged, twin], rows=["all"], metrics=["mrr", "ndcg@5"], n_bootstrap=200)
    assert sum(name.endswith("/popularity") for name in found.systems) == 1  # the same answers stand there once
    with pytest.raises(InputError, match="'f1' is not measured list by list"):
        compare_shown([judged], metrics=["f1"])
    kept = JudgedLists.from_parquet(twin / "shown.parquet")
    replace(kept, questions="others").save_parquet(twin / "shown.parquet")
    assert "not asked about the same lists" in invoke("compare", judged, twin, "--shown", code=2).stderr.replace(
        "\n", " "
    )
    (twin / "shown.parquet").unlink()
    with pytest.raises(InputError, match="no judged lists that were shown to compare"):
        compare_shown([judged, twin])


def test_parts_are_apart_in_time_and_histories_end_before_their_list(judged: Path) -> None:
    dataset = with_impressions(planted_world(**WORLD))
    assert dataset.impressions is not None
    times = dataset.interactions.time_ts
    cuts = (float(np.quantile(times, 0.6)), float(np.quantile(times, 0.8)))
    parts = split_lists(dataset.impressions, dataset.interactions, cuts, dataset.catalog.n_items)
    assert parts.train.time_ts.max() < cuts[0] <= parts.validation.time_ts.min()
    assert parts.validation.time_ts.max() < cuts[1] <= parts.test.time_ts.min()
    assert len(parts.train) + len(parts.validation) + len(parts.test) == len(dataset.impressions)
    for lists in (parts.train, parts.test):
        for at in range(0, len(lists), 9):
            user, instant = lists.user_idx[at], lists.time_ts[at]
            mask = (dataset.interactions.user_idx == user) & (times < instant)
            assert lists.history[at].tolist() == dataset.interactions.item_idx[mask].tolist()


@pytest.mark.parametrize("heard", OWN_PARTS)
def test_the_judge_judges_what_is_served(judged: Path, tmp_path: Path, heard: str) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    file = run / "list_stack" / "live_stack.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps({**said, "names": [heard, *said["names"][1:]]}))
    recommender = Recommender.load(run)
    stack, impressions = recommender.list_stack, Impressions.from_parquet(judged / "data" / "impressions.parquet")
    assert stack is not None
    assert stack.stack.hears_towers == (heard == TOWERS)
    n_items, ids = recommender.catalog.n_items, recommender.catalog.ids
    cuts = split_interactions(recommender.interactions, n_items, load_fitted(judged / "recipe.toml").split).cut_ts
    assert cuts is not None
    parts = split_lists(impressions, recommender.interactions, cuts, n_items)
    scorer = recommender.towers_scorer if heard == TOWERS else recommender.list_scorer
    judge, _ = stacked_pair(stack.stack, parts.shown, OwnModel(scorer, scorer), n_items)
    live = LiveRecommender(recommender)
    assert live.counts is not None
    for at in range(0, len(parts.test), len(parts.test) // 7):
        instant, one = float(parts.test.time_ts[at]), slice(at, at + 1)
        shown = parts.test.candidates.slice(at, at + 1)
        by_judge = judge.score_shown(parts.test.history.slice(at, at + 1), shown, parts.test.time_ts[one])
        counts = counts_at_end(parts.shown.before(instant), ids, stack.stack.click_rate.half_life_hours)
        history, wanted = ([ids[row] for row in rows] for rows in (parts.test.history[at], shown[0]))
        ranked = recommender.rank(wanted, history=history, counts=counts, at_ts=instant)
        scores = {item.item_id: item.score for item in ranked.items}
        assert [scores[item_id] for item_id in wanted] == pytest.approx(by_judge, rel=1e-5, abs=1e-5)
        live.counts.items.clear()
        live.counts.items.update(counts.items)
        query = LiveQuery(tuple(history), candidates=tuple(wanted), k=99, exclude_seen=False, at_ts=instant)
        served = {item.item_id: item.score for item in live.recommend([query])[0].items}
        assert served == pytest.approx(scores, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("made", ["scores", "ranks", "soup", "compressed"])
def test_runs_made_of_others_learn_from_the_lists_too(judged: Path, tmp_path: Path, made: str) -> None:
    twin, out = Path(shutil.copytree(judged, tmp_path / "twin")), tmp_path / "made"
    if made == "soup":
        run = soup_runs([judged, twin], out, "uniform", show=False).run
    elif made == "compressed":
        choices = ["layers=[2]", "kept=[1.0]", "widths=[8]", "tolerance=1", "epochs=1", "tower_epochs=1"]
        compressed = compress_run(judged, out, [f"compress.{choice}" for choice in choices], show=False).run
        assert compressed is not None
        run = compressed
    else:
        run = ensemble_runs([judged, twin], out, "ranks" if made == "ranks" else "scores")
    (row,) = [one for one in judge_table(run).rows if one.name == "lmrec + live counts"]
    assert row.metrics["auc"].value > 0.7
    recommender = Recommender.load(run.path)
    live, asked = LiveRecommender(recommender), ["film3", "film9", "film21"]
    offline = {item.item_id: item.score for item in recommender.rank(asked, history=["film1"], at_ts=2e9).items}
    query = LiveQuery(("film1",), candidates=tuple(asked), k=9, exclude_seen=False, at_ts=2e9)
    served = {item.item_id: item.score for item in live.recommend([query])[0].items}
    assert served == pytest.approx(offline, rel=1e-4, abs=1e-4)


def judge_table(run: RunFolder) -> ImpressionTable:
    shown = judge_run(run.path, show=False).impressions
    assert shown is not None
    return shown


def test_what_is_shown_and_clicked_moves_the_order_at_once(judged: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    with running(run, popularity_s=0.05) as service:
        service.put("/v1/items/now", NEW_ITEM)
        asked = {"candidates": ["film3", "now", "film9"], "user_id": "reader"}

        def scores() -> dict[str, float]:
            return {item["item_id"]: item["score"] for item in service.post("/v1/rankings", asked)["items"]}

        live = service.state.serving.current.live
        counts, stack = live.counts, live.recommender.list_stack
        assert counts is not None
        assert stack is not None
        never, before = counts.before(["now"], time.time()), scores()["now"]
        answers = [service.post("/v1/rankings", asked) for _ in range(6)]
        for answer in answers:
            for kind in ("click", "purchase"):  # one item of one list counts once
                event = {"user_id": "other", "item_id": "now", "kind": kind, "request_id": answer["request_id"]}
                service.post("/v1/events", event)
        until(lambda: counts.before(["now"], time.time()).shows[0] > 6.99)
        until(lambda: counts.before(["now"], time.time()).n_clicks[0] > 5.99)
        fared = counts.before(["now"], time.time())
        assert (never.shows[0], never.n_clicks[0], fared.n_clicks[0]) == (0, 0, 6)
        moved = stack.stack.score(np.zeros(1), fared) - stack.stack.score(np.zeros(1), never)
        assert scores()["now"] - before == pytest.approx(moved[0], abs=1e-3)
        assert abs(moved[0]) > 0.01
        service.post("/v1/rankings", {**asked, "context": {"page": "console"}})  # a trial counts nowhere
    with running(run, popularity_s=0.05) as again:
        counted = again.state.serving.current.live.counts
        assert counted is not None
        assert counted.before(["now"], time.time()).n_clicks[0] == 6
        until(lambda: counted.before(["now"], time.time()).shows[0] > 7.99)  # without the trial
        assert counted.before(["now"], time.time()).shows[0] < 8.01


def test_an_update_keeps_the_stack_and_what_was_counted(judged: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    (run / "service").mkdir()
    events = [Event(f"e{n}", f"late{n % 40}", f"film{n // 40}", "click", 1_750_000_000.0 + n) for n in range(240)]
    with Store.open(f"sqlite:///{run / 'service' / 'store.db'}") as store:
        store.put_items([ItemPut("now", {**NEW_ITEM}, b"", "")])
        store.delete_items(["film60"])
        store.add_events(events)
    result = update_run(run, show=False, force=True)
    after, before = Recommender.load(generation_path(run, str(result.generation))), Recommender.load(run)
    assert after.list_stack is not None
    assert before.list_stack is not None
    assert (after.list_stack.stack, after.list_stack.until_ts) == (before.list_stack.stack, before.list_stack.until_ts)
    assert "film60" in before.list_stack.known
    assert after.list_stack.known == {k: v for k, v in before.list_stack.known.items() if k != "film60"}


def test_lists_teach_a_run_that_learns_everything(learning_choices: list[str], tmp_path: Path) -> None:
    choices = [*learning_choices, "training.frozen_epochs=1", "training.tuned_epochs=0", "split.kind=none"]
    recipe = load_recipe(overrides=choices)
    prepared = prepare_dataset(with_impressions(planted_world(**WORLD)), recipe)
    fit_run(None, None, out=tmp_path / "run", recipe=recipe, prepared=prepared, show=False)
    assert Recommender.load(tmp_path / "run").list_stack is not None


def test_a_stack_that_is_damaged_is_refused(judged: Path, tmp_path: Path) -> None:
    for name, change in (("weights", [1.0]), ("scale", [1.0, 1.0, 0.0, 1.0]), ("names", ["a", "b", "c", "d"])):
        run = Path(shutil.copytree(judged, tmp_path / name))
        file = run / "list_stack" / "live_stack.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), name: change}))
        with pytest.raises(RunFolderError, match="is damaged, or of another catalog"):
            Recommender.load(run)
    (run / "list_stack" / "counts.safetensors").write_bytes(b"no")
    with pytest.raises(RunFolderError, match="is damaged"):
        Recommender.load(run)


def test_learning_from_lists_needs_lists(world_folder: Path, tmp_path: Path, quick_choices: list[str]) -> None:
    out, choices = tmp_path / "run", [*quick_choices, "objective.shown=1"]
    with pytest.raises(RecipeError, match="does not say what was shown"):
        fit_run(world_folder / "items.csv", world_folder / "events.csv", out=out, overrides=choices, show=False)
    assert not out.exists()
