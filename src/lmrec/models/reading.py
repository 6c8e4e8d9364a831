"""How a catalog's texts are read by a language model that learns: unique texts, in batches of like length.

`WholeReader` runs all layers. `UpperReader` runs the lowest layers once: where only layers above them learn, what they
make of a text never changes, so the hidden states that go into the first layer that learns are kept for every unique
text (bf16, no padding, spilled to a file above a limit) and each later pass costs the upper layers alone. The fits of one
search hand them on: `lmrec.models.shared_states`.
"""

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from lmrec.errors import RecipeError
from lmrec.fields import FloatArray, IntArray, Ragged, gather_ranges
from lmrec.models.encoder import (
    TextEncoder,
    encode_tokens,
    pad_tokens,
    pool,
    token_batches,
    unique_rows,
)
from lmrec.models.layers import parameter_parts, transformer_layers
from lmrec.models.shared_states import shared_states
from lmrec.progress import Progress

_LOG = logging.getLogger(__name__)
_SAME = 1e-5  # 1 - cosine that a cut model may differ by, computed alike


@dataclass(frozen=True)
class Way:
    """How a model is run: padded tokens in one pass, where, and in which precision (a maker of contexts)."""

    batch_tokens: int
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    @contextmanager
    def run(self) -> Iterator[None]:
        """The context of a forward pass."""
        with self.autocast(), attention_for_learning(self.device):
            yield

    @property
    def precision(self) -> str:
        """What is multiplied in."""
        kind = self.device.type
        with self.autocast():
            return str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "as the weights are"


class TextReader(Protocol):
    """The texts of a catalog through a language model as it is now."""

    def encode_rows(self, rows: IntArray) -> Iterator[tuple[IntArray, Tensor]]:
        """Some rows batch by batch, with gradient where it is enabled: (M,) rows and (M, D) their vectors.

        Batches do not hang together: call backward on one before the next is taken, and memory is that of one batch.
        """
        ...

    def encode_all(self, progress: Progress | None = None) -> FloatArray:
        """(N, D) vectors of the whole catalog, without gradient and without dropout."""
        ...


class WholeReader:
    """All layers, every time."""

    def __init__(self, encoder: TextEncoder, tokens: Ragged, way: Way) -> None:
        self.encoder, self.tokens, self.way = encoder, tokens, way

    def encode_rows(self, rows: IntArray) -> Iterator[tuple[IntArray, Tensor]]:
        for batch in token_batches(self.tokens, rows, self.way.batch_tokens):
            ids, mask = pad_tokens(self.tokens.take(batch))
            with self.way.run():
                vectors = self.encoder(ids.to(self.way.device), mask.to(self.way.device))
            yield batch, vectors

    def encode_all(self, progress: Progress | None = None) -> FloatArray:
        with self.way.run():
            return encode_tokens(self.encoder, self.tokens, self.way.batch_tokens, self.way.device, progress)


