"""`lmrec bench-encoder`: what encodes fastest on this machine."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lmrec.cli.show import print_grid, print_json, say


def add_benching(app: typer.Typer) -> None:
    """Register the command."""
    app.command("bench-encoder")(bench_encoder)


def bench_encoder(
    run: Annotated[
        Optional[Path],
        typer.Argument(metavar="[RUN]", help="A run folder, whose items are read and whose recipe counts."),
    ] = None,
    recipe: Annotated[
        Optional[Path], typer.Option("--recipe", help="A TOML file of choices, instead of RUN's.")
    ] = None,
    n_texts: Annotated[int, typer.Option("--texts", min=1, help="How many texts to encode.")] = 512,
    out: Annotated[
        Optional[Path], typer.Option("--out", help="Write the recipe with the fastest faithful runtime to this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")] = False,
) -> None:
    """Measure every runtime of the language model here: texts a second, one text alone, and what it is off by.

    Without RUN the texts are those of a planted world. The model is the one that `encoder.name` names.
    """
    from lmrec.artifacts.files import write_text
    from lmrec.artifacts.run import open_run
    from lmrec.data.catalog import Catalog
    from lmrec.recipe import load_fitted, load_recipe, recipe_toml
    from lmrec.workflows.bench_encoder import best_runtime, measure_runtimes

    opened = open_run(run) if run is not None else None
    chosen = load_fitted(opened.recipe_file) if opened and not recipe else load_recipe(recipe)
    catalog = Catalog.from_parquet(opened.data / "catalog.parquet") if opened else None
    speeds = measure_runtimes(chosen, catalog, n_texts)
    best = best_runtime(speeds)
    if as_json:
        print_json({"best": best, "runtimes": [speed.as_dict() for speed in speeds]})
    else:
        rows = [
            (
                speed.name,
                f"{speed.texts_per_s:,.0f}",
                f"{speed.one_ms:.1f}",
                f"{speed.error:.1e}",
                "" if speed.is_usable else "refused",
            )
            if speed.error is not None
            else (speed.name, "", "", "", speed.trouble)
            for speed in speeds
        ]
        print_grid(
            "Runtimes of the language model", ("encoder.runtime", "texts/s", "one text, ms", "1 - cosine", ""), rows
        )
    if out is not None:
        encoder = chosen.encoder.model_copy(update={"runtime": best})
        write_text(out, recipe_toml(chosen.model_copy(update={"encoder": encoder})))
        say(f"Recipe with encoder.runtime = {best}: {out}")
