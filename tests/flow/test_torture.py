"""A short torture: 25 kills of `make torture`; 75 more are in tests/unit/feedback/test_kill.py."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
N_KILLS = 25


def test_kills_of_the_service_of_updates_and_of_swaps_lose_nothing(fitted: Path, tmp_path: Path) -> None:
    shutil.copytree(fitted, tmp_path / "run")
    command = (sys.executable, "-m", "benchmarks.torture.run", "--folder", tmp_path, "--kills", str(N_KILLS))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert ended.returncode == 0, ended.stderr[-2_000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["kills"] == N_KILLS
    assert {row["victim"] for row in result["rounds"]} == {"serve", "swap", "update"}
    assert result["events"] > 10 * N_KILLS, "the service was killed before it did anything"
