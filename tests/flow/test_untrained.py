"""A run in which nothing was trained: counts and bare words answer, from the command line to the service and an update."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from lmrec.artifacts.generation import read_serving
from lmrec.artifacts.run import RunFolder
from lmrec.data.sources.synthetic import planted_world
from lmrec.feedback.events import Event
from lmrec.feedback.store import Store
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.judge import FUSED, read_table_of
from lmrec.workflows.update import update_run

from .conftest import WORLD, Fitted, Invoke, fit_and_judge
from .running import WORDS, running

UNTRAINED = ("training.frozen_epochs=0", "training.tuned_epochs=0")


@pytest.fixture(scope="module")
def untrained(learning_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return fit_and_judge(planted_world(**WORLD), tmp_path_factory.mktemp("untrained"), [*learning_choices, *UNTRAINED])


def test_what_is_counted_is_judged_and_beats_popularity(untrained: Fitted) -> None:
    table = read_table_of(RunFolder(untrained.run))
    assert table is not None
    of = {row.name: row.metrics["ndcg@10"].value for row in table.rows}
    assert [name for name in of if name.startswith("lmrec")] == [FUSED], "towers of random weights have no row"
    assert of[FUSED] > 2 * of["popularity"]


def test_histories_and_words_are_answered(untrained: Fitted) -> None:
    recommender = Recommender.load(untrained.run)
    by_history = recommender.recommend(histories=[recommender.catalog.ids[:3], recommender.catalog.ids[30:33]], k=5)
    assert by_history[0].items != by_history[1].items
    by_words = recommender.recommend_for_text(WORDS, k=5)
    assert by_words.items[0].score > by_words.items[-1].score
    texts = torch.nn.functional.normalize(recommender.vectors.text_vec, dim=1)
    cosine = texts @ texts[7]
    cosine[7] = -1.0
    (nearest,) = recommender.similar(recommender.catalog.ids[7], k=1)
    assert nearest.item_id == recommender.catalog.ids[int(cosine.argmax())], "like in words, for no vector has learnt"


def test_what_needs_training_is_refused_at_once(untrained: Fitted, tmp_path: Path, invoke: Invoke) -> None:
    for verb in ("distil", "compress"):
        refused = invoke(verb, untrained.run, "--out", tmp_path / verb, code=2)
        assert "towers count nothing" in " ".join(refused.output.split())
        assert not (tmp_path / verb).exists()
    notes = RunFolder(untrained.run).read_record()["notes"]
    assert any("training.learning_rate" in note and "nothing here without a first stage" in note for note in notes)


def test_it_is_served_and_updated_without_training(untrained: Fitted, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(untrained.run, run)
    ids = Recommender.load(run).catalog.ids
    with running(run) as service:
        shown = service.recommend(history=ids[:2], k=5)
        assert shown["basis"] == "history"
        found = service.post("/v1/explanations", {"history": ids[:2], "item_id": shown["items"][0]["item_id"]})
        assert found["contributions"]
        (alike,) = service.post("/v1/similar", {"item_id": ids[7], "k": 1})["items"]
        assert alike["item_id"] == Recommender.load(run).similar(ids[7], k=1)[0].item_id
    events = [Event(f"e{n}", f"new-{n % 40}", ids[(n // 40) % 6], "click", 1_750_000_000.0 + n) for n in range(240)]
    with Store.open(f"sqlite:///{run / 'service' / 'store.db'}") as store:
        store.add_events(events)
    result: Any = update_run(run, show=False)
    assert result.status in ("promoted", "kept"), result
    assert not any("loss" in row for row in _epochs(run / "generations" / result.generation))
    assert read_serving(run) == (result.generation if result.status == "promoted" else "0")


def _epochs(folder: Path) -> list[str]:
    file = folder / "metrics.jsonl"
    return file.read_text().splitlines() if file.exists() else []
