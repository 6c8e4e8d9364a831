"""`lmrec soup`: thin over the mean of runs' weights."""

from pathlib import Path
from typing import Annotated

import typer

from lmrec.cli.show import print_json, say


def add_souping(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(soup)


def soup(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders that share data, split and training.start_seed.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The run folder to make.")],
    by: Annotated[
        str, typer.Option("--by", help="greedy (a run joins where validation does not fall) or uniform (all do).")
    ] = "greedy",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """One model whose weights are the mean of several runs' (Wortsman 2022): what an ensemble knows at the cost of one.

    What is in it is chosen on validation alone. Runs differ in how they trained: rates, dropout, seeds of batches.
    """
    from lmrec.errors import InputError
    from lmrec.workflows.soup import soup_runs

    if by not in ("greedy", "uniform"):
        raise InputError(f"--by {by}: it is greedy or uniform")
    made = soup_runs(runs, out, "uniform" if by == "uniform" else "greedy", show=not quiet and not as_json)
    if as_json:
        print_json({"run": str(out), **made.run.read_record()["soup"]})
        return
    for place, (path, metric) in enumerate(zip(runs, made.alone, strict=True)):
        say(f"  {metric:.4f}  {path}{'' if place in made.chosen else '  (left out)'}")
    say(f"  {made.metric:.4f}  together, on validation")
    say(f"Done: {len(made.chosen)} of {len(runs)} runs in one. Next: lmrec evaluate {out}")
