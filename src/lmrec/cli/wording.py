"""`lmrec augment` and `lmrec pretrain`: what training would read, and a language model that reads on in a catalog."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from lmrec.cli.show import print_grid, print_json, print_notes, print_rows, say
from lmrec.cli.tables import Input
from lmrec.errors import InputError

if TYPE_CHECKING:
    from lmrec.data.catalog import Catalog
    from lmrec.recipe import Recipe

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
    """Register the commands."""
    app.command()(augment)
    app.command()(pretrain)


def augment(
    items: ItemsArgument = None,
    interactions: Annotated[
        Optional[Path], typer.Option("--interactions", help="Events, whose histories augment.history would change.")
    ] = None,
    users: Annotated[Optional[Path], typer.Option("--users", help="Who they are, if the recipe reads that.")] = None,
    show: Annotated[int, typer.Option("--show", min=1, help="How many items and histories to show.")] = 5,
    source: SourceOption = None,
    path: PathOption = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show items' texts beside the variants, and histories before and after, that a fit by this recipe would train on.

    Trains nothing. Choose what to change: --set augment.words.synonyms=0.1, .swap=0.1, .delete=0.1, .back_translate=["THERE",
    "BACK"]; --set augment.history.kinds=["crop", "mask", "reorder"], which are seen with --interactions or a --source.
    """
    from lmrec.recipe import load_recipe
    from lmrec.workflows.show_augmented import show_histories, show_texts

    chosen = load_recipe(recipe, set_ or (), command="lmrec augment")
    words, histories = chosen.augment.words.any, bool(chosen.augment.history.kinds)
    if not (words or histories):
        raise InputError(
            "this recipe augments neither words nor histories. Choose some, such as --set augment.words.synonyms=0.1 "
            "--set augment.words.delete=0.1 or --set 'augment.history.kinds=[\"crop\"]'"
        )
    changed = None
    if histories and any(given is not None for given in (interactions, users, source)):
        prepared = Input(items, interactions, users, source, path).prepare(chosen)
        catalog, changed = prepared.dataset.catalog, show_histories(prepared, chosen, show)
    elif interactions is not None or users is not None:
        raise InputError(
            "--interactions and --users are read for augment.history.kinds alone, which is empty. Set it, such as --set "
            "'augment.history.kinds=[\"crop\"]', or leave them out"
        )
    else:
        catalog = _read_catalog(items, source, path, chosen)
    shown = show_texts(catalog, chosen, show, not quiet)
    if histories and changed is None:
        say("augment.history changes histories, too: give --interactions FILE, or --source and --path, to see some")
    if as_json:
        print_json({"items": [vars(text) for text in shown], "histories": asdict(changed) if changed else None})
        return
    for text in shown:
        rows = [("as it is", text.text), *((f"variant {n}", said) for n, said in enumerate(text.variants, 1))]
        print_grid(f"item {text.item_id}", ("", "text"), rows)
    for number, history in enumerate(changed.shown if changed else (), 1):
        rows = [("as it is", _in_a_line(history.before)), (history.kind, _in_a_line(history.after))]
        print_grid(f"history {number}, oldest first", ("", "items"), rows)
    if changed is not None:
        say(
            f"{changed.n_changed:,} of {changed.n:,} histories are changed in the first epoch of a fit with training.seed "
            f"{changed.seed}; other epochs draw anew"
        )


def _in_a_line(texts: Sequence[str | None]) -> str:
    return " | ".join("(hidden)" if text is None else text for text in texts)


def pretrain(
    out: Annotated[Path, typer.Option("--out", help="The folder to make: an encoder for `--set encoder.name=FOLDER`.")],
    items: ItemsArgument = None,
    interactions: Annotated[
        Optional[Path], typer.Option("--interactions", help="Events, which objective 'pairs' learns from.")
    ] = None,
    source: SourceOption = None,
    path: PathOption = None,
    encoder: Annotated[
        Optional[str], typer.Option("--encoder", metavar="NAME", help="Instead of encoder.name: what to begin with.")
    ] = None,
    objective: Annotated[
        Optional[str], typer.Option("--objective", help="mlm, clm, simcse or pairs; as pretrain.objective.")
    ] = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Let a language model read on in the catalog's own words, before `lmrec fit --set encoder.name=FOLDER` tunes it.

    Ctrl-C writes what has been learnt so far, and the same command goes on from there, also after a kill. The words of all
    items are read; of events only the training part.
    """
    from lmrec.recipe import load_heard
    from lmrec.workflows.pretrain import heard_keys, pretrain_encoder

    named: dict[str, Any] = {"encoder.name": encoder, "pretrain.objective": objective}
    values = {key: value for key, value in named.items() if value is not None}
    chosen, unheard = load_heard(
        recipe, set_ or (), values, lambda whole: heard_keys(whole, source is not None), "lmrec pretrain"
    )
    if unheard and not as_json:
        print_notes([f"of this recipe lmrec pretrain does not hear {', '.join(unheard)}"])
    if chosen.pretrain.objective == "pairs":
        prepared = Input(items, interactions, None, source, path).prepare(chosen)
        catalog, train = prepared.dataset.catalog, prepared.split.train
    elif interactions is not None:
        raise InputError(
            f"--interactions is read by pretrain.objective 'pairs' alone, and this is '{chosen.pretrain.objective}': leave it "
            "out, or choose --objective pairs"
        )
    else:
        catalog, train = _read_catalog(items, source, path, chosen), None
    done = pretrain_encoder(catalog, chosen, out, train, show=not quiet)
    if as_json:
        print_json({**asdict(done), "folder": str(done.folder)})
        return
    rows = [
        (f"{done.measure}, held out", f"{done.before:.3f} before, {done.after:.3f} after"),
        ("texts, steps", f"{done.n_texts:,}, {done.n_steps:,}"),
        ("seconds", f"{done.seconds:g}"),
    ]
    if done.head_was_made:
        rows.append(("head", "was made, and learnt alone first"))
    if done.new_words:
        shown = ", ".join(new.word for new in done.new_words[:12])
        rows.append((f"{len(done.new_words)} new words", shown + (", ..." if len(done.new_words) > 12 else "")))
    print_notes(done.notes)
    print_rows(f"Pretrained, {done.objective}", rows)
    say(f"Done. Next: lmrec fit --set encoder.name={out} ...")


def _read_catalog(items: Path | None, source: str | None, path: Path | None, recipe: "Recipe") -> "Catalog":
    from lmrec.data.sources.formats import read_source
    from lmrec.data.sources.tables import read_catalog

    if items is not None and source is None and path is None:
        return read_catalog(items, recipe.data)
    if items is None and source is not None and path is not None:
        return read_source(source, path, recipe.data).catalog
    raise InputError("give the table of items, or --source NAME and --path FOLDER, and not both")
