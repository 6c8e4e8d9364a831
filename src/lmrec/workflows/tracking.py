"""Where the numbers of a training go: metrics.jsonl always, TensorBoard where it is installed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lmrec.artifacts.run import RunFolder


@contextmanager
def epoch_recorder(run: RunFolder) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields a function that takes one flat row for each epoch."""
    started = time.monotonic()
    writer = _tensorboard_writer(run)
    n_rows = len(run.read_metrics())

    def record(row: dict[str, Any]) -> None:
        nonlocal n_rows
        n_rows += 1
        run.append_metrics({"step": n_rows, **row, "seconds": round(time.monotonic() - started, 2)})
        if writer is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    writer.add_scalar(f"{row['stage']}/{name}", value, n_rows)
            writer.flush()

    try:
        yield record
    finally:
        if writer is not None:
            writer.close()


def has_tensorboard() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None


def _tensorboard_writer(run: RunFolder) -> Any:
    if not has_tensorboard():
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run.tensorboard))
