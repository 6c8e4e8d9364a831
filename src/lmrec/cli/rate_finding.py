"""`lmrec find-rate`: thin over the learning-rate range test."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lmrec.cli.show import print_json, print_notes, say


def add_rate_finding(app: typer.Typer) -> None:
    """Register the command."""
    app.command(name="find-rate")(find_rate_command)


def find_rate_command(
    items: Annotated[Optional[Path], typer.Option("--items", help="Items, as for `lmrec fit`.")] = None,
    interactions: Annotated[Optional[Path], typer.Option("--interactions", help="Events, as for `lmrec fit`.")] = None,
    users: Annotated[Optional[Path], typer.Option("--users", help="Users and their attributes.")] = None,
    source: Annotated[
        Optional[str], typer.Option("--source", metavar="NAME", help="Instead of tables: an original format.")
    ] = None,
    path: Annotated[Optional[Path], typer.Option("--path", metavar="FOLDER", help="Where --source lies.")] = None,
    recipe: Annotated[Optional[Path], typer.Option("--recipe", help="A TOML file of choices.")] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="One choice. Repeatable.")
    ] = None,
    split: Annotated[Optional[str], typer.Option("--split", help="As for `lmrec fit`.")] = None,
    map_: Annotated[
        Optional[list[str]], typer.Option("--map", metavar="OURS=THEIRS", help="As for `lmrec fit`.")
    ] = None,
    part: Annotated[
        str, typer.Option("--part", help="towers (training.learning_rate) or language-model (encoder_learning_rate).")
    ] = "towers",
    out: Annotated[Optional[Path], typer.Option("--out", help="Also draw the curve: a .png.")] = None,
    low: Annotated[
        Optional[float], typer.Option("--low", help="First rate. Default: 1e-5, language-model 1e-7.")
    ] = None,
    high: Annotated[Optional[float], typer.Option("--high", help="Last rate. Default: 1, language-model 1e-2.")] = None,
    steps: Annotated[Optional[int], typer.Option("--steps", help="Steps. Default: 60, language-model 30.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Find a learning rate: a short training whose rate grows step by step (Smith 2017). Keeps nothing but the picture.

    The suggestion is where the loss falls fastest. It is a place to start: `lmrec fit --set training.learning_rate=...`.
    """
    from lmrec.cli.tables import Input, recipe_of
    from lmrec.errors import InputError
    from lmrec.idle import idle_notes
    from lmrec.workflows.find_rate import find_rate

    if part not in ("towers", "language-model"):
        raise InputError(f"--part {part}: it is towers or language-model")
    data = Input(items, interactions, users, source, path)
    data.check()
    chosen = recipe_of(recipe, set_, split, map_, "lmrec find-rate")
    print_notes([] if as_json else idle_notes(chosen.idle))
    found = find_rate(
        data.prepare(chosen),
        chosen,
        "towers" if part == "towers" else "language-model",
        out,
        low,
        high,
        steps,
        show=not quiet and not as_json,
    )
    if as_json:
        print_json(found.as_dict())
        return
    if found.sweep.suggestion is None:
        say(f"No rate up to {found.sweep.rates[-1]:.2g} lowers the loss. Try another range (--low, --high).")
    else:
        typer.echo(f"{found.key} = {found.sweep.suggestion:.2g}")
        say(f"There the loss falls fastest; the recipe has {found.current:g}.")
    if out is not None:
        say(f"Picture: {out}")
