"""The last hour in memory, for the console: requests a minute, and how long the newest ones took, by route."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

_MINUTES = 60
_LATENCIES = 1_000  # newest requests of a route whose times are kept


@dataclass
class _Minute:
    start_ts: float
    statuses: Counter[str] = field(default_factory=Counter)  # "2xx" ...
    routes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class RouteTimes:
    """Milliseconds of the newest requests of one route."""

    route: str
    n: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


class Traffic:
    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._minutes: deque[_Minute] = deque(maxlen=_MINUTES)
        self._times: dict[str, deque[float]] = {}
        self._lock = Lock()

    def add(self, route: str, status: int, seconds: float) -> None:
        start = self._clock() // 60 * 60
        with self._lock:
            if not self._minutes or self._minutes[-1].start_ts < start:
                self._minutes.append(_Minute(start))
            minute = self._minutes[-1]
            minute.statuses[f"{status // 100}xx"] += 1
            minute.routes[route] += 1
            self._times.setdefault(route, deque(maxlen=_LATENCIES)).append(seconds)

    def minutes(self) -> list[tuple[float, dict[str, int], dict[str, int]]]:
        """(start, requests by kind of status, requests by route), oldest first; quiet minutes are left out."""
        since = self._clock() - _MINUTES * 60
        with self._lock:
            kept = [minute for minute in self._minutes if minute.start_ts >= since]
            return [(minute.start_ts, dict(minute.statuses), dict(minute.routes)) for minute in kept]

    def times(self) -> list[RouteTimes]:
        with self._lock:
            seconds = {route: sorted(values) for route, values in self._times.items()}
        return [_route_times(route, values) for route, values in sorted(seconds.items())]


def _route_times(route: str, ordered: list[float]) -> RouteTimes:
    def at(share: float) -> float:
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

    return RouteTimes(route, len(ordered), at(0.5), at(0.95), at(0.99))
