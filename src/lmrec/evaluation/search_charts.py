"""Pictures of a search for hyper-parameters: what its trials reached, and which choices mattered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lmrec.evaluation.charts import ACCENT, BAR, INK, MUTED, PAPER, render_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TrialPoint:
    """value: the best that the trial reached; pruned: it was stopped before its end."""

    number: int
    value: float
    pruned: bool


def draw_history(path: Path, points: Sequence[TrialPoint], metric: str) -> None:
    """Each trial by its number, whole ones filled, pruned ones hollow, and the best so far as a line."""

    def draw(figure: "Figure") -> None:
        axes = figure.add_axes((0.15, 0.19, 0.82, 0.75))
        for pruned, fill in ((True, PAPER), (False, ACCENT)):
            chosen = [point for point in points if point.pruned == pruned]
            at, values = [point.number for point in chosen], [point.value for point in chosen]
            axes.plot(at, values, linestyle="", marker="o", markersize=5, color=ACCENT, markerfacecolor=fill)
        whole = [point for point in points if not point.pruned]
        best = [max(point.value for point in whole[: n + 1]) for n in range(len(whole))]
        axes.step([point.number for point in whole], best, where="post", color=MUTED, linewidth=1.2)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.set_xlabel("trial (hollow: stopped early)")
        axes.set_ylabel(f"validation {metric}")
        axes.locator_params(axis="x", integer=True)

    render_png(draw, 3.0, path)


def draw_importance(path: Path, importance: Mapping[str, float]) -> None:
    """How much of what told good trials from others each choice explains, the greatest first."""
    names = sorted(importance, key=lambda name: -importance[name])

    def draw(figure: "Figure") -> None:
        axes = figure.add_axes((0.42, 0.16, 0.53, 0.8))
        axes.barh(range(len(names)), [importance[name] for name in names], color=BAR, height=0.6)
        axes.set_yticks(range(len(names)), names, color=INK, fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.tick_params(length=0)
        axes.set_xlabel("importance")

    render_png(draw, 0.9 + 0.35 * len(names), path)
