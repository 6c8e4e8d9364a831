"""How quickly the service answers: 100,000 items, a client process on loopback, personal lists.

Each request names a user whose 40 newest events are in the store; their history is read, the user model runs, all items
are ranked exactly, half of the requests with a filter, and what was shown is written down. Limits are those of issue 5:
p99 of 10 ms at four clients and 500 requests a second.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.figure import Figure
from benchmarks.speed.serve.service import Service, served
from benchmarks.speed.serve.world import World, WorldSize, build_world

FOLDER = Path(__file__).parents[1]
ROOT = FOLDER.parents[1]
SCENES: dict[str, dict[str, float]] = {
    "1 client": {"concurrency": 1},
    "4 clients": {"concurrency": 4},
    "16 clients": {"concurrency": 16},
    "4 clients, 100 events/s, 5 upserts/s": {"concurrency": 4, "events_per_s": 100, "upserts_per_s": 5},
    "open loop, 200/s": {"rate": 200},
    "open loop, 400/s": {"rate": 400},
}
MORE_WORKERS = 2  # one for each core, with the client beside them
MORE_SCENES: dict[str, dict[str, float]] = {name: SCENES[name] for name in ("4 clients", "16 clients")}
_WARM_S = 5.0  # workers load one after the other, and which one a question reaches is the system's choice
_SHARES = (50, 90, 95, 99)
_WIDTHS = ((0.0, 128), (4.0, 512))  # weight of the words' own cosine, and what is then searched


def main(small: bool) -> list[Figure]:
    size = WorldSize(8_000, 1_000, 20, 500, 20) if small else WorldSize()
    data = Path(os.environ.get("LMREC_DATA", ROOT.parent / "shared" / "data"))
    figures: list[Figure] = []
    curves: dict[str, list[float]] = {}
    for content, width in _WIDTHS[:1] if small else _WIDTHS:
        folder = ROOT / "runs" / f"bench-serve-{size.items}-{width}"
        world = build_world(folder, data, size, content)
        note = f"{size.items:,} items x {width}"
        for workers, scenes in ((1, SCENES), (MORE_WORKERS, MORE_SCENES)):
            with served(world.run, folder / "service.log", workers) as service:
                if workers == 1:
                    figures += _starting(service, world, note)
                else:
                    time.sleep(_WARM_S)
                for scene, choices in scenes.items():
                    name = scene if workers == 1 else f"{workers} workers, {scene}"
                    tally = service.load(
                        seconds=1.5 if small else 10.0, n_items=world.n_items, n_users=len(world.store_users), **choices
                    )
                    figures += _answers(name, tally, note)
                    curves[f"{name}, {width} wide"] = tally["ms"]["recommend"]
    _draw(curves, FOLDER / "results" / ("small" if small else "") / "serve.svg")
    return figures


def _starting(service: Service, world: World, note: str) -> list[Figure]:
    with service.client as client:
        item_s = [_new_item_s(client, n) for n in range(5)]
        plain_s, words_s = (
            [_explain_s(client, world.store_users[n], n, words) for n in range(10)] for words in (False, True)
        )
    return [
        Figure("start to ready", service.ready_s, 5.0, "s", "limit", note),
        Figure("start to words", service.knows_words_s, 10.0, "s", "none set", note),
        Figure("new item, put to found", float(np.median(item_s)), 1.0, "s", "limit", note),
        Figure("explanation without words, median", 1e3 * float(np.median(plain_s)), 300.0, "ms", "before", note),
        Figure("explanation with words, median", 1e3 * float(np.median(words_s)), 500.0, "ms", "before", note),
    ]


def _new_item_s(client: Any, n: int) -> float:
    title = f"A quiet clockwork lighthouse of brass, number {n}"
    started = time.perf_counter()
    client.put(f"/v1/items/bench-{n}", json={"title": title}).raise_for_status()
    found = client.post("/v1/similar", json={"text": title, "k": 5}).raise_for_status().json()["items"]
    seconds = time.perf_counter() - started
    assert f"bench-{n}" in [item["item_id"] for item in found], "a new item was not found"
    return seconds


def _explain_s(client: Any, user: str, n: int, words: bool) -> float:
    shown = client.post("/v1/recommendations", json={"user_id": user, "k": 10}).raise_for_status().json()["items"]
    started = time.perf_counter()
    question = {"user_id": user, "item_id": shown[n]["item_id"], "words": words}
    client.post("/v1/explanations", json=question).raise_for_status()
    return time.perf_counter() - started


def _answers(name: str, tally: dict[str, Any], note: str) -> list[Figure]:
    ms = np.array(tally["ms"]["recommend"])
    p50, p90, p95, p99 = np.percentile(ms, _SHARES)
    others = "".join(
        f"; {kind} p99 {np.percentile(times, 99):.1f} ms" for kind, times in tally["ms"].items() if kind != "recommend"
    )
    failed = sum(tally["failed"].values())
    more = f"{note}; p50 {p50:.1f}, p90 {p90:.1f}, p95 {p95:.1f} ms{others}; {failed} failed"
    rate = len(ms) / tally["seconds"]
    return [
        Figure(f"{name}: p99", float(p99), 10.0, "ms", "limit", more),
        Figure(f"{name}: throughput", rate, 500.0, "requests/s", "limit", note),
    ]


def _draw(curves: dict[str, list[float]], file: Path) -> None:
    """The share of requests that took longer than so many milliseconds."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, ms in curves.items():
        ordered = np.sort(ms)
        axes.plot(ordered, 100 * (1 - np.arange(len(ordered)) / len(ordered)), label=name, linewidth=1)
    axes.axvline(10.0, color="grey", linestyle=":", linewidth=1)
    axes.axhline(1.0, color="grey", linestyle=":", linewidth=1)
    axes.set(
        xscale="log", yscale="log", xlabel="milliseconds", ylabel="% of requests that took longer", ylim=(0.05, 100)
    )
    axes.legend(fontsize=7)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    plt.close(figure)
