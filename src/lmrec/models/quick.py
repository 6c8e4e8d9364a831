"""The same language model in fewer passes over memory: for encoding on a CPU, where nothing is learnt.

At 2,048 tokens in bf16 the products of a small BERT take two thirds of the time; the rest is bias, activation and attention
between them, and for one text alone it is more than half. Two things are put together here, the weights stay the same:

- a linear layer adds its bias, and applies its GELU where one follows, while its product is still in the cache (oneDNN's
  post-ops: https://uxlfoundation.github.io/oneDNN/dev_guide_attributes_post_ops.html);
- attention of short texts is two batched products and a softmax, where PyTorch's tiled kernel, made for long ones, takes
  half as long again.

In bf16 the scores of attention are rounded between the two products. What that costs is held against fp32 as everything else
of a runtime (`lmrec.models.runtime.is_faithful`); in fp32 the vectors are the same to 1e-6.
"""

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

_ATTENTION = "lmrec_products"
_MAX_TOKENS = 512  # of a text: above it PyTorch's kernel, which never holds all scores of a text, is quicker
_SCORES = 1_600_000  # at once


def quick_copy(backbone: nn.Module) -> nn.Module:
    """The model on the CPU in quick layers where this PyTorch has them, else in its own. It shares the weights; what it is
    a copy of stays as it was."""
    weights, config = (*backbone.parameters(), *backbone.buffers()), getattr(backbone, "config", None)
    quick: nn.Module = copy.deepcopy(backbone, {id(weight): weight for weight in weights})
    if _fuses(weights[0].dtype):
        _fuse(quick, activation=getattr(config, "hidden_act", ""))
    if getattr(config, "_attn_implementation", "") == "sdpa":  # what computes otherwise keeps to it
        _register()
        quick.set_attn_implementation(_ATTENTION)  # type: ignore[operator]
    return quick


class QuickLinear(nn.Module):
    """x W' + b, then GELU (the exact one) with `gelu`. (..., in) -> (..., out). It shares the weights of `linear`."""

    def __init__(self, linear: nn.Linear, gelu: bool = False) -> None:
        super().__init__()
        self.weight, self.bias, self.gelu = linear.weight, linear.bias, gelu

    def forward(self, x: Tensor) -> Tensor:
        return _product(x, self.weight, self.bias, self.gelu)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    then, how = ("gelu", "none") if gelu else ("none", "")
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], how)
    return result


def _fuse(module: nn.Module, activation: str) -> None:
    for name, child in list(module.named_children()):
        dense = getattr(child, "dense", None)
        if type(child) is nn.Linear:
            setattr(module, name, QuickLinear(child))
        elif activation == "gelu" and type(dense) is nn.Linear and hasattr(child, "intermediate_act_fn"):
            child.dense, child.intermediate_act_fn = (
                QuickLinear(dense, gelu=True),
                nn.Identity(),
            )  # as BERT's family has it
        else:
            _fuse(child, activation)


@cache
def _fuses(precision: torch.dtype) -> bool:
    """Whether this PyTorch has the fused product (it is no promised part of its interface) and it does what it should."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    x = torch.linspace(-2, 2, 64, dtype=precision).view(8, 8)  # nothing drawn: a fit's seed is its own
    try:
        with torch.inference_mode():
            found = _product(x, x, x[0], gelu=True)
    except (AttributeError, RuntimeError):
        return False
    return torch.allclose(found, nn.functional.gelu(x @ x.T + x[0]), rtol=0.02, atol=0.02)


@cache
def _register() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_ATTENTION, sdpa_mask)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """(N, H, L, E) queries, keys, values -> (N, L, H, E). attention_mask: (N, 1 or H, L, L), True = is seen, or numbers to
    add to scores; None: all is seen.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, equation 1. What reads forward only, shares keys between
    heads, has places of its own or is long goes to PyTorch's own kernel.
    """
    causal = attention_mask is None and more.get("is_causal", getattr(module, "is_causal", False))
    plain = key.shape == query.shape == value.shape and more.get("position_bias") is None
    if causal or not plain or query.shape[2] > _MAX_TOKENS:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        mixed, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
        return mixed, None
    n, heads, length, width = query.shape
    scale = width**-0.5 if scaling is None else scaling
    rows = (n * heads, length, width)
    query, key, value = (
        query.reshape(rows),
        key.reshape(rows),
        value.reshape(rows),
    )  # in one piece: products are quicker
    bias = attention_mask
    if bias is not None:
        # Adding takes a third of the time of masking the scores themselves. What is unseen is far below all scores, and no
        # infinity: of a padded place that sees nothing a softmax would be no number, and spread from layer to layer.
        unseen = torch.finfo(query.dtype).min / 2
        if not bias.is_floating_point():
            bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill_(~bias, unseen)
        bias = bias.clamp(min=unseen).expand(n, -1, length, length)
    mixed = torch.empty_like(value)
    step = max(1, _SCORES // (heads * length * length))  # texts whose scores stay in the cache
    for start in range(0, n, step):
        part = slice(heads * start, heads * (start + step))
        scores = torch.baddbmm(query.new_empty(1), query[part], key[part].transpose(1, 2), beta=0, alpha=scale)
        if bias is not None:
            scores.view(-1, heads, length, length).add_(bias[start : start + step])
        torch.bmm(scores.softmax(-1), value[part], out=mixed[part])
    return mixed.view(n, heads, length, width).transpose(1, 2).contiguous(), None
