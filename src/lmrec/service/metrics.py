"""Numbers for Prometheus, in a registry of their own, so that two services in one process do not mix."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from threading import Lock

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client import Counter as Count

from lmrec.artifacts.generation import GenerationInfo
from lmrec.fields import ItemId

_SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_DRIFT_LEVELS = ("steady", "moving", "shifted")
_LISTS = 5_000  # newest lists that coverage and cold share are measured on


class Metrics:
    """All of them, by name."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Count("lmrec_requests", "Requests answered.", ["method", "route", "status"], registry=registry)
        self.seconds = Histogram(
            "lmrec_request_seconds", "Time to answer.", ["method", "route"], buckets=_SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "lmrec_batch_size", "Questions answered by the model in one go.", buckets=_SIZES, registry=registry
        )
        self.lists = Count("lmrec_lists", "Lists recommended, by what they rest on.", ["basis"], registry=registry)
        self.events = Count("lmrec_events", "Events received.", ["outcome"], registry=registry)
        self.shown_lost = Count(
            "lmrec_shown_lost", "Shown lists that were not recorded: too many waited.", registry=registry
        )
        self.shadow_lost = Count(
            "lmrec_shadow_lost", "Lists whose shadow was not asked: too many waited.", registry=registry
        )
        self.failures = Count(
            "lmrec_failures", "Background work that failed and will be tried again.", ["work"], registry=registry
        )
        self.swaps = Count("lmrec_generation_swaps", "Generations put in place while serving.", registry=registry)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is computed when somebody looks."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def render(self) -> bytes:
        """The text format, version 0.0.4."""
        return generate_latest(self.registry)


def newest_drift(generations: Sequence[GenerationInfo]) -> float:
    """How far the events that the newest update took in had moved: 0 steady, 1 moving, 2 shifted; -1 where none says it.
    generations: oldest first."""
    found = [info.metrics["drift"]["overall"] for info in generations if "drift" in info.metrics]
    return _DRIFT_LEVELS.index(found[-1]) if found else -1.0


class ListStatistics:
    """What the newest lists show together: which share of the catalog, and how many rest on nothing known of a user."""

    def __init__(self, n_lists: int = _LISTS) -> None:
        self._lists: deque[tuple[tuple[ItemId, ...], bool]] = deque()
        self._n_lists = n_lists
        self._counts: Counter[ItemId] = Counter()
        self._cold = 0
        self._lock = Lock()

    def add(self, item_ids: Sequence[ItemId], cold: bool) -> None:
        with self._lock:
            self._lists.append((tuple(item_ids), cold))
            self._counts.update(item_ids)
            self._cold += cold
            if len(self._lists) > self._n_lists:
                oldest, was_cold = self._lists.popleft()
                self._cold -= was_cold
                self._counts.subtract(oldest)
                for item_id in oldest:
                    if self._counts[item_id] <= 0:
                        del self._counts[item_id]

    def cold_share(self) -> float:
        """Of the newest lists; 0 where there is none."""
        return self._cold / len(self._lists) if self._lists else 0.0

    def coverage(self, n_items: int) -> float:
        """Items that appear in the newest lists, as a share of `n_items`.

        >>> statistics = ListStatistics()
        >>> statistics.add(["1", "2"], cold=False)
        >>> statistics.coverage(8)
        0.25
        """
        return min(1.0, len(self._counts) / n_items) if n_items else 0.0
