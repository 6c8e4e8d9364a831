"""The text encoder: pooling, what is encoded how often, what trains, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lmrec.errors import RecipeError
from lmrec.fields import IntArray, Ragged
from lmrec.models.encoder import (
    EncoderConfig,
    Pooling,
    TextEncoder,
    choose_trainable,
    encode_tokens,
    load_encoder,
    pad_tokens,
    pool,
    token_batches,
)
from lmrec.models.layers import transformer_layers

CPU = torch.device("cpu")
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last")
TOKENS = Ragged.from_rows([[2, 9, 8, 7, 3], [2, 3], [2, 30, 3], [2, 9, 8, 7, 3], [2, 40, 41, 42, 43, 44, 3], [2, 3]])


@pytest.fixture
def bert(tiny_bert: Path) -> TextEncoder:
    return load_encoder(tiny_bert, EncoderConfig(name="tiny")).eval()


class CountingEncoder(TextEncoder):
    """Remembers the token ids of every row that it was asked for."""

    def __init__(self, inner: TextEncoder) -> None:
        super().__init__(inner.backbone, inner.pooling)
        self.rows: list[tuple[int, ...]] = []

    def forward(self, token_ids: Tensor, token_mask: Tensor, words: Tensor | None = None) -> Tensor:
        self.rows += [tuple(ids[mask].tolist()) for ids, mask in zip(token_ids, token_mask, strict=True)]
        return super().forward(token_ids, token_mask, words)


@pytest.mark.parametrize("pooling", POOLINGS)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_pooling_ignores_padding(pooling: Pooling, lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(len(lengths), 6, 4, generator=generator)
    mask = torch.arange(6) < torch.tensor(lengths).unsqueeze(1)
    spoilt = torch.where(mask.unsqueeze(-1), hidden, torch.full_like(hidden, 1e6))
    torch.testing.assert_close(pool(spoilt, mask, pooling), pool(hidden, mask, pooling))
    for row, length in enumerate(lengths):
        alone = pool(hidden[row : row + 1, :length], mask[row : row + 1, :length], pooling)
        torch.testing.assert_close(pool(hidden, mask, pooling)[row : row + 1], alone)


def test_each_pooling_is_what_its_name_says() -> None:
    hidden = torch.tensor([[[1.0], [2.0], [6.0], [50.0]]])
    mask = torch.tensor([[True, True, True, False]])
    assert [pool(hidden, mask, pooling).item() for pooling in POOLINGS] == [3.0, 1.0, 6.0]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("batch_tokens", [1, 12, 4096])
def test_batching_and_padding_do_not_change_vectors(tiny_bert: Path, pooling: Pooling, batch_tokens: int) -> None:
    encoder = load_encoder(tiny_bert, EncoderConfig(name="tiny", pooling=pooling))
    together = encode_tokens(encoder, TOKENS, batch_tokens, CPU)
    encoder.eval()
    with torch.no_grad():
        alone = torch.cat([encoder(*pad_tokens(TOKENS.slice(row, row + 1))) for row in range(len(TOKENS))])
    np.testing.assert_allclose(together, alone.numpy(), atol=1e-5)


def test_vectors_have_length_one_and_are_fp32(bert: TextEncoder) -> None:
    vectors = encode_tokens(bert, TOKENS, 4096, CPU)
    assert vectors.dtype == np.float32
    assert vectors.shape == (6, bert.width)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_equal_texts_are_encoded_once(bert: TextEncoder) -> None:
    counting = CountingEncoder(bert)
    vectors = encode_tokens(counting, TOKENS, 4096, CPU)
    assert sorted(counting.rows) == sorted({tuple(TOKENS[row].tolist()) for row in range(len(TOKENS))})
    np.testing.assert_array_equal(vectors[0], vectors[3])
    np.testing.assert_array_equal(vectors[1], vectors[5])


def test_encoding_leaves_the_training_mode_as_it_was_and_uses_no_dropout(tiny_bert: Path) -> None:
    encoder = load_encoder(tiny_bert, EncoderConfig(name="tiny", dropout=0.5)).train()
    first = encode_tokens(encoder, TOKENS, 4096, CPU)
    assert encoder.training
    np.testing.assert_array_equal(encode_tokens(encoder, TOKENS, 4096, CPU), first)


def test_progress_counts_unique_texts_to_the_end(bert: TextEncoder) -> None:
    seen: list[tuple[int, int]] = []
    encode_tokens(bert, TOKENS, 1, CPU, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), batch_tokens=st.integers(1, 40))
def test_batches_cover_every_row_once_and_keep_to_the_budget(lengths: list[int], batch_tokens: int) -> None:
    tokens = Ragged.from_rows([[5] * length for length in lengths])
    rows: IntArray = np.arange(len(lengths))
    batches = list(token_batches(tokens, rows, batch_tokens))
    assert sorted(np.concatenate(batches).tolist()) == rows.tolist()
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= batch_tokens


def n_trainable(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def test_all_none_and_the_last_layers_train_as_asked(bert: TextEncoder) -> None:
    everything = sum(parameter.numel() for parameter in bert.parameters())
    layers = transformer_layers(bert)
    assert len(layers) == 3
    one_layer = sum(parameter.numel() for parameter in layers[-1].parameters())
    assert n_trainable(choose_trainable(bert, EncoderConfig(train="all"))) == everything
    assert choose_trainable(bert, EncoderConfig(train="none")) == []
    for n_layers in (1, 2, 3):
        chosen = choose_trainable(bert, EncoderConfig(train="last_layers", n_layers=n_layers))
        assert n_trainable(chosen) == n_layers * one_layer
        assert {id(p) for p in chosen} == {id(p) for layer in layers[-n_layers:] for p in layer.parameters()}


def names_that_train(encoder: TextEncoder, **choices: Any) -> set[str]:
    choose_trainable(encoder, EncoderConfig.model_validate(choices))
    return {name for name, p in encoder.backbone.named_parameters() if p.requires_grad}


def test_each_policy_trains_exactly_what_its_name_says(bert: TextEncoder) -> None:
    everything = {name for name, _ in bert.backbone.named_parameters()}
    below = {name for name in everything if name.startswith("embeddings.")}
    above = {name for name in everything if name.startswith("pooler.")}
    layer = [{name for name in everything if name.startswith(f"encoder.layer.{place}.")} for place in range(3)]
    assert everything == below | above | layer[0] | layer[1] | layer[2]
    assert names_that_train(bert, train="all") == everything
    assert names_that_train(bert, train="all_but_embeddings") == everything - below
    assert names_that_train(bert, train="all_but_first", n_layers=1) == layer[1] | layer[2] | above
    assert names_that_train(bert, train="all_but_first", n_layers=2) == layer[2] | above
    assert names_that_train(bert, train="last_layers", n_layers=2) == layer[1] | layer[2]
    assert names_that_train(bert, train="none") == set()
    assert names_that_train(bert, train="norms_and_biases") == {
        name for name in everything if name.endswith(".bias") or "LayerNorm" in name
    }


def test_in_a_decoder_the_last_norm_lies_above_the_layers(tiny_gpt: Path) -> None:
    gpt = load_encoder(tiny_gpt, EncoderConfig(name="gpt"))
    everything = {name for name, _ in gpt.backbone.named_parameters()}
    assert names_that_train(gpt, train="all_but_embeddings") == everything - {"wte.weight", "wpe.weight"}
    last = {name for name in everything if name.startswith("h.1.")}
    assert names_that_train(gpt, train="all_but_first", n_layers=1) == last | {"ln_f.weight", "ln_f.bias"}
    norms = names_that_train(gpt, train="norms_and_biases")
    assert norms == {name for name in everything if name.endswith(".bias") or "ln_" in name}


def test_all_layers_cannot_be_left_out(bert: TextEncoder) -> None:
    with pytest.raises(RecipeError, match=r"encoder.n_layers is 3, and tiny has 3 layers"):
        choose_trainable(bert, EncoderConfig(name="tiny", train="all_but_first", n_layers=3))


def test_more_layers_than_there_are_is_refused(bert: TextEncoder) -> None:
    with pytest.raises(RecipeError, match=r"encoder.n_layers is 4, and tiny has 3 layers"):
        choose_trainable(bert, EncoderConfig(name="tiny", train="last_layers", n_layers=4))


def test_dropout_is_the_configs_everywhere(tiny_bert: Path) -> None:
    encoder = load_encoder(tiny_bert, EncoderConfig(name="tiny", dropout=0.25))
    assert {module.p for module in encoder.modules() if isinstance(module, nn.Dropout)} == {0.25}


@pytest.mark.parametrize("kind", ["tiny_gpt", "tiny_llama"])
def test_the_first_token_of_a_decoder_is_no_text(kind: str, request: pytest.FixtureRequest) -> None:
    location = request.getfixturevalue(kind)
    with pytest.raises(
        RecipeError, match=r"encoder.pooling is 'cls', and the first token of it sees nothing behind it"
    ):
        load_encoder(location, EncoderConfig(name="it", pooling="cls"))


def test_a_budget_beyond_the_models_positions_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(RecipeError, match=r"encoder.max_tokens is 97, and tiny reads at most 96"):
        load_encoder(tiny_bert, EncoderConfig(name="tiny", max_tokens=97))


def test_places_that_a_model_keeps_for_padding_are_no_room(tmp_path: Path) -> None:
    """RoBERTa begins to count after its padding id: of 34 places it reads 32 tokens."""
    config = transformers.RobertaConfig(
        vocab_size=50,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=34,
    )
    transformers.RobertaModel(config).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"reads at most 32"):
        load_encoder(tmp_path, EncoderConfig(name="roberta", max_tokens=33))
    encoder = load_encoder(tmp_path, EncoderConfig(name="roberta", max_tokens=32))
    assert np.isfinite(encode_tokens(encoder, Ragged.from_rows([[5] * 32, [6]]), 4096, CPU)).all()


def test_a_name_that_leads_nowhere_is_refused_with_ways_out(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"encoder.name 'nowhere' could not be loaded.*folder with config.json"):
        load_encoder(tmp_path, EncoderConfig(name="nowhere"))


def test_pickled_weights_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    """A pickle runs code when it is opened."""
    (tmp_path / "config.json").write_text((tiny_bert / "config.json").read_text())
    torch.save(load_encoder(tiny_bert, EncoderConfig()).backbone.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(RecipeError, match="could not be loaded"):
        load_encoder(tmp_path, EncoderConfig(name="pickled"))


def test_code_from_model_repositories_is_never_run(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmrec.text.tokens import load_tokenizer

    asked: list[Any] = []
    for maker in (transformers.AutoModel, transformers.AutoTokenizer):
        real = maker.from_pretrained

        def spy(*args: Any, real: Any = real, **kwargs: Any) -> Any:
            asked.append(kwargs.get("trust_remote_code"))
            return real(*args, **kwargs)

        monkeypatch.setattr(maker, "from_pretrained", spy)
    load_encoder(tiny_bert, EncoderConfig())
    load_tokenizer(tiny_bert)
    assert asked == [False, False]


def test_a_model_that_brings_its_own_code_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}'
    )
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass C: ...\nclass M: ...\n")
    with pytest.raises(RecipeError, match="could not be loaded"):
        load_encoder(tmp_path, EncoderConfig(name="evil"))
    assert not (tmp_path / "ran").exists()


def test_a_decoder_reads_with_its_last_token(tiny_gpt: Path) -> None:
    """Any transformers model: in a causal one only the last token has read the whole text."""
    encoder = load_encoder(tiny_gpt, EncoderConfig(name="gpt", pooling="last"))
    tokens = Ragged.from_rows([[9, 8, 7], [9, 8, 30], [9]])
    vectors = encode_tokens(encoder, tokens, 4096, CPU)
    assert vectors.shape == (3, 32)
    assert not np.allclose(vectors[0], vectors[1], atol=1e-3)
    first_only = TextEncoder(encoder.backbone, "cls")
    first = encode_tokens(first_only, tokens, 4096, CPU)
    np.testing.assert_allclose(first[0], first[1], atol=1e-5)
    assert len(transformer_layers(encoder)) == 2
