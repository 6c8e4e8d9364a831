"""The picture of the tables: how far each technique stands from plain fine-tuning, data sets side by side.

    python -m benchmarks.tuning.chart

`benchmarks.tuning.run` writes the figures (DATASET.json beside its table) and draws this anew from all that are there.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.tuning import how_it_trains, what_trains, words
from benchmarks.tuning.bench import FOLDER, PLAIN
from benchmarks.tuning.fits import UNTUNED
from benchmarks.tuning.rows import Row
from benchmarks.tuning.table import Results, gap_between
from lmrec.artifacts.files import read_json
from lmrec.evaluation.charts import ACCENT, INK, LIGHT, LINE, MUTED, render_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURE = FOLDER / "techniques.png"
GROUPS: Mapping[str, Sequence[Row]] = {
    "What trains": (UNTUNED, *what_trains.FREEZING, *what_trains.RATES),
    "Adapters": what_trains.ADAPTERS,
    "Longer second stages": what_trains.LONGER,
    "Regularisers": how_it_trains.REGULARISERS,
    "Attacks on embeddings": how_it_trains.ADVERSARIAL,
    "Augmentation": words.AUGMENTATION,
    "Pretraining on the catalog, long texts": (*words.PRETRAINED, *words.LONG_TEXTS),
    "Optimizers, schedules": how_it_trains.OPTIMIZERS,
    "Several fits as one": how_it_trains.MIXED,
    "Other models": what_trains.MODELS,
}
_REACH = 0.0145  # what lies further is written at the edge
_TITLES = {"movielens-100k": "MovieLens-100K", "amazon-scientific": "Amazon Scientific"}
_ROW_IN, _GROUP_IN, _TOP_IN, _BELOW_IN = 0.185, 0.30, 0.62, 0.50
_WIDTH_IN, _NAMES_IN, _GAP_IN = 8.6, 2.75, 0.25


def gaps(results: Results, same: Collection[str]) -> dict[str, Any]:
    """Row -> its difference to plain over the seeds that both have: mean, low, high, clear of zero, how many seeds; empty of
    those that would be the same fit."""
    plain = results.get(PLAIN.name, {})
    found: dict[str, dict[str, Any]] = {name: {} for name in same}
    for name, seeds in results.items():
        if name != PLAIN.name and (gap := gap_between(seeds, plain)) is not None:
            values = {key: round(getattr(gap, key), 5) for key in ("mean", "low", "high")}
            found[name] = {**values, "clear": gap.is_clear, "seeds": len(set(seeds) & set(plain))}
    return found


def keep_gaps(dataset: str, results: Results, same: Collection[str]) -> None:
    """Beside the table, whose picture is drawn anew."""
    text = json.dumps(gaps(results, same), indent=1, sort_keys=True)
    (FOLDER / f"{dataset}.json").write_text(text + "\n", encoding="utf-8")
    main()


def draw(found: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path) -> None:
    """Write a PNG. found: data set -> row -> what `gaps` says of it."""
    known = {name for rows in found.values() for name in rows}
    groups = {title: [row.name for row in rows if row.name in known] for title, rows in GROUPS.items()}
    places, height = _places({title: names for title, names in groups.items() if names})
    total = _TOP_IN + height + _BELOW_IN

    def on(figure: "Figure") -> None:
        width = (_WIDTH_IN - _NAMES_IN - _GAP_IN * len(found)) / len(found)
        for at, (dataset, rows) in enumerate(found.items()):
            left = (_NAMES_IN + at * (width + _GAP_IN)) / _WIDTH_IN
            axes = figure.add_axes((left, _BELOW_IN / total, width / _WIDTH_IN, height / total))
            _panel(axes, _TITLES[dataset], rows, places, height)
            if not at:
                for (title, name), y in places.items():
                    weight, colour = ("normal", INK) if name else ("bold", MUTED)
                    axes.text(
                        -_REACH * 1.05, y, name or title, ha="right", va="center", fontsize=8, weight=weight,
                        color=LIGHT[colour],
                    )  # fmt: skip
        figure.text(
            0.5, 0.1 / total,
            "NDCG@10 less that of plain fine-tuning, 95 % intervals over users. Filled: clear of zero. "
            "A small number: seeds, where not three.",
            ha="center", va="bottom", fontsize=7.5, color=LIGHT[MUTED],
        )  # fmt: skip

    render_png(on, total, path, _WIDTH_IN)


def _places(groups: Mapping[str, Sequence[str]]) -> tuple[dict[tuple[str, str], float], float]:
    """(group, row) -> inches from the top, of a group's title with an empty row; and the height of all."""
    places: dict[tuple[str, str], float] = {}
    y = 0.0
    for title, names in groups.items():
        y += _GROUP_IN
        places[title, ""] = y - _GROUP_IN / 3
        for name in names:
            places[title, name] = y + _ROW_IN / 2
            y += _ROW_IN
    return places, y


def _panel(
    axes: "Axes",
    title: str,
    rows: Mapping[str, Mapping[str, Any]],
    places: Mapping[tuple[str, str], float],
    height: float,
) -> None:
    axes.set_xlim(-_REACH, _REACH)
    axes.set_ylim(height, 0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_title(title, fontsize=9.5, color=LIGHT[INK], pad=16)
    axes.tick_params(labelsize=7.5, top=True, labeltop=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.2f}" if value else "0")
    axes.set_xticks([-0.01, 0, 0.01])
    axes.axvline(0, color=LIGHT[LINE], linewidth=1.2, zorder=0)
    for (_, name), y in places.items():
        if not name:
            continue
        gap = rows.get(name)
        if not gap:
            told = "not measured" if gap is None else "the same fit here"
            axes.text(0, y, told, ha="center", va="center", fontsize=6, color=LIGHT[MUTED])
            continue
        colour = LIGHT[MUTED] if not gap["clear"] else LIGHT[ACCENT] if gap["mean"] > 0 else LIGHT[INK]
        if abs(gap["mean"]) > _REACH:
            side = 1 if gap["mean"] > 0 else -1
            arrow = (
                f"{gap['mean']:+.3f} \N{RIGHTWARDS ARROW}" if side > 0 else f"\N{LEFTWARDS ARROW} {gap['mean']:+.3f}"
            )
            where = "right" if side > 0 else "left"
            axes.text(side * _REACH, y, arrow, ha=where, va="center", fontsize=7, color=colour)
            continue
        axes.plot([gap["low"], gap["high"]], [y, y], color=colour, linewidth=1.1, solid_capstyle="butt")
        face = colour if gap["clear"] else "white"
        axes.plot([gap["mean"]], [y], "o", markersize=4, color=colour, markerfacecolor=face, markeredgewidth=1.1)
        if gap["seeds"] != 3:
            x = min(gap["high"] + 0.0005, _REACH * 0.96)
            axes.text(x, y, str(gap["seeds"]), fontsize=6, va="center", color=LIGHT[MUTED])


def main() -> None:
    draw({name: read_json(file) for name in _TITLES if (file := FOLDER / f"{name}.json").exists()}, PICTURE)


if __name__ == "__main__":
    main()
