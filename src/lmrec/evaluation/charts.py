"""The report's pictures: small SVG charts that take their colours from the page they stand in.

matplotlib draws with placeholder colours, which are then replaced by CSS variables (`var(--ink)` and so on), and text
stays text in the page's own font. So one picture serves the light and the dark theme, and a phone's zoom.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from lmrec.errors import MissingExtraError
from lmrec.evaluation.calibration import ReliabilityBin
from lmrec.evaluation.table import Estimate, JudgementTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Placeholders: colours nobody would pick, each standing for one variable of the page.
INK: Final = "#010101"
MUTED: Final = "#020202"
LINE: Final = "#030303"
ACCENT: Final = "#040404"
ACCENT_SOFT: Final = "#050505"
BAR: Final = "#060606"
PAPER: Final = "#070707"
_VARIABLES: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    ACCENT: "var(--accent)",
    ACCENT_SOFT: "var(--accent-soft)",
    BAR: "var(--bar)",
    PAPER: "var(--card)",
}

# The same colours fixed, on white: for a picture that stands by itself.
LIGHT: Final = {
    INK: "#1c1f26",
    MUTED: "#62676f",
    LINE: "#e2e0da",
    ACCENT: "#3b5bdb",
    ACCENT_SOFT: "#a9b8f2",
    BAR: "#d3d0c8",
    PAPER: "#ffffff",
}
Palette: TypeAlias = Mapping[str, str]  # what to draw a placeholder with
PAGE: Final[Palette] = {placeholder: placeholder for placeholder in LIGHT}

WIDTH_IN: Final = 4.2
_ROW_IN: Final = 0.52
_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a "$" in a system's name is a dollar
    "font.size": 10.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
}

Curve = Sequence[Mapping[str, float | None]]


def draw_systems(table: JudgementTable, candidate: str) -> str:
    """Every system's main metric with its interval, best first; the dashed line is the best baseline."""
    rows = table.ranked
    estimates = [row.metrics[table.metric] for row in rows]
    reach = 1.2 * max(max(estimate.high for estimate in estimates), 1e-9)

    def draw(figure: "Figure") -> None:
        axes = _row_axes(figure, len(rows), reach)
        for place, (row, estimate) in enumerate(zip(rows, estimates, strict=True)):
            ours = row.name == candidate
            colour = ACCENT if ours else (BAR if row.is_baseline else ACCENT_SOFT)
            label = row.name + (" · baseline" if row.is_baseline else "")
            axes.text(0, place - 0.3, label, va="center", fontweight="bold" if ours else "normal")
            axes.barh(place + 0.12, estimate.value, height=0.34, color=colour)
            _draw_interval(axes, estimate, place + 0.12, INK)
            axes.text(estimate.high + 0.015 * reach, place + 0.12, f"{estimate.value:.4f}", va="center", color=MUTED)
        if table.best_baseline is not None:
            value = table.row(table.best_baseline).metrics[table.metric].value
            axes.axvline(value, color=MUTED, linewidth=1.0, linestyle=(0, (3, 3)), zorder=0)

    return render_svg(draw, _height(len(rows)), "systems", f"{table.metric} of every system, with intervals")


def draw_slices(table: JudgementTable, candidate: str) -> str:
    """The main metric by slice: the candidate (filled) against the best baseline (hollow), with intervals."""
    names = [candidate] + ([table.best_baseline] if table.best_baseline not in (None, candidate) else [])
    parts = [part for part in table.slices if part.values]
    reach = 1.1 * max([part.values[name].high for part in parts for name in names], default=1.0)

    def draw(figure: "Figure") -> None:
        axes = _row_axes(figure, len(parts), max(reach, 1e-9))
        for place, part in enumerate(parts):
            axes.text(0, place - 0.3, part.name, va="center")
            axes.text(reach, place - 0.3, _cases(part.n_cases), va="center", ha="right", color=MUTED)
            axes.axhline(place + 0.13, color=LINE, linewidth=0.6, zorder=0)
            for name in reversed(names):
                ours = name == candidate
                estimate, height = part.values[name], place + (0.06 if ours else 0.2)
                _draw_interval(axes, estimate, height, ACCENT if ours else MUTED)
                axes.plot(
                    [estimate.value],
                    [height],
                    marker="o",
                    markersize=7,
                    color=ACCENT if ours else MUTED,
                    markerfacecolor=ACCENT if ours else PAPER,
                    zorder=3,
                    clip_on=False,
                )

    return render_svg(draw, _height(len(parts)), "slices", f"{table.metric} by slice")


