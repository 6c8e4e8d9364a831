"""Smaller models that give what the whole one gives: what is taken away, what is taught afterwards, and widths that nest.

| what shrinks         | how                                                     | paper                                |
|----------------------|---------------------------------------------------------|--------------------------------------|
| layers               | some of the model's own, taught its vectors             | Reimers & Gurevych 2020              |
| heads, feed-forward  | those go whose gates move the vectors least             | Michel et al. 2019, Molchanov et al. 2019 |
| item and user vectors| the first d numbers learn to be vectors by themselves   | Kusupati et al. 2022 (Matryoshka)    |

https://arxiv.org/abs/2004.09813 (section 2), 1905.10650, 1906.10771, 2205.13147. Nothing here knows users but the last row: the
words of a catalog are enough to teach a student its teacher's vectors.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from lmrec.errors import RecipeError
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.encoder import EncoderConfig, TextEncoder, configure_encoder, pad_tokens, token_batches
from lmrec.models.layers import parameter_parts, transformer_layers
from lmrec.models.pruning import LayerRows, chosen_layers_of, cut, gated, layer_sizes, with_fewer_layers
from lmrec.models.reading import evaluating
from lmrec.progress import Progress
from lmrec.training.losses import Objective
from lmrec.training.objectives import Asked
from lmrec.training.pretrain import length_batches

Part: TypeAlias = Literal["heads", "units"]

_SAME = 1e-4  # what a number of a vector may differ by where the same heads and units are cut or shut
_BLOCK = 8  # units of a layer are kept in blocks of so many: processors multiply those fastest


class CompressConfig(BaseModel):
    """What `lmrec compress` tries, how it teaches, and how much it may lose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: tuple[int, ...] | None = Field(
        default=None,
        min_length=1,
        description="Numbers of layers to try; unset: all, half and a third of the language model's.",
    )
    kept: tuple[float, ...] | None = Field(
        default=None,
        min_length=1,
        description="Shares of attention heads and feed-forward units to try; unset: all and half, or all alone where the "
        "architecture cannot be pruned.",
    )
    parts: tuple[Part, ...] = Field(
        default=("heads", "units"), min_length=1, description="What compress.kept is a share of: heads, units, or both."
    )
    widths: tuple[int, ...] | None = Field(
        default=None,
        min_length=1,
        description="Widths of item and user vectors to try; unset: all, half and a quarter of what the run compares.",
    )
    tolerance: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="The smallest model whose validation metric is at most this share below the run's own is taken.",
    )
    epochs: int = Field(default=10, ge=1, description="Times that a student reads the catalog's texts.")
    max_texts: int = Field(default=20_000, ge=2, description="At most so many different texts, drawn, are taught from.")
    batch_texts: int = Field(default=32, ge=1, description="Texts in a step.")
    learning_rate: float = Field(default=5e-4, gt=0, description="Of a student: peak of a linear course with warm-up.")
    held_out: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="Share of the texts that no student learns from: how new items will fare.",
    )
    importance_texts: int = Field(default=256, ge=1, description="Texts on which heads and units are weighed.")
    tower_epochs: int = Field(
        default=2,
        ge=0,
        description="Epochs in which towers learn a student's vectors and all widths; the best is kept.",
    )
    rate_share: float = Field(
        default=0.3, gt=0, description="Their learning rate, as a share of training.learning_rate."
    )

    @field_validator("kept")
    @classmethod
    def _are_shares(cls, kept: tuple[float, ...] | None) -> tuple[float, ...] | None:
        for share in kept or ():
            if not 0 < share <= 1:
                raise ValueError(f"{share:g} is no share of heads and units: it is above 0 and at most 1")
        return kept


