"""A reranker that learnt through LoRA is kept without its language model, and reads as it did when that is found again."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmrec.artifacts.base import Base
from lmrec.artifacts.reranker import (
    RerankerDescription,
    build_reader,
    load_reranker_model,
    read_reranker,
    save_reranker,
)
from lmrec.errors import RunFolderError
from lmrec.fields import FloatArray, Ragged
from lmrec.models.adaptation import merge_adapter
from lmrec.models.cross_encoder import PairModel, ReaderForm, score_pairs
from lmrec.models.pair_adapter import attach_pair_lora, fingerprint_base, learnt_weights
from lmrec.text.pairs import PairLayout
from lmrec.text.tokens import load_tokenizer

PAIRS = Ragged.from_rows([[5, 6, 7, 8], [9, 10, 11], [6, 12, 5, 9]])
MODELS: list[tuple[str, ReaderForm]] = [
    ("tiny_bert", "classifier"), ("tiny_llama", "classifier"), ("tiny_llama", "yes_no")
]  # fmt: skip


def read(model: PairModel) -> FloatArray:
    return score_pairs(model.eval(), PAIRS, np.array([2, 1, 2]), 4096)


def save_learnt(base: Path, form: ReaderForm, folder: Path) -> FloatArray:
    """Learn something on a base, save that, and return how it reads."""
    described = RerankerDescription(
        "binary", form, PairLayout((), (), (), ()), max_tokens=32, top_k=5, weight=0.5, answers=(5, 6), rank=3
    )
    torch.manual_seed(3)
    model = build_reader(base, described, 0)
    described = replace(described, base=Base.of(str(base), fingerprint_base(model)))
    adapted = attach_pair_lora(model, 3, "")
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    learnt = learnt_weights(model)
    merge_adapter(adapted)
    save_reranker(folder, model, load_tokenizer(base), described, learnt)
    return read(model)


@pytest.mark.parametrize(("model", "form"), MODELS)
def test_it_reads_as_it_did(model: str, form: ReaderForm, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    base = Path(request.getfixturevalue(model))
    before = save_learnt(base, form, tmp_path / "reranker")
    kept = {file.name for file in (tmp_path / "reranker" / "model").iterdir()}
    assert "learnt.safetensors" in kept
    assert "model.safetensors" not in kept
    size = (tmp_path / "reranker" / "model" / "learnt.safetensors").stat().st_size
    assert size < (base / "model.safetensors").stat().st_size / 2
    torch.manual_seed(4)  # a fresh head would be another
    again, _ = load_reranker_model(tmp_path / "reranker", read_reranker(tmp_path / "reranker"))
    np.testing.assert_allclose(read(again), before, atol=1e-6)
    torch.manual_seed(3)
    untaught = build_reader(base, read_reranker(tmp_path / "reranker"), 0)
    assert np.abs(read(untaught) - before).max() > 1e-3


def test_it_wants_its_base(tiny_bert: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
    before = save_learnt(base, "classifier", tmp_path / "reranker")
    described = read_reranker(tmp_path / "reranker")
    assert described.base is not None
    elsewhere = replace(described, base=replace(described.base, name="moved", location=str(tiny_bert)))
    np.testing.assert_array_equal(read(load_reranker_model(tmp_path / "reranker", elsewhere)[0]), before)
    with pytest.raises(RunFolderError, match="learnt.safetensors does not fit reranker.json beside it"):
        load_reranker_model(tmp_path / "reranker", replace(described, rank=2))
    weights = load_file(base / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] += 0.1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        RunFolderError, match=r"reranker was learnt on a language model with the fingerprint .* Put the"
    ):
        load_reranker_model(tmp_path / "reranker", described)
    shutil.rmtree(base)
    with pytest.raises(
        RunFolderError, match="needs its base, and the reranker's language model .* could not be loaded"
    ):
        load_reranker_model(tmp_path / "reranker", described)


def test_an_output_layer_of_its_own_stays_as_it_is(tiny_llama: Path, tmp_path: Path) -> None:
    """Of a model whose words are read by one matrix and written by another."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone() + 0.1)
    model.save_pretrained(tmp_path / "untied")
    load_tokenizer(tiny_llama).save_pretrained(tmp_path / "untied")
    before = save_learnt(tmp_path / "untied", "yes_no", tmp_path / "reranker")
    kept = load_file(tmp_path / "reranker" / "model" / "learnt.safetensors")
    assert kept
    assert not [name for name in kept if "lm_head" in name or "lora" not in name]
    again, _ = load_reranker_model(tmp_path / "reranker", read_reranker(tmp_path / "reranker"))
    np.testing.assert_allclose(read(again), before, atol=1e-6)
