"""The table of benchmarks/RESULTS.md, "Speed", of what the last full `make bench-speed` of each figure found.

python -m benchmarks.speed.page            (writes the table into the page)
"""

import json
from pathlib import Path
from typing import Any, Final

from benchmarks.pages import write_between
from benchmarks.speed.figure import Figure, show_number
from benchmarks.speed.run import ROOT, figure_names, results_folder

PAGE: Final = ROOT / "benchmarks" / "RESULTS.md"
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
_ELSEWHERE = frozenset({"serve", "soak"})  # have sections of their own


def table_of(results: Path) -> str:
    """Markdown: the machine and commit of each figure, and a row each."""
    lines = ["| figure | ours | reference | ratio | |", "|---|---|---|---|---|"]
    for name in figure_names():
        file = results / f"{name}.json"
        if name in _ELSEWHERE or not file.exists():
            continue
        values = json.loads(file.read_text(encoding="utf-8"))
        lines.append(f"| **{name}**, {_made(values)} | | | | |")
        lines += [_row(Figure.from_dict(figure)) for figure in values["figures"]]
    return "\n".join(lines)


def _made(values: dict[str, Any]) -> str:
    threads = values["threads"].replace("default", str(values["cores"]))
    return f"commit {values['commit']}, {values['when'][:10]}, {threads} thread(s), {values['seconds']:,.0f} s in all"


def _row(figure: Figure) -> str:
    ours = f"{show_number(figure.ours)} {figure.unit}"
    reference = f"{figure.reference_name} {show_number(figure.reference)} {figure.unit}"
    return f"| {figure.what} | {ours} | {reference} | {figure.ratio:.2f}x | {figure.note} |"


if __name__ == "__main__":
    write_between(PAGE, table_of(results_folder(small=False)), BEGIN, END)