@dataclass(frozen=True, eq=False)
class VectorTask:
    """A student that is to give its teacher's vectors (N, D), of length one, for N texts' tokens.

    The loss is 1 - cosine, which for unit vectors is half their squared distance: cosine and MSE are one loss here. The measure
    is the same on texts that are not learnt from. A `pretrain.Task`.
    """

    student: TextEncoder
    tokens: Ragged
    teacher: FloatArray
    learnt: IntArray
    measured: IntArray
    batch_texts: int
    measure: str = "1 - cosine"

    @property
    def module(self) -> nn.Module:
        return self.student

    def batches(self, rng: np.random.Generator) -> list[IntArray]:
        return length_batches(self.tokens, self.learnt, self.batch_texts, rng)

    def loss(self, rows: IntArray, rng: np.random.Generator) -> Tensor:
        return self._distances(rows).mean()

    @torch.no_grad()
    def held_out(self) -> float:
        size = self.batch_texts
        with evaluating(self.student):
            parts = [
                self._distances(self.measured[start : start + size]) for start in range(0, len(self.measured), size)
            ]
        return float(torch.cat(parts).mean())

    def _distances(self, rows: IntArray) -> Tensor:
        ids, mask = pad_tokens(self.tokens.take(rows))
        device = next(self.student.parameters()).device
        found: Tensor = self.student(ids.to(device), mask.to(device))
        return 1 - (found * torch.from_numpy(self.teacher[rows]).to(device)).sum(1)


def measure_importance(
    encoder: TextEncoder, tokens: Ragged, batch_tokens: int, seed: int, progress: Progress | None = None
) -> list[tuple[FloatArray, FloatArray]]:
    """For each layer (heads,) and (units,): how far a text's vector moves where the gate is shut, squared, to first order.

        I_g = mean over texts of |d f(x) / d gate_g|^2

    which is Michel's and Molchanov's first-order estimate for the loss |f_pruned(x) - f(x)|^2, whose own gradient is zero at
    the whole model. The square of a Jacobian's column is estimated by its product with a random direction (Hutchinson
    1989), one backward pass a batch.
    """
    rng = torch.Generator().manual_seed(seed)
    sizes, device = layer_sizes(encoder.backbone), next(encoder.parameters()).device
    sums = [(np.zeros(size.heads), np.zeros(size.units)) for size in sizes]
    learns = [parameter.requires_grad for parameter in encoder.parameters()]
    encoder.requires_grad_(False)
    done = 0
    with evaluating(encoder):
        for rows in token_batches(tokens, np.arange(len(tokens)), batch_tokens):
            ids, mask = pad_tokens(tokens.take(rows))
            gates = [
                (
                    torch.ones(len(rows), size.heads, device=device, requires_grad=True),
                    torch.ones(len(rows), size.units, device=device, requires_grad=True),
                )
                for size in sizes
            ]
            with gated(encoder.backbone, gates):
                vectors = encoder(ids.to(device), mask.to(device))
            direction = torch.randn(vectors.shape, generator=rng).to(device)
            torch.autograd.backward((vectors * direction).sum())
            for gate, total in zip(_flat(gates), _flat(sums), strict=True):
                assert gate.grad is not None
                total += gate.grad.square().sum(0).cpu().double().numpy()
            done += len(rows)
            if progress is not None:
                progress(done, len(tokens))
    for parameter, learnt in zip(encoder.parameters(), learns, strict=True):
        parameter.requires_grad_(learnt)
    return [((heads / done).astype(np.float32), (units / done).astype(np.float32)) for heads, units in sums]


