"""`lmrec fit-reranker`: thin over the workflow that teaches a run a reranker."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from lmrec.cli.show import print_json, print_notes, print_rich, print_rows, say

if TYPE_CHECKING:
    from lmrec.evaluation.pairs import RerankJudgement
    from lmrec.workflows.rerank import RerankerFit


def add_reranking(app: typer.Typer) -> None:
    """Register the command."""
    app.command(name="fit-reranker")(fit_reranker_command)
    app.command(name="distil")(distil_command)


def fit_reranker_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A fitted run folder.")],
    set_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A choice of reranker.* or tracking.*, see `lmrec recipe`. Repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Teach a run to read: a language model that sees a history and an item together puts the best of each list in order.

    It costs a pass of the model for each item read (reranker.top_k of them), so it stands behind the retriever. What it
    learns from:

      binary       what was chosen, beside the retriever's best that was not (the default)

      classes      which of a few ratings was given             --set reranker.task=classes

      regression   the rating                                   --set reranker.task=regression

    How much it counts beside the retriever is chosen on validation, 0 where it does not help. Afterwards `lmrec recommend`,
    `lmrec evaluate` and `lmrec serve` use it. Ctrl-C is safe: the same command goes on. Docs: docs/tuning/pairs.md
    """
    from lmrec.workflows.rerank import fit_reranker

    fit = fit_reranker(run, set_ or (), not quiet)
    if as_json:
        print_json({"run": str(run), **fit.as_dict()})
        return
    print_notes(fit.notes)
    print_rows("Reranker", _facts(fit))
    print_rich(fit.pairs.rich("validation"))
    say(f"Done. Next: lmrec evaluate {run}")


def distil_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run with a reranker: see `lmrec fit-reranker`.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder to make.")],
    set_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="One choice of distil.* or tracking.*, see `lmrec recipe`. Repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Teach the retriever what the reranker has read: a new run that answers at the retriever's own speed.

    Lists of training histories are read once; the towers then learn their order, beside what was really chosen. The epoch that
    is best on validation is kept, and none where reading taught nothing.
    """
    from lmrec.workflows.distil import distil_run

    found = distil_run(run, out, set_ or (), not quiet)
    if as_json:
        told = {name: getattr(found, name) for name in ("metric", "metrics", "epoch", "n_lists", "seconds", "notes")}
        print_json({"run": str(out), **told})
        return
    print_notes(found.notes)
    steps = ", ".join(f"{value:.4f}" for value in found.metrics)
    print_rows(
        "Distilled",
        [
            ("lists read", f"{found.n_lists:,}"),
            (f"{found.metric} on validation, before and after each epoch", steps),
            ("epoch kept", f"{found.epoch}" + ("" if found.epoch else ": reading taught the retriever nothing")),
            ("took", f"{found.seconds:g} s"),
        ],
    )
    say(f"Done. Next: lmrec evaluate {out}")


def print_reranking(judgement: "RerankJudgement") -> None:
    """Lists with and without it, what they cost, and single pairs."""
    print_rich(judgement.table.rich())
    say(judgement.cost)
    print_rich(judgement.pairs.rich())


def _facts(fit: "RerankerFit") -> list[tuple[str, str]]:
    tried = ", ".join(f"{weight:g}: {value:.4f}" for weight, value in fit.by_weight.items())
    return [
        ("learnt from", f"{fit.n_pairs:,} pairs; of {fit.n_cut:,} the history's oldest words were cut"),
        (f"{fit.metric} on validation, by weight", tried),
        (
            "weight kept",
            f"{fit.description.weight:g}" + ("" if fit.description.weight else ": no gain that is clear of chance"),
        ),
        ("took", f"{fit.seconds:g} s"),
    ]
