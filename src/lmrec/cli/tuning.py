"""`lmrec tune`: thin over the search for a better recipe."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Optional

import typer

from lmrec.cli.show import print_json, print_notes, print_rows, say
from lmrec.cli.tables import Input, recipe_of


def add_tuning(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(tune)


def tune(
    out: Annotated[Path, typer.Option("--out", help="The study's folder; the same one goes on where it stopped.")],
    items: Annotated[Optional[Path], typer.Option("--items", help="Items, as for `lmrec fit`.")] = None,
    interactions: Annotated[Optional[Path], typer.Option("--interactions", help="Events, as for `lmrec fit`.")] = None,
    users: Annotated[Optional[Path], typer.Option("--users", help="Users and their attributes.")] = None,
    source: Annotated[
        Optional[str], typer.Option("--source", metavar="NAME", help="Instead: an original format.")
    ] = None,
    path: Annotated[Optional[Path], typer.Option("--path", metavar="FOLDER", help="Where --source lies.")] = None,
    recipe: Annotated[
        Optional[Path], typer.Option("--recipe", help="A TOML file; its table tune.space says what varies.")
    ] = None,
    set_: Annotated[
        Optional[list[str]], typer.Option("--set", metavar="KEY=VALUE", help="One choice, also tune.*. Repeatable.")
    ] = None,
    split: Annotated[Optional[str], typer.Option("--split", help="As for `lmrec fit`.")] = None,
    map_: Annotated[
        Optional[list[str]], typer.Option("--map", metavar="OURS=THEIRS", help="As for `lmrec fit`.")
    ] = None,
    trials: Annotated[Optional[int], typer.Option("--trials", min=1, help="As tune.trials: trials in all.")] = None,
    confirm: Annotated[
        int,
        typer.Option("--confirm", min=0, help="Fit and judge the given and the best recipe with so many fresh seeds."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Search for better choices by validation; write the best recipe, and pictures of what mattered.

    Safe to stop with Ctrl-C; several of the same command, each in its own terminal, share the work.
    """
    from lmrec.idle import idle_notes
    from lmrec.workflows.tune import tune_recipe

    chosen = recipe_of(recipe, set_, split, map_, "lmrec tune", **{"tune.trials": trials})
    prepared = Input(items, interactions, users, source, path).prepare(chosen)
    print_notes([] if as_json else idle_notes(chosen.idle))
    found = tune_recipe(prepared, chosen, out, confirm, show=not quiet)
    if as_json:
        print_json({**asdict(found), "out": str(found.out), "recipe_file": str(found.recipe_file)})
        return
    rows = [
        (f"best validation {found.metric}", f"{found.best_value:.4f}"),
        *((key, f"{value:.4g}" if isinstance(value, float) else str(value)) for key, value in found.best.items()),
        ("trials", f"{found.n_whole} whole, {found.n_pruned} stopped early, {found.n_refused} refused"),
        *((f"importance of {key}", f"{share:.2f}") for key, share in found.importance.items()),
    ]
    if found.confirmed is not None:
        for name, reached in (("given", found.confirmed.given), ("best", found.confirmed.found)):
            rows.append((f"test {found.metric}, {name} recipe", ", ".join(f"{value:.4f}" for value in reached)))
        rows.append(("mean difference over fresh seeds", f"{found.confirmed.gain:+.4f}"))
    print_rows("Tuned", rows)
    say(f"Pictures: {out / 'history.png'}{', ' + str(out / 'importance.png') if found.importance else ''}")
    say(f"Done. Next: lmrec fit ... --recipe {found.recipe_file}")
