"""Where the seconds of a long work went."""

import time
from dataclasses import dataclass, field


@dataclass
class Laps:
    """Seconds of the parts of one work, in the order in which they ended.

    >>> laps = Laps()
    >>> laps.end("read")
    >>> laps.end("train")
    >>> list(laps.seconds)
    ['read', 'train']
    """

    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = field(default_factory=time.monotonic)

    def end(self, name: str) -> None:
        """Since the last part ended this one was done."""
        now = time.monotonic()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self._since, 1)
        self._since = now
