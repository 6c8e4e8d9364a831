"""Compression: what `lmrec compress` keeps of a run on MovieLens-100K (all-MiniLM-L6-v2), and what it costs to ask it then.

The run is a short fit of the recipe for this data, 384 wide: three epochs, the language model as it was published. Students of
6, 3 and 2 layers, whole and with half of their heads and feed-forward units, and vectors of 384, 192, 128 and 64 numbers
are tried; taken is the smallest within two hundredths of the run's own validation metric. Speeds are the best of three
turns that all take, on as many threads as OMP_NUM_THREADS says. The whole curve: results/compress_curve.json and
compress.png. Small: a planted world and fewer students.
"""

import json
import tempfile
from pathlib import Path

from benchmarks.speed.figure import Figure
from benchmarks.speed.run import results_folder
from benchmarks.speed.worlds import ROOT, fitted_run
from lmrec.artifacts.pretrained import cache_folder
from lmrec.data.sources.movielens import read_movielens_100k
from lmrec.data.sources.registry import fetch_dataset
from lmrec.evaluation.compression import CompressionCurve, draw_compression
from lmrec.recipe import load_recipe
from lmrec.workflows.compress import compress_run
from lmrec.workflows.prepare import prepare_dataset
from lmrec.workflows.train import fit_run

_FIT = ("training.frozen_epochs=3", "training.tuned_epochs=0", "training.refit=false", "training.validation_cases=1000")
_SEARCH = ("fusion.search_cases=200",)
_WIDE = ("item.width=384",)  # as wide as the language model
_TEACH = ("compress.epochs=4", "compress.tower_epochs=1")
_WIDTHS = ("compress.widths=[384,192,128,64]",)
_FEW = ("compress.layers=[3]", "compress.kept=[1.0,0.5]", "compress.widths=[64]", "compress.tolerance=0.5")
_REFERENCE = "the run as it was"


def main(small: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        run, out = Path(folder) / "run", Path(folder) / "small"
        if small:
            fitted_run(run, small)
        else:
            fit_movielens(run)
        made = compress_run(run, out, (*_TEACH, *(_FEW if small else _WIDTHS)))
    keep_curve(made.curve, results_folder(small))
    return figures_of(made.curve)


def fit_movielens(out: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "movielens-100k.toml", (*_FIT, *_WIDE, *_SEARCH))
    source = fetch_dataset("movielens-100k", cache_folder() / "data")
    prepared = prepare_dataset(read_movielens_100k(source), recipe)
    fit_run(None, None, out=out, recipe=recipe, prepared=prepared)


def keep_curve(curve: CompressionCurve, folder: Path) -> None:
    (folder / "compress_curve.json").write_text(json.dumps(curve.as_dict(), indent=1) + "\n", encoding="utf-8")
    draw_compression(folder / "compress.png", curve)


def figures_of(curve: CompressionCurve) -> list[Figure]:
    """Of what was taken; where nothing was within the tolerance, of the best that is smaller."""
    whole, point = curve.whole, curve.chosen or max(curve.smaller, key=lambda one: one.metric)
    taken = "taken" if curve.chosen is not None else f"none is within {100 * curve.tolerance:g} %; the best"
    note = f"{taken}: {point.name}; validation {curve.metric} {point.metric:.4f} against {whole.metric:.4f}"

    def figure(what: str, field: str, unit: str) -> Figure:
        return Figure.from_dict(
            {
                "what": f"compressed: {what}",
                "ours": getattr(point, field),
                "reference": getattr(whole, field),
                "unit": unit,
                "reference_name": _REFERENCE,
                "note": note,
            }
        )

    return [
        figure(f"validation {curve.metric}", "metric", "share"),
        figure("the language model", "encoder_mb", "MB"),
        figure("vectors that are searched", "vectors_mb", "MB"),
        figure("texts encoded", "texts_per_s", "texts/s"),
        figure("one text alone", "text_ms", "ms"),
        figure("one search, plain product", "search_ms", "ms"),
    ]