class UpperReader:
    """The upper layers over kept states of the lower ones. The lower layers run in here, once, without dropout.

    limit_mb: states above this size lie in a file in `folder` that vanishes with the process.
    """

    def __init__(self, cut: "CutEncoder", tokens: Ragged, way: Way, limit_mb: int, folder: Path | None = None) -> None:
        self.cut, self.way = cut, way
        unique, place = unique_rows(tokens)
        by_length = np.argsort(tokens.lengths[unique], kind="stable")
        self.tokens = tokens.take(unique[by_length])  # (M,) texts, shortest first: batches lie together
        self.place = np.argsort(by_length)[place]  # (N,) where each row's text is among them
        self._every_token = np.arange(len(self.tokens.values))
        decides = (cut.n_lower, way.batch_tokens, way.device, way.precision)
        self.states = shared_states(cut.lower_part, self.tokens, decides, lambda: self._states(limit_mb, folder))

    def encode_rows(self, rows: IntArray) -> Iterator[tuple[IntArray, Tensor]]:
        place = self.place[rows]
        for batch in token_batches(self.tokens, np.unique(place), self.way.batch_tokens):
            vectors = self._vectors(batch)
            # A text that several of the rows have is read once and handed to each of them. Batches ascend.
            here = np.flatnonzero((place >= batch[0]) & (place <= batch[-1]))
            yield rows[here], vectors[torch.from_numpy(np.searchsorted(batch, place[here])).to(self.way.device)]

    @torch.no_grad()
    def encode_all(self, progress: Progress | None = None) -> FloatArray:
        vectors = np.zeros((len(self.tokens), self.cut.encoder.width), np.float32)
        with evaluating(self.cut.encoder):
            for batch in self._all_batches():
                vectors[batch] = self._vectors(batch).cpu().numpy()
                if progress is not None:
                    progress(int(batch[-1]) + 1, len(vectors))
        return vectors[self.place]

    def _vectors(self, batch: IntArray) -> Tensor:
        offsets = self.tokens.offsets
        where = gather_ranges(self._every_token, offsets[batch], offsets[batch + 1])
        ids, mask = pad_tokens(self.tokens.take(batch))
        hidden = torch.zeros(*mask.shape, self.states.shape[1])
        hidden[mask] = self.states[torch.from_numpy(where.values)].float()
        device = self.way.device
        with self.way.run():
            return self.cut.upper(ids.to(device), mask.to(device), hidden.to(device))

    @torch.no_grad()
    def _states(self, limit_mb: int, folder: Path | None) -> Tensor:
        states = empty_states(len(self.tokens.values), self.cut.encoder.width, limit_mb, folder)
        with evaluating(self.cut.encoder):
            for batch in self._all_batches():
                ids, mask = pad_tokens(self.tokens.take(batch))
                with self.way.run():
                    hidden = self.cut.lower(ids.to(self.way.device), mask.to(self.way.device)).cpu()
                first, last = self.tokens.offsets[batch[0]], self.tokens.offsets[batch[-1] + 1]
                states[first:last] = hidden[mask].to(states.dtype)
        return states

    def _all_batches(self) -> Iterator[IntArray]:
        return token_batches(self.tokens, np.arange(len(self.tokens)), self.way.batch_tokens)


