"""Time and memory of this process. Plain Python: rivals in their own environment import it too."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds since it was made: by the clock, and of processors (which other jobs on the machine change less)."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "seconds": round(time.monotonic() - self._wall, 2),
            "cpu_seconds": round(time.process_time() - self._cpu, 2),
        }

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside does not count."""
        wall, cpu = time.monotonic(), time.process_time()
        yield
        self._wall += time.monotonic() - wall
        self._cpu += time.process_time() - cpu


def peak_mb() -> int:
    """The most memory that this process has held, in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
