"""Prefix tuning: each layer's attention also sees a few keys and values that are learnt and belong to no token.

Source: Li and Liang 2021, https://arxiv.org/abs/2101.00190; the numbers are held by peft's `PrefixEncoder`, without its
reparametrisation. Values start at zero, so a prefix says nothing at first, though it draws attention away: it is not the
identity. Keys start at random, for rows that start alike learn alike and stay one.
Tokens keep their places: a prefix has none of its own.
"""

import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn

from lmrec.models.layers import transformer_layers

_CACHE = ("cache", "past_key_values")  # what transformers calls keys and values given from outside, newest name first

_KEY_STD = 0.5  # half that of words' keys (MiniLM: 0.8 to 1.2): far enough from each other, and no louder than words


class PrefixedBackbone(nn.Module):
    """Called as the model inside it is: ids (or embedded words) and mask in, its output out."""

    supports_gradient_checkpointing = False  # layers that run a second time would run without the prefix

    def __init__(self, backbone: nn.Module, n_tokens: int) -> None:
        from peft import PrefixEncoder, PrefixTuningConfig

        super().__init__()
        argument = cache_argument(backbone)
        assert argument is not None, "check with cache_argument first"
        self._argument = argument
        self.base_layer = backbone
        self.config: Any
        self.config = shape = cast(Any, backbone.config)
        self.n_layers = len(transformer_layers(backbone))
        self.n_heads = int(getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads)
        self.head_width = int(getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads)
        numbers = PrefixTuningConfig(
            num_virtual_tokens=n_tokens,
            token_dim=self.n_heads * self.head_width,
            num_layers=self.n_layers,
        )
        self.prefix = PrefixEncoder(numbers).to(next(backbone.parameters()).device)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            parts = self._parts(nn.init.normal_(self.prefix.embedding.weight, std=_KEY_STD))
            parts[:, 1] = 0.0  # values

    def get_input_embeddings(self) -> nn.Module:
        """What makes words of ids."""
        found: nn.Module = self.base_layer.get_input_embeddings()  # type: ignore[operator]
        return found

    def forward(
        self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, *, attention_mask: Tensor
    ) -> Any:
        """(N, L) ids or (N, L, E) words, (N, L) mask of 0 and 1 -> what the model gives for the N texts."""
        from transformers import DynamicCache

        n_texts = len(attention_mask)
        learnt = self.prefix.embedding.weight
        n_tokens = len(learnt)
        cache = DynamicCache()
        for place, (keys, values) in enumerate(self._parts(learnt)):
            cache.update(keys.expand(n_texts, -1, -1, -1), values.expand(n_texts, -1, -1, -1), place)
        mask = torch.cat([attention_mask.new_ones(n_texts, n_tokens), attention_mask], dim=1)
        read = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
        return self.base_layer(
            **read, attention_mask=mask, position_ids=self.places(attention_mask), **{self._argument: cache}
        )

    def _parts(self, learnt: Tensor) -> Tensor:
        """(P, layers * 2 * heads * head width) -> a view of it, (layers, keys or values, heads, P, head width)."""
        return learnt.view(len(learnt), self.n_layers, 2, self.n_heads, self.head_width).permute(1, 2, 3, 0, 4)

    def places(self, mask: Tensor) -> Tensor:
        """(N, L) positions as the model counts without a prefix; RoBERTa-type models begin after their padding id."""
        for name, module in self.base_layer.named_modules():
            if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
                start = module.padding_idx
                if start is not None:
                    return mask.cumsum(1) * mask + start
        return torch.arange(mask.shape[1], device=mask.device).expand_as(mask)


def cache_argument(backbone: nn.Module) -> str | None:
    """What this model calls keys and values that come from outside; None where it takes none."""
    known = inspect.signature(backbone.forward).parameters
    return next((name for name in _CACHE if name in known), None)
