"""What a stage of training costs: parameters that learn, seconds an epoch, memory at its fullest."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from threading import Event, Thread
from typing import Any, Final

import torch
from torch import nn

_SAMPLE_S: Final = 0.02
_MB: Final = 2**20


@dataclass
class StageCost:
    """tower_parameters, encoder_parameters: how many numbers learn. seconds: of each epoch, validation not counted.

    peak_mb: the most memory in use, of the GPU where there is one, else of the whole process. growth_mb: how much of that
    came on top of what the stage began with. Epochs before a resume are not in it.
    """

    tower_parameters: int = 0
    encoder_parameters: int = 0
    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0
    growth_mb: float = 0.0
    _before_mb: float | None = None

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Measures what runs inside as one epoch."""
        before_mb = _used_mb()
        if self._before_mb is None:
            self._before_mb = before_mb
        started = time.perf_counter()
        with _peak() as peak_mb:
            yield
        self.seconds.append(time.perf_counter() - started)
        self.peak_mb = max(self.peak_mb, peak_mb[0])
        self.growth_mb = max(0.0, self.peak_mb - self._before_mb)

    def as_dict(self) -> dict[str, Any]:
        """For the run's record: the mean of the seconds, whole megabytes."""
        values = {name: value for name, value in asdict(self).items() if not name.startswith("_")}
        n_epochs = len(self.seconds)
        return {
            **values,
            "epochs": n_epochs,
            "seconds": round(sum(self.seconds) / n_epochs, 3) if n_epochs else None,
            "peak_mb": round(self.peak_mb),
            "growth_mb": round(self.growth_mb),
        }


def count_trainable(module: nn.Module | None) -> int:
    """How many numbers of a module learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad) if module is not None else 0


@contextmanager
def _peak() -> Iterator[list[float]]:
    """The most memory in use while inside, in the one place of the list once it is over."""
    peak = [_used_mb()]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak[0] = torch.cuda.max_memory_allocated() / _MB
        return
    over = Event()

    def watch() -> None:
        while not over.wait(_SAMPLE_S):
            peak[0] = max(peak[0], _used_mb())

    watcher = Thread(target=watch, name="lmrec-memory", daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
        peak[0] = max(peak[0], _used_mb())


def _used_mb() -> float:
    import psutil

    if torch.cuda.is_available():
        return torch.cuda.memory_allocated() / _MB
    return float(psutil.Process().memory_info().rss) / _MB
