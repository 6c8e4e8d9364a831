"""Data: ten million events from Parquet (and as CSV) to split histories, by `prepare`, as `lmrec fit` begins.

The reference is the plain way in pandas where it is installed: read, drop duplicates, sort, time split, group by user.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.speed.figure import Figure
from lmrec.fields import ITEM_ID, TIMESTAMP, USER_ID

N_EVENTS, N_ITEMS, EVENTS_PER_USER = 10_000_000, 50_000, 50
SECONDS = {"parquet": 20.0, "csv": 60.0}


def main(small: bool) -> list[Figure]:
    n_events = N_EVENTS // 20 if small else N_EVENTS
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder), n_events)
        for ending, limit_s in SECONDS.items():
            seconds, busy, peak_mb, grown_mb = prepare_alone(Path(folder), ending)
            note = f"{n_events:,} events, {n_events // EVENTS_PER_USER:,} users; {busy:.0f} s of processor time"
            figures.append(Figure(f"data, {ending} to histories", seconds, limit_s, "s", "limit", note))
            figures.append(
                Figure(
                    f"data, {ending}, peak memory",
                    peak_mb / 1000,
                    3.0,
                    "GB",
                    "limit",
                    f"{grown_mb:.0f} MB over the start",
                )
            )
        plain = plainly(Path(folder))
        if plain is not None:
            ours = figures[0]
            figures.append(
                Figure("data, parquet, pandas", ours.ours, plain, "s", "pandas, no checks, no proof", ours.note)
            )
    return figures


def write_tables(folder: Path, n_events: int) -> None:
    """A log with a long tail of items, in no order, as a shop would dump it; and the catalog."""
    rng = np.random.default_rng(0)
    users = rng.integers(0, n_events // EVENTS_PER_USER, n_events)
    items = (N_ITEMS * rng.random(n_events) ** 2).astype(np.int64)
    times = 1_600_000_000 + rng.integers(0, 50_000_000, n_events)
    events = pl.DataFrame({USER_ID: users, ITEM_ID: items, TIMESTAMP: times})
    events = events.with_columns(pl.format("u{}", pl.col(USER_ID)).alias(USER_ID))
    titles = [f"The red kettle number {item}, of steel" for item in range(N_ITEMS)]
    catalog = pl.DataFrame({ITEM_ID: np.arange(N_ITEMS), "title": titles})
    for name, frame in (("interactions", events), ("items", catalog)):
        frame.write_parquet(folder / f"{name}.parquet")
        frame.write_csv(folder / f"{name}.csv")


def prepare_alone(folder: Path, ending: str) -> tuple[float, float, float, float]:
    """Seconds, processor seconds, the peak of memory and its growth (MB) of `prepare` in a process of its own."""
    code = f"""
import resource, time
from lmrec.recipe import load_recipe
from lmrec.workflows.prepare import prepare
recipe = load_recipe()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, wall, busy = peak(), time.perf_counter(), time.process_time()
made = prepare({str(folder / "items")!r} + ".{ending}", {str(folder / "interactions")!r} + ".{ending}", None, recipe)
assert len(made.split.test) and len(made.split.train)
print(time.perf_counter() - wall, time.process_time() - busy, peak(), peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    seconds, busy, peak_mb, grown_mb = map(float, done.stdout.split())
    return seconds, busy, peak_mb, grown_mb


def plainly(folder: Path) -> float | None:
    """Seconds of the plain way; None without pandas."""
    code = f"""
import time
import pandas as pd
wall = time.perf_counter()
log = pd.read_parquet({str(folder / "interactions.parquet")!r})
log = log.drop_duplicates().sort_values("timestamp", kind="stable")
cut = log["timestamp"].quantile(0.8)
histories = log[log["timestamp"] < cut].groupby("user_id")["item_id"].agg(list)
later = log[log["timestamp"] >= cut].groupby("user_id")["item_id"].agg(list)
print(time.perf_counter() - wall)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    return float(done.stdout) if done.returncode == 0 else None
