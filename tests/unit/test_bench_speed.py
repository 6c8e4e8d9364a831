"""The harness of `make bench-speed`: its ratios, its table, and that every figure can be run alone."""

import importlib
import json
from pathlib import Path

import pytest

from benchmarks.speed import run
from benchmarks.speed.figure import Figure, percentile, show_table


def test_ratio_is_above_one_where_ours_is_better_whichever_way_the_unit_counts() -> None:
    assert Figure("a", 2.0, 8.0, "ms", "other").ratio == 4.0
    assert Figure("a", 8.0, 2.0, "texts/s", "other").ratio == 4.0
    assert Figure("a", 8.0, 2.0, "MB", "limit").ratio == 0.25


def test_table_has_a_line_a_figure_that_ends_in_its_ratio_and_note() -> None:
    lines = show_table(
        [Figure("one", 1.0, 4.2, "s", "faiss", "10 rows"), Figure("longer", 2000.0, 1.0, "s", "limit")]
    ).split("\n")
    assert len(lines) == 2
    assert "ratio 4.20x" in lines[0]
    assert lines[0].endswith("10 rows")
    assert lines[1].startswith("longer")
    assert "ours 2,000 s" in lines[1]


def test_percentile_is_a_value_that_happened() -> None:
    assert percentile([float(value) for value in range(100)], 0.99) == 99.0
    assert percentile([5.0], 0.99) == 5.0


def test_every_figure_is_a_module_with_main() -> None:
    names = run.figure_names()
    assert "start" in names
    for name in names:
        assert callable(importlib.import_module(f"benchmarks.speed.{name}").main), name


def test_unknown_figure_is_named() -> None:
    with pytest.raises(SystemExit, match="no figure 'nothing'"):
        run.chosen_names(["nothing"])


def test_what_was_measured_is_kept_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = Figure("one", 1.0, 2.0, "s", "limit", "note")
    monkeypatch.setattr(run, "FOLDER", tmp_path)
    monkeypatch.setattr(importlib.import_module("benchmarks.speed.start"), "main", lambda small: [figure])
    run.measure("start", small=True)
    assert run.read_figures("start", small=True) == [figure]
    kept = json.loads((tmp_path / "results" / "small" / "start.json").read_text())
    assert kept["small"] is True
    assert kept["cpu"]
