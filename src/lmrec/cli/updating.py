"""`lmrec update` and `drift`: what a served run learns from what it has heard."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from lmrec.cli.show import print_grid, print_json, say

if TYPE_CHECKING:
    from lmrec.evaluation.drift import Drift
    from lmrec.evaluation.promotion import Decision

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as `lmrec fit --out` makes it.")]
StoreOption = Annotated[
    Optional[str],
    typer.Option(
        "--store",
        envvar="LMREC_STORE",
        help="What `lmrec serve` was given as --store. Default: RUN/service/store.db.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")]


def add_updating(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(update)
    app.command()(drift)


def update(
    run: RunArgument,
    store: StoreOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Learn and judge, but keep nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also with fewer events than update.min_events. The rule stays.")
    ] = False,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="KEY=VALUE", help="update.* and evaluation.* of `lmrec recipe`. Repeatable."),
    ] = None,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Learn from the events and items that the service has taken, and serve the result if it is better.

    The newest fifth of the new events is held out. The new generation is promoted only if it beats the served one there,
    clear of chance, and harms no slice; else it is kept and not served. A running service follows by itself.
    """
    from lmrec.workflows.update import update_run

    result = update_run(run, store, force=force, dry_run=dry_run, overrides=set_ or (), show=not quiet)
    if as_json:
        print_json(result.as_dict())
        return
    say(result.counts.sentence())
    if result.drift is not None:
        _print_drift(result.drift)
    if result.decision is not None:
        _print_decision(result.decision)
    typer.echo(f"{result.status}: {result.reason}")


def drift(run: RunArgument, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """How far the new events have moved from what the served generation was learnt from. Changes nothing."""
    from lmrec.workflows.news import drift_of, read_news

    found = drift_of(read_news(run, store))
    if as_json:
        print_json(found.as_dict())
    else:
        _print_drift(found)
        typer.echo(found.level)


def _print_drift(found: "Drift") -> None:
    rows = [
        (one.name, f"{one.psi:.3f}", f"{one.js:.3f}", f"{one.chance:.3f} ({one.read_by.upper()})", one.level)
        for one in found.measures
    ]
    print_grid(f"Drift of {found.n_new:,} new events", ("", "PSI", "JS", "by chance", "reads"), rows)
    say(f"{found.unknown_words:.1%} of their words and {found.unknown_items:.1%} of their items are new")


def _print_decision(decision: "Decision") -> None:
    rows = [
        (
            part.name,
            f"{part.n_cases:,}",
            f"{part.serving:.4f}",
            f"{part.candidate:.4f}",
            f"{part.difference.mean:+.4f} ({part.difference.low:+.4f} to {part.difference.high:+.4f})",
            "harmed" if part.is_harmed else "" if part.decides else "too few users to decide",
        )
        for part in decision.slices
    ]
    print_grid("Newest events", ("slice", "cases", "served", "candidate", f"difference in {decision.metric}", ""), rows)