class CutEncoder:
    """A text encoder cut in two below layer `n_lower`; both parts share its weights.

    Works on any transformers model whose layers stand in one list: the parts are the model with a shorter list, and
    hidden states enter and leave where one layer meets the next. `is_whole_again` tells whether that holds.
    """

    def __init__(self, encoder: TextEncoder, n_lower: int) -> None:
        layers = transformer_layers(encoder)
        self.encoder, self.n_lower = encoder, n_lower
        self._last_lower, self._first_upper = layers[n_lower - 1], layers[n_lower]
        self.lower_part = with_layers(encoder.backbone, layers[:n_lower])
        self._upper = with_layers(encoder.backbone, layers[n_lower:])

    def lower(self, token_ids: Tensor, token_mask: Tensor) -> Tensor:
        """(N, L) ids and mask -> (N, L, W) the hidden states below layer `n_lower`."""
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            kept.append(output if isinstance(output, Tensor) else output[0])

        handle = self._last_lower.register_forward_hook(keep)
        try:
            self.lower_part(input_ids=token_ids, attention_mask=token_mask.long())
        finally:
            handle.remove()
        return kept[0]

    def upper(self, token_ids: Tensor, token_mask: Tensor, hidden: Tensor) -> Tensor:
        """(N, L) ids and mask, (N, L, W) states -> (N, D) unit vectors.

        The ids make places and masks as the model makes them; what its embeddings say of them is replaced.
        """

        def enter(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if inputs:
                return (hidden, *inputs[1:]), named
            return inputs, {**named, "hidden_states": hidden}

        handle = self._first_upper.register_forward_pre_hook(enter, with_kwargs=True)
        try:
            output = self._upper(input_ids=token_ids, attention_mask=token_mask.long()).last_hidden_state
        finally:
            handle.remove()
        return nn.functional.normalize(pool(output.float(), token_mask, self.encoder.pooling), dim=-1)

    @torch.no_grad()
    def is_whole_again(self, tokens: Ragged, device: torch.device) -> bool:
        """Whether both parts together are the model, on these texts."""
        ids, mask = (tensor.to(device) for tensor in pad_tokens(tokens))
        with evaluating(self.encoder), torch.autocast(device.type, enabled=False):
            try:
                found = self.upper(ids, mask, self.lower(ids, mask))
            except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
                _LOG.warning("this model cannot be cut between its layers: %s", error)
                return False
            return bool((1 - (found * self.encoder(ids, mask)).sum(1)).abs().max() < _SAME)


def build_reader(
    encoder: TextEncoder, tokens: Ragged, way: Way, limit_mb: int, folder: Path | None = None
) -> TextReader:
    """Over kept states where the lowest layers do not learn and the model can be cut; else the whole model."""
    n_lower = n_frozen_layers(encoder)
    if n_lower and limit_mb:
        cut = CutEncoder(encoder, n_lower)
        samples = np.argsort(tokens.lengths, kind="stable")[[0, len(tokens) // 2, -1]]
        if cut.is_whole_again(tokens.take(samples), way.device):
            return UpperReader(cut, tokens, way, limit_mb, folder)
        _LOG.warning("all layers are run for every text: those that do not learn could not be kept apart")
    return WholeReader(encoder, tokens, way)


def n_frozen_layers(encoder: TextEncoder) -> int:
    """How many of the lowest layers do not learn, where nothing below the layers that do learns either."""
    parts = parameter_parts(encoder)
    learns = [any(p.requires_grad for p in layer) for layer in parts.layers]
    if True not in learns:
        return 0
    first = learns.index(True)
    upper = {id(p) for layer in [*parts.layers[first:], parts.above] for p in layer}
    return first if all(id(p) in upper for p in encoder.parameters() if p.requires_grad) else 0


def with_layers(backbone: nn.Module, layers: list[nn.Module]) -> nn.Module:
    """The model with these layers for its own; nothing is copied but the modules on the way to the list."""
    name = next(
        name
        for name, module in backbone.named_modules()
        if isinstance(module, nn.ModuleList) and any(inner is layers[0] for inner in module)
    )
    top = _shallow(backbone)
    place = top
    *parents, last = name.split(".")
    for parent in parents:
        place._modules[parent] = place = _shallow(place.get_submodule(parent))
    place._modules[last] = nn.ModuleList(layers)
    return top


def _shallow(module: nn.Module) -> nn.Module:
    fresh = copy.copy(module)
    fresh._modules = dict(module._modules)
    return fresh


def empty_states(n_tokens: int, width: int, limit_mb: int, folder: Path | None) -> Tensor:
    """(T, W) bf16 in memory, or above the limit in a file without a name, which vanishes with the process."""
    if n_tokens * width * 2 <= limit_mb << 20:
        return torch.empty(n_tokens, width, dtype=torch.bfloat16)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        mapped = np.memmap(file, np.int16, "w+", shape=(n_tokens, width))
    return torch.from_numpy(mapped).view(torch.bfloat16)


def attention_for_learning(device: torch.device) -> AbstractContextManager[Any]:
    """Plain attention where a CPU learns in bf16: torch's fused one is several times slower there, backwards.

    In fp32, and where nothing is learnt, the fused one is the faster.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    learns_in_bf16 = device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
    return sdpa_kernel(SDPBackend.MATH) if learns_in_bf16 else nullcontext()


def checkpoint_layers(model: nn.Module) -> None:
    """Let a model of transformers keep only what goes into each layer while learning, and run the layer again for its gradient.

    Source: Chen et al. 2016, https://arxiv.org/abs/1604.06174. Raises RecipeError where the model cannot do it.
    """
    backbone: Any = model
    if not backbone.supports_gradient_checkpointing:
        raise RecipeError(
            f"encoder.checkpointing is on, and models of the kind '{backbone.config.model_type}' cannot do it. Turn it off"
        )

    def alike() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        """Contexts of the first and of the second run: attention must be computed the same way in both."""
        here = torch.device("cpu")  # elsewhere attention is the same anyway
        return attention_for_learning(here), attention_for_learning(here)

    # The newer name where it is there: transformers drops the older one in its version 6.
    enable = getattr(backbone, "activation_checkpointing_enable", None) or backbone.gradient_checkpointing_enable
    enable({"use_reentrant": False, "context_fn": alike})


@contextmanager
def evaluating(encoder: TextEncoder) -> Iterator[None]:
    """Without dropout until the block ends."""
    was_training = encoder.training
    encoder.eval()
    try:
        yield
    finally:
        encoder.train(was_training)
