"""From measured figures to 100 million items and a billion users: the table of docs/scaling.md.

    python -m benchmarks.speed.scaling            (writes the table into the page)

Each line is one measured cost (results/*.json; the sampled softmax is timed on the spot) times how often it comes at that
size, for growth is near linear (the figure `growth`). It is arithmetic about one core of the machine that measured; what it
cannot know, such as caches that no longer hold anything, makes it worse.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.pages import write_between
from benchmarks.speed.softmax import measure_here

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "benchmarks" / "speed" / "results"
PAGE: Final = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- scaling: begin -->", "<!-- scaling: end -->"

_WIDTH = 128
_TEXT_WIDTH = 384
_CODE_BYTES = 1.56  # a value: 8-bit code, letters as they are kept and as they are scanned, and the row's number
_JUDGED_USERS = 10_000  # of a billion: intervals are as narrow with more of them as anybody needs
_EVENT_BYTES = 100  # in an event store, index included
_EPOCHS = 3
_DRAWS = 512
_POSITIONS = 4_096


@dataclass(frozen=True)
class Size:
    """events: of each user."""

    items: int
    users: int
    events: int

    @property
    def n_events(self) -> int:
        return self.users * self.events


SIZES: Final = (Size(1_000_000, 10_000_000, 50), Size(100_000_000, 1_000_000_000, 50))


@dataclass(frozen=True)
class Measured:
    """One unit's cost on the machine that measured, in processor seconds and bytes.

    event_s, event_bytes: one event prepared. text_s: one short text encoded. sampled_s: one position against `_DRAWS` draws.
    pair_s: one item ranked for one user. search_s: one item looked at in a search by a sketch.
    """

    event_s: float
    event_bytes: float
    text_s: float
    sampled_s: float
    pair_s: float
    search_s: float


@dataclass(frozen=True)
class Line:
    what: str
    cost: str
    then: str


def measured(results: Path = RESULTS) -> Measured:
    def figure(name: str, what: str) -> Mapping[str, Any]:
        figures = json.loads((results / f"{name}.json").read_text(encoding="utf-8"))["figures"]
        return next(one for one in figures if one["what"] == what)

    searched = json.loads((results / "search_sizes.json").read_text(encoding="utf-8"))["1000000"]
    n_events, n_pairs = 10_000_000, 100_000 * 50_000
    return Measured(
        event_s=figure("data", "data, parquet to histories")["ours"] / n_events,  # one core, nearly
        event_bytes=figure("data", "data, parquet, peak memory")["ours"] * 1e9 / n_events,
        text_s=2 / figure("encode", "encode, short texts")["ours"],  # two cores
        sampled_s=measure_here("sampled", 10_000, _POSITIONS).busy / _POSITIONS,
        pair_s=2 * figure("evaluation", "evaluation")["ours"] / n_pairs,  # two cores
        search_s=searched["sketch_ms"]
        * 1e-3
        * _WIDTH
        / (1_000_000 * _TEXT_WIDTH),  # measured at the width of the texts
    )


def lines_of(size: Size, unit: Measured) -> list[Line]:
    """What each part of the arc costs at this size, and what takes over where one machine ends."""
    item_gb = size.items * _WIDTH * 4 / 1e9
    pairs = min(size.users, _JUDGED_USERS) * size.items
    return [
        Line(
            "events to split histories",
            f"{hours(size.n_events * unit.event_s)}, {size_of(size.n_events * unit.event_bytes)} of memory",
            "Spark or Polars' streaming engine, partitioned by user: only the cut in time looks at two users at once",
        ),
        Line(
            "catalog to text vectors",
            f"{hours(size.items * unit.text_s)}, {size_of(size.items * _TEXT_WIDTH * 4)} on disk",
            "Ray Data over GPUs: the vector cache is keyed by text, so shards need not know each other",
        ),
        Line(
            "item vectors, id residuals and their two moments",
            f"{size_of(4 * item_gb * 1e9)} of memory",
            "TorchRec (sharded embedding tables), or words alone (item.source = 'text'), which has no such table",
        ),
        Line(
            f"user model, {_EPOCHS} epochs, {_DRAWS} draws",
            hours(_EPOCHS * size.n_events * unit.sampled_s) + ", the softmax alone",
            "data parallel (accelerate, DDP): users are independent, and a billion of them say little that a sample does not",
        ),
        Line(
            f"judging {_JUDGED_USERS:,} users over the whole catalog",
            hours(pairs * unit.pair_s),
            "more machines, users apart; sampling users is sound, sampling items is not",
        ),
        Line(
            "one answer, by a sketch of every item",
            f"{1e3 * size.items * unit.search_s:,.1f} ms of one core, {size_of(size.items * _WIDTH * _CODE_BYTES)} of codes "
            f"and {size_of(size.items * _WIDTH * 4)} of vectors",
            "an index sharded over machines (Milvus, Vespa): each shard answers, the best are merged",
        ),
        Line(
            "events kept for the service",
            size_of(size.n_events * _EVENT_BYTES),
            "PostgreSQL partitioned by user to about a terabyte, then Cassandra or ScyllaDB behind Kafka: reads are by user",
        ),
    ]


def table_of(unit: Measured) -> str:
    """Markdown: a row a part, a column a size."""
    sides = [lines_of(size, unit) for size in SIZES]
    heads = [
        f"{size.items / 1e6:,.0f}M items, {size.users / 1e6:,.0f}M users, {size.events} events each" for size in SIZES
    ]
    rows = [f"| | {' | '.join(heads)} | what takes over |", "|---|" + "---|" * (len(SIZES) + 1)]
    for parts in zip(*sides, strict=True):
        rows.append(f"| {parts[0].what} | {' | '.join(part.cost for part in parts)} | {parts[0].then} |")
    return "\n".join(rows)


def limits_of(unit: Measured, memory_gb: float) -> dict[str, float]:
    """How much a machine with so much memory holds: events that `prepare` reads at once, items whose towers learn with ids."""
    return {"events": memory_gb * 1e9 / unit.event_bytes, "items": memory_gb * 1e9 / (4 * _WIDTH * 4)}


def hours(seconds: float) -> str:
    """
    >>> hours(90), hours(7200), hours(864000)
    ('1.5 core minutes', '2.0 core hours', '10 core days')
    """
    if seconds < 3600:
        return f"{seconds / 60:.1f} core minutes"
    return f"{seconds / 3600:.1f} core hours" if seconds < 2 * 86_400 else f"{seconds / 86_400:,.0f} core days"


def size_of(n_bytes: float) -> str:
    """
    >>> size_of(2.5e9), size_of(14e12)
    ('2.5 GB', '14.0 TB')
    """
    return f"{n_bytes / 1e12:,.1f} TB" if n_bytes >= 1e12 else f"{n_bytes / 1e9:,.1f} GB"


def written(unit: Measured) -> str:
    limits = limits_of(unit, 64)
    first = (
        f"A machine with 64 GB prepares at most {limits['events'] / 1e6:,.0f} million events at once and teaches id residuals "
        f"of at most {limits['items'] / 1e6:,.0f} million items."
    )
    return f"{first}\n\n{table_of(unit)}"


if __name__ == "__main__":
    write_between(PAGE, written(measured()), BEGIN, END)
