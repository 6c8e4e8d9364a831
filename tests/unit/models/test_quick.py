"""Quick layers: the model's own vectors, of every family and length, and nothing else is touched."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lmrec.fields import Ragged
from lmrec.models.encoder import EncoderConfig, TextEncoder, load_encoder, pad_tokens
from lmrec.models.quick import QuickLinear, attend, quick_copy
from lmrec.models.runtime import TorchRuntime

TOKENS = Ragged.from_rows([[2, *range(5, 5 + n), 3] for n in (1, 9, 4, 4, 17, 2, 30, 12)])


def ways(encoder: TextEncoder, precision: torch.dtype) -> tuple[TextEncoder, TextEncoder]:
    """As it is and in quick layers."""
    plain = copy.deepcopy(encoder.backbone).to(precision)
    return TextEncoder(plain, encoder.pooling).eval(), TextEncoder(quick_copy(plain), encoder.pooling).eval()


def attention_of(encoder: TextEncoder) -> str:
    return str(encoder.backbone.config._attn_implementation)  # type: ignore[union-attr]


def off(one: Tensor, other: Tensor) -> float:
    return float((1 - (one * other).sum(1)).abs().max())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["tiny_bert", "tiny_gpt", "tiny_llama"])
def test_vectors_are_those_of_the_plain_layers(
    family: str, precision: torch.dtype, request: pytest.FixtureRequest
) -> None:
    encoder = load_encoder(request.getfixturevalue(family), EncoderConfig(name="tiny")).eval()
    plain, quick = ways(encoder, precision)
    ids, mask = pad_tokens(TOKENS)
    for seen in (mask, torch.ones_like(mask)):  # without padding the model is given no mask
        with torch.inference_mode():
            truth = encoder(ids, seen)
            limit = 1e-6 if precision == torch.float32 else max(2e-4, 2 * off(plain(ids, seen), truth))
            assert off(quick(ids, seen), truth) < limit


def test_a_bert_has_its_bias_and_gelu_in_the_product(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmrec.models.quick._fuses", lambda precision: True)  # also where there is no such product
    backbone = load_encoder(tiny_bert, EncoderConfig(name="tiny")).backbone
    quick = quick_copy(backbone)
    linear = [module for module in quick.modules() if isinstance(module, QuickLinear)]
    assert len(linear) == 3 * 6 + 1  # query, key, value, output, up, down of each layer; the pooler
    assert sum(module.gelu for module in linear) == 3
    assert not any(type(module) is nn.Linear for module in quick.modules())
    assert {name: id(weight) for name, weight in quick.named_parameters()} == {
        name: id(weight) for name, weight in backbone.named_parameters()
    }


def test_without_the_fused_product_linear_layers_stay(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmrec.models.quick._fuses", lambda precision: False)
    encoder = load_encoder(tiny_bert, EncoderConfig(name="tiny")).eval()
    plain, quick = ways(encoder, torch.float32)
    assert not any(isinstance(module, QuickLinear) for module in quick.modules())
    with torch.inference_mode():
        assert off(quick(*pad_tokens(TOKENS)), plain(*pad_tokens(TOKENS))) < 1e-6


@pytest.mark.parametrize("bf16", [False, True])
def test_nothing_is_drawn_and_the_encoder_stays_as_it_was(tiny_bert: Path, bf16: bool) -> None:
    encoder = load_encoder(tiny_bert, EncoderConfig(name="tiny")).train()
    before, way = torch.get_rng_state(), attention_of(encoder)
    TorchRuntime(encoder, bf16).encode(*pad_tokens(TOKENS))
    assert torch.equal(torch.get_rng_state(), before)
    assert encoder.training
    assert encoder.backbone.training
    assert attention_of(encoder) == way
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert not any(isinstance(module, QuickLinear) for module in encoder.modules())


@pytest.mark.parametrize("length", [7, 500, 600])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_pytorchs(length: int, masked: bool) -> None:
    """Of 500 tokens the five texts take two rounds; above 512 it is PyTorch's own kernel."""
    drawn = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(5, 3, length, 8, generator=drawn) for _ in range(3))
    mask = None
    if masked:
        mask = torch.ones(5, 1, length, length, dtype=torch.bool)
        mask[0, :, :, length // 2 :] = False
    found, _ = attend(nn.Identity(), query, key, value, mask, is_causal=False)
    truth = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=1e-4)
    bias = torch.randn(1, 3, length, length, generator=drawn)  # as models with relative places have it
    found, _ = attend(nn.Identity(), query, key, value, bias, is_causal=False)
    truth = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2)
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=1e-4)


def test_places_that_see_nothing_harm_nobody() -> None:
    """A window of three: padded places far from the last token see none, and what they come to reaches no other place."""
    drawn = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 12, 8, generator=drawn) for _ in range(3))
    near = (torch.arange(12)[:, None] - torch.arange(12)[None, :]).abs() <= 3
    real = torch.arange(12) < torch.tensor([[4], [12]])
    mask = near & real[:, None, None, :]
    found, _ = attend(nn.Identity(), query, key, value, mask, is_causal=False)
    assert bool(found.isfinite().all())
    truth = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2)
    torch.testing.assert_close(found[real], truth[real], atol=1e-5, rtol=1e-4)


def test_a_model_with_windows_reads_short_and_long_texts_together() -> None:
    from transformers import ModernBertConfig, ModernBertModel

    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=200, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=2,
        local_attention=8, pad_token_id=0,
    )  # fmt: skip
    encoder = TextEncoder(ModernBertModel(config), "mean").eval()
    plain, quick = ways(encoder, torch.float32)
    ids, mask = pad_tokens(Ragged.from_rows([[2, *range(5, 5 + n), 3] for n in (1, 2, 5, 40, 60)]))
    with torch.inference_mode():
        assert off(quick(ids, mask), plain(ids, mask)) < 1e-6


@pytest.mark.parametrize("other", ["values", "places"])
def test_what_is_not_plain_attention_is_pytorchs(other: str) -> None:
    drawn = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 7, 8, generator=drawn) for _ in range(3))
    bias = torch.randn(1, 3, 7, 7, generator=drawn) if other == "places" else None
    value = value[..., :5] if other == "values" else value
    found, _ = attend(nn.Identity(), query, key, value, None, is_causal=False, position_bias=bias)
    truth = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2)
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=1e-4)
