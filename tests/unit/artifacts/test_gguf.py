"""A GGUF file, written here as llama.cpp would, becomes a folder with the model's own answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from lmrec.artifacts.gguf import convert_gguf
from lmrec.errors import MissingExtraError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

gguf: Any = pytest.importorskip("gguf")
WORDS = ["<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "th", "the"]
MERGES = ["t h", "th e"]


@pytest.fixture(scope="module")
def writer() -> "LlamaForCausalLM":
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def write_gguf(model: "LlamaForCausalLM", file: Path, kind: Any) -> None:
    """kind: of the matrices; norms stay in fp32, as llama.cpp keeps them."""
    config: Any = model.config
    out = gguf.GGUFWriter(file, "llama")
    out.add_block_count(config.num_hidden_layers)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    out.add_vocab_size(config.vocab_size)
    out.add_tokenizer_model("gpt2")
    out.add_token_list(WORDS)
    out.add_token_types([3, 3, *([1] * (len(WORDS) - 2))])  # control tokens, then plain ones
    out.add_token_merges(MERGES)
    out.add_bos_token_id(0)
    out.add_eos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied to the embeddings
        values = weight.float().numpy()
        for part, n_heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if part in name:  # llama.cpp rotates pairs that stand beside each other
                halves = values.reshape(n_heads, 2, values.shape[0] // n_heads // 2, values.shape[1])
                values = halves.swapaxes(1, 2).reshape(values.shape)
        known = names.get_name(name, try_suffixes=(".weight",))
        if values.ndim == 1 or kind == gguf.GGMLQuantizationType.F32:
            out.add_tensor(known, values)
        else:
            out.add_tensor(known, gguf.quantize(values, kind), raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


@pytest.mark.parametrize(("kind", "off"), [("F32", 1e-6), ("Q8_0", 0.01), ("Q4_1", 0.2)])
def test_it_gives_the_models_own_answers(writer: "LlamaForCausalLM", kind: str, off: float, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    write_gguf(writer, tmp_path / "tiny.gguf", gguf.GGMLQuantizationType[kind])
    folder = convert_gguf(tmp_path / "tiny.gguf", tmp_path / "unpacked")
    assert (folder / "model.safetensors").exists()
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("thecat", return_tensors="pt", add_special_tokens=False)["input_ids"]
    assert [WORDS[token] for token in ids[0].tolist()] == ["the", "c", "a", "t"]
    with torch.inference_mode():
        found, truth = model(ids).logits[0].numpy(), writer(ids).logits[0].numpy()
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(truth, axis=1)
    error = float((1 - (found * truth).sum(1) / norms).max())  # 1 - cosine
    assert error < off
    assert (error > 1e-5) == (kind != "F32"), "what a few bits lose stays lost"


def test_without_the_package_it_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmrec.artifacts.gguf.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"lmrec\[gguf\]"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()
