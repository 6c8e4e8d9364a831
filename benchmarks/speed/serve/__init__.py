"""The service under load: a world of 100,000 items, a client process, latencies. See run.py."""

from benchmarks.speed.serve.run import main

__all__ = ["main"]
