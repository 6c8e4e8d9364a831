"""Continual learning from end to end: a small run, a store that has heard things, and what an update makes of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from lmrec.artifacts.generation import list_generations, promote, read_serving, rollback
from lmrec.artifacts.lock import UPDATING, locked
from lmrec.artifacts.reranker import read_reranker
from lmrec.artifacts.run import RunFolder
from lmrec.cli.app import app
from lmrec.data.dataset import Dataset
from lmrec.data.sources.synthetic import planted_world
from lmrec.errors import InputError, Interrupted, RunFolderError
from lmrec.feedback.events import Event
from lmrec.feedback.shown import Shown
from lmrec.feedback.store import ItemPut, Store
from lmrec.recipe import load_fitted
from lmrec.retrieval.recommender import Recommender
from lmrec.service.metrics import newest_drift
from lmrec.service.settings import default_store
from lmrec.workflows.judge import judge_run
from lmrec.workflows.rerank import fit_reranker
from lmrec.workflows.train import fit_run
from lmrec.workflows.update import update_run

LATER_TS = 1_750_000_000.0  # after the whole log, and before now
FRESH = {"title": "The Merry Tiger and the Violin", "description": "A funny tale of a reef, a choir and a happy moon."}


@dataclass(frozen=True)
class Small:
    """A run, and the world that it has learnt: users walk through the topics in one direction."""

    world: Dataset
    run: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.run / 'service' / 'store.db'}"

    def open_store(self) -> Store:
        (self.run / "service").mkdir(exist_ok=True)
        return Store.open(self.url)

    def hear(self, events: Sequence[Event]) -> None:
        with self.open_store() as store:
            store.add_events(events)


@pytest.fixture(scope="module")
def fitted(learning_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Small:
    world = planted_world(n_users=80, n_items=64, n_events_per_user=16, n_topics=8, seed=1)
    log = world.interactions
    events = pl.DataFrame(
        {
            "user_id": [log.user_ids[user] for user in log.user_idx],
            "item_id": [world.catalog.ids[item] for item in log.item_idx],
            "timestamp": log.time_ts.astype(int),
        }
    )
    run = tmp_path_factory.mktemp("small") / "run"
    choices = [
        *learning_choices,
        "training.tuned_epochs=0",
        "training.frozen_epochs=8",
        "evaluation.n_bootstrap=200",
        "update.epochs=4",
    ]
    fit_run(world.catalog.frame, events, out=run, overrides=choices, show=False)
    return Small(world, run)


@pytest.fixture
def small(fitted: Small, tmp_path: Path) -> Small:
    return Small(fitted.world, Path(shutil.copytree(fitted.run, tmp_path / "run")))


def walk(world: Dataset, n_users: int, n_steps: int, direction: int, seed: int = 0) -> list[Event]:
    """New users who walk through the topics as the planted ones do (1), or the other way round (-1)."""
    rng = np.random.default_rng(seed)
    frame = world.catalog.frame
    first = [int(item) for item in world.interactions.item_idx[world.interactions.user_idx == 0][:8]]
    cycle = [frame["topic"][item] for item in first]
    flavours = frame["flavour"].unique(maintain_order=True).to_list()
    events = []
    for user in range(n_users):
        place, flavour = int(rng.integers(8)), flavours[int(rng.integers(len(flavours)))]
        seen: set[str] = set()
        for step in range(n_steps):
            wanted = (pl.col("topic") == cycle[(place + direction * step) % 8]) & (pl.col("flavour") == flavour)
            choice = [item for item in frame.filter(wanted)["item_id"] if item not in seen]
            item = choice[int(rng.integers(len(choice)))]
            seen.add(item)
            when = LATER_TS + step * 1000.0 + user
            events.append(Event(f"walk{seed}-{user}-{step}", f"walker{seed}-{user}", item, "click", when))
    return events


def misleading(world: Dataset) -> list[Event]:
    """480 events of a taste that turns, then 160, the newest, of the old one: who learns from the first has unlearnt it."""
    back = walk(world, 60, 8, -1)
    forth = walk(world, 20, 8, 1, seed=1)
    return [*back, *(replace(event, time_ts=event.time_ts + 100_000.0) for event in forth)]


def names(run: Path) -> list[str]:
    return [info.name for info in list_generations(run)]


def test_a_shifted_taste_is_learnt_and_promoted(small: Small) -> None:
    small.hear(walk(small.world, 60, 10, -1))
    result = update_run(small.run, show=False)
    assert (result.status, result.generation, result.serving) == ("promoted", "0001", "0001"), result.reason
    assert result.decision is not None
    whole = result.decision.slices[0]
    assert whole.candidate > 1.2 * whole.serving
    assert "no slice is harmed" in result.reason
    with Store.open(default_store(small.run)) as store:
        (note,) = store.audit(10)
    assert (note.actor, note.action, note.target, note.detail["from"]) == ("update", "promote", "0001", "0")
    assert result.drift is not None
    assert {measure.name for measure in result.drift.measures} >= {"popularity", "items", "words", "score"}

    folder = small.run / "generations" / "0001"
    served = Recommender.load(folder)
    assert served.interactions.n_events == 80 * 16 + 600
    assert len(served.recommend(users="walker0-0", k=5)[0].items) == 5
    report = json.loads((folder / "update.json").read_text())
    assert report["decision"]["promote"] is True
    assert report["drift"]["n_new"] == 600
    info = list_generations(small.run)[1]
    assert newest_drift(list_generations(small.run)) == ("steady", "moving", "shifted").index(
        info.metrics["drift"]["overall"]
    )
    assert info.serving
    assert info.metrics["candidate"] == pytest.approx(whole.candidate)
    # The language model was not tuned, so it is on the disk once.
    weights = [path / "checkpoint" / "encoder" / "model.safetensors" for path in (small.run, folder)]
    assert weights[0].samefile(weights[1])
    shown = CliRunner().invoke(app, ["inspect", str(folder), "--json"])
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["update"] == {
        "parent": "0", "store_seq": 600, "items_version": 0, "promoted_by_rule": True,
    }  # fmt: skip
    with pytest.raises(InputError, match="nothing to judge"):
        judge_run(folder, show=False)

    again = update_run(small.run, show=False)
    assert (again.status, again.generation) == ("nothing new", None)
    assert "0 new events" in again.reason
    assert rollback(small.run, "test") == "0"
    assert read_serving(small.run) == "0"


def test_a_reranker_that_is_taught_later_reads_for_what_is_served(small: Small) -> None:
    quick = [
        *(
            "reranker.max_tokens=90",
            "reranker.n_events=40",
            "reranker.validation_events=10",
            "reranker.search_cases=10",
        ),
        *("reranker.judge_cases=10", "reranker.top_k=6"),
    ]
    fit_reranker(small.run, quick, show=False)
    small.hear(walk(small.world, 60, 10, -1))
    assert update_run(small.run, show=False).serving == "0001"
    served = small.run / "generations" / "0001"
    first = read_reranker(served / "reranker")
    again = fit_reranker(small.run, [*quick, "reranker.top_k=5", "reranker.n_events=50"], show=False)
    assert any("generation 0001, which is served, reads with it too" in note for note in again.notes)
    assert read_reranker(served / "reranker") == read_reranker(small.run / "reranker") != first
    assert Recommender.load(served).reranker is not None
    assert load_fitted(served / "recipe.toml").reranker.top_k == 5
    # A generation has learnt all but the newest: nothing is left to choose on.
    with pytest.raises(InputError, match="was fitted without a validation part"):
        fit_reranker(served, quick, show=False)


def test_events_that_mislead_are_refused_with_the_reason(small: Small) -> None:
    small.hear(misleading(small.world))
    result = update_run(small.run, overrides=["update.keep_refused=1"], show=False)
    assert (result.status, result.generation, result.serving) == ("kept", "0001", "0"), result.reason
    assert "not better" in result.reason or "not clear" in result.reason or "harms" in result.reason
    assert "kept and not served" in result.reason
    Recommender.load(small.run / "generations" / "0001")
    assert list_generations(small.run)[1].metrics["better"] is False

    # Nothing was used up: the same events are heard again, and of refused generations only the newest stays.
    same = update_run(small.run, show=False)
    assert same.status == "nothing new"
    assert f"since generation {result.generation} was made" in same.reason
    again = update_run(small.run, overrides=["update.keep_refused=1"], show=False)
    assert again.counts.new_events == 640
    assert names(small.run) == ["0", "0002"]


def test_forgotten_users_and_deleted_items_are_gone_and_new_items_are_there(small: Small) -> None:
    events = walk(small.world, 12, 8, 1)
    gone_item = small.world.catalog.ids[3]
    changed_item = small.world.catalog.ids[4]
    with small.open_store() as store:
        store.put_items(
            [ItemPut("fresh1", {**FRESH, "topic": "music", "colour": "red"}), ItemPut(changed_item, {**FRESH})]
        )
        store.delete_items([gone_item])
        store.add_events(events)
        clicks = [Event(f"f{n}", f"walker0-{n}", "fresh1", "play", LATER_TS + 100.0 * n) for n in range(8)]
        store.add_events([*clicks, Event("bad", "walker0-0", "nowhere", "click", LATER_TS)])
        store.add_events([Event("no", "walker0-1", "fresh1", "dismiss", LATER_TS)])
        store.forget_user("user7")
        store.forget_user("walker0-2")
        store.add_events([Event("back", "user7", "fresh1", "click", LATER_TS)])
    before = Recommender.load(small.run)
    result = update_run(small.run, show=False)
    assert result.generation == "0001"
    counts = result.counts
    assert (counts.new_items, counts.changed_items, counts.deleted_items) == (1, 1, 1)
    assert (counts.negative_events, counts.events_of_unknown_items) == (
        1,
        1 + sum(e.item_id == gone_item for e in events if e.user_id != "walker0-2"),
    )
    assert (counts.forgotten_users, counts.events_of_forgotten_users) == (1, 1)

    made = Recommender.load(small.run / "generations" / "0001")
    assert gone_item not in made.catalog.indices
    assert made.catalog.frame.row(made.catalog.index_of("fresh1"), named=True)["topic"] == "music"
    assert made.catalog.titles[made.catalog.index_of(changed_item)] == FRESH["title"]
    for forgotten in ("user7", "walker0-2"):
        assert forgotten not in made.interactions.user_ids
    folder = small.run / "generations" / "0001"
    data = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file() and "encoder" not in str(file))
    assert b"walker0-2" not in data
    # Items keep what was learnt of them, wherever their row is now.
    same = small.world.catalog.ids[40]
    row, old_row = made.catalog.index_of(same), before.catalog.index_of(same)
    assert row != old_row
    assert np.allclose(made.vectors.text_vec[row], before.vectors.text_vec[old_row])
    likeness = np.corrcoef(made.vectors.item_vec[row], before.vectors.item_vec[old_row])[0, 1]
    assert likeness > 0.8
    assert made.checkpoint.n_items == made.catalog.n_items == small.world.catalog.n_items


def test_the_language_model_learns_too_where_asked(small: Small) -> None:
    small.hear(walk(small.world, 40, 8, -1))
    result = update_run(small.run, overrides=["update.tuned_epochs=1", "update.epochs=2"], show=False)
    assert result.generation == "0001"
    folder = small.run / "generations" / "0001"
    stages = [json.loads(line)["stage"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert stages == ["frozen", "frozen", "tuned"]
    before, made = Recommender.load(small.run), Recommender.load(folder)
    assert not np.allclose(made.vectors.text_vec, before.vectors.text_vec, atol=1e-7)
    text = made.checkpoint.template.render_items(made.catalog.frame.head(1))
    # Unit vectors: while tuning, the layers below are kept in bf16 where the processor computes with it.
    assert 1.0 - float(made.encode_texts(text)[0] @ made.vectors.text_vec[0]) < 2e-4


def test_too_little_is_said_and_force_goes_on(small: Small) -> None:
    with pytest.raises(InputError, match="there is no store"):
        update_run(small.run, show=False)
    small.hear(walk(small.world, 4, 8, -1))
    result = update_run(small.run, show=False)
    assert (result.status, names(small.run)) == ("nothing new", ["0"])
    assert "needs 50 new events" in result.reason
    forced = update_run(small.run, force=True, dry_run=True, show=False)
    assert forced.status == "dry run"
    assert forced.decision is not None
    assert names(small.run) == ["0"]
    assert not list((small.run / "generations").iterdir())
    with pytest.raises(InputError, match="cannot change in an update"):
        update_run(small.run, overrides=["item.width=8"], show=False)


def test_one_at_a_time(small: Small) -> None:
    small.hear(walk(small.world, 4, 8, -1))
    told = f"another update is at work .*process {os.getpid()}"
    with locked(small.run / UPDATING, "update"), pytest.raises(RunFolderError, match=told):
        update_run(small.run, show=False)
    assert update_run(small.run, show=False).status == "nothing new"


def test_a_kill_in_the_middle_leaves_what_is_served(small: Small) -> None:
    small.hear(walk(small.world, 40, 8, -1))
    folder = small.run / "generations"
    command = ["update", str(small.run), "--quiet", "--set", "update.epochs=100000"]
    with subprocess.Popen(
        [sys.executable, "-m", "lmrec.cli.app", *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
    ) as process:
        until_it_learns(folder, lambda: process.poll() is None)
        process.send_signal(signal.SIGKILL)
    assert (names(small.run), read_serving(small.run)) == (["0"], "0")
    (left,) = folder.iterdir()

    # The next one takes the dead one's lock and removes what it left; asked to stop, it leaves nothing itself.
    (left / "metrics.jsonl").unlink()

    def ask_to_stop() -> None:
        until_it_learns(folder, lambda: True)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=ask_to_stop)
    asking.start()
    stopped = CliRunner().invoke(app, command)
    asking.join()
    assert stopped.exit_code == 130
    assert "is served on" in stopped.output
    assert not list(folder.iterdir())
    assert Recommender.load(small.run).recommend(users="user1", k=1)[0].items


def until_it_learns(folder: Path, alive: Callable[[], bool]) -> None:
    def learns() -> bool:
        assert alive()
        return bool(list(folder.glob(".*.new/metrics.jsonl")))

    until(learns)


def test_a_running_service_follows_and_has_the_users_new_history(small: Small) -> None:
    from lmrec.service.recommending import Ask, answer_asks
    from lmrec.service.schemas.questions import RecommendationQuestion
    from lmrec.service.settings import ServiceSettings
    from lmrec.service.state import open_state

    small.hear(walk(small.world, 60, 10, -1))
    with small.open_store() as store:
        store.put_items([ItemPut("fresh1", {**FRESH})])
    state = open_state(ServiceSettings.for_run(small.run, watch_s=0.02, threads=1))
    state.start()
    try:
        until(lambda: state.ready)
        assert state.serving.current.generation == "0"
        assert update_run(small.run, show=False).status == "promoted"
        until(lambda: state.serving.current.generation == "0001")
        ask = Ask("r1", RecommendationQuestion(user_id="walker0-3", k=5))
        (listed,) = answer_asks([ask], state.serving.current, state.users)
        assert (listed.body["basis"], listed.body["n_history"]) == ("history", 10)
        assert state.serving.has_item("fresh1")
        rollback(small.run, "test")
        until(lambda: state.serving.current.generation == "0")
    finally:
        state.close()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


def test_a_failure_leaves_nothing_and_another_promotion_is_not_overrun(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmrec.workflows import update as module

    small.hear(walk(small.world, 40, 8, -1))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "save_dataset", fail)
        with pytest.raises(OSError, match="No space left"):
            update_run(small.run, show=False)
    assert not list((small.run / "generations").iterdir())

    with monkeypatch.context() as patched:
        patched.setattr(module, "stop_on_interrupt", _stopped_at_once)
        with pytest.raises(Interrupted, match="nothing is kept"):
            update_run(small.run, show=False)
    assert not list((small.run / "generations").iterdir())

    first = update_run(small.run, show=False)
    assert first.status == "promoted", first.reason
    rollback(small.run, "test")
    save = module._save

    def meanwhile(*given: object) -> None:
        save(*given)  # type: ignore[arg-type]
        promote(small.run, "0001", "by hand")

    monkeypatch.setattr(module, "_save", meanwhile)
    second = update_run(small.run, show=False)
    assert (second.status, second.generation, second.serving) == ("kept", "0002", "0001")
    assert "Update again" in second.reason


def test_the_command_line(small: Small) -> None:
    runner = CliRunner()
    missing = runner.invoke(app, ["update", str(small.run)])
    assert missing.exit_code == 2
    small.hear(walk(small.world, 40, 8, -1))
    with small.open_store() as store:
        for n in range(20):
            store.add_shown(Shown(f"r{n}", f"walker0-{n}", "0", ("film1",), time.time() - n, {"arm": "ab"[n % 2]}))
        store.add_shown(Shown("tried", None, "0", ("film1",), time.time(), {"page": "console"}))  # counts for nobody
        store.add_events(
            [Event(f"c{n}", "walker0-0", "film1", "click", LATER_TS, request_id=f"r{n}") for n in range(5)]
        )
    drifted = runner.invoke(app, ["drift", str(small.run), "--json"])
    assert drifted.exit_code == 0, drifted.output
    assert json.loads(drifted.stdout)["n_new"] == 325
    assert "popularity" in runner.invoke(app, ["drift", str(small.run)]).stdout
    read = runner.invoke(app, ["experiment", str(small.run), "compare", "--json"])
    assert [(arm["arm"], arm["successes"]) for arm in json.loads(read.stdout)["arms"]] == [("a", 3), ("b", 2)]
    second = runner.invoke(app, ["experiment", str(small.run), "compare", "--against", "b"])
    assert second.exit_code == 0, second.output
    assert "a against b" in second.output
    updated = runner.invoke(app, ["update", str(small.run), "--quiet", "--dry-run"])
    assert updated.exit_code == 0, updated.output
    assert "dry run: ndcg@10" in updated.stdout
    elsewhere = runner.invoke(app, ["update", str(small.run)], env={"LMREC_STORE": "sqlite:////nowhere/store.db"})
    assert elsewhere.exit_code == 2
    assert "there is no store at sqlite:////nowhere" in elsewhere.output
    small_update = runner.invoke(app, ["update", str(small.run), "--json", "--set", "update.min_events=1000"])
    assert json.loads(small_update.stdout)["status"] == "nothing new"


def _stopped_at_once() -> object:
    from contextlib import nullcontext

    return nullcontext(lambda: True)


def test_the_record_of_a_run_is_read(small: Small) -> None:
    from lmrec.artifacts.generation import how_far

    assert how_far(RunFolder(small.run)) == (0, 0)
