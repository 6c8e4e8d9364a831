"""A quantity over learning rates, on a logarithmic axis: the range test's losses, or validation at each rate."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lmrec.evaluation.charts import ACCENT, INK, LIGHT, MUTED, render_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]  # (rate, value)
Spread = Sequence[tuple[float, float, float]]  # (rate, lowest, highest)

_COLOURS = (ACCENT, INK, MUTED)


def draw_rates(
    curves: Mapping[str, Points],
    path: Path,
    label: str,
    chosen: Mapping[str, float],
    spreads: Mapping[str, Spread] | None = None,
) -> None:
    """Write a PNG. label: what the values are. chosen: rates to mark with a dashed line, by what to call them. spreads: for
    curves of some of these names, a band behind the curve."""

    def draw(figure: "Figure") -> None:
        axes = figure.add_axes((0.13, 0.17, 0.84, 0.76))
        for place, (name, points) in enumerate(curves.items()):
            rates, values = zip(*points, strict=True)
            colour = LIGHT[_COLOURS[place % len(_COLOURS)]]
            marker = "o" if len(points) <= 20 else ""
            axes.plot(rates, values, color=colour, label=name, marker=marker, markersize=4)
            if spread := (spreads or {}).get(name):
                at, low, high = zip(*spread, strict=True)
                axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
        for place, (name, rate) in enumerate(chosen.items()):
            axes.axvline(rate, color=LIGHT[MUTED], linewidth=1.0, linestyle=(0, (3, 3)), zorder=0)
            height = 0.04 + 0.07 * place
            axes.annotate(
                f" {name} {rate:.2g}", (rate, height), xycoords=("data", "axes fraction"), va="bottom", color=LIGHT[INK]
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axes.xaxis.set_minor_formatter(lambda rate, _: "")
        axes.set_xlabel("learning rate")
        axes.set_ylabel(label)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8)

    render_png(draw, 3.4, path, 5.6)
