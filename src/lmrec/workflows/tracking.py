"""Where the numbers of a training go: metrics.jsonl always, and the trackers that the recipe names, through accelerate.

TensorBoard's files lie in the folder that is made. Weights & Biases takes its key from the environment alone; its run goes on
under one id from training to judging, and `WANDB_MODE=offline` keeps it in that folder until `wandb sync`.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lmrec.artifacts.curves import Curves
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
    curves: Curves, config: TrackingConfig, recipe_text: str, told: Sequence[Mapping[str, Any]] = ()
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields a function that takes one flat row for each epoch. The recipe comes first, where nothing was told yet.

    told: rows of the same training before it was resumed; what they tell is not told again, though a call that was killed
    between an epoch's row and its state learns that epoch once more.
    """
    known = {(row["stage"], row["epoch"]) for row in told}
    started = time.monotonic()
    n_rows = len(curves.read())
    with _open_trackers(curves, config) as trackers:
        if not n_rows:
            _write_text(trackers, "recipe", f"```toml\n{recipe_text}\n```", 0)

        def record(row: dict[str, Any]) -> None:
            nonlocal n_rows
            if (row["stage"], row["epoch"]) in known:
                return
            n_rows += 1
            curves.append({"step": n_rows, **row, "seconds": round(time.monotonic() - started, 2)})
            values = {f"{row['stage']}/{name}": value for name, value in row.items() if isinstance(value, float)}
            for tracker in trackers:
                tracker.log(values, step=n_rows)

        yield record


def record_judgement(
    curves: Curves,
    config: TrackingConfig,
    table: tuple[Sequence[str], Sequence[Sequence[str]]],
    samples: Mapping[str, str],
) -> None:
    """The judge's table (names of columns, rows) and samples of recommendations (who -> what), to all trackers."""
    step = len(curves.read()) + 1
    columns, rows = table
    with _open_trackers(curves, config) as trackers:
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
def _open_trackers(curves: Curves, config: TrackingConfig) -> Iterator[list[Any]]:
    opened: list[Any] = []
    try:
        for name in config.to:
            if name == "wandb":
                tracker = _wandb_tracker(curves, config)
            elif has_tensorboard():
                tracker = _tensorboard_tracker(curves.tensorboard)
            else:
                continue
            tracker.start()
            opened.append(tracker)
        yield opened
    finally:
        for tracker in opened:
            tracker.finish()


def _tensorboard_tracker(folder: Path) -> Any:
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker("", folder)


def _wandb_tracker(curves: Curves, config: TrackingConfig) -> Any:
    import wandb
    from accelerate.tracking import WandBTracker

    return WandBTracker(
        config.project,
        id=curves.wandb_id(),
        name=curves.folder.name,
        resume="allow",
        dir=str(curves.folder),
        settings=wandb.Settings(silent=True, console="off"),
    )
