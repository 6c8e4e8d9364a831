"""The report: one file that needs nothing else, says the right verdict and cannot be broken by what the data say."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lmrec.data.history import Cases
from lmrec.evaluation.compare import Difference
from lmrec.evaluation.evaluator import Evaluation, EvaluationConfig
from lmrec.evaluation.report import ReportData, ReportExample, judge_candidate, render_report, write_report
from lmrec.evaluation.slices import slice_cases
from lmrec.evaluation.table import JudgementTable, TableForm, build_table
from lmrec.fields import IntArray

from .conftest import N_ITEMS, N_USERS

CANDIDATE = "our model"


@pytest.fixture
def data(evaluations: list[Evaluation], cases: Cases, item_counts: IntArray, config: EvaluationConfig) -> ReportData:
    slices = slice_cases(cases, item_counts, np.ones(N_USERS, np.int64))
    table = build_table(evaluations, ["weak", "fair"], TableForm("time", "next", 60, 10, N_ITEMS, True), config, slices)
    return ReportData(
        title="A <b>small</b> world",
        candidate=CANDIDATE,
        table=table,
        summary=[("Users", "12")],
        proof={
            "holds": True,
            "facts": [{"claim": "train is before test", "holds": True, "evidence": "1 < 2"}],
            "weaknesses": ["sittings"],
            "tie_share": 0.25,
        },
        curves=[{"step": s, "loss": 5.0 - s / 10, "metric": s / 100 if s % 2 else None} for s in range(10)],
        curve_metric="ndcg@10",
        examples=[ReportExample("user 1", ["Alien"], [("<script>alert(1)</script>", 0.9), ("Heat", 0.8)], ["Heat"])],
        recipe="seed = 0\n",
        facts=[("Commit", "abc")],
    )


class Tags(HTMLParser):
    """Collects what opens and checks that it closes."""

    VOID = ("meta", "link", "br", "use", "path", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(data: ReportData) -> None:
    page = render_report(data)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))
    assert all(link.startswith("#") and link[1:] in tags.ids for link in tags.links)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_everything_that_was_given_is_on_the_page(data: ReportData) -> None:
    page = render_report(data)
    for word in ("12", "train is before test", "sittings", "25.0 %", "Alien", "Heat", "seed = 0", "abc", "cold items"):
        assert word in page
    assert page.count('class="chart"') == 4  # systems, slices, loss, validation metric; no learning rate was given
    assert 'class="came"><b>Heat' in page


def test_words_from_the_data_are_escaped(data: ReportData) -> None:
    nasty = "<script>alert(1)</script> $x_1$ & co"
    row = replace(data.table.row(CANDIDATE), name=nasty)
    slices = tuple(
        replace(part, values={nasty if name == CANDIDATE else name: value for name, value in part.values.items()})
        for part in data.table.slices
    )
    table = replace(data.table, rows=(*data.table.rows[:2], row), slices=slices)
    page = render_report(replace(data, table=table, candidate=nasty))
    assert "<script" not in page
    assert "<b>small</b>" not in page
    assert "$x_1$" in page


def test_the_charts_take_their_colours_from_the_page(data: ReportData) -> None:
    page = render_report(data)
    for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        assert "var(--ink)" in svg or "var(--muted)" in svg
        assert not re.search(r"#[0-9a-fA-F]{6}\b", svg)
        assert "<style" not in svg
        assert "font-family" not in svg


def test_a_page_of_the_least_data_is_whole(evaluations: list[Evaluation], config: EvaluationConfig) -> None:
    table = build_table(evaluations[2:], [], TableForm("last", "next", 60, 10, N_ITEMS, False), config)
    page = render_report(ReportData("bare", CANDIDATE, table))
    assert "no other baseline" in page
    assert "may be recommended again" in page
    for heading in ("leak", "How did it learn", "The data", "How to repeat"):
        assert heading not in page


def with_difference(table: JudgementTable, difference: Difference) -> JudgementTable:
    row = replace(table.row(CANDIDATE), differences={table.metric: difference})
    return replace(table, rows=(*(other for other in table.rows if other.name != CANDIDATE), row))


@pytest.mark.parametrize(
    ("difference", "tone", "words"),
    [
        (Difference(0.02, 0.01, 0.03, 0.002), "above", "beats the best baseline"),
        (Difference(0.02, -0.01, 0.03, 0.2), "open", "not clearly different"),
        (Difference(-0.02, -0.03, -0.01, 0.002), "below", "worse than the best baseline"),
    ],
)
def test_the_verdict_is_yes_or_no_only_when_the_interval_leaves_out_zero(
    data: ReportData, difference: Difference, tone: str, words: str
) -> None:
    verdict = judge_candidate(with_difference(data.table, difference), CANDIDATE)
    assert verdict.tone == tone
    assert words in verdict.headline
    assert "fair" in verdict.detail


def test_the_page_is_written_whole_and_repeatably(data: ReportData, tmp_path: Path) -> None:
    first = write_report(tmp_path / "deep" / "report.html", data)
    text = first.read_text("utf-8")
    assert write_report(first, data).read_text("utf-8") == text
    assert [path.name for path in first.parent.iterdir()] == ["report.html"]


def test_importing_the_room_loads_neither_torch_nor_the_drawing_packages() -> None:
    asked = (
        "import sys, lmrec.evaluation.report, lmrec.models.collaborative; "
        "print([m for m in ('torch', 'transformers', 'matplotlib', 'jinja2', 'implicit') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
