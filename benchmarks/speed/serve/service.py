"""`lmrec serve` as a process of its own on loopback, and what is to be known of that process."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.speed.serve.load import Plan, free_port, run_client

_START_S = 120.0


@dataclass(frozen=True)
class Service:
    port: int
    process: subprocess.Popen[bytes]
    ready_s: float
    knows_words_s: float

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    def load(self, **plan: Any) -> dict[str, Any]:
        """What a client process measured."""
        return run_client(Plan(port=self.port, **plan))

    @property
    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * 4096 / 1e6


@contextmanager
def served(run: Path, log: Path, workers: int = 1) -> Iterator[Service]:
    """Ready, and with the language model loaded, which is measured apart. The rate of one address is set out of the way."""
    port = free_port()
    more = ("--port", str(port), "--rate", "100000", "--workers", str(workers))
    command = (sys.executable, "-m", "lmrec.cli.app", "serve", str(run), *more)
    with log.open("ab") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            base = f"http://127.0.0.1:{port}"
            ready_s = _until(process, f"{base}/readyz", started, "")
            yield Service(port, process, ready_s, _until(process, f"{base}/readyz", started, '"knows_words":true'))
        finally:
            process.terminate()
            process.wait(60)


def _until(process: subprocess.Popen[bytes], url: str, started: float, said: str) -> float:
    while process.poll() is None and time.perf_counter() - started < _START_S:
        with suppress(httpx.HTTPError):
            answer = httpx.get(url)
            if answer.status_code == 200 and said in answer.text:
                return time.perf_counter() - started
        time.sleep(0.02)
    raise SystemExit(f"the service did not come up (exit code {process.poll()}); see its log")
