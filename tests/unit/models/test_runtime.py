"""Runtimes: each gives the encoder's vectors, an unfaithful one is found out, and batches side by side change nothing."""

import copy
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lmrec.cores import free_cores, quota_of
from lmrec.errors import RecipeError
from lmrec.fields import Ragged
from lmrec.models.encoder import EncoderConfig, RuntimeName, TextEncoder, encode_tokens, load_encoder, pad_tokens
from lmrec.models.runtime import (
    RUNTIMES,
    TorchRuntime,
    build_runtime,
    candidates,
    choose_runtime,
    encode_batches,
    is_faithful,
    measure_error,
    need,
)

CPU = torch.device("cpu")
TOKENS = Ragged.from_rows([[2, *range(5, 5 + n), 3] for n in (1, 9, 4, 4, 17, 2, 30, 12)])
PACKAGES = {"onnx": ("onnxscript", "onnxruntime"), "openvino-bf16": ("onnxscript", "openvino")}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exporting takes seconds: once for all tests."""
    return tmp_path_factory.mktemp("exported")


@pytest.fixture
def bert(tiny_bert: Path) -> TextEncoder:
    return load_encoder(tiny_bert, EncoderConfig(name="tiny")).eval()


class Shaken(TorchRuntime):
    """A runtime that is off by more than bf16."""

    def encode(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        vectors = super().encode(token_ids, token_mask)
        noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.normalize(vectors + 0.01 * noise, dim=-1)


@pytest.mark.parametrize("name", RUNTIMES)
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_every_runtime_gives_the_encoders_vectors(name: RuntimeName, bert: TextEncoder, exported: Path) -> None:
    for package in PACKAGES.get(name, ()):
        pytest.importorskip(package)
    runtime = build_runtime(name, bert, exported)
    expected = encode_tokens(bert, TOKENS, 4096, CPU)
    found = np.zeros_like(expected)
    for rows, vectors in encode_batches(runtime, TOKENS, np.arange(len(TOKENS)), 64):
        assert vectors.dtype == np.float32
        found[rows] = vectors
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    assert np.abs(1 - (found * expected).sum(1)).max() < (1e-6 if name in ("torch-fp32", "onnx") else 2e-4)
    assert measure_error(runtime, bert, TOKENS) < (1e-6 if name in ("torch-fp32", "onnx") else 2e-4)


def test_a_copy_in_bf16_leaves_the_encoder_in_fp32(bert: TextEncoder) -> None:
    TorchRuntime(bert, bf16=True)
    assert {parameter.dtype for parameter in bert.parameters()} == {torch.float32}


def test_an_unfaithful_runtime_is_refused_and_that_is_said(bert: TextEncoder, caplog: pytest.LogCaptureFixture) -> None:
    assert is_faithful(TorchRuntime(bert, bf16=True), bert, TOKENS)
    with caplog.at_level(logging.WARNING):
        assert not is_faithful(Shaken(bert), bert, TOKENS)
    assert "is refused: 1 - cosine to fp32 is" in caplog.text


def test_quick_layers_that_are_off_in_fp32_are_not_used(
    bert: TextEncoder, exported: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ids, mask = pad_tokens(TOKENS)
    runtime = choose_runtime(["torch-fp32"], bert, exported, TOKENS)
    assert torch.allclose(runtime.encode(ids, mask), bert(ids, mask), atol=1e-5)
    monkeypatch.setattr("lmrec.models.runtime.quick_copy", lambda backbone: copy.deepcopy(backbone).bfloat16())
    with caplog.at_level(logging.WARNING):
        runtime = choose_runtime(["torch-fp32"], bert, exported, TOKENS)
    assert "the model's own are used" in caplog.text
    assert torch.equal(runtime.encode(ids, mask), TorchRuntime(bert, quick=False).encode(ids, mask))


def test_vectors_that_are_no_numbers_are_refused(bert: TextEncoder) -> None:
    class Broken(TorchRuntime):
        def encode(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
            return super().encode(token_ids, token_mask) * float("nan")

    assert not is_faithful(Broken(bert), bert, TOKENS)


def test_the_truth_stands_last_and_is_always_there() -> None:
    assert candidates("torch-fp32") == ["torch-fp32"]
    assert candidates("onnx") == ["onnx", "torch-fp32"]
    assert candidates("auto")[-1] == "torch-fp32"


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_batches_side_by_side_come_whole_and_leave_the_threads_as_they_were(
    bert: TextEncoder, n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmrec.models.runtime.free_cores", lambda: n_threads)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        rows = np.array([6, 1, 3, 0, 4])
        batches = list(encode_batches(TorchRuntime(bert), TOKENS, rows, 20))
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)
    assert len(batches) > 2
    order = np.concatenate([batch for batch, _ in batches])
    assert sorted(order) == sorted(rows)
    expected = encode_tokens(bert, TOKENS, 4096, CPU)
    np.testing.assert_allclose(np.concatenate([vectors for _, vectors in batches]), expected[order], atol=1e-5)


def test_a_missing_extra_says_what_to_type() -> None:
    with pytest.raises(RecipeError, match=r"needs the package 'no_such_engine'.*pip install 'lmrec\[onnx\]'"):
        need("no_such_engine", "onnx")


@pytest.mark.parametrize(("text", "cores"), [("200000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", 1 << 16)])
def test_a_control_groups_quota_is_read_as_whole_cores(tmp_path: Path, text: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert quota_of(tmp_path) == cores
    assert quota_of(tmp_path / "none") == 1 << 16
    assert free_cores() >= 1


@pytest.mark.parametrize("controller", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "cores"), [("350000", 3), ("20000", 1), ("-1", 1 << 16), ("", 1 << 16)])
def test_the_first_version_of_control_groups_has_a_file_a_number(
    tmp_path: Path, controller: str, quota: str, cores: int
) -> None:
    folder = tmp_path / controller
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    assert quota_of(tmp_path) == 1 << 16  # without its other file the number says nothing
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert quota_of(tmp_path) == cores
