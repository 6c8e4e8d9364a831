"""A language model with fewer layers, attention heads and feed-forward units than its config says, and really smaller for it.

transformers (5) has no pruning, and a config has one number of heads for all layers; so a pruned model is kept as

    config.json           of the model that was pruned
    pruned.json           how many heads and units each layer has left
    pruned.safetensors    the weights, in their real shapes

and built again from these: the config's model, its maps cut to size, the weights put in strictly. No other library takes
the file for a whole model. Fewer layers alone need none of this: a config can say that.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmrec.errors import RecipeError
from lmrec.fields import IntArray
from lmrec.models.layers import Sublayers, replace_module, sublayers_of, transformer_layers

SIZES, WEIGHTS = "pruned.json", "pruned.safetensors"
_CUT = "is_cut"  # what a model that `cut` has been at is marked by


@dataclass(frozen=True)
class LayerSize:
    """What a layer has: attention heads, and units between the two maps of its feed-forward part."""

    heads: int
    units: int


@dataclass(frozen=True, eq=False)
class LayerRows:
    """What a layer keeps: places of heads and of units, ascending."""

    heads: IntArray
    units: IntArray


def can_prune(backbone: nn.Module) -> bool:
    """Whether heads and units of this architecture are known well enough to be taken out."""
    layers, config = transformer_layers(backbone), backbone.config
    known = all((names := sublayers_of(layer)) is not None and names.feed_in for layer in layers)
    return bool(layers) and known and all(hasattr(config, name) for name in ("hidden_size", "num_attention_heads"))


def layer_sizes(backbone: nn.Module) -> list[LayerSize]:
    """Of every layer, as the weights are. Raises RecipeError for an architecture that is not known here."""
    width, sizes = head_width(backbone), []
    for layer in transformer_layers(backbone):
        names = _names(layer)
        query, feed = layer.get_parameter(f"{names.query}.weight"), layer.get_parameter(f"{names.feed_in}.weight")
        sizes.append(LayerSize(len(query) // width, len(feed)))
    return sizes


def head_width(backbone: nn.Module) -> int:
    """Numbers of one attention head."""
    config: Any = backbone.config
    return int(config.hidden_size) // int(config.num_attention_heads)


def is_pruned(backbone: nn.Module) -> bool:
    """Whether heads or units were taken out of it, in this process or before it was saved."""
    return bool(getattr(backbone, _CUT, False))


def holds_pruned(location: str | Path) -> bool:
    """Whether a pruned model lies there, which `load_pruned` reads and no other library."""
    return (Path(location) / SIZES).is_file()


def chosen_layers_of(n_layers: int, n_kept: int) -> list[int]:
    """Which layers a student of `n_kept` begins with: evenly spread, the last one among them.

    >>> chosen_layers_of(6, 3), chosen_layers_of(6, 2), chosen_layers_of(6, 6)
    ([1, 3, 5], [2, 5], [0, 1, 2, 3, 4, 5])
    """
    return [round((place + 1) * n_layers / n_kept) - 1 for place in range(n_kept)]


def with_fewer_layers(backbone: nn.Module, kept: Sequence[int]) -> nn.Module:
    """A model of its own with these layers of `backbone`, bottom first, and all that stands below and above them.

    Sources: Sanh et al. 2019 (DistilBERT), https://arxiv.org/abs/1910.01108, section 3; Sajjad et al. 2020,
    https://arxiv.org/abs/2004.03844. Raises RecipeError where the config does not count the layers.
    """
    layers, whole = transformer_layers(backbone), backbone.config
    if len(layers) != getattr(whole, "num_hidden_layers", None):
        raise RecipeError(
            f"models of the kind '{getattr(whole, 'model_type', '?')}' do not hold their layers in one list of "
            "num_hidden_layers: fewer of them cannot be made. Set compress.layers to the number that it has"
        )
    config: Any = copy.deepcopy(whole)
    config.num_hidden_layers = len(kept)
    if isinstance(kinds := getattr(config, "layer_types", None), list):
        config.layer_types = [kinds[place] for place in kept]
    student = _empty(config)
    if is_pruned(backbone):
        sizes = layer_sizes(backbone)
        cut(student, [_first(sizes[place]) for place in kept])
    prefix = next(
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList) and any(inner is layers[0] for inner in module)
    )
    weights, place_of = {}, {str(old): str(new) for new, old in enumerate(kept)}
    for name, value in backbone.state_dict().items():
        number, dot, rest = name.removeprefix(f"{prefix}.").partition(".")
        if not name.startswith(f"{prefix}.") or not dot:
            weights[name] = value
        elif number in place_of:
            weights[f"{prefix}.{place_of[number]}.{rest}"] = value
    student.load_state_dict(weights)
    return student


def cut(backbone: nn.Module, kept: Sequence[LayerRows]) -> None:
    """Take all other heads and units out of every layer, in place: the maps before and after them become smaller."""
    width = head_width(backbone)
    for layer, rows in zip(transformer_layers(backbone), kept, strict=True):
        names = _names(layer)
        in_heads = (rows.heads[:, None] * width + np.arange(width)).reshape(-1)
        for name in (names.query, names.key, names.value):
            _take(layer, name, in_heads, 0)
        _take(layer, names.attention_out, in_heads, 1)
        _take(layer, names.feed_in, rows.units, 0)
        _take(layer, names.feed_out, rows.units, 1)
    setattr(backbone, _CUT, True)


@contextmanager
def gated(backbone: nn.Module, gates: Sequence[tuple[Tensor, Tensor]]) -> Iterator[None]:
    """What heads and units say, times their gates: for each layer (1 or B, heads) and (1 or B, units), B texts.

    A gate of 0 says what `cut` says by taking away, at the full price.
    """
    width, handles = head_width(backbone), []
    for layer, (heads, units) in zip(transformer_layers(backbone), gates, strict=True):
        names = _names(layer)
        for name, gate in ((names.attention_out, heads.repeat_interleave(width, dim=1)), (names.feed_out, units)):

            def shut(_module: nn.Module, inputs: tuple[Any, ...], gate: Tensor = gate) -> tuple[Any, ...]:
                return (inputs[0] * gate[:, None, :], *inputs[1:])

            handles.append(layer.get_submodule(name).register_forward_pre_hook(shut))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def save_pruned(backbone: nn.Module, folder: Path) -> None:
    """The three files; the folder is made where it is missing."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    config: Any = backbone.config
    config.save_pretrained(folder)
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in backbone.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    sizes = [asdict(size) for size in layer_sizes(backbone)]
    (folder / SIZES).write_text(json.dumps({"layers": sizes}, indent=1) + "\n", encoding="utf-8")


