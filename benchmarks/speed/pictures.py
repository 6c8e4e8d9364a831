"""Pictures: of growth, a line a method, both axes by powers of ten; and of a value's course in time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def draw_growth(
    file: Path,
    series: Mapping[str, Mapping[float, float]],
    x: str,
    y: str,
    title: str,
    limits: Mapping[str, float] | None = None,
) -> None:
    """series: name -> {size: value}. limits: name -> value, as dashed lines."""
    plt, figure, axes = _axes(x, y, title)
    for name, points in series.items():
        axes.plot(list(points), list(points.values()), marker="o", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _save(plt, figure, axes, file)


def draw_course(file: Path, series: Mapping[str, Mapping[float, float]], x: str, y: str, title: str) -> None:
    """series: name -> {seconds: value}, both axes plain."""
    plt, figure, axes = _axes(x, y, title)
    for name, points in series.items():
        axes.plot(list(points), list(points.values()), marker="o", label=name)
    _save(plt, figure, axes, file)


def _axes(x: str, y: str, title: str) -> tuple[Any, Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, fontsize=10)
    axes.grid(True, which="major", alpha=0.3)
    return plt, figure, axes


def _save(plt: Any, figure: Any, axes: Any, file: Path) -> None:
    axes.legend()
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})
    plt.close(figure)


def slope(points: Mapping[float, float]) -> float:
    """The exponent of growth between the smallest and the largest size: 1 is linear.

    >>> round(slope({10.0: 1.0, 1000.0: 100.0}), 6)
    1.0
    """
    from math import log

    sizes: Sequence[float] = sorted(points)
    return log(points[sizes[-1]] / points[sizes[0]]) / log(sizes[-1] / sizes[0])
