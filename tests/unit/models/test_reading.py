"""Lower layers run once: what is kept gives the same vectors and gradients as running all layers each time."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from lmrec.errors import RecipeError
from lmrec.fields import IntArray, Ragged
from lmrec.models.encoder import EncoderConfig, TextEncoder, choose_trainable, load_encoder
from lmrec.models.layers import transformer_layers
from lmrec.models.reading import (
    CutEncoder,
    TextReader,
    UpperReader,
    Way,
    WholeReader,
    build_reader,
    checkpoint_layers,
    empty_states,
    n_frozen_layers,
)
from lmrec.models.shared_states import sharing_states

CPU = torch.device("cpu")
TOKENS = Ragged.from_rows([[2, 9, 8, 7, 3], [2, 3], [2, 30, 3], [2, 9, 8, 7, 3], [2, 40, 41, 42, 43, 44, 3], [2, 3]])
FAMILIES = (
    "BertModel",
    "RobertaModel",
    "DistilBertModel",
    "MPNetModel",
    "ElectraModel",
    "GPT2Model",
    "ModernBertModel",
)


def family(name: str) -> TextEncoder:
    """A tiny random model of a family, as transformers builds it."""
    torch.manual_seed(0)
    model = getattr(transformers, name)
    sizes = {
        "DistilBertModel": {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 24},
        "GPT2Model": {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 40},
    }.get(
        name,
        {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
        | {"max_position_embeddings": 40},
    )
    specials = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if name == "ModernBertModel":
        specials |= {"cls_token_id": 1, "sep_token_id": 2}
    config = model.config_class(vocab_size=60, **sizes, **specials)
    return TextEncoder(model(config).float(), "mean").eval()


def tune_last(encoder: TextEncoder, n_layers: int = 1) -> TextEncoder:
    choose_trainable(encoder, EncoderConfig(train="last_layers", n_layers=n_layers))
    return encoder


@pytest.fixture
def bert(tiny_bert: Path) -> TextEncoder:
    return tune_last(load_encoder(tiny_bert, EncoderConfig(name="tiny", dropout=0.0)))


def upper_reader(encoder: TextEncoder, batch_tokens: int = 4096, limit_mb: int = 64) -> UpperReader:
    reader = build_reader(encoder, TOKENS, Way(batch_tokens, CPU), limit_mb)
    assert isinstance(reader, UpperReader)
    return reader


def in_order(batches: Iterator[tuple[IntArray, Tensor]], rows: IntArray) -> Tensor:
    """The vectors of `rows`, which the batches must hold exactly once each."""
    found = list(batches)
    order = np.concatenate([batch for batch, _ in found])
    assert sorted(order) == sorted(rows)
    return torch.cat([vectors for _, vectors in found])[[int(np.flatnonzero(order == row)[0]) for row in rows]]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("n_lower", [1, 3])
def test_a_model_cut_in_two_is_the_model(name: str, n_lower: int) -> None:
    encoder = family(name)
    assert CutEncoder(encoder, n_lower).is_whole_again(TOKENS, CPU)
    assert len(transformer_layers(encoder)) == 4  # the model itself is left as it was


@pytest.mark.parametrize("batch_tokens", [1, 12, 4096])
def test_vectors_over_kept_states_are_those_of_all_layers(bert: TextEncoder, batch_tokens: int) -> None:
    whole = WholeReader(bert, TOKENS, Way(batch_tokens, CPU)).encode_all()
    upper = upper_reader(bert, batch_tokens).encode_all()
    assert np.abs(1 - (whole * upper).sum(1)).max() < 2e-5  # states are kept in bf16
    np.testing.assert_array_equal(upper[0], upper[3])


@pytest.mark.parametrize("batch_tokens", [1, 12, 4096])
@pytest.mark.parametrize("rows", [[4, 0, 2], [0, 1, 2, 3, 4, 5], [3, 5, 0, 1]])
def test_some_rows_are_encoded_with_gradient_and_say_which_they_are(
    bert: TextEncoder, rows: list[int], batch_tokens: int
) -> None:
    asked = np.array(rows)
    gradients, vectors = [], []
    readers: list[TextReader] = [WholeReader(bert, TOKENS, Way(batch_tokens, CPU)), upper_reader(bert, batch_tokens)]
    weights = torch.randn(len(TOKENS), bert.width, generator=torch.Generator().manual_seed(1))
    for reader in readers:
        bert.zero_grad()
        found = in_order(reader.encode_rows(asked), asked)
        torch.autograd.backward((found * weights[torch.from_numpy(asked)]).sum())
        vectors.append(found.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in bert.parameters() if p.grad is not None]))
    torch.testing.assert_close(vectors[1], vectors[0], atol=5e-3, rtol=0)
    assert gradients[0].norm() > 0.1
    assert (gradients[1] - gradients[0]).norm() < 0.02 * gradients[0].norm()


def test_the_lower_layers_run_once_and_the_upper_ones_follow_their_weights(bert: TextEncoder) -> None:
    reader = upper_reader(bert)
    calls: list[int] = []
    layers = transformer_layers(bert)
    for place, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, place=place: calls.append(place))
    before = reader.encode_all()
    assert set(calls) == {2}
    with torch.no_grad():
        for parameter in layers[2].parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    after, whole = reader.encode_all(), WholeReader(bert, TOKENS, Way(4096, CPU)).encode_all()
    assert np.abs(1 - (after * before).sum(1)).max() > 1e-3
    assert np.abs(1 - (after * whole).sum(1)).max() < 2e-5


def test_reading_the_whole_catalog_uses_no_dropout_and_learning_does(tiny_bert: Path) -> None:
    encoder = tune_last(load_encoder(tiny_bert, EncoderConfig(name="tiny", dropout=0.5))).train()
    reader = upper_reader(encoder)
    np.testing.assert_array_equal(reader.encode_all(), reader.encode_all())
    assert encoder.training
    one, two = (in_order(reader.encode_rows(np.array([4])), np.array([4])) for _ in range(2))
    assert not torch.equal(one, two)


def test_states_above_the_limit_lie_in_a_file_and_are_the_same(bert: TextEncoder, tmp_path: Path) -> None:
    in_memory, in_file = empty_states(40_000, 32, 4, tmp_path), empty_states(40_000, 32, 1, tmp_path)
    assert in_memory.dtype == in_file.dtype == torch.bfloat16
    in_file[39_999] = torch.arange(32.0)
    assert in_file[39_999].float().tolist() == [float(i) for i in range(32)]
    assert list(tmp_path.iterdir()) == []  # it has no name: nothing is left behind, whatever happens
    reader = upper_reader(bert)
    expected = reader.encode_all()
    spilled = empty_states(len(reader.states), bert.width, 0, tmp_path)
    spilled.copy_(reader.states)
    reader.states = spilled
    np.testing.assert_array_equal(reader.encode_all(), expected)


def test_how_many_layers_do_not_learn(bert: TextEncoder) -> None:
    for n_layers, expected in ((1, 2), (2, 1), (3, 0)):
        assert n_frozen_layers(tune_last(bert, n_layers)) == expected
    for train in ("all", "none"):
        choose_trainable(bert, EncoderConfig.model_validate({"train": train}))
        assert n_frozen_layers(bert) == 0


@pytest.mark.parametrize("name", ["BertModel", "GPT2Model", "ModernBertModel", "MPNetModel"])
def test_what_lies_above_the_layers_may_learn_over_kept_states(name: str) -> None:
    """A last norm learns with the same gradient as when all layers run."""
    encoder = family(name)
    choose_trainable(encoder, EncoderConfig(train="all_but_first", n_layers=2))
    assert n_frozen_layers(encoder) == 2
    asked, gradients = np.arange(len(TOKENS)), []
    weights = torch.randn(len(TOKENS), encoder.width, generator=torch.Generator().manual_seed(1))
    for reader in (WholeReader(encoder, TOKENS, Way(4096, CPU)), upper_reader(encoder)):
        encoder.zero_grad()
        torch.autograd.backward((in_order(reader.encode_rows(asked), asked) * weights).sum())
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None]))
    assert (gradients[1] - gradients[0]).norm() < 0.05 * gradients[0].norm()


def test_layers_run_whole_where_something_below_them_learns(bert: TextEncoder) -> None:
    for train in ("norms_and_biases", "all_but_embeddings", "all"):
        choose_trainable(bert, EncoderConfig.model_validate({"train": train}))
        assert n_frozen_layers(bert) == 0


def test_all_layers_run_where_they_learn_or_no_room_is_given(bert: TextEncoder) -> None:
    assert isinstance(build_reader(bert, TOKENS, Way(4096, CPU), 0), WholeReader)
    choose_trainable(bert, EncoderConfig(train="all"))
    assert isinstance(build_reader(bert, TOKENS, Way(4096, CPU), 64), WholeReader)


def test_a_model_that_cannot_be_cut_is_read_whole_and_that_is_said(
    bert: TextEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    """T5's first layer makes the places that all later ones use."""
    config = transformers.T5Config(
        vocab_size=60, d_model=16, d_kv=8, d_ff=24, num_layers=3, num_heads=2, is_encoder_decoder=False
    )
    t5 = tune_last(TextEncoder(transformers.T5EncoderModel(config), "mean").eval())
    with caplog.at_level(logging.WARNING):
        assert isinstance(build_reader(t5, TOKENS, Way(4096, CPU), 64), WholeReader)
    assert "all layers are run for every text" in caplog.text


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n_layers", [2, 4], ids=["over kept states", "whole"])
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "MPNetModel"])
def test_layers_that_are_run_again_give_the_same_gradients(name: str, n_layers: int, precision: torch.dtype) -> None:
    """Also where bf16 learns with another attention than it reads with."""
    way = Way(4096, CPU, lambda: torch.autocast("cpu", precision, enabled=precision != torch.float32))
    found = []
    for checkpointing in (False, True):
        encoder = tune_last(family(name), n_layers).train()
        if checkpointing:
            checkpoint_layers(encoder.backbone)
        reader = build_reader(encoder, TOKENS, way, 64)
        assert isinstance(reader, UpperReader if n_layers == 2 else WholeReader)
        torch.manual_seed(1)
        for rows, vectors in reader.encode_rows(np.arange(len(TOKENS))):
            torch.autograd.backward((vectors * torch.from_numpy(1.0 + rows).float().unsqueeze(1)).cumsum(1).sum())
        found.append([p.grad for p in encoder.parameters() if p.grad is not None])
    plain, again = found
    assert len(plain) == len(again) > 0
    for one, other in zip(plain, again, strict=True):
        torch.testing.assert_close(other, one)


def test_a_model_that_cannot_run_its_layers_again_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"models of the kind 'mpnet' cannot do it. Turn it off"):
        checkpoint_layers(family("MPNetModel").backbone)


def test_within_a_search_the_lower_layers_are_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = family("BertModel")
    runs: list[int] = []
    lower = CutEncoder.lower

    def counted(cut: CutEncoder, ids: Tensor, mask: Tensor) -> Tensor:
        runs.append(len(ids))
        return lower(cut, ids, mask)

    monkeypatch.setattr(CutEncoder, "lower", counted)
    way = Way(64, CPU)
    with sharing_states():
        first, second = (UpperReader(CutEncoder(encoder, 2), TOKENS, way, 8) for _ in range(2))
        n_once = len(runs)
        UpperReader(CutEncoder(encoder, 1), TOKENS, way, 8)
        assert len(runs) > n_once, "another cut has states of its own"
    assert np.array_equal(first.encode_all(), second.encode_all())
    alone = UpperReader(CutEncoder(encoder, 2), TOKENS, way, 8)
    assert np.array_equal(alone.encode_all(), first.encode_all())
    assert second.states is first.states is not alone.states
