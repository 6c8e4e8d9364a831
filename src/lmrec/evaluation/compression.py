"""What smaller models keep of a run's quality, and which of them to take: points of quality, size and speed, in a picture."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmrec.evaluation.charts import ACCENT, ACCENT_SOFT, BAR, INK, LIGHT, MUTED, render_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (LIGHT[ACCENT], LIGHT[INK], LIGHT[MUTED], LIGHT[ACCENT_SOFT], LIGHT[BAR])


@dataclass(frozen=True)
class CompressionPoint:
    """A model that was tried.

    layers of its language model; kept: the share of heads and feed-forward units; width of the vectors that are compared.
    metric: on validation. encoder_mb: the language model's weights; vectors_mb: what is searched, for this catalog (MB: 10^6
    bytes). texts_per_s: of many; text_ms: the median for one alone; search_ms: the median for the first ten of the catalog,
    by the plain product. off: mean 1 - cosine to the run's own text vectors, on texts that nobody has taught it.
    """

    layers: int
    kept: float
    width: int
    metric: float
    encoder_mb: float
    vectors_mb: float
    texts_per_s: float
    text_ms: float
    search_ms: float
    off: float

    @property
    def name(self) -> str:
        """Such as "3 layers, 50 %, 64 wide"."""
        layers = "1 layer" if self.layers == 1 else f"{self.layers} layers"
        return f"{layers}, {100 * self.kept:g} %, {self.width} wide"

    @property
    def mb(self) -> float:
        return self.encoder_mb + self.vectors_mb


@dataclass(frozen=True)
class CompressionCurve:
    """whole: the run as it is. points: what was tried. tolerance: the share of its metric that may be lost."""

    metric: str
    whole: CompressionPoint
    points: tuple[CompressionPoint, ...]
    tolerance: float

    @property
    def least(self) -> float:
        """The metric that a smaller model must reach."""
        return (1 - self.tolerance) * self.whole.metric

    @property
    def smaller(self) -> list[CompressionPoint]:
        """Those that are smaller than the run, the smallest first; of two of one size the better."""
        found = [point for point in self.points if point.mb < self.whole.mb]
        return sorted(found, key=lambda point: (point.mb, -point.metric))

    @property
    def chosen(self) -> CompressionPoint | None:
        """The smallest that is good enough; None where none is."""
        return next((point for point in self.smaller if point.metric >= self.least), None)

    def lost(self, point: CompressionPoint) -> float:
        """The share of the run's metric that this one is below it."""
        return 1 - point.metric / self.whole.metric if self.whole.metric else 0.0

    def as_dict(self) -> dict[str, Any]:
        chosen = self.chosen
        return {
            "metric": self.metric,
            "tolerance": self.tolerance,
            "whole": asdict(self.whole),
            "points": [asdict(point) for point in self.points],
            "chosen": asdict(chosen) if chosen is not None else None,
        }


def draw_compression(path: Path, curve: CompressionCurve) -> None:
    """Write a PNG: the metric over megabytes and over texts a second, a line a width; the ring is what was chosen."""
    widths = sorted({point.width for point in curve.points}, reverse=True)

    def draw(figure: "Figure") -> None:
        for place, (label, values) in enumerate(
            (("MB, encoder and vectors", "mb"), ("texts encoded a second", "texts_per_s"))
        ):
            axes = figure.add_axes((0.11 + 0.47 * place, 0.17, 0.4, 0.76))
            for number, width in enumerate(widths):
                points = [point for point in curve.points if point.width == width]
                _draw_line(axes, points, values, f"{width} wide", _COLOURS[number % len(_COLOURS)])
            axes.plot([getattr(curve.whole, values)], [curve.whole.metric], "s", color=LIGHT[INK], label="as it was")
            if curve.chosen is not None:
                at = [getattr(curve.chosen, values)], [curve.chosen.metric]
                axes.plot(*at, "o", markersize=11, markerfacecolor="none", color=LIGHT[ACCENT])
            axes.axhline(curve.least, color=LIGHT[MUTED], linewidth=1.0, linestyle=(0, (3, 3)), zorder=0)
            axes.set_xlabel(label)
            axes.grid(axis="y")
            axes.set_axisbelow(True)
            if place == 0:
                axes.set_ylabel(f"validation {curve.metric}")
                axes.legend(frameon=False, fontsize=8)
            else:
                axes.tick_params(labelleft=False)

    render_png(draw, 3.4, path, 7.6)


def _draw_line(axes: "Axes", points: Sequence[CompressionPoint], values: str, label: str, colour: str) -> None:
    ordered = sorted(points, key=lambda point: float(getattr(point, values)))
    xs, ys = [getattr(point, values) for point in ordered], [point.metric for point in ordered]
    axes.plot(xs, ys, color=colour, label=label, marker="o", markersize=4, linewidth=1.0)
