"""A reader of pairs whose language model learns through LoRA: attached, taken out as a few megabytes, put back, merged away.

What learns are the updates and all that stands on top of the language model (head, pooler). The rest is the base as it came,
which whoever keeps the former finds again by name and `fingerprint_base`.
"""

from torch import Tensor, nn

from lmrec.models.adaptation import attach_adapter, fingerprint_weights, put_weights
from lmrec.models.adapters import AdapterConfig
from lmrec.models.cross_encoder import PairModel
from lmrec.models.encoder import EncoderConfig, TextEncoder


def parts_on_top(model: PairModel) -> list[nn.Module]:
    """The head and the pooler below it, which pretraining may never have used (BERT type)."""
    pooler = getattr(model.base, "pooler", None)
    return [*model.head, *([pooler] if isinstance(pooler, nn.Module) else [])]


def attach_pair_lora(model: PairModel, rank: int, name: str) -> TextEncoder:
    """LoRA in every layer; all but that and what is on top is frozen, also an output layer of its own. Returns the language
    model as `merge_adapter` wants it.

    name: of the language model, for errors. Raises RecipeError where its layers cannot have it.
    """
    model.requires_grad_(False)
    adapted = TextEncoder(model.base, "mean")
    adapter = AdapterConfig(kind="lora", rank=rank)
    attach_adapter(adapted, EncoderConfig(name=name or "the run's own", train="all", adapter=adapter))
    for part in parts_on_top(model):
        part.requires_grad_(True)
    return adapted


def fingerprint_base(model: PairModel) -> str:
    """16 hex characters of the weights below what is on top; to be asked before anything is attached."""
    fresh = {id(p) for part in parts_on_top(model) for p in part.parameters()}
    names = {name for name, p in model.backbone.named_parameters() if id(p) in fresh}
    return fingerprint_weights(model.backbone, without=names)


def learnt_weights(model: PairModel) -> dict[str, Tensor]:
    """What learns, by name: copies, where the model is."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def put_learnt_weights(model: PairModel, weights: dict[str, Tensor]) -> None:
    """The other way round. Raises ValueError where names or shapes are not exactly those."""
    put_weights({name: p for name, p in model.named_parameters() if p.requires_grad}, weights)
