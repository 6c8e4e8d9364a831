"""A catalog's words are encoded once: what grows costs what is new, what was interrupted costs what is left."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from lmrec.artifacts.encoder_files import fingerprint_encoder
from lmrec.artifacts.vector_cache import VectorCache
from lmrec.cli.app import app
from lmrec.data.dataset import Dataset
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models import runtime as runtimes
from lmrec.models.encoder import EncoderConfig
from lmrec.progress import Progress
from lmrec.recipe import load_recipe
from lmrec.text.template import Template
from lmrec.workflows import encode
from lmrec.workflows.encode import PretrainedText, read_texts, untuned_vectors

TITLES = Template("{title}", " | ", 2000)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """How many texts went through the language model, call by call; the cache is empty at first."""
    monkeypatch.setenv("LMREC_CACHE", str(tmp_path / "cache"))
    counts: list[int] = []
    real = runtimes.encode_batches

    def counting(runtime: Any, tokens: Ragged, rows: IntArray, batch_tokens: int) -> Any:
        for batch, vectors in real(runtime, tokens, rows, batch_tokens):
            counts.append(len(batch))
            yield batch, vectors

    monkeypatch.setattr(encode, "encode_batches", counting)
    return counts


def source_of(world: Dataset, tiny_bert: Path, n_items: int, **choices: Any) -> PretrainedText:
    config = EncoderConfig(name=str(tiny_bert), max_tokens=16, **choices)
    catalog = replace(world.catalog, frame=world.catalog.frame.head(n_items))
    return read_texts(catalog, TITLES, config)


def vectors_of(source: PretrainedText) -> FloatArray:
    vectors: FloatArray = untuned_vectors(source, source.load_encoder(), False).numpy()
    return vectors


def n_unique(source: PretrainedText) -> int:
    return len(set(source.texts))


def test_a_grown_catalog_costs_its_new_texts(world: Dataset, tiny_bert: Path, encoded: list[int]) -> None:
    small, whole = (source_of(world, tiny_bert, n) for n in (20, 32))
    first = vectors_of(small)
    assert sum(encoded) == n_unique(small)
    both = vectors_of(whole)
    assert sum(encoded) == n_unique(whole)
    np.testing.assert_array_equal(both[:20], first)
    np.testing.assert_array_equal(vectors_of(whole), both)
    assert sum(encoded) == n_unique(whole)  # nothing more


def test_the_bar_counts_texts_and_ends_at_all(
    world: Dataset, tiny_bert: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches go by length: the last row of one says nothing of how many are done."""
    seen: list[tuple[int, int]] = []

    @contextmanager
    def watched(label: str, show: bool) -> Iterator[Progress]:
        yield lambda done, total: seen.append((done, total))

    monkeypatch.setattr(encode, "progress_bar", watched)
    source = source_of(world, tiny_bert, 32, batch_tokens=24)
    vectors_of(source)
    assert len(seen) > 1
    assert seen == [(done, n_unique(source)) for done in np.cumsum(encoded)]


def test_an_interrupted_encoding_goes_on_where_it_was(
    world: Dataset, tiny_bert: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(world, tiny_bert, 32, batch_tokens=24)
    real = VectorCache.append

    def stopping(self: VectorCache, keys: list[bytes], vectors: FloatArray) -> None:
        if len(encoded) == 3:
            raise KeyboardInterrupt
        real(self, keys, vectors)

    monkeypatch.setattr(VectorCache, "append", stopping)
    with pytest.raises(KeyboardInterrupt):
        vectors_of(source)
    monkeypatch.setattr(VectorCache, "append", real)
    done = sum(encoded[:2])
    assert 0 < done < n_unique(source)
    encoded.clear()
    vectors = vectors_of(source)
    assert sum(encoded) == n_unique(source) - done
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_an_unfaithful_runtime_is_refused_and_the_next_one_taken(
    world: Dataset,
    tiny_bert: Path,
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    truth = vectors_of(source_of(world, tiny_bert, 32, runtime="torch-fp32"))
    monkeypatch.setattr(runtimes, "FAITHFUL", 1e-9)  # nothing but fp32 is that close
    with caplog.at_level(logging.WARNING):
        found = vectors_of(source_of(world, tiny_bert, 32, runtime="torch-bf16"))
    assert "encoder.runtime 'torch-bf16' is refused" in caplog.text
    np.testing.assert_array_equal(found, truth)


def test_vectors_of_another_model_or_pooling_are_not_taken(world: Dataset, tiny_bert: Path, encoded: list[int]) -> None:
    mean = vectors_of(source_of(world, tiny_bert, 8))
    first = vectors_of(source_of(world, tiny_bert, 8, pooling="cls"))
    assert not np.allclose(mean, first, atol=1e-3)


def test_vectors_of_a_changed_config_are_not_taken(
    world: Dataset, tiny_bert: Path, encoded: list[int], tmp_path: Path
) -> None:
    """The weights stay as they are: what changed is how they are read."""
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
    before = vectors_of(source_of(world, folder, 8))
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "hidden_act": "relu"}))
    after = vectors_of(source_of(world, folder, 8))
    assert not np.allclose(before, after, atol=1e-3)
    assert sum(encoded) == 2 * n_unique(source_of(world, folder, 8))


def test_a_models_fingerprint_covers_what_is_cut_off_and_the_revision_of_a_hub(tiny_bert: Path, tmp_path: Path) -> None:
    """Two revisions may hold the very same files; then the vectors are the same too, but nobody need prove that."""
    revisions = [tmp_path / "snapshots" / name for name in ("a1", "b2")]
    for revision in revisions:
        shutil.copytree(tiny_bert, revision)
    plain, first, second = (fingerprint_encoder(folder, "mean") for folder in (tiny_bert, *revisions))
    assert len({plain, first, second, fingerprint_encoder(tiny_bert, "cls")}) == 4
    assert fingerprint_encoder(str(revisions[0]), "mean") == first
    (revisions[0] / "pruned.json").write_text("[]")
    assert fingerprint_encoder(revisions[0], "mean") != first


def test_a_hub_name_is_known_by_the_revision_in_the_hubs_cache(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    unknown = fingerprint_encoder("someone/bert", "mean")
    found = []
    for revision in ("a" * 40, "b" * 40):
        shutil.copytree(tiny_bert, tmp_path / "models--someone--bert" / "snapshots" / revision)
        reference = tmp_path / "models--someone--bert" / "refs" / "main"
        reference.parent.mkdir(exist_ok=True)
        reference.write_text(revision)
        found.append(fingerprint_encoder("someone/bert", "mean"))
    assert len({unknown, *found}) == 3
    assert fingerprint_encoder("no such/hub/name", "mean") not in (unknown, *found)


def test_the_bench_shows_every_runtime_and_writes_the_fastest_faithful_one(
    fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmrec.workflows.bench_encoder.RUNTIMES", ("torch-fp32", "torch-bf16"))
    out = tmp_path / "chosen.toml"
    result = CliRunner().invoke(app, ["bench-encoder", str(fitted), "--texts", "8", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {speed["name"] for speed in found["runtimes"]} == {"torch-fp32", "torch-bf16"}
    assert all(speed["texts_per_s"] > 0 and speed["one_ms"] > 0 for speed in found["runtimes"])
    assert load_recipe(out).encoder.runtime == found["best"]
