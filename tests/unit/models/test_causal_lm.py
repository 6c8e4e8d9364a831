"""GPT-type models as readers: the kept prefix changes no score, the answer is read where the question ends."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, GraniteConfig, GraniteForCausalLM, LlamaForCausalLM, PhiConfig, PhiForCausalLM

from lmrec.errors import RecipeError
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.causal_lm import YesNoReader, load_causal_lm, score_continuations
from lmrec.models.cross_encoder import score_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREFIX = np.array([3, 50, 51, 52, 60, 7])
TITLES = Ragged.from_rows([[61], [62, 63, 64], [65, 66], [70, 71, 72, 73, 74], [61, 63]])


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_gpt"])
def writer(request: pytest.FixtureRequest) -> "PreTrainedModel":
    return load_causal_lm(request.getfixturevalue(request.param))


def one_by_one(model: "PreTrainedModel", prefix: IntArray, titles: Ragged) -> FloatArray:
    """Every title with the whole history, no padding, nothing kept."""
    found = []
    for at in range(len(titles)):
        row = torch.from_numpy(np.concatenate([prefix, titles[at]])).unsqueeze(0)
        with torch.no_grad():
            likely = model(input_ids=row, use_cache=False).logits[0].log_softmax(-1)
        places = range(len(prefix) - 1, row.shape[1] - 1)
        found.append(np.mean([float(likely[place, row[0, place + 1]]) for place in places]))
    return np.array(found)


@pytest.mark.parametrize("batch_tokens", [1, 8, 1000])
def test_a_history_read_once_gives_the_scores_of_reading_it_each_time(
    writer: "PreTrainedModel", batch_tokens: int
) -> None:
    kept = score_continuations(writer, PREFIX, TITLES, pad_id=0, batch_tokens=batch_tokens)
    np.testing.assert_allclose(kept, one_by_one(writer, PREFIX, TITLES), atol=1e-4)
    assert len(np.unique(kept.round(6))) == len(TITLES)


def test_of_what_nothing_is_said_nothing_is_likely(writer: "PreTrainedModel") -> None:
    """Also where a whole batch has no words."""
    blank = np.zeros(0, np.int64)
    assert score_continuations(writer, PREFIX, Ragged.from_rows([blank, blank]), 0, 1000).tolist() == [0.0, 0.0]
    rows = [*(TITLES[at] for at in range(2)), *[blank] * 40]
    some = score_continuations(writer, PREFIX, Ragged.from_rows(rows), 0, batch_tokens=8)
    np.testing.assert_allclose(some[:2], one_by_one(writer, PREFIX, TITLES)[:2], atol=1e-4)
    assert (some[2:] == some[:2].min()).all()


def test_the_history_matters(writer: "PreTrainedModel") -> None:
    one, other = (score_continuations(writer, p, TITLES, 0, 1000) for p in (PREFIX, PREFIX[::-1].copy()))
    assert not np.allclose(one, other, atol=1e-4)


def test_yes_against_no_is_the_difference_of_two_logits(tiny_llama: Path) -> None:
    model = load_causal_lm(tiny_llama)
    reader = YesNoReader(model, pad_id=0, answers=(40, 41)).eval()
    rows = Ragged.from_rows([[3, 50, 60], [3, 50, 51, 52, 61, 62], [3, 70]])
    found = score_pairs(reader, rows, np.zeros(3, np.int64), batch_tokens=1000)
    for at in range(3):
        with torch.no_grad():
            logits = model(input_ids=torch.from_numpy(rows[at]).unsqueeze(0)).logits[0, -1]
        assert found[at, 0] == pytest.approx(float(logits[40] - logits[41]), abs=1e-4)


def test_a_head_with_a_bias_is_read_whole_and_one_that_scales_is_refused() -> None:
    torch.manual_seed(0)
    width: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    sizes = {**width, "vocab_size": 80, "num_hidden_layers": 2, "pad_token_id": 0}
    biased = PhiForCausalLM(PhiConfig(**sizes)).train(False)
    torch.nn.init.normal_(biased.lm_head.bias)
    row = np.array([3, 50, 60])
    found = score_pairs(YesNoReader(biased, 0, (40, 41)), Ragged.from_rows([row]), np.zeros(1, np.int64), 1000)
    with torch.no_grad():
        logits = biased(input_ids=torch.from_numpy(row).unsqueeze(0)).logits[0, -1]
    assert found[0, 0] == pytest.approx(float(logits[40] - logits[41]), abs=1e-4)
    scaled = GraniteForCausalLM(GraniteConfig(**sizes, num_key_value_heads=2, logits_scaling=8.0)).train(False)
    torch.nn.init.normal_(scaled.lm_head.weight)
    with pytest.raises(RecipeError, match="Granite.* scales or caps its logits"):
        YesNoReader(scaled, 0, (40, 41))


def test_what_does_not_write_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(RecipeError, match="'nowhere' could not be loaded as a language model that writes"):
        load_causal_lm(tmp_path, "nowhere")
    with pytest.raises(RecipeError, match="'it' reads in both directions, so it does not write"):
        load_causal_lm(tiny_bert, "it")


def test_a_refusal_is_all_that_is_said(tiny_bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of weights that find no place transformers tells a table."""
    told = logging.getLogger("transformers")
    told.addHandler(caplog.handler)
    try:
        with pytest.raises(RecipeError, match="so it does not write"):
            load_causal_lm(tiny_bert, "it")
    finally:
        told.removeHandler(caplog.handler)
    assert caplog.text == ""


def test_a_model_that_lost_the_layer_that_guesses_words_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    """As a run keeps it, which reads with the base alone: a layer drawn anew would guess by chance."""
    config = AutoConfig.from_pretrained(tiny_llama)
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "whole")
    assert torch.equal(load_causal_lm(tmp_path / "whole").state_dict()["lm_head.weight"], model.lm_head.weight)
    model.model.save_pretrained(tmp_path / "base")
    with pytest.raises(
        RecipeError, match=r"'it' holds no layer that guesses words, .* Name the model as it was published"
    ):
        load_causal_lm(tmp_path / "base", "it")
