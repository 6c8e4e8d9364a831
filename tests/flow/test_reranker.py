"""A run that is taught to read: what it learns, what lists become, how it is served, what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import Result

from lmrec.artifacts.reranker import read_reranker
from lmrec.artifacts.run import open_run
from lmrec.data.sources.synthetic import planted_world
from lmrec.errors import InputError, Interrupted, LmrecError, NoRoomError, RecipeError, RunFolderError
from lmrec.fields import Ragged
from lmrec.models.encoder import pad_tokens
from lmrec.models.two_tower import TwoTower
from lmrec.recipe import load_fitted
from lmrec.retrieval.live import LiveQuery, LiveRecommender
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.reranker import RerankedScorer
from lmrec.training.distil import TaughtLists, distil, list_divergence
from lmrec.workflows import rerank
from lmrec.workflows.distil import distil_run
from lmrec.workflows.judge import FUSED, judge_run
from lmrec.workflows.report import report_run
from lmrec.workflows.rerank import RerankerFit, fit_reranker
from lmrec.workflows.reranked import ALONE, RERANKED, read_reranking
from lmrec.workflows.train import fit_run

from .conftest import shared
from .stopping import asks

TOP_K = 6
QUICK = [
    "reranker.max_tokens=90",
    "reranker.n_events=60",
    "reranker.validation_events=20",
    "reranker.search_cases=20",
    "reranker.judge_cases=30",
    f"reranker.top_k={TOP_K}",
]
READS_LIKELIHOOD = [*(choice for choice in QUICK if "n_events" not in choice), "reranker.form=likelihood"]


@pytest.fixture(scope="module")
def taught(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a weight that is felt, whatever validation thought of so small a model."""
    run = Path(shutil.copytree(fitted, tmp_path_factory.mktemp("taught") / "run"))
    fit_reranker(run, QUICK, show=False)
    set_weight(run, 0.9)
    return run


def set_weight(run: Path, weight: float) -> None:
    file = run / "reranker" / "reranker.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "weight": weight}))


