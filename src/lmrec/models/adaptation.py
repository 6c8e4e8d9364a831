"""A language model that learns through adapters: attached, taken out as a few megabytes, put back, and merged away.

| kind | paper | what learns | starts as the base | merges |
|---|---|---|---|---|
| lora | Hu et al. 2021, https://arxiv.org/abs/2106.09685 | W + alpha / r * B A, r columns and rows | yes | yes |
| adalora | Zhang et al. 2023, https://arxiv.org/abs/2303.10512 | W + B diag(E) A, ranks where they matter | yes | yes |
| ia3 | Liu et al. 2022, https://arxiv.org/abs/2205.05638 | a factor for keys, values and inner feed-forward units | yes | yes |
| prefix | Li and Liang 2021, https://arxiv.org/abs/2101.00190 | keys and values of no token | no | no |
| houlsby, pfeiffer | see lmrec.models.adapters | bottlenecks behind sublayers | yes | no |

LoRA, AdaLoRA, (IA)3 and the prefix's numbers are the `peft` library's. The base's own weights never change, so that many
encoders may share them: `share_weights`.
"""

import copy
import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lmrec.errors import RecipeError
from lmrec.models.adapters import AdapterConfig, insert_bottlenecks
from lmrec.models.encoder import EncoderConfig, TextEncoder, chosen_layers
from lmrec.models.layers import KNOWN_FAMILIES, Sublayers, linear_maps, replace_module, sublayers_of
from lmrec.models.prefix import PrefixedBackbone, cache_argument
from lmrec.models.rank_allocation import ADAPTER, RankAllocation


def attach_adapter(encoder: TextEncoder, config: EncoderConfig) -> None:
    """Put the adapter that the config asks for into the encoder, in place; the base is frozen. None asked for: nothing.

    Raises RecipeError where this language model cannot have it.
    """
    if config.adapter.kind == "none":
        return
    assert not encoder.adapter_names, "one adapter at a time"
    encoder.base_fingerprint = fingerprint_weights(encoder.backbone)
    encoder.requires_grad_(False)
    before = {id(p) for p in encoder.parameters()}
    _attach(encoder, config)
    encoder.adapter_names = tuple(
        name for name, p in encoder.backbone.named_parameters() if id(p) not in before and p.requires_grad
    )


def adapter_weights(encoder: TextEncoder) -> dict[str, Tensor]:
    """What the adapter has learnt: copies, on the CPU, by name."""
    own = dict(encoder.backbone.named_parameters())
    return {name: own[name].detach().cpu().contiguous().clone() for name in encoder.adapter_names}


@torch.no_grad()
def put_adapter_weights(encoder: TextEncoder, weights: dict[str, Tensor]) -> None:
    """The other way round. Raises ValueError where names or shapes are not exactly this adapter's."""
    own = dict(encoder.backbone.named_parameters())
    put_weights({name: own[name] for name in encoder.adapter_names}, weights)
    if encoder.allocation is not None:
        encoder.allocation.settle()


