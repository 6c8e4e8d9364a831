"""What lower layers made of a catalog, handed from one fit to the next of a search.

Trials of one search read the same texts by the same language model, and most leave its lowest layers alone. Within
`sharing_states()` the states that a reader kept last (`lmrec.models.reading.UpperReader`) are there for the next one that
asks for the very same: weights, texts, precision and batches decide. One set of states is held, until the block ends.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from lmrec.fields import Ragged

_HELD: ContextVar[dict[str, Tensor] | None] = ContextVar("held states", default=None)


@contextmanager
def sharing_states() -> Iterator[None]:
    """Until the block ends, states are handed on; blocks may lie in one another."""
    token = _HELD.set({} if (held := _HELD.get()) is None else held)
    try:
        yield
    finally:
        _HELD.reset(token)


def shared_states(lower: nn.Module, tokens: Ragged, way: tuple[object, ...], make: Callable[[], Tensor]) -> Tensor:
    """(T, W) the states of these texts' T tokens below the upper layers: those that are held, or what `make` gives.

    lower: the layers that make them. way: what else decides their values. Whoever takes them must not write into them.
    """
    held = _HELD.get()
    if held is None:
        return make()
    key = _fingerprint(lower, tokens, way)
    if key not in held:
        held.clear()  # before others are made: only one set has room
        held[key] = make()
    return held[key]


def _fingerprint(lower: nn.Module, tokens: Ragged, way: tuple[object, ...]) -> str:
    digest = hashlib.sha256(repr(way).encode())
    for part in (tokens.values, tokens.offsets):
        digest.update(part.tobytes())
    for name, value in lower.state_dict().items():
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        digest.update(plain.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
