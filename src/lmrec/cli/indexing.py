"""`lmrec index`: thin over the making of a run's index."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from lmrec.cli.show import print_json, say

if TYPE_CHECKING:
    from lmrec.retrieval.index import ItemIndex
    from lmrec.workflows.index import Indexed


def add_indexing(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(index)


def index(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A fitted run folder.")],
    set_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One choice of index.*, such as index.kind=sketch, index.kind=exact or index.recall=0.99; kept in the run's "
            "recipe, so that updates index alike. Repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")] = False,
) -> None:
    """Make the index that a run's items are searched with anew: another kind, another recall, or one that was made by an
    earlier lmrec.

    `lmrec fit` makes one by itself where the catalog is large. The generation that is served gets one too; a service that
    runs takes it when it starts next.
    """
    from lmrec.workflows.index import index_run

    made = index_run(run, set_ or ())
    if as_json:
        print_json([_facts(one) for one in made])
        return
    for one in made:
        say(f"{one.run}: {_sentence(one)}, in {one.seconds:g} s")
    say(f"Done. Next: lmrec recommend {run} --user ID, or lmrec serve {run}")


def _kind(index: "ItemIndex | None") -> str:
    if index is None:
        return "exact"
    return "sketch" if index.sketch is not None else "graph" if index.is_graph else "lists"


def _facts(one: "Indexed") -> dict[str, Any]:
    found = one.index
    return {
        "run": str(one.run),
        "kind": _kind(found),
        "items": one.n_items,
        "recall": 1.0 if found is None else found.recall,
        "wanted": 1.0 if found is None else found.wanted,
        "bytes": one.n_bytes,
        "seconds": one.seconds,
    }


def _sentence(one: "Indexed") -> str:
    if one.index is None:
        return f"no index; each of {one.n_items:,} items is scored for every answer"
    return (
        f"{_kind(one.index)} of {one.n_items:,} items, {one.n_bytes / 1e6:.1f} MB, which finds "
        f"{100 * one.index.recall:.1f} % of the true first 100"
    )