@torch.no_grad()
def put_weights(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Copy values into tensors of the same names. Raises ValueError where names or shapes are not exactly the same."""
    if different := sorted(set(weights) ^ set(own)):
        raise ValueError(f"'{different[0]}' is in one of the model and what was kept, and not in the other")
    for name, value in weights.items():
        if own[name].shape != value.shape:
            raise ValueError(
                f"'{name}' is {tuple(value.shape)} in what was kept and {tuple(own[name].shape)} in the model"
            )
        own[name].copy_(value)


@torch.no_grad()
def merge_adapter(encoder: TextEncoder) -> bool:
    """Add what the adapter says into the weights it stands beside, and take it away; False where it cannot be added.

    Only those weights are copied first: whoever shares the base's weights keeps them as they were.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    places = [(name, m) for name, m in encoder.backbone.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, module in places:
        base: Any = module.get_base_layer()
        for part in ("weight", "bias"):
            if getattr(base, part, None) is not None:
                setattr(base, part, nn.Parameter(getattr(base, part).detach().clone(), requires_grad=False))
        module.merge()
        replace_module(encoder.backbone, name, base)
    if places:
        encoder.adapter_names, encoder.allocation = (), None
    return bool(places)


def share_weights(encoder: TextEncoder) -> TextEncoder:
    """Another encoder of its own modules over the very same weights: what is attached to one is unknown to the other."""
    tensors = [*encoder.parameters(), *encoder.buffers()]
    twin = copy.deepcopy(encoder, {id(tensor): tensor for tensor in tensors})
    twin.shares_with = (encoder,)
    return twin


def fingerprint_weights(backbone: nn.Module, without: Collection[str] = ()) -> str:
    """16 hex characters of all weights and their names, wherever they were loaded from. without: names that do not count."""
    digest = hashlib.sha256()
    for name, value in sorted(backbone.state_dict().items()):
        if name in without:
            continue
        digest.update(name.encode())
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _attach(encoder: TextEncoder, config: EncoderConfig) -> None:
    adapter, layers = config.adapter, chosen_layers(encoder, config)
    match adapter.kind:
        case "lora" | "adalora" | "ia3":
            encoder.allocation = _attach_peft(encoder.backbone, layers, config)
        case "houlsby" | "pfeiffer":
            insert_bottlenecks(layers, _known(layers[0], config), encoder.width, adapter)
        case "prefix":
            if cache_argument(encoder.backbone) is None:
                raise RecipeError(
                    f"encoder.adapter.kind is 'prefix', and {config.name} ({type(encoder.backbone).__name__}) takes no keys "
                    "and values from outside. Choose 'lora', or a model of the BERT, RoBERTa, ELECTRA, GPT-2 or Llama family"
                )
            encoder.backbone = PrefixedBackbone(encoder.backbone, adapter.prefix_tokens)


def _known(layer: nn.Module, config: EncoderConfig) -> Sublayers:
    names = sublayers_of(layer)
    if names is None:
        way = ", or name linear maps of a layer in encoder.adapter.targets" if _takes_targets(config.adapter) else ""
        raise RecipeError(
            f"encoder.adapter.kind is '{config.adapter.kind}', and the layers of {config.name} are of no family that is known "
            f"here ({KNOWN_FAMILIES}). Choose a model of one of them{way}. Linear maps of this layer: "
            f"{', '.join(linear_maps(layer))}"
        )
    return names


def _takes_targets(adapter: AdapterConfig) -> bool:
    return adapter.kind in ("lora", "adalora")


def _attach_peft(backbone: nn.Module, layers: list[nn.Module], config: EncoderConfig) -> RankAllocation | None:
    import peft

    adapter = config.adapter
    places = _places(layers[0], config)
    modules = {id(layer.get_submodule(place)) for layer in layers for place in places}
    names = [name for name, module in backbone.named_modules() if id(module) in modules]
    stored_by_input = type(layers[0].get_submodule(places[0])).__name__ == "Conv1D"
    shared: dict[str, Any] = {"target_modules": names, "fan_in_fan_out": stored_by_input}
    update: dict[str, Any] = {"lora_alpha": adapter.alpha, "lora_dropout": adapter.dropout}
    make: Callable[..., Any]
    made: Any
    match adapter.kind:
        case "lora":
            make, made = peft.LoraModel, peft.LoraConfig(r=adapter.rank, **update, **shared)
        case "adalora":
            ranks: dict[str, Any] = {
                "target_r": adapter.rank,
                "init_r": adapter.initial_rank,
                "total_step": 2,
                "tfinal": 1,
            }
            make, made = peft.AdaLoraModel, peft.AdaLoraConfig(**ranks, **update, **shared)
        case _:
            inner = {id(layer.get_submodule(_known(layer, config).feed_out)) for layer in layers}
            feed = [name for name, module in backbone.named_modules() if id(module) in inner]
            make, made = peft.IA3Model, peft.IA3Config(feedforward_modules=feed, **shared)
    tuner = make(backbone, {ADAPTER: made}, ADAPTER)
    return RankAllocation(tuner, adapter.orthogonality) if adapter.kind == "adalora" else None


def _places(layer: nn.Module, config: EncoderConfig) -> tuple[str, ...]:
    """The names inside a layer of the linear maps that are to be updated."""
    targets, maps = config.adapter.targets, linear_maps(layer)
    if not targets:
        names = _known(layer, config)
        return names.queries_values if _takes_targets(config.adapter) else (*names.keys_values, names.feed_out)
    found = [name for name in maps if any(f".{name}".endswith(f".{target}") for target in targets)]
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in found):
            raise RecipeError(
                f"encoder.adapter.targets names '{target}', and no linear map in a layer of {config.name} is called so. "
                f"There are: {', '.join(maps)}"
            )
    return tuple(found)