def load_pruned(folder: Path) -> nn.Module:
    """The model of these files, in evaluation. Raises ValueError or OSError where they are damaged or do not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoConfig

    try:
        sizes = [LayerSize(**size) for size in json.loads((folder / SIZES).read_text(encoding="utf-8"))["layers"]]
        backbone = _empty(AutoConfig.from_pretrained(str(folder), trust_remote_code=False))
        cut(backbone, [_first(size) for size in sizes])
        backbone.load_state_dict(load_file(folder / WEIGHTS))
    except (KeyError, TypeError, IndexError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{SIZES} and {WEIGHTS} do not fit together ({str(error).splitlines()[0]}).") from error
    return backbone.eval()


def _empty(config: Any) -> nn.Module:
    """The config's model with weights that are to be overwritten."""
    from transformers import AutoModel

    made: nn.Module = AutoModel.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
    return made.float()


def _first(size: LayerSize) -> LayerRows:
    return LayerRows(np.arange(size.heads), np.arange(size.units))


def _names(layer: nn.Module) -> Sublayers:
    names = sublayers_of(layer)
    if names is None or not names.feed_in:
        raise RecipeError(
            "heads and feed-forward units of this language model cannot be pruned: that is known for BERT, RoBERTa, ELECTRA, "
            "MiniLM and DistilBERT. Set compress.kept to [1.0]; layers and widths go for any model"
        )
    return names


def _take(layer: nn.Module, name: str, rows: IntArray, axis: int) -> None:
    """Put in place of a linear map the one of these outputs (axis 0) or inputs (axis 1)."""
    old: Any = layer.get_submodule(name)
    index = torch.from_numpy(np.asarray(rows, np.int64))
    n_out, n_in = (len(rows), old.in_features) if axis == 0 else (old.out_features, len(rows))
    with torch.no_grad():
        fresh = nn.Linear(n_in, n_out, bias=old.bias is not None)
        fresh.weight.copy_(old.weight.index_select(axis, index))
        if old.bias is not None:
            fresh.bias.copy_(old.bias.index_select(0, index) if axis == 0 else old.bias)
    replace_module(layer, name, fresh)
