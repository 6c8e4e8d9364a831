"""Torch's random generators, as a training that goes on must find them: the processor's, and the graphics card's beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

Generators: TypeAlias = tuple[Tensor, Tensor | None]


def generators() -> Generators:
    """As they stand: the CPU's and, where there is one, the current CUDA device's."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def set_generators(states: Generators) -> None:
    """Let them stand so. A state of CUDA is left out where that is gone: a training may go on elsewhere."""
    own, device = states
    torch.set_rng_state(own)
    if device is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(device)


@contextmanager
def generators_at(states: Generators) -> Iterator[None]:
    """A block that draws from there; behind it they stand as before."""
    before = generators()
    set_generators(states)
    try:
        yield
    finally:
        set_generators(before)
