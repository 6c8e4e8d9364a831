"""The harness of `make bench-speed`: its ratios, its table, and that every figure can be run alone."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pages import write_between
from benchmarks.speed import growth, page, run, scaling, training
from benchmarks.speed.alone import measure_alone, peak_mb
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


def test_a_measurement_alone_has_a_memory_of_its_own(tmp_path: Path) -> None:
    np.save(tmp_path / "matrix.npy", np.random.default_rng(0).normal(size=(2_000, 8)).astype(np.float32))
    ballast = np.ones(60_000_000)
    assert peak_mb() > 450
    cost = growth.Cost(**measure_alone("benchmarks.speed.growth", "index", tmp_path))
    assert cost.seconds > 0
    assert 0 <= cost.grown_mb < 200
    with pytest.raises(RuntimeError, match="'other' is no step"):
        measure_alone("benchmarks.speed.growth", "other", tmp_path)
    assert ballast[0] == 1


def test_seconds_to_a_goal_are_those_of_the_first_that_reached_it() -> None:
    course = {2.0: 0.1, 4.0: 0.3, 6.0: 0.2}
    assert training.seconds_to(course, 0.2) == 4.0
    assert training.seconds_to(course, 0.4) is None
    figure, as_it_is = training.figures_of("ids alone", course, {10.0: 0.2, 20.0: 0.25, 30.0: 0.2}, {50.0: 0.1})
    assert (figure.ours, figure.reference) == (4.0, 20.0)
    assert "50 s instead of 10" in figure.note
    assert (as_it_is.ours, as_it_is.reference) == (4.0, 100.0)
    assert [one.unit for one in training.figures_of("ids alone", course, {10.0: 0.9}, None)] == ["share"]


def test_growth_is_held_against_ten_times_the_first() -> None:
    base = growth.World(items=10, users=20, events=5)
    assert base.times("users", 10) == growth.World(items=10, users=200, events=5)
    first = {step: growth.Cost(2.0, 5.0) for step in growth.STEPS}
    grown = {step: growth.Cost(10.0, 60.0) for step in growth.STEPS}
    figures = growth.figures_of("items", base, first, grown)
    assert [figure.ratio for figure in figures] == [2.0] * len(growth.STEPS)
    assert "10 to 100 items" in figures[0].note


def test_scaling_multiplies_what_was_measured() -> None:
    unit = scaling.Measured(event_s=1e-6, event_bytes=100, text_s=0.01, sampled_s=1e-5, pair_s=1e-9, search_s=1e-8)
    small, large = (
        scaling.lines_of(size, unit) for size in (scaling.Size(1000, 100, 10), scaling.Size(10**6, 10**9, 10))
    )
    assert small[0].cost == "0.0 core minutes, 0.0 GB of memory"
    assert large[0].cost == "2.8 core hours, 1.0 TB of memory"
    assert large[4].cost == "0.2 core minutes"  # 10,000 users x 1M items x 1 ns: users are sampled, items never
    assert scaling.limits_of(unit, 64)["events"] == 640e6


def test_results_are_written_between_their_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<a>\nold\n<b>\nafter", encoding="utf-8")
    write_between(page, "new", "<a>", "<b>")
    assert page.read_text(encoding="utf-8") == "before\n<a>\nnew\n<b>\nafter"
    with pytest.raises(ValueError, match="not enough values"):
        write_between(page, "new", "<c>", "<d>")


def test_the_page_has_a_row_for_each_figure_that_was_measured(tmp_path: Path) -> None:
    figure = Figure("import lmrec", 0.02, 0.1, "s", "limit", "median of 3")
    kept = {"figures": [figure.as_dict()], "seconds": 9.6, "commit": "abc", "when": "2026-11-29 06:00:00"}
    (tmp_path / "start.json").write_text(json.dumps({**kept, "threads": "default", "cores": 2}))
    assert page.table_of(tmp_path).splitlines()[2:] == [
        "| **start**, commit abc, 2026-11-29, 2 thread(s), 10 s in all | | | | |",
        "| import lmrec | 0.02 s | limit 0.1 s | 5.00x | median of 3 |",
    ]
