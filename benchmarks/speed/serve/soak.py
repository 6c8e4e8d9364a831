"""`make bench-soak`: ten minutes of mixed load; does the process's memory stay where it is?

100 requests and 20 events a second with an upsert a second, in the open loop, so that what is asked is the same in every
minute. Resident memory is read each 10 seconds; the first two minutes fill caches and do not count.
"""

import json
import os
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.speed.serve.service import served
from benchmarks.speed.serve.world import WorldSize, build_world

ROOT = Path(__file__).parents[3]
SECONDS = float(os.environ.get("SOAK_SECONDS", 600.0))
WARM_S = SECONDS / 5


def main() -> None:
    data = Path(os.environ.get("LMREC_DATA", ROOT.parent / "shared" / "data"))
    folder = ROOT / "runs" / "bench-serve-100000-128"
    world = build_world(folder, data, WorldSize(), 0.0)
    samples: list[tuple[float, float]] = []
    with served(world.run, folder / "service.log") as service:
        started, done = time.perf_counter(), threading.Event()

        def watch() -> None:
            while not done.wait(10.0):
                samples.append((time.perf_counter() - started, service.resident_mb))

        watcher = threading.Thread(target=watch)
        watcher.start()
        tally = service.load(
            seconds=SECONDS, n_items=world.n_items, n_users=len(world.store_users),
            rate=100, events_per_s=20, upserts_per_s=1,
        )  # fmt: skip
        done.set()
        watcher.join()
    seconds, resident = np.array([sample for sample in samples if sample[0] >= WARM_S]).T
    slope = float(np.polyfit(seconds / 60, resident, 1)[0])
    result = {
        "seconds": SECONDS,
        "requests": {kind: len(ms) for kind, ms in tally["ms"].items()},
        "failed": tally["failed"],
        "p99_ms": float(np.percentile(tally["ms"]["recommend"], 99)),
        "resident_mb": {"first": resident[0], "last": resident[-1], "most": resident.max()},
        "mb_a_minute": slope,
        "samples": samples,
    }
    file = Path(__file__).parents[1] / "results" / "soak.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in result.items() if name != "samples"}, indent=1))


if __name__ == "__main__":
    main()
