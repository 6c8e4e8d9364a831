"""`lmrec ensemble`: thin over the ensemble of fitted runs."""

from pathlib import Path
from typing import Annotated

import typer

from lmrec.cli.show import say


def add_ensembling(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(ensemble)


def ensemble(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders fitted on the same data and split.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The run folder to make.")],
    by: Annotated[
        str, typer.Option("--by", help="scores, or ranks (reciprocal; needs no common scale; not explained).")
    ] = "scores",
    learn: Annotated[
        bool, typer.Option("--learn", help="By scores: weights from validation, instead of equal spreads.")
    ] = False,
) -> None:
    """Several runs as one: with other seeds, encoders or recipes. It recommends, is judged, compared and served as a run is."""
    from lmrec.errors import InputError
    from lmrec.workflows.ensemble import ensemble_runs

    if by not in ("scores", "ranks"):
        raise InputError(f"--by {by}: it is scores or ranks")
    ensemble_runs(runs, out, "ranks" if by == "ranks" else "scores", learn)
    say(f"Done: {len(runs)} runs answer as one. Next: lmrec evaluate {out}")
