"""Adapters: they start as the base, change nothing but themselves, come out and back in, merge, and share one base."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from lmrec.errors import RecipeError
from lmrec.fields import FloatArray, Ragged
from lmrec.models.adaptation import (
    adapter_weights,
    attach_adapter,
    fingerprint_weights,
    merge_adapter,
    put_adapter_weights,
    share_weights,
)
from lmrec.models.encoder import EncoderConfig, TextEncoder, choose_trainable, encode_tokens
from lmrec.models.layers import KNOWN_FAMILIES, transformer_layers
from lmrec.models.prefix import PrefixedBackbone
from lmrec.models.reading import UpperReader, Way, WholeReader, build_reader

CPU = torch.device("cpu")
TOKENS = Ragged.from_rows([[2, 9, 8, 7, 3], [2, 3], [2, 30, 3], [2, 40, 41, 42, 43, 44, 3]])
SIZES = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES: dict[str, dict[str, Any]] = {
    "BertModel": SIZES,
    "RobertaModel": SIZES,
    "ElectraModel": SIZES,
    "DebertaV2Model": SIZES,
    "MPNetModel": SIZES,
    "ModernBertModel": SIZES | {"cls_token_id": 1, "sep_token_id": 2},
    "LlamaModel": SIZES | {"num_key_value_heads": 1},
    "DistilBertModel": {"dim": 16, "n_layers": 4, "n_heads": 2, "hidden_dim": 24},
    "GPT2Model": {"n_embd": 16, "n_layer": 4, "n_head": 2, "n_positions": 40},
}
CACHED = ("BertModel", "RobertaModel", "ElectraModel", "LlamaModel", "GPT2Model")
MERGED = ("lora", "adalora", "ia3")
IDENTITIES = (*MERGED, "houlsby", "pfeiffer")
SOME = ("BertModel", "GPT2Model", "LlamaModel")


def family(name: str) -> TextEncoder:
    """A tiny random model of a family, as transformers builds it."""
    torch.manual_seed(0)
    model = getattr(transformers, name)
    more = {} if "n_embd" in FAMILIES[name] or "dim" in FAMILIES[name] else {"max_position_embeddings": 40}
    specials = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = model.config_class(vocab_size=60, initializer_range=0.3, **{**more, **specials, **FAMILIES[name]})
    return TextEncoder(model(config).float(), "mean").eval()


def config_of(kind: str, train: str = "all", **more: Any) -> EncoderConfig:
    own = {"rank": 2} if kind in ("lora", "adalora") else {"bottleneck": 4} if kind in ("houlsby", "pfeiffer") else {}
    return EncoderConfig.model_validate(
        {"name": "tiny", "train": train, "n_layers": 1, "max_tokens": 20, "adapter": {"kind": kind, **own, **more}}
    )


def adapted(name: str, config: EncoderConfig) -> TextEncoder:
    encoder = family(name)
    attach_adapter(encoder, config)
    choose_trainable(encoder, config)
    return encoder


def vectors(encoder: TextEncoder) -> FloatArray:
    return encode_tokens(encoder, TOKENS, 4096, CPU)


@torch.no_grad()
def disturb(encoder: TextEncoder, seed: int = 5) -> None:
    """As if it had learnt."""
    generator = torch.Generator().manual_seed(seed)
    for name in encoder.adapter_names:
        parameter = encoder.backbone.get_parameter(name)
        parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def learning(encoder: TextEncoder) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in encoder.backbone.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", IDENTITIES)
@pytest.mark.parametrize("name", FAMILIES)
def test_it_starts_as_the_base_exactly_and_only_it_learns(name: str, kind: str) -> None:
    base = vectors(family(name))
    encoder = adapted(name, config_of(kind))
    np.testing.assert_array_equal(vectors(encoder), base)
    assert {name for name, _ in learning(encoder)} == set(encoder.adapter_names) != set()
    weights = torch.randn(len(TOKENS), encoder.width, generator=torch.Generator().manual_seed(1))
    disturb(encoder)
    assert np.abs(vectors(encoder) - base).max() > 1e-3
    ((_, found),) = WholeReader(encoder, TOKENS, Way(4096, CPU)).encode_rows(np.arange(len(TOKENS)))
    torch.autograd.backward((found * weights).sum())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for _, p in learning(encoder))
    assert all(p.grad is None for p in encoder.parameters() if not p.requires_grad)


@pytest.mark.parametrize("name", CACHED)
def test_a_prefix_is_seen_by_every_layer_and_moves_no_token(name: str) -> None:
    encoder = adapted(name, config_of("prefix", prefix_tokens=3))
    weights = torch.randn(len(TOKENS), encoder.width, generator=torch.Generator().manual_seed(1))
    disturb(encoder)
    ((_, found),) = WholeReader(encoder, TOKENS, Way(4096, CPU)).encode_rows(np.arange(len(TOKENS)))
    torch.autograd.backward((found * weights).sum())
    ((_, prefix),) = learning(encoder)
    assert prefix.grad is not None
    per_layer = prefix.grad.view(3, 4, -1).abs().sum((0, 2))
    assert (per_layer > 0).all()
    alone = torch.from_numpy(np.concatenate([encode_tokens(encoder, TOKENS.slice(i, i + 1), 9, CPU) for i in range(4)]))
    torch.testing.assert_close(torch.from_numpy(vectors(encoder)), alone, atol=1e-5, rtol=0)  # no padding is seen


@pytest.mark.parametrize("name", CACHED)
def test_tokens_of_a_prefix_learn_each_its_own(name: str) -> None:
    """Rows that started alike would get the same gradient, and be one token however many were asked for."""
    encoder = adapted(name, config_of("prefix", prefix_tokens=4))
    ((_, prefix),) = learning(encoder)
    before = prefix.detach().clone()
    target = torch.randn(len(TOKENS), encoder.width, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW([prefix], lr=1e-2)
    for _ in range(20):
        ((_, found),) = WholeReader(encoder, TOKENS, Way(4096, CPU)).encode_rows(np.arange(len(TOKENS)))
        torch.autograd.backward((found - target).square().mean())
        optimizer.step()
        optimizer.zero_grad()
    moved = (prefix - before).detach().view(4, 2, 2, -1).permute(1, 2, 0, 3)  # (layers, keys or values, P, D)
    sizes = torch.linalg.svdvals(moved)
    assert (sizes[..., 1] > 0.01 * sizes[..., 0]).all()


@pytest.mark.parametrize("name", CACHED)
def test_beside_a_prefix_tokens_keep_their_places(name: str) -> None:
    backbone = adapted(name, config_of("prefix")).backbone
    assert isinstance(backbone, PrefixedBackbone)
    ids, mask = torch.tensor([[9, 8, 7, 30]]), torch.ones(1, 4, dtype=torch.long)
    inner = backbone.base_layer
    expected = inner(input_ids=ids, attention_mask=mask).last_hidden_state
    found = inner(input_ids=ids, attention_mask=mask, position_ids=backbone.places(mask)).last_hidden_state
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", CACHED)
def test_a_prefix_stands_beside_embedded_words_too(name: str) -> None:
    encoder = adapted(name, config_of("prefix"))
    disturb(encoder)
    backbone = encoder.backbone
    assert isinstance(backbone, PrefixedBackbone)
    ids, mask = torch.tensor([[9, 8, 7, 30], [2, 3, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    words = backbone.get_input_embeddings()(ids)
    found = backbone(inputs_embeds=words, attention_mask=mask).last_hidden_state
    expected = backbone(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()])


@pytest.mark.parametrize("name", ["DistilBertModel", "MPNetModel", "ModernBertModel", "DebertaV2Model"])
def test_a_prefix_is_refused_where_a_model_takes_no_keys_from_outside(name: str) -> None:
    with pytest.raises(RecipeError, match=rf"encoder.adapter.kind is 'prefix', and tiny \({name}\) takes no keys"):
        attach_adapter(family(name), config_of("prefix"))


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("kind", IDENTITIES)
def test_only_the_layers_asked_for_get_one_and_those_below_are_read_once(name: str, kind: str) -> None:
    for train, expected in (("last_layers", {3}), ("all_but_first", {1, 2, 3}), ("all", {0, 1, 2, 3})):
        encoder = adapted(name, config_of(kind, train))
        layers = transformer_layers(encoder)
        own = [{id(p) for p in layer.parameters()} for layer in layers]
        found = {place for _, p in learning(encoder) for place, inside in enumerate(own) if id(p) in inside}
        assert found == expected
        disturb(encoder)
        reader = build_reader(encoder, TOKENS, Way(4096, CPU), 64)
        assert isinstance(reader, WholeReader if train == "all" else UpperReader)
        assert np.abs(1 - (reader.encode_all() * vectors(encoder)).sum(1)).max() < 1e-2  # states are kept in bf16


@pytest.mark.parametrize("kind", [*MERGED, "houlsby", "pfeiffer", "prefix"])
@pytest.mark.parametrize("name", SOME)
def test_what_was_learnt_comes_out_small_and_goes_back_in(name: str, kind: str) -> None:
    encoder = adapted(name, config_of(kind))
    disturb(encoder)
    saved = adapter_weights(encoder)
    whole = sum(p.numel() for p in family(name).parameters())
    assert sum(value.numel() for value in saved.values()) < whole / 2
    again = adapted(name, config_of(kind))
    assert again.base_fingerprint == fingerprint_weights(family(name).backbone)
    put_adapter_weights(again, saved)
    np.testing.assert_array_equal(vectors(again), vectors(encoder))
    first = next(iter(saved))
    with pytest.raises(ValueError, match="is in one of the model and what was kept"):
        put_adapter_weights(again, {k: v for k, v in saved.items() if k != first})
    with pytest.raises(ValueError, match=r"in what was kept and .* in the model"):
        put_adapter_weights(again, {**saved, first: saved[first][..., :1].repeat_interleave(99, -1)})


@pytest.mark.parametrize("kind", MERGED)
@pytest.mark.parametrize("name", FAMILIES)
def test_merged_it_gives_the_same_vectors_and_the_base_stays_as_it_was(name: str, kind: str) -> None:
    base = family(name)
    before = fingerprint_weights(base.backbone)
    encoder = share_weights(base)
    attach_adapter(encoder, config_of(kind, "last_layers"))
    disturb(encoder)
    expected = vectors(encoder)
    assert merge_adapter(encoder)
    np.testing.assert_allclose(vectors(encoder), expected, atol=1e-5)
    assert {type(m) for m in encoder.backbone.modules()} == {type(m) for m in base.backbone.modules()}
    assert fingerprint_weights(base.backbone) == before


@pytest.mark.parametrize("kind", ["none", "houlsby", "prefix"])
def test_what_does_not_merge_stays(kind: str) -> None:
    encoder = adapted("BertModel", config_of(kind) if kind != "none" else EncoderConfig())
    names = encoder.adapter_names
    assert not merge_adapter(encoder)
    assert encoder.adapter_names == names


def test_several_share_one_base_and_each_gives_its_own_vectors() -> None:
    base = family("BertModel")
    untuned, owners = vectors(base), []
    for seed, kind in enumerate(("lora", "lora", "houlsby", "prefix", "ia3")):
        encoder = share_weights(base)
        attach_adapter(encoder, config_of(kind))
        disturb(encoder, seed)
        owners.append(encoder)
    found = [vectors(encoder) for encoder in owners]
    for i, one in enumerate(found):
        assert np.abs(one - untuned).max() > 1e-3
        assert all(np.abs(one - other).max() > 1e-3 for other in found[:i])
    np.testing.assert_array_equal(vectors(base), untuned)
    own = {p.data_ptr() for p in base.parameters()}
    for encoder in owners:
        assert own <= {p.data_ptr() for p in encoder.parameters()}


def test_targets_may_be_named_and_a_wrong_name_is_refused_with_the_right_ones() -> None:
    encoder = adapted("BertModel", config_of("lora", targets=["dense"]))
    assert {name.split(".lora_")[0].split(".", 3)[-1] for name in encoder.adapter_names} == {
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    }
    with pytest.raises(RecipeError, match=r"targets names 'q_proj'.*There are: attention.self.query, "):
        adapted("BertModel", config_of("lora", targets=["query", "q_proj"]))


@pytest.mark.parametrize(("kind", "way"), [("lora", "encoder.adapter.targets"), ("houlsby", "Choose a model of one")])
def test_a_family_that_is_not_known_is_refused_with_a_way_out(kind: str, way: str) -> None:
    config = transformers.T5Config(
        vocab_size=60, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, is_encoder_decoder=False
    )
    t5 = TextEncoder(transformers.T5EncoderModel(config), "mean").eval()
    with pytest.raises(RecipeError, match=way) as caught:
        attach_adapter(t5, config_of(kind))
    assert KNOWN_FAMILIES in str(caught.value)
    assert "layer.0.SelfAttention.q" in str(caught.value)
    fresh = TextEncoder(transformers.T5EncoderModel(config), "mean").eval()
    attach_adapter(fresh, config_of("lora", targets=["SelfAttention.q", "SelfAttention.v"]))
    assert len(fresh.adapter_names) == 2 * 2 * 2


@pytest.mark.parametrize("kind", ["lora", "adalora", "houlsby"])
def test_its_own_dropout_is_on_while_it_learns_and_off_else(kind: str) -> None:
    encoder = adapted("BertModel", config_of(kind, dropout=0.5))
    disturb(encoder)
    np.testing.assert_array_equal(vectors(encoder), vectors(encoder))
    encoder.train()

    def once() -> Tensor:
        ((_, found),) = WholeReader(encoder, TOKENS, Way(4096, CPU)).encode_rows(np.arange(4))
        return found

    assert not torch.equal(once(), once())


def test_a_prefix_runs_in_bf16_too() -> None:
    encoder = adapted("BertModel", config_of("prefix"))
    exact = vectors(encoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = vectors(encoder)
    assert np.abs(1 - (exact * rough).sum(1)).max() < 1e-2
