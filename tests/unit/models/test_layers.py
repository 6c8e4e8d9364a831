"""How a language model is built: where its dropout is, whatever its kind."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lmrec.errors import RecipeError
from lmrec.models.layers import set_dropout

IDS = torch.tensor([[2, 9, 8, 7, 3, 11, 12]])
SIZES: dict[str, Any] = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
KINDS: dict[str, dict[str, Any]] = {  # modules, plain numbers, or both
    "Bert": {**SIZES, "intermediate_size": 24},
    "GPT2": {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2},
    "Llama": {**SIZES, "intermediate_size": 24},
    "Qwen2": {**SIZES, "intermediate_size": 24, "num_key_value_heads": 2},
    "OPT": {**SIZES, "ffn_dim": 24, "word_embed_proj_dim": 16, "layerdrop": 0.0},
    "ModernBert": {**SIZES, "intermediate_size": 24, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_passes_differ_with_dropout_and_are_alike_without(kind: str) -> None:
    torch.manual_seed(0)
    made = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**KINDS[kind])).train()
    before = made.config.to_dict()
    for share in (0.5, 0.0):
        set_dropout(made, share, "encoder.dropout", "it")
        one, other = (made(input_ids=IDS).last_hidden_state for _ in range(2))
        assert torch.equal(one, other) == (share == 0)
    assert made.config.to_dict() == before  # what is saved tells of the published model


def test_where_there_is_none_it_is_refused_and_none_is_fine(tmp_path: Path) -> None:
    from lmrec.models.encoder import EncoderConfig, load_encoder

    config = transformers.MambaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=2, state_size=4)
    transformers.MambaModel(config).save_pretrained(tmp_path)
    with pytest.raises(
        RecipeError, match=r"encoder.dropout is 0.5, and there is no dropout inside snake: .* Set it to 0"
    ):
        load_encoder(tmp_path, EncoderConfig(name="snake", dropout=0.5))
    assert load_encoder(tmp_path, EncoderConfig(name="snake")).width == 16
