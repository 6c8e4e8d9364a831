"""`lmrec compare`: thin over the comparison of judged runs."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from lmrec.cli.show import print_json, print_rich, say


def add_comparing(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(compare)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders that have been judged.")],
    row: Annotated[
        Optional[list[str]],
        typer.Option("--row", metavar="ROW", help="Rows of the table to compare, or all. Repeatable."),
    ] = None,
    against: Annotated[
        Optional[str],
        typer.Option("--against", metavar="ROW", help="Compare this one with each other one, instead of all pairs."),
    ] = None,
    metric: Annotated[
        Optional[list[str]],
        typer.Option(
            "--metric", help="Such as ndcg@10, hit@20 or auc, any k. With --shown: auc, mrr, ndcg@5. Repeatable."
        ),
    ] = None,
    shown: Annotated[
        bool, typer.Option("--shown", help="On the lists that were shown, by AUC, instead of the whole catalog.")
    ] = False,
    out: Annotated[Optional[Path], typer.Option("--out", help="Also a picture: .png, or .html with tables.")] = None,
    draws: Annotated[int, typer.Option("--draws", min=1, help="How often users are redrawn.")] = 10_000,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")] = False,
) -> None:
    """Which differences between judged runs, or rows of one, are real: paired, with intervals and corrected stars.

    Several runs: each run's own model, all pairs; rows are called RUN/ROW. One run: its own model against each other row.
    Runs that were asked different things are refused.
    """
    from lmrec.evaluation.comparison_page import check_ending, write_comparison
    from lmrec.workflows.compare import compare_runs, compare_shown

    if out is not None:
        check_ending(out)
    found = (compare_shown if shown else compare_runs)(runs, row or (), against, metric or (), draws)
    if found.too_few is not None:
        say(f"note: {found.too_few}")
    if out is not None:
        write_comparison(out, found)
    if as_json:
        print_json(found.as_dict())
        return
    print_rich(found.rich_systems())
    print_rich(found.rich_pairs())
    if out is not None:
        say(f"Picture: {out}")
