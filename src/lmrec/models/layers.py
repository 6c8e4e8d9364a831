"""How a transformers model is built: its stack of layers, what lies below and above it, and what a layer is made of.

Nothing here depends on a model's name: parts are found by where they stand and what they are called inside a layer.
"""

from dataclasses import dataclass

from torch import nn

from lmrec.errors import RecipeError


def transformer_layers(model: nn.Module) -> list[nn.Module]:
    """The model's stack of layers, bottom first: its longest list of modules of one class."""
    stacks = [list(m) for m in model.modules() if isinstance(m, nn.ModuleList) and len({type(x) for x in m}) == 1]
    return max(stacks, key=len, default=[])


@dataclass(frozen=True, eq=False)
class ParameterParts:
    """All parameters of a model. below: embeddings, and whatever else the layers read; above: norms and poolers after them."""

    below: list[nn.Parameter]
    layers: list[list[nn.Parameter]]
    above: list[nn.Parameter]


def parameter_parts(model: nn.Module) -> ParameterParts:
    """Modules are registered in the order in which they are used; embeddings come first wherever they are registered."""
    layers = [list(layer.parameters()) for layer in transformer_layers(model)]
    inside = {id(p) for layer in layers for p in layer}
    embedded = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    below: list[nn.Parameter] = []
    above: list[nn.Parameter] = []
    passed = False
    for parameter in model.parameters():
        if id(parameter) in inside:
            passed = True
        else:
            (above if passed and id(parameter) not in embedded else below).append(parameter)
    return ParameterParts(below, layers, above)


def set_dropout(model: nn.Module, share: float, key: str, name: str) -> None:
    """Every dropout inside a language model at this share: modules, and the plain numbers that others keep (Llama: of its
    attention alone).

    key, name: what asks for it and of which model, for the error. Raises RecipeError where there is no dropout to set.
    """
    n_places = 0
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
            n_places += 1
            continue
        for number in [at for at, value in vars(module).items() if _is_dropout(at, value)]:
            setattr(module, number, share)
            n_places += 1
    if share and not n_places:
        raise RecipeError(
            f"{key} is {share:g}, and there is no dropout inside {name}: nothing would come of it. Set it to 0"
        )


def _is_dropout(name: str, value: object) -> bool:
    """Of a module's attributes; `layerdrop` and the like are something else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (name.endswith("dropout") or name in ("dropout_prob", "dropout_rate"))


def norms_and_biases(model: nn.Module) -> list[nn.Parameter]:
    """All biases, and all of the normalising layers' parameters."""
    return [
        parameter
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name == "bias" or "norm" in type(module).__name__.lower()
    ]


@dataclass(frozen=True)
class Sublayers:
    """What the linear maps of a layer are called inside it.

    queries_values, keys_values: of the attention; one name where a model makes queries, keys and values at once.
    attention_out, feed_out: the last maps of the attention and of the feed-forward part, back to the model's width.
    feed_in: the first map of the feed-forward part, where heads and units stand for themselves and can be pruned; else "".
    """

    queries_values: tuple[str, ...]
    keys_values: tuple[str, ...]
    attention_out: str
    feed_out: str
    feed_in: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        feed_in = (self.feed_in,) if self.feed_in else ()
        return (*self.queries_values, *self.keys_values, self.attention_out, self.feed_out, *feed_in)

    @property
    def query(self) -> str:
        return self.queries_values[0]

    @property
    def key(self) -> str:
        return self.keys_values[0]

    @property
    def value(self) -> str:
        return self.queries_values[-1]


def _separate(
    where: str, query: str, key: str, value: str, attention_out: str, feed_out: str, feed_in: str = ""
) -> Sublayers:
    return Sublayers((where + query, where + value), (where + key, where + value), attention_out, feed_out, feed_in)


_KNOWN = {
    "BERT (also RoBERTa, ELECTRA, MiniLM)": _separate(
        "attention.self.", "query", "key", "value", "attention.output.dense", "output.dense", "intermediate.dense"
    ),
    "DeBERTa": _separate(
        "attention.self.", "query_proj", "key_proj", "value_proj", "attention.output.dense", "output.dense"
    ),
    "MPNet": _separate("attention.attn.", "q", "k", "v", "attention.attn.o", "output.dense"),
    "DistilBERT": _separate("attention.", "q_lin", "k_lin", "v_lin", "attention.out_lin", "ffn.lin2", "ffn.lin1"),
    "Llama (also SmolLM, Qwen, Mistral)": _separate(
        "self_attn.", "q_proj", "k_proj", "v_proj", "self_attn.o_proj", "mlp.down_proj"
    ),
    "GPT-2": Sublayers(("attn.c_attn",), ("attn.c_attn",), "attn.c_proj", "mlp.c_proj"),
    "ModernBERT": Sublayers(("attn.Wqkv",), ("attn.Wqkv",), "attn.Wo", "mlp.Wo"),
}
KNOWN_FAMILIES = ", ".join(_KNOWN)


def sublayers_of(layer: nn.Module) -> Sublayers | None:
    """The names that hold for this layer; None where it is of no known family."""
    inside = {name for name, _ in layer.named_modules()}
    return next((known for known in _KNOWN.values() if inside.issuperset(known.names)), None)


def linear_maps(layer: nn.Module) -> list[str]:
    """The names of all linear maps inside a layer (`Conv1D` is what GPT-2 calls them)."""
    return [name for name, m in layer.named_modules() if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"]


def replace_module(root: nn.Module, name: str, fresh: nn.Module) -> None:
    """Put `fresh` where the module `name` stands in `root`."""
    parent, _, last = name.rpartition(".")
    setattr(root.get_submodule(parent), last, fresh)
