"""A comparison as a picture: every difference with its interval and stars, as PNG, or as a page with the tables."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lmrec.errors import InputError
from lmrec.evaluation.charts import ACCENT, LIGHT, LINE, MUTED, PAGE, PAPER, Palette, render_png, render_svg
from lmrec.evaluation.comparison import Comparison
from lmrec.evaluation.report import label_of, render_template

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH_IN: Final = 7.2
_ROW_IN: Final = 0.42
ENDINGS: Final = (".png", ".html")


def write_comparison(path: Path | str, comparison: Comparison) -> Path:
    """Write the picture and return its path. The ending decides: .png, or .html for a page with the tables too."""
    target = Path(path)
    check_ending(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".png":
        render_png(_drawing(comparison, LIGHT), _height(comparison), target, _WIDTH_IN)
    else:
        target.write_text(render_page(comparison), "utf-8")
    return target


def check_ending(path: Path) -> None:
    """Raises InputError for an ending that is no picture of ours."""
    if path.suffix not in ENDINGS:
        raise InputError(f"the picture '{path}' ends with '{path.suffix}'. Use {' or '.join(ENDINGS)}")


def render_page(comparison: Comparison) -> str:
    """The page as text. Raises MissingExtraError where jinja2 or matplotlib is not installed."""
    label = "every difference with its interval"
    svg = render_svg(_drawing(comparison, PAGE), _height(comparison), "differences", label, _WIDTH_IN)
    return render_template(
        "comparison.html.jinja", {"differences": svg}, comparison=comparison, meaning=comparison.legend
    )


def _drawing(comparison: Comparison, palette: Palette) -> "Callable[[Figure], None]":
    """One line a pair: its interval, filled where it is significant after correction, the stars at its right."""
    pairs = comparison.pairs
    reach = 1.15 * max(max(abs(pair.difference.low), abs(pair.difference.high)) for pair in pairs) or 1.0

    def draw(figure: "Figure") -> None:
        below = 0.35 / _height(comparison)
        axes = figure.add_axes((0.025, below, 0.95, 1.0 - below))
        axes.set_xlim(-reach, reach)
        axes.set_ylim(len(pairs) - 0.4, -0.7)
        axes.set_yticks([])
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.axvline(0.0, color=palette[MUTED], linewidth=1.0, linestyle=(0, (3, 3)), zorder=0)
        for place, pair in enumerate(pairs):
            gap, ink = pair.difference, palette[ACCENT if pair.marks else MUTED]
            metric = f"{label_of(pair.metric)}: " if len(comparison.metrics) > 1 else ""
            value = f"{gap.mean:+.4f} {pair.marks}".rstrip()
            axes.text(-reach, place - 0.32, f"{metric}{pair.first} − {pair.second}", va="center", fontsize=8.5)
            axes.text(reach, place - 0.32, value, va="center", ha="right", fontsize=8.5, color=ink)
            axes.plot([gap.low, gap.high], [place + 0.1] * 2, color=ink, linewidth=1.8, solid_capstyle="butt")
            fill = ink if pair.marks else palette[PAPER]
            axes.plot([gap.mean], [place + 0.1], marker="o", markersize=6, color=ink, markerfacecolor=fill)
            axes.axhline(place + 0.42, color=palette[LINE], linewidth=0.6, zorder=0)

    return draw


def _height(comparison: Comparison) -> float:
    return 0.6 + _ROW_IN * len(comparison.pairs)
