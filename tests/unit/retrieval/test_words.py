"""Words are encoded where a run answers by the runtime that its recipe names, if that can be had and is faithful."""

import json
import logging
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
import pytest
import torch

from lmrec.artifacts.pretrained import cache_folder
from lmrec.models import runtime as runtimes
from lmrec.retrieval import words as words_module
from lmrec.retrieval.live import LiveRecommender
from lmrec.retrieval.recommender import Recommender

RunWith: TypeAlias = Callable[[str], Path]


@pytest.fixture
def run_with(run_folder: Path, tmp_path: Path) -> RunWith:
    """The run as a recipe with this encoder.runtime makes it."""

    def make(runtime: str) -> Path:
        run = Path(shutil.copytree(run_folder, tmp_path / runtime))
        file = run / "checkpoint" / "checkpoint.json"
        values = json.loads(file.read_text())
        file.write_text(json.dumps({**values, "encoder": {**values["encoder"], "runtime": runtime}}))
        return run

    return make


@pytest.mark.parametrize(
    ("named", "taken"), [("auto", "torch-fp32"), ("torch-fp32", "torch-fp32"), ("torch-bf16", "torch-bf16")]
)
def test_the_recipe_says_what_runs(run_with: RunWith, named: str, taken: str) -> None:
    recommender = Recommender.load(run_with(named))
    found, fitted = recommender.encode_texts(recommender.texts), recommender.vectors.text_vec
    assert recommender.words.runtime.name == taken
    error = float((1 - (found * fitted).sum(1)).abs().max())
    assert error < 1e-6 if taken == "torch-fp32" else 1e-7 < error < runtimes.FAITHFUL


@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize(("named", "package"), [("onnx", "onnxruntime"), ("openvino-bf16", "openvino")])
def test_an_exported_model_is_ready_after_the_warm_up_and_kept_beside_the_run(
    run_with: RunWith, named: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip(package)
    run = run_with(named)
    before = sorted(run.rglob("*"))
    live = LiveRecommender.load(run)
    live.warm_up()
    monkeypatch.setattr(words_module, "choose_runtime", lambda *_: pytest.fail("made when it was asked for"))
    assert live.recommender.words.runtime.name == named
    assert list((cache_folder() / "exported").rglob("model.onnx"))
    assert sorted(run.rglob("*")) == before
    error = 1 - (live.recommender.encode_texts(live.recommender.texts) * live.recommender.vectors.text_vec).sum(1)
    assert float(error.abs().max()) < (1e-6 if named == "onnx" else runtimes.FAITHFUL)


def test_an_unfaithful_one_gives_way_to_fp32_and_that_is_said(
    run_with: RunWith, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtimes, "FAITHFUL", 1e-9)
    recommender = Recommender.load(run_with("torch-bf16"))
    with caplog.at_level(logging.WARNING):
        assert recommender.words.runtime.name == "torch-fp32"
    assert "encoder.runtime 'torch-bf16' is refused" in caplog.text


def test_a_missing_one_gives_way_to_fp32_and_the_log_says_what_to_type(
    run_with: RunWith, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as where it is not installed
    recommender = Recommender.load(run_with("onnx"))
    with caplog.at_level(logging.WARNING):
        assert recommender.words.runtime.name == "torch-fp32"
    assert "'onnx' cannot be had here" in caplog.text
    assert "pip install 'lmrec[onnx]'" in caplog.text
    torch.testing.assert_close(
        recommender.encode_texts(recommender.texts), recommender.vectors.text_vec, atol=1e-5, rtol=0
    )


def test_it_is_made_once_for_all_threads_and_for_a_recommender_with_more_items(
    run_with: RunWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    real = runtimes.choose_runtime

    def counting(*args: Any) -> Any:
        made.append(args)
        return real(*args)

    monkeypatch.setattr(words_module, "choose_runtime", counting)
    recommender = Recommender.load(run_with("torch-bf16"))
    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(lambda _: recommender.words.runtime, range(8))
    grown = recommender.add_items(pl.DataFrame({"item_id": ["new"], "title": ["whale sailor"]}))
    assert all(other is first for other in (*others, grown.words.runtime))
    assert len(made) == 1


def test_an_item_with_the_words_of_a_known_one_scores_as_that_one(run_with: RunWith) -> None:
    recommender = Recommender.load(run_with("auto"))
    twin = recommender.add_items(recommender.catalog.frame[7:8].with_columns(item_id=pl.lit("twin")))
    row = recommender.catalog.index_of("7")  # never seen in training: its vector is that of its words
    torch.testing.assert_close(twin.vectors.item_vec[-1], twin.vectors.item_vec[row], atol=1e-5, rtol=0)
