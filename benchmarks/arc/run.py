"""`make bench-arc`: Scientific's raw tables -> tuned, judged, indexed, served, first answer; and where the seconds went.

The commands that a user types, each in a process of its own, with an empty cache of vectors (the language model itself is
there). The table goes to benchmarks/arc/RESULTS.md. The limit of issue 6 is ten minutes on two cores.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.speed.run import where
from benchmarks.speed.serve.service import served
from benchmarks.speed.worlds import data_folder
from lmrec.artifacts.pretrained import cache_folder, locate_pretrained
from lmrec.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
RUN = ROOT / "runs" / "bench-arc"
LIMIT_S = 600.0


def main() -> None:
    recipe = ROOT / "recipes" / "amazon-scientific.toml"
    location = locate_pretrained(load_recipe(recipe).encoder.name)  # fetched before the clock starts
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)
    cache = RUN / "cache"
    (cache / "models").mkdir(parents=True)
    (cache / "models" / Path(location).name).symlink_to(cache_folder() / "models" / Path(location).name)
    environment = {**os.environ, "LMREC_CACHE": str(cache)}
    data, out = data_folder() / "amazon-scientific", RUN / "run"
    seconds: dict[str, float] = {}
    tables = ("--items", data / "items.parquet", "--interactions", data / "interactions.parquet")
    seconds["fit"] = lmrec(environment, "fit", *tables, "--recipe", recipe, "--out", out, "--no-judge", "--quiet")
    seconds["judge"] = lmrec(environment, "evaluate", out, "--quiet")
    began = time.perf_counter()
    with served(out, RUN / "service.log") as service, service.client as client:
        answer = client.post("/v1/recommendations", json={"text": "a microscope for children", "k": 5})
        answer.raise_for_status()
        seconds["serve, to the first answer for words"] = time.perf_counter() - began
    print("\n".join(item["title"] for item in answer.json()["items"]))
    text = table(seconds, json.loads((out / "run.json").read_text(encoding="utf-8")))
    (FOLDER / "RESULTS.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}")


def lmrec(environment: dict[str, str], *words: str | Path) -> float:
    """Seconds of a command; the benchmark ends where it fails."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "lmrec.cli.app", *map(str, words)], env=environment, check=False)
    if done.returncode:
        sys.exit(f"`lmrec {words[0]}` ended with {done.returncode}")
    return time.perf_counter() - began


def table(seconds: dict[str, float], record: dict[str, Any]) -> str:
    place = where()
    whole = sum(seconds.values())
    stages = record["training"].get("costs", {})
    fitted = sum(record["laps"].values())
    rows = [
        *((name, value) for name, value in seconds.items()),
        ("all", whole),
        ("of fit: start, read, check and split", seconds["fit"] - fitted),
        *((f"of fit: {name}", value) for name, value in record["laps"].items()),
        *((f"of train: an epoch, {regime} language model", cost["seconds"]) for regime, cost in stages.items()),
    ]
    return "\n".join(
        [
            "# From raw tables to the first answer",
            "",
            f"`make bench-arc`, commit {place['commit']}, {place['cores']} cores ({place['cpu']}), {place['when']}, load "
            f"{place['load']:.1f} at the end; Amazon Scientific, the default recipe. Limit {LIMIT_S:.0f} s: "
            f"{'kept' if whole <= LIMIT_S else 'missed'}.",
            "",
            "| | seconds |",
            "|---|---|",
            *(f"| {name} | {value:.1f} |" for name, value in rows),
        ]
    )


if __name__ == "__main__":
    main()
