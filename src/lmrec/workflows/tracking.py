"""Where the numbers of a training go: metrics.jsonl always, and the trackers that the recipe names, through accelerate.

TensorBoard's files lie in the run folder. Weights & Biases takes its key from the environment alone; its run goes on under
one id from training to judging, and `WANDB_MODE=offline` keeps it in the run folder until `wandb sync`.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from lmrec.artifacts.run import RunFolder
from lmrec.errors import InputError, MissingExtraError
from lmrec.training.tracking import TrackingConfig

_OFFLINE = ("offline", "dryrun", "disabled")


def check_tracking(config: TrackingConfig) -> list[str]:
    """Notes on what will not be written. Raises where wandb is asked for and cannot be reached: before any work."""
    if "wandb" in config.to:
        if find_spec("wandb") is None:
            raise MissingExtraError("tracking.to 'wandb'", "wandb", "wandb")
        if os.environ.get("WANDB_MODE") not in _OFFLINE and not os.environ.get("WANDB_API_KEY"):
            raise InputError(
                "tracking.to names wandb, and WANDB_API_KEY is not set in the environment. Set it, or WANDB_MODE=offline"
            )
    if "tensorboard" in config.to and not has_tensorboard():
        return ["TensorBoard events are not written: its package is missing. Type: pip install 'lmrec[tensorboard]'"]
    return []


@contextmanager
def epoch_recorder(
    run: RunFolder, config: TrackingConfig, recipe_text: str
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields a function that takes one flat row for each epoch. The recipe is written down first, where the run is new."""
    started = time.monotonic()
    n_rows = len(run.read_metrics())
    with _open_trackers(run, config) as trackers:
        if not n_rows:
            _write_text(trackers, "recipe", f"```toml\n{recipe_text}\n```", 0)

        def record(row: dict[str, Any]) -> None:
            nonlocal n_rows
            n_rows += 1
            run.append_metrics({"step": n_rows, **row, "seconds": round(time.monotonic() - started, 2)})
            curves = {f"{row['stage']}/{name}": value for name, value in row.items() if isinstance(value, float)}
            for tracker in trackers:
                tracker.log(curves, step=n_rows)

        yield record


def record_judgement(
    run: RunFolder,
    config: TrackingConfig,
    table: tuple[Sequence[str], Sequence[Sequence[str]]],
    samples: Mapping[str, str],
) -> None:
    """The judge's table (names of columns, rows) and samples of recommendations (who -> what), to all trackers."""
    step = len(run.read_metrics()) + 1
    columns, rows = table
    with _open_trackers(run, config) as trackers:
        lines = ["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows)]
        _write_text(trackers, "judgement", "\n".join(lines), step)
        shown = "\n\n".join(f"**{who}**: {what}" for who, what in samples.items())
        _write_text(trackers, "recommendations", shown, step)
        for tracker in trackers:
            if tracker.name == "wandb":
                tracker.log_table("judgement_table", columns=list(columns), data=[list(row) for row in rows], step=step)


def has_tensorboard() -> bool:
    return find_spec("tensorboard") is not None


def _write_text(trackers: Sequence[Any], name: str, text: str, step: int) -> None:
    for tracker in trackers:
        tracker.log({name: text}, step=step)


@contextmanager
def _open_trackers(run: RunFolder, config: TrackingConfig) -> Iterator[list[Any]]:
    opened: list[Any] = []
    try:
        for name in config.to:
            if name == "wandb":
                tracker = _wandb_tracker(run, config)
            elif has_tensorboard():
                tracker = _tensorboard_tracker(run)
            else:
                continue
            tracker.start()
            opened.append(tracker)
        yield opened
    finally:
        for tracker in opened:
            tracker.finish()


def _tensorboard_tracker(run: RunFolder) -> Any:
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker("", run.tensorboard)


def _wandb_tracker(run: RunFolder, config: TrackingConfig) -> Any:
    import wandb
    from accelerate.tracking import WandBTracker

    record = run.read_record()
    run_id = record.get("wandb_id") or uuid.uuid4().hex[:12]
    run.update_record(wandb_id=run_id)
    return WandBTracker(
        config.project,
        id=run_id,
        name=run.path.name,
        resume="allow",
        dir=str(run.path),
        settings=wandb.Settings(silent=True, console="off"),
    )