def _flat(pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
    return [one for pair in pairs for one in pair]


def most_important(
    importance: Sequence[tuple[FloatArray, FloatArray]], share: float, parts: Sequence[Part]
) -> list[LayerRows]:
    """The heads and units that stay: this share of all layers' together, for which they compete, and at least one of each kind
    in every layer; units in whole blocks."""
    heads = _best([layer[0] for layer in importance], share if "heads" in parts else 1.0, 1)
    units = _best([layer[1] for layer in importance], share if "units" in parts else 1.0, _BLOCK)
    return [LayerRows(*kept) for kept in zip(heads, units, strict=True)]


def _best(importance: Sequence[FloatArray], share: float, block: int) -> list[IntArray]:
    """Places of the best of all layers together: first each layer's best one, then whoever is best of the rest. A layer's
    number is rounded up to whole blocks."""
    order = [np.argsort(-layer, kind="stable") for layer in importance]
    rest = np.sort(np.concatenate([layer[best[1:]] for layer, best in zip(importance, order, strict=True)]))[::-1]
    n_rest = round(share * sum(map(len, importance))) - len(importance)
    least = rest[n_rest - 1] if n_rest > 0 else np.inf
    kept: list[IntArray] = []
    for layer, best in zip(importance, order, strict=True):
        n_kept = 1 + int((layer[best[1:]] >= least).sum())
        kept.append(np.sort(best[: min(len(layer), -(-n_kept // block) * block)]))
    return kept


class Matryoshka(nn.Module):
    """The mean of another objective over the first d numbers of the vectors, for each d of `widths`.

    unit: the vectors have length one, and so must their beginnings (a cosine head); else they are taken as they are.
    """

    def __init__(self, rest: Objective, widths: Sequence[int], unit: bool) -> None:
        super().__init__()
        self.rest, self.widths, self.unit = rest, tuple(widths), unit

    def forward(self, asked: Asked, rng: np.random.Generator) -> Tensor:
        return torch.stack([self.rest(self._cut(asked, width), rng) for width in self.widths]).mean()

    def divergence(self, one: Asked, other: Asked, rng: np.random.Generator) -> Tensor:
        parts = [self.rest.divergence(self._cut(one, width), self._cut(other, width), rng) for width in self.widths]
        return torch.stack(parts).mean()

    def _cut(self, asked: Asked, width: int) -> Asked:
        user_vec, item_vec = asked.user_vec[:, :width], asked.item_vec[:, :width]
        if self.unit:
            user_vec, item_vec = (nn.functional.normalize(part, dim=-1) for part in (user_vec, item_vec))
        return replace(asked, user_vec=user_vec, item_vec=item_vec)


def shrink_layers(teacher: TextEncoder, n_layers: int, config: EncoderConfig) -> TextEncoder:
    """A student of its own that begins as `n_layers` of the teacher's layers, evenly spread."""
    kept = chosen_layers_of(len(transformer_layers(teacher)), n_layers)
    student = TextEncoder(with_fewer_layers(teacher.backbone, kept), teacher.pooling)
    configure_encoder(student, config)
    return student.eval()


def prune(encoder: TextEncoder, kept: Sequence[LayerRows], tokens: Ragged) -> TextEncoder:
    """A copy with these heads and units alone. Raises RecipeError where it does not say on these texts what the whole model
    says with the others shut: then this architecture is other than it looks."""
    fresh = TextEncoder(copy.deepcopy(encoder.backbone), encoder.pooling).eval()
    cut(fresh.backbone, kept)
    ids, mask = pad_tokens(tokens)
    with torch.no_grad(), evaluating(encoder), gated(encoder.backbone, shut_gates(encoder, kept)):
        off = float((fresh(ids, mask) - encoder(ids, mask)).abs().max())
    if not off < _SAME:
        raise RecipeError(
            f"this language model ({type(encoder.backbone).__name__}) cannot be pruned: cut, it is off by {off:.1e} from "
            "itself with the same heads and units shut. Set compress.kept to [1.0]; layers and widths go for any model"
        )
    return fresh


def shut_gates(encoder: TextEncoder, kept: Sequence[LayerRows]) -> list[tuple[Tensor, Tensor]]:
    """For `gated`: 1 for what is kept and 0 for all else."""
    gates = []
    for size, rows in zip(layer_sizes(encoder.backbone), kept, strict=True):
        heads, units = torch.zeros(1, size.heads), torch.zeros(1, size.units)
        heads[0, torch.from_numpy(rows.heads)] = 1.0
        units[0, torch.from_numpy(rows.units)] = 1.0
        gates.append((heads, units))
    return gates


def choose_taught(student: TextEncoder) -> None:
    """A student learns in its layers and above them; the words that it begins with stay its teacher's."""
    student.requires_grad_(False)
    parts = parameter_parts(student)
    for parameter in [p for layer in parts.layers for p in layer] + parts.above:
        parameter.requires_grad_(True)
