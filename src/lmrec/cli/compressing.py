"""`lmrec compress`: thin over the search for a smaller model."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from lmrec.cli.show import print_grid, print_json, print_notes, say

if TYPE_CHECKING:
    from lmrec.evaluation.compression import CompressionCurve, CompressionPoint


def add_compressing(app: typer.Typer) -> None:
    """Register the command."""
    app.command(name="compress")(compress_command)


def compress_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A fitted run folder; it stays as it is.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder to make.")],
    tolerance: Annotated[
        Optional[float],
        typer.Option(
            "--tolerance",
            help="How much of RUN's validation metric may be lost: 0.02 is two in a hundred. The smallest model within it is "
            "taken. Short for --set compress.tolerance=...",
        ),
    ] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="One choice of compress.*, such as 'compress.layers=[3,2]', 'compress.kept=[1.0,0.5]' or "
            "'compress.widths=[64]'; see `lmrec recipe`. Repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for machines.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars.")] = False,
) -> None:
    """Make a run smaller and quicker: fewer layers, heads and feed-forward units, narrower vectors, within a loss you name.

    Students of several sizes learn the vectors of RUN's language model from the catalog's own words; validation says what each
    keeps. The table shows quality, size and speed of all; the smallest within the tolerance becomes a run like any other.
    """
    from lmrec.errors import InputError
    from lmrec.workflows.compress import compress_run

    overrides = [*(set_ or ()), *([] if tolerance is None else [f"compress.tolerance={tolerance}"])]
    made = compress_run(run, out, overrides, show=not quiet and not as_json)
    curve = made.curve
    if as_json:
        print_json({"run": None if made.run is None else str(out), **curve.as_dict(), "seconds": made.seconds})
    else:
        print_grid("Tried, on validation", _columns(curve.metric), map(_row(curve), (curve.whole, *curve.points)))
        print_notes(made.notes)
    if curve.chosen is None:
        best = max(curve.smaller, key=lambda point: point.metric, default=None)
        way = (
            f"the best of them loses {100 * curve.lost(best):.1f} % ({best.name})"
            if best
            else "none of them is smaller"
        )
        raise InputError(
            f"nothing smaller keeps {curve.metric} within compress.tolerance {curve.tolerance:g}: {way}. Raise --tolerance, "
            "teach longer (compress.epochs, compress.tower_epochs), or try larger ones (compress.layers, kept, widths)"
        )
    if not as_json:
        part = curve.chosen.mb / curve.whole.mb
        say(f"Done: {curve.chosen.name}, {100 * part:.0f} % of the size. Next: lmrec evaluate {out}")


def _columns(metric: str) -> tuple[str, ...]:
    sizes = ("layers", "kept", "width", metric, "lost", "encoder MB", "vectors MB")
    return ("", *sizes, "texts/s", "ms a text", "ms a search", "new texts off")


def _row(curve: "CompressionCurve") -> "Callable[[CompressionPoint], tuple[str, ...]]":
    def row(point: "CompressionPoint") -> tuple[str, ...]:
        return (
            "as it was" if point is curve.whole else "chosen" if point is curve.chosen else "",
            str(point.layers),
            f"{100 * point.kept:g} %",
            str(point.width),
            f"{point.metric:.4f}",
            f"{100 * curve.lost(point):.1f} %",
            f"{point.encoder_mb:.1f}",
            f"{point.vectors_mb:.2f}",
            f"{point.texts_per_s:,.0f}",
            f"{point.text_ms:.1f}",
            f"{point.search_ms:.2f}",
            f"{point.off:.4f}",
        )

    return row
