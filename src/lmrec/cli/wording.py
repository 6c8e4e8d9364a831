"""`lmrec augment`: what training would read, shown before it does."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lmrec.cli.show import print_grid, print_json
from lmrec.errors import InputError

ItemsArgument = Annotated[
    Optional[Path], typer.Argument(metavar="ITEMS", help="The table of items; or --source and --path.")
]
SourceOption = Annotated[Optional[str], typer.Option("--source", metavar="NAME", help="Instead: an original format.")]
PathOption = Annotated[
    Optional[Path], typer.Option("--path", metavar="FOLDER", help="Where the data of --source lies.")
]
RecipeOption = Annotated[Optional[Path], typer.Option("--recipe", help="A TOML file of choices; all have defaults.")]
SetOption = Annotated[
    Optional[list[str]],
    typer.Option("--set", metavar="KEY=VALUE", help="One choice, such as augment.words.synonyms=0.1. Repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]


def add_wording(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(augment)


def augment(
    items: ItemsArgument = None,
    show: Annotated[int, typer.Option("--show", min=1, help="How many items to show.")] = 5,
    source: SourceOption = None,
    path: PathOption = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show items' texts beside the variants that a fit by this recipe would train on. Trains nothing.

    Choose what to change: --set augment.words.synonyms=0.1, .swap=0.1, .delete=0.1, .back_translate=["THERE", "BACK"].
    """
    from lmrec.data.sources.formats import read_source
    from lmrec.data.sources.tables import read_catalog
    from lmrec.recipe import load_recipe
    from lmrec.workflows.augment import show_texts

    chosen = load_recipe(recipe, set_ or ())
    if items is not None and source is None and path is None:
        catalog = read_catalog(items, chosen.data)
    elif items is None and source is not None and path is not None:
        catalog = read_source(source, path, chosen.data).catalog
    else:
        raise InputError("give the table of items, or --source NAME and --path FOLDER, and not both")
    shown = show_texts(catalog, chosen, show, not quiet)
    if as_json:
        print_json({"items": [vars(text) for text in shown]})
        return
    for text in shown:
        rows = [("as it is", text.text), *((f"variant {n}", said) for n, said in enumerate(text.variants, 1))]
        print_grid(f"item {text.item_id}", ("", "text"), rows)