def stop_at(number: int, run: Path, choices: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A `fit-reranker` that is stopped when it asks for the n-th time."""
    wish, _ = asks(number.__eq__)
    with monkeypatch.context() as patch:
        patch.setattr(rerank, "stop_on_interrupt", wish)
        with pytest.raises(Interrupted, match="is lost. The same command goes on from"):
            fit_reranker(run, choices, show=False)


def test_it_describes_itself_and_the_run_tells_of_it(taught: Path) -> None:
    described = read_reranker(taught / "reranker")
    assert (described.task, described.top_k, described.max_tokens) == ("binary", TOP_K, 90)
    told = json.loads((taught / "run.json").read_text())["reranker"]
    assert 120 < told["n_pairs"] <= 60 * 4  # some lists hold little that is not one's own
    assert told["epochs"][0]["loss"] > 0
    assert max(told["by_weight"].values()) >= told["by_weight"]["0"]
    assert not (taught / "reranker_state").exists()


def test_the_best_change_places_and_the_rest_stand(taught: Path) -> None:
    recommender = Recommender.load(taught)
    users = recommender.interactions.user_ids[:20]
    before = recommender.recommend(users=users, k=12, rerank=False)
    after = recommender.recommend(users=users, k=12)
    for old, new in zip(before, after, strict=True):
        assert {item.item_id for item in old.items[:TOP_K]} == {item.item_id for item in new.items[:TOP_K]}
        assert old.items[TOP_K:] == new.items[TOP_K:]
        assert [item.score for item in old.items] == [item.score for item in new.items]
    assert any(old.items != new.items for old, new in zip(before, after, strict=True))
    short = recommender.recommend(users=users, k=2)
    assert [answer.items for answer in short] == [answer.items[:2] for answer in after]


def test_the_judge_ranks_as_the_recommender_lists(taught: Path) -> None:
    recommender = Recommender.load(taught)
    assert recommender.reranker is not None
    scorer = RerankedScorer(
        "it", recommender.scorer, recommender.reranker, recommender.texts, 0.9, TOP_K, exclude_seen=True
    )
    users = np.arange(5)
    histories = Ragged.from_rows([recommender._histories.all(np.array([user]))[0] for user in users])
    scores = scorer.score(histories)
    for user, answer in zip(
        users, recommender.recommend(users=recommender.interactions.user_ids[:5], k=8), strict=True
    ):
        rows = [recommender.catalog.index_of(item.item_id) for item in answer.items]
        np.testing.assert_allclose(scores[user, rows], [item.score for item in answer.items], rtol=1e-5)
    assert scorer.weighted(0.0).score(histories) == pytest.approx(recommender.scorer.score(histories))


def test_it_is_judged_and_reported(taught: Path) -> None:
    judged = judge_run(taught, show=False)
    assert judged.reranking is not None
    assert [row.name for row in judged.reranking.table.rows] == [FUSED, RERANKED, ALONE]
    assert judged.reranking.table.form.n_cases == 30
    assert judged.reranking.reading.processor_p50 > judged.reranking.plain.processor_p50  # whatever its weight is
    assert "A list takes" in judged.reranking.cost
    kept = read_reranking(open_run(taught))
    assert kept is not None
    assert kept.cost == judged.reranking.cost
    assert {"auc", "accuracy", "f1", "log_loss", "calibration_error"} <= judged.reranking.pairs.metrics.keys()
    page = report_run(taught).read_text()
    assert "Does reading the best of each list help?" in page
    assert "reliability" in page


def test_it_is_served_with_items_that_came_later(taught: Path) -> None:
    live = LiveRecommender.load(taught)
    recommender = Recommender.load(taught)
    assert live.reads
    history = tuple(recommender.catalog.ids[:3])
    (listed,) = recommender.recommend(histories=[history], k=10)
    (answer,) = live.recommend([LiveQuery(history=history, k=10)])
    assert [item.item_id for item in answer.items] == [item.item_id for item in listed.items]
    live.upsert([{"item_id": "new", "title": "quiet river", "description": "a quiet river in the rain"}])
    assert live.recommend([LiveQuery(text="quiet river", k=3)])[0].items
    frame = pl.DataFrame({"item_id": ["new"], "title": ["quiet river"], "description": ["a quiet river in the rain"]})
    more = recommender.add_items(frame)
    (with_new,) = more.recommend(histories=[history], k=10)
    (live_with_new,) = live.recommend([LiveQuery(history=history, k=10)])
    assert [item.item_id for item in live_with_new.items] == [item.item_id for item in with_new.items]


def test_it_reads_less_of_an_item_than_the_retriever_where_it_is_told_to(run: Path, tmp_path: Path) -> None:
    """Long descriptions need no other fit: titles alone are read here, in training, lists, judgement and live."""
    short = [*QUICK, "reranker.max_tokens=12"]
    with pytest.raises(NoRoomError, match=r"reranker.max_tokens is 12, .* such as '\{title\}', or reranker.max_words"):
        fit_reranker(run, short, show=False)
    with pytest.raises(RecipeError, match="reranker.item names the column 'name', which the catalog lacks"):
        fit_reranker(run, [*short, "reranker.item={name}"], show=False)
    fit_reranker(run, [*short, "reranker.item=Film: {title}", "reranker.max_words=2"], show=False)
    set_weight(run, 0.9)
    recommender, live = Recommender.load(run), LiveRecommender.load(run)
    titles = [" ".join(title.split()[:2]) for title in recommender.catalog.frame["title"]]
    assert recommender.pair_texts == [f"Film: {title}" for title in titles]
    assert recommender.pair_texts != recommender.texts
    histories = [tuple(recommender.catalog.ids[at : at + 3]) for at in range(12)]
    distil_run(run, tmp_path / "quick", ["distil.n_events=20"], show=False)  # whole texts would leave no room
    kept = judge_run(run, show=False)
    assert kept.reranking is not None
    words = {"title": "quiet river", "description": "a long one " * 90}  # which leaves room only where it is not read
    live.upsert([{"item_id": "new", **words}])
    more = recommender.add_items(pl.DataFrame({"item_id": ["new"], **{name: [text] for name, text in words.items()}}))
    assert more.pair_texts[-1] == "Film: quiet river"
    listed, plain = (more.recommend(histories=histories, k=10, rerank=reads) for reads in (True, False))
    answers = live.recommend([LiveQuery(history=history, k=10) for history in histories])
    shown = [[item.item_id for item in one.items] for one in listed]
    assert [[item.item_id for item in answer.items] for answer in answers] == shown
    assert [[item.item_id for item in one.items] for one in plain] != shown
    assert live.recommend([LiveQuery(text="quiet river", k=3)])[0].items


def test_it_is_distilled_into_a_retriever_of_its_own(
    taught: Path, fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    followed = 'tracking.to=["tensorboard", "wandb"]'
    found = distil_run(taught, tmp_path / "run", ["distil.n_events=40", "distil.epochs=1", followed], show=False)
    told = [row["validation"] for row in found.run.curves.read() if row["stage"] == "distil"]
    assert told == list(found.metrics)
    assert {path.name for path in found.run.curves.paths if path.exists()} == {
        path.name for path in found.run.curves.paths
    }
    with pytest.raises(RunFolderError, match="exists and is not empty"):
        distil_run(taught, tmp_path / "run", show=False)
    assert found.n_lists == 40
    assert len(found.metrics) == 2
    assert found.metrics[found.epoch] == max(found.metrics)
    recommender = Recommender.load(tmp_path / "run")
    assert recommender.reranker is None
    assert len(recommender.recommend(users=["user0"], k=5)[0].items) == 5
    judged = judge_run(tmp_path / "run", show=False)
    assert FUSED in {row.name for row in judged.table.rows}
    before = [item.score for item in Recommender.load(taught).recommend(users=["user0"], k=5, rerank=False)[0].items]
    again = [item.score for item in Recommender.load(taught).recommend(users=["user0"], k=5, rerank=False)[0].items]
    assert before == again  # the run that was distilled is as it was
    with pytest.raises(InputError, match="has no reranker to learn from. Type: lmrec fit-reranker"):
        distil_run(fitted, tmp_path / "other", show=False)
    set_weight_of = Path(shutil.copytree(taught, tmp_path / "unweighed"))
    set_weight(set_weight_of, 0.0)
    with pytest.raises(InputError, match="validation gave the reranker of .* no weight"):
        distil_run(set_weight_of, tmp_path / "other", show=False)
    assert not (tmp_path / "other").exists()


@pytest.fixture(scope="module")
def rated(world_folder: Path, tmp_path_factory: pytest.TempPathFactory, quick_choices: list[str]) -> Path:
    """A run on a log with ratings 1 to 3."""
    events = pl.read_csv(world_folder / "events.csv").with_columns(rating=pl.int_range(pl.len()) % 3 + 1)
    out = tmp_path_factory.mktemp("rated") / "run"
    fit_run(
        world_folder / "items.csv", events, out=out, overrides=[*quick_choices, "training.tuned_epochs=0"], show=False
    )
    return out


@pytest.mark.parametrize(("task", "model"), [("classes", "tiny_llama"), ("regression", "tiny_bert")])
def test_ratings_are_learnt_by_both_types(
    task: str, model: str, request: pytest.FixtureRequest, rated: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(rated, tmp_path / "run"))
    name = f"reranker.name={request.getfixturevalue(model)}"
    fit = fit_reranker(run, [*QUICK, f"reranker.task={task}", name], show=False)
    assert fit.description.n_outputs == (3 if task == "classes" else 1)
    recommender = Recommender.load(run)
    assert recommender.reranker is not None
    (scores,) = recommender.reranker.score([recommender.texts[:2]], [recommender.texts[2:6]])
    assert np.isfinite(scores).all()
    if task == "classes":
        assert ((scores >= 1) & (scores <= 3)).all()  # expected ratings
    judged = judge_run(run, show=False).reranking
    assert judged is not None
    assert judged.pairs.task == task


@pytest.mark.parametrize("stage", ["lists", "epochs"])
def test_a_stop_is_heard_everywhere_and_nothing_is_forgotten(
    stage: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While pairs are drawn, while it learns, while lists are read; the epochs before a stop are told like those after it. An
    earlier reranker's epochs are not taken for these."""
    choices = [*QUICK, "reranker.epochs=3"]
    never, times = asks(lambda n: False)
    with monkeypatch.context() as patch:
        patch.setattr(rerank, "stop_on_interrupt", never)
        whole = fit_reranker(Path(shutil.copytree(run, tmp_path / "whole")), choices, show=False)
    fit_reranker(run, [*QUICK, "reranker.epochs=4"], show=False)
    n_lists = len(range(0, 20, 16))
    stops = {"lists": (0, 1, len(times) - n_lists), "epochs": (2, 2 + (len(times) - 2 - n_lists) // 2)}[stage]
    for stop in stops:
        stop_at(stop, run, choices, monkeypatch)
    found = fit_reranker(run, choices, show=False)

    def told(fit: RerankerFit) -> list[dict[str, Any]]:
        return [{name: row[name] for name in ("epoch", "loss", "validation_loss")} for row in fit.epochs]

    assert [row["epoch"] for row in found.epochs] == [1, 2, 3]
    assert told(found) == told(whole)
    assert found.by_weight == whole.by_weight


def test_a_language_model_that_writes_answers_yes_or_no(run: Path, tiny_llama: Path) -> None:
    choices = [*QUICK, f"reranker.name={tiny_llama}", "reranker.form=yes_no", "reranker.train=lora"]
    fit = fit_reranker(run, choices, show=False)
    assert fit.description.answers[0] != fit.description.answers[1]
    assert (run / "reranker" / "model" / "learnt.safetensors").exists()  # the language model stays where it is
    assert not (run / "reranker" / "model" / "model.safetensors").exists()
    set_weight(run, 0.9)
    (answer,) = Recommender.load(run).recommend(users=["user0"], k=5)
    assert len(answer.items) == 5


def test_a_language_model_that_writes_says_how_likely_words_are(
    run: Path, tiny_llama: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = [*READS_LIKELIHOOD, f"reranker.name={tiny_llama}"]
    for stop in (1, 5):  # while pairs are read
        stop_at(stop, run, reads, monkeypatch)
    fit = fit_reranker(run, reads, show=False)
    assert fit.n_pairs == 0  # nothing was trained, so nothing is kept
    assert not list((run / "reranker").rglob("*.safetensors"))
    assert fit.description.spread >= 0
    set_weight(run, 0.9)
    recommender = Recommender.load(run)
    reader, texts = recommender.reranker, recommender.texts
    assert reader is not None
    together = reader.score([texts[:3]], [texts[3:9]])[0]
    alone = [float(reader.score([texts[:3]], [[text]])[0][0]) for text in texts[3:9]]
    np.testing.assert_allclose(together, alone, atol=0.05)  # bf16, where this machine has it
    assert np.ptp(together) > 0.01
    # Odds over pairs of all histories may say nothing; a list is in the order of the likelihoods all the same.
    silent = replace(reader, description=replace(reader.description, center=0.0, spread=0.0))
    np.testing.assert_array_equal(silent.score([texts[:3]], [texts[3:9]])[0], together)
    assert np.ptp(silent.outputs([texts[:3]], [texts[3:9]])) == 0
    assert len(recommender.recommend(users=["user0"], k=5)[0].items) == 5
    set_weight(run, 0.0)
    elsewhere = json.loads((run / "reranker" / "reranker.json").read_text())
    elsewhere["base"].update(name="gone", location="gone")
    (run / "reranker" / "reranker.json").write_text(json.dumps(elsewhere))
    live = LiveRecommender.load(run)
    live.warm_up()  # a reranker without weight reads nothing, so nobody misses its language model
    assert live.recommend([LiveQuery(history=tuple(recommender.catalog.ids[:3]), k=5)])[0].items
    set_weight(run, 0.9)
    with pytest.raises(
        RunFolderError, match=r"reranker in .* needs its base, and .* It was fitted with the one in gone"
    ):
        LiveRecommender.load(run).warm_up()
    for choice, words in {
        "reranker.epochs=3": "reranker.epochs is 3, and nothing would come of it without a reranker.form that learns",
        "reranker.task=classes": "says chosen or not: set reranker.task to 'binary'",
    }.items():
        with pytest.raises(RecipeError, match=words):
            fit_reranker(run, [*READS_LIKELIHOOD, choice], show=False)
    with pytest.raises(RecipeError, match="reads in both directions, so it does not write"):
        fit_reranker(run, [*READS_LIKELIHOOD, f"reranker.name={tiny_bert}"], show=False)


def test_what_is_kept_of_a_stop_is_of_one_base(run: Path, tiny_bert: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    choices = [*QUICK, f"reranker.name={base}", "reranker.train=lora"]
    recipe, recommender = (
        load_fitted(run / "recipe.toml", choices, ["reranker.*"], "after training"),
        Recommender.load(run),
    )
    before = rerank._fingerprint(recipe, recommender)
    assert before == rerank._fingerprint(recipe, recommender)
    weights = load_file(base / "model.safetensors")
    save_file(
        {name: value + 1 if value.is_floating_point() else value for name, value in weights.items()},
        base / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert rerank._fingerprint(recipe, recommender) != before


def test_a_missing_base_is_told_before_anything_is_asked(run: Path, tiny_bert: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    fit_reranker(run, [*QUICK, f"reranker.name={base}", "reranker.train=lora"], show=False)
    (run / "evaluation.json").unlink(missing_ok=True)
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(LmrecError, match="base"):
        judge_run(run, show=False)
    assert not (run / "evaluation.json").exists()


@pytest.mark.parametrize("form", ["classifier", "yes_no"])
def test_dropout_is_heard_by_every_form_that_learns(form: str, fitted: Path, tiny_llama: Path, tmp_path: Path) -> None:
    """Of a Llama, too, whose dropout is a number and no module."""
    losses = []
    for share in (0.0, 0.6):
        run = Path(shutil.copytree(fitted, tmp_path / f"run{share}"))
        choices = [*QUICK, f"reranker.form={form}", f"reranker.name={tiny_llama}", f"reranker.dropout={share}"]
        losses.append(fit_reranker(run, choices, show=False).epochs[0]["loss"])
    assert losses[0] != losses[1]


def test_what_cannot_be_is_refused(taught: Path, run: Path, tiny_gpt: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--set encoder.max_tokens cannot change after training"):
        fit_reranker(run, ["encoder.max_tokens=8"], show=False)
    with pytest.raises(InputError, match="learns ratings, and this log has none"):
        fit_reranker(run, ["reranker.task=classes"], show=False)
    for form in ("classifier", "yes_no", "likelihood"):
        choices = [f"reranker.form={form}", f"reranker.name={tiny_gpt}"]
        with pytest.raises(RecipeError, match="reranker.max_tokens is 128, and .*gpt reads at most 96. Lower it"):
            fit_reranker(run, choices, show=False)
    assert not (run / "reranker").exists()
    broken = Path(shutil.copytree(taught, tmp_path / "broken"))
    set_weight(broken, 0.5)
    file = broken / "reranker" / "reranker.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "template": "other"}))
    with pytest.raises(RunFolderError, match="was taught texts of another template"):
        Recommender.load(broken)
    file.write_text(json.dumps({**json.loads((taught / "reranker" / "reranker.json").read_text()), "fingerprint": "x"}))
    with pytest.raises(RunFolderError, match="holds other weights"):
        Recommender.load(broken).recommend(histories=[["film0"]], k=3)


def test_the_command_line(run: Path, invoke: Callable[..., Result]) -> None:
    sets = [word for choice in QUICK for word in ("--set", choice)]
    told: Result = invoke("fit-reranker", run, *sets, "--json", "--quiet")
    assert json.loads(told.stdout)["n_pairs"] > 120
    invoke("recommend", run, "--user", "user0", "--no-rerank")
    assert "learns ratings" in invoke("fit-reranker", run, "--set", "reranker.task=classes", code=2).output


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_where_people_come_back_lists_are_read_as_they_are_served(
    exclude_seen: bool, quick_choices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Histories of far more events than there are items."""
    shared().write_tables(planted_world(n_users=30, n_items=16, n_events_per_user=8, n_topics=4, seed=3), tmp_path)
    first, users = pl.read_csv(tmp_path / "events.csv"), pl.read_csv(tmp_path / "events.csv")["user_id"].unique()
    begin, end = (int(one) for one in first["timestamp"].to_numpy()[[0, -1]])
    later = end - begin + 1
    again = [first.with_columns(pl.col("timestamp") + times * later) for times in range(4)]
    had = {user: set(first.filter(pl.col("user_id") == user)["item_id"]) for user in users}
    new = {user: sorted({f"film{n}" for n in range(16)} - had[user])[:4] for user in users}
    rows = [(user, item, begin + (9 + at) * later) for user in users for at, item in enumerate(new[user])]
    pl.concat([*again, pl.DataFrame(rows, schema=first.schema, orient="row")]).write_csv(tmp_path / "events.csv")
    served = f"evaluation.exclude_seen={str(exclude_seen).lower()}"
    choices = [*quick_choices, "split.kind=last", "user_model.max_history=50", served]
    run = tmp_path / "run"
    fit_run(tmp_path / "items.csv", tmp_path / "events.csv", out=run, overrides=choices, show=False)
    fit_reranker(run, [*QUICK, "reranker.top_k=12"], show=False)
    set_weight(run, 0.5)
    read: list[TaughtLists] = []

    def listening(towers: TwoTower, text_vec: Tensor, lists: TaughtLists, *rest: Any) -> Any:
        read.append(lists)
        return distil(towers, text_vec, lists, *rest)

    monkeypatch.setattr("lmrec.workflows.distil.distil", listening)
    distil_run(run, tmp_path / "taught", ["distil.n_events=50", "distil.epochs=1"], show=False)
    (lists,) = read
    seen = [bool({*lists.history[at].tolist()} & {*lists.items[at].tolist()}) for at in range(len(lists))]
    assert 2 <= lists.items.shape[1] < 12 if exclude_seen else lists.items.shape[1] == 12
    assert any(seen) == (not exclude_seen)


def test_a_reranker_that_agrees_teaches_a_fused_retriever_nothing(
    world_folder: Path, quick_choices: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted beside the towers is added when they serve: it must not be taught to them as well."""
    counted = [f"fusion.{part}=true" for part in ("transitions", "popularity", "content")]
    few = ["training.frozen_epochs=4", "training.snapshots=2", "training.refit=true", *counted]
    tables = (world_folder / "items.csv", world_folder / "events.csv")
    run = fit_run(*tables, out=tmp_path / "run", overrides=[*quick_choices, *few], show=False).run
    assert Recommender.load(run.path).fusion.weights.any
    fit_reranker(run.path, QUICK, show=False)
    set_weight(run.path, 1e-9)
    untaught: list[float] = []

    def measured(towers: TwoTower, text_vec: Tensor, lists: TaughtLists, *rest: Any) -> tuple[list[float], int]:
        with torch.no_grad():
            item_vec, (history, mask) = towers.item_tower(text_vec), pad_tokens(lists.history)
            users = towers.head.prepare(towers.final_state(item_vec, history, mask))
            items = towers.head.prepare(item_vec)[torch.from_numpy(lists.items)]
            own = towers.head.scale * (items @ users.unsqueeze(2)).squeeze(2)
        student = lists.weight * own + torch.from_numpy(lists.beside)
        untaught.append(float(list_divergence(student, torch.from_numpy(lists.teacher), 1.0)))
        untaught.append(float(list_divergence(own, torch.from_numpy(lists.teacher), 1.0)))
        return distil(towers, text_vec, lists, *rest)

    monkeypatch.setattr("lmrec.workflows.distil.distil", measured)
    taught = distil_run(run.path, tmp_path / "taught", ["distil.n_events=60", "distil.epochs=1"], show=False).run
    fused, alone = untaught
    assert fused < 1e-5 < alone
    judged = judge_run(taught.path, ['baselines.names=["popularity"]'], show=False)  # of a run that had snapshots, too
    assert FUSED in {row.name for row in judged.table.rows}