def draw_reliability(bins: Sequence[ReliabilityBin], raw_bins: Sequence[ReliabilityBin]) -> str:
    """How often predictions of each size came true, after the temperature (filled) and before (hollow); true ones stand on
    the diagonal."""

    def draw(figure: "Figure") -> None:
        axes = figure.add_axes((0.15, 0.17, 0.8, 0.78))
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1.0, linestyle=(0, (3, 3)), zorder=0)
        for points, colour, fill in ((raw_bins, MUTED, PAPER), (bins, ACCENT, ACCENT)):
            sure, true = [one.confidence for one in points], [one.truth for one in points]
            axes.plot(sure, true, color=colour, marker="o", markersize=6, markerfacecolor=fill, linewidth=1.0)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.tick_params(length=0)
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("came true")

    return render_svg(draw, 3.2, "reliability", "reliability of probabilities")


def draw_curve(curves: Curve, key: str, label: str, mark_best: bool = False) -> str | None:
    """One quantity over the steps of training; None where fewer than two points have it."""
    points = [
        (at, value)
        for point in curves
        if (at := point.get("step")) is not None and (value := point.get(key)) is not None
    ]
    if len(points) < 2:
        return None
    steps, values = zip(*points, strict=True)

    def draw(figure: "Figure") -> None:
        axes = figure.add_axes((0.15, 0.19, 0.82, 0.72))
        axes.plot(steps, values, color=ACCENT, marker="o" if len(points) <= 40 else "", markersize=4)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("step")
        axes.margins(x=0.02, y=0.12)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if mark_best:
            best = max(range(len(values)), key=values.__getitem__)
            axes.plot([steps[best]], [values[best]], marker="o", markersize=9, color=ACCENT, markerfacecolor=PAPER)
            axes.annotate(
                f"best {values[best]:.4f}",
                (steps[best], values[best]),
                xytext=(0, 9),
                textcoords="offset points",
                ha="right" if best > len(values) / 2 else "left",
                fontweight="bold",
            )

    return render_svg(draw, 2.7, key, f"{label} over the steps of training")


def _row_axes(figure: "Figure", n_rows: int, reach: float) -> "Axes":
    """Axes for a list of rows, first row at the top, labels written above the bars so that long names have room."""
    below = 0.32 / _height(n_rows)
    axes = figure.add_axes((0.04, below, 0.935, 1.0 - below))  # room for half of the first number below the axis
    axes.set_ylim(max(n_rows, 1) - 0.5, -0.6)
    axes.set_xlim(0, reach)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=5)
    return axes


def _draw_interval(axes: "Axes", estimate: Estimate, height: float, colour: str) -> None:
    axes.plot([estimate.low, estimate.high], [height, height], color=colour, linewidth=1.4, solid_capstyle="butt")


def _cases(n: int) -> str:
    return "1 case" if n == 1 else f"{n:,} cases"


def _height(n_rows: int) -> float:
    return 0.4 + _ROW_IN * max(n_rows, 1)


def render_svg(
    draw: Callable[["Figure"], None], height_in: float, prefix: str, label: str, width_in: float = WIDTH_IN
) -> str:
    """Runs `draw` on a bare figure, without pyplot or a display, and returns SVG that can stand inside a page."""
    out = StringIO()
    with _bare_figure(PAGE, (width_in, height_in), prefix) as figure:
        draw(figure)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(out.getvalue(), prefix, label)


def render_png(draw: Callable[["Figure"], None], height_in: float, path: Path, width_in: float = WIDTH_IN) -> None:
    """Writes a picture that stands by itself; `draw` uses the colours of `LIGHT`."""
    with _bare_figure(LIGHT, (width_in, height_in), "png") as figure:
        draw(figure)
        figure.savefig(path, format="png", dpi=160, facecolor=LIGHT[PAPER])


@contextmanager
def _bare_figure(palette: Palette, size_in: tuple[float, float], salt: str) -> "Iterator[Figure]":
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise MissingExtraError("A chart", "matplotlib", "report") from missing
    coloured = {key: palette.get(value, value) if isinstance(value, str) else value for key, value in _STYLE.items()}
    style: Any = {**coloured, "svg.hashsalt": salt}  # matplotlib types the keys as literals
    with rc_context(style):
        yield Figure(figsize=size_in)


def _inline(svg: str, prefix: str, label: str) -> str:
    """Without the file's head, with ids of its own, sized by its box, coloured by the page."""
    svg = svg[svg.index("<svg") :]
    # matplotlib's own <style> would reach every drawing of the page; the page sets the same rule for its charts.
    svg = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg ", f'<svg class="chart" role="img" aria-label="{escape(label, quote=True)}" ', 1)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, variable)
    return svg
