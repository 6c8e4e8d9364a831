"""`make bench-check`: a small part of the benchmark again, in minutes, against benchmarks/expected.toml.

Counting rivals are repeatable to the last case, so their tolerance is rounding; ALS and a training are not (threads add up in
another order), so theirs is wider. What lies under LMREC_DATA is skipped where it is not there, and every skip is said; what is
fetched is always measured. Exit 0 where all that was measured is as expected, and something was; 1 where a value is out of its
tolerance or nothing was measured; another code, of the error, where data cannot be fetched or read.
"""

import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.table import Table

from benchmarks.peers.cells import DATA, PROTOCOLS, ROOT, Cell
from benchmarks.peers.known import results_file
from benchmarks.peers.rivals import INSIDE
from benchmarks.peers.steps import encode_words
from benchmarks.peers.stopwatch import Stopwatch
from benchmarks.peers.work import CHOSEN_BY, Effort
from lmrec.artifacts.files import read_json
from lmrec.errors import InputError, LmrecError
from lmrec.evaluation.evaluator import evaluate
from lmrec.workflows.counting import log_arrays
from lmrec.workflows.judge import judge_run, own_name
from lmrec.workflows.train import fit_run

EXPECTED = ROOT / "benchmarks" / "expected.toml"
KEPT = ROOT / "benchmarks" / "peers" / "results"


class Expectation(BaseModel):
    """One value to be found again: a rival's as it is published, or that of a short fit of lmrec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field(description="A data set of cells.py.")
    protocol: str = Field(description="A protocol of cells.py.")
    form: str = Field(default="x", description="x: items of the history excluded; i: left in.")
    system: str = Field(description="A rival of the product, or lmrec.")
    overrides: tuple[str, ...] = Field(default=(), description="lmrec: what is set beside the recipe, to be quick.")
    value: float | None = Field(default=None, description="lmrec's; a rival's is that of its first seed in KEPT.")
    tolerance: float = Field(gt=0, description="How far from it is still the same.")
    above: str | None = Field(
        default=None, description="lmrec: a rival of the product that it has to be above, as kept."
    )

    @property
    def cell(self) -> Cell:
        try:
            return Cell(DATA[self.data], PROTOCOLS[self.protocol])
        except KeyError as unknown:
            raise InputError(f"expected.toml names {unknown}, which is no data set or protocol of cells.py") from None

    def published(self, system: str) -> dict[str, Any]:
        """What KEPT says of a rival: `settings`, and `per_seed` of NDCG@10."""
        file = results_file(KEPT, self.cell, self.form)
        if system not in INSIDE or not file.exists() or system not in (known := read_json(file)["systems"]):
            raise InputError(
                f"expected.toml names '{system}' of {self.data}, and {file} has no such rival of the product's own, which "
                "alone can be checked quickly"
            )
        return dict(known[system])

    @property
    def expected(self) -> float:
        return float(self.published(self.system)["per_seed"][0]) if self.value is None else self.value

    @property
    def floor(self) -> float:
        """What it has to be above."""
        return float("-inf") if self.above is None else float(self.published(self.above)["per_seed"][0])

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.published(self.system)["settings"])


@dataclass(frozen=True)
class Found:
    """verdict: as expected, different, or skipped because the data are not there; then value is None."""

    what: Expectation
    value: float | None
    seconds: float
    verdict: Literal["as expected", "DIFFERENT", "skipped"]


def main() -> int:
    console = Console(highlight=False)
    try:
        found = list(check(read_expected(EXPECTED), console))
    except LmrecError as error:
        console.print(f"[red]{error}[/red]")
        return error.exit_code
    console.print(as_table(found))
    console.print(summary(found), soft_wrap=True)
    return exit_code(found)


def exit_code(found: list[Found]) -> int:
    """0 where all that was measured is as expected, and something was."""
    verdicts = {one.verdict for one in found}
    return int("DIFFERENT" in verdicts or "as expected" not in verdicts)


def summary(found: list[Found]) -> str:
    """One sentence; names the data sets that were not there, and where they are looked for."""
    count = Counter(one.verdict for one in found)
    said = f"{count['as expected']} as expected, {count['DIFFERENT']} different, {count['skipped']} skipped"
    absent = list(dict.fromkeys(str(one.what.cell.data.path) for one in found if one.verdict == "skipped"))
    if absent:
        said += f" and NOT CHECKED, for want of {', '.join(absent)} (LMREC_DATA says where data lie)"
    return f"{said}."


def read_expected(path: Path) -> list[Expectation]:
    """Raises InputError for a file that cannot be read or an entry that is not one."""
    try:
        return [Expectation.model_validate(entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["value"]]
    except (OSError, tomllib.TOMLDecodeError, KeyError, ValidationError) as error:
        raise InputError(f"{path} is not a list of [[value]] entries: {error}") from None


def check(expectations: list[Expectation], console: Console) -> Iterator[Found]:
    for what in expectations:
        question = f"{what.data}, {what.cell.protocol.form_name(what.form)}: {what.system}"
        if not what.cell.is_there:
            console.print(f"[bold yellow]SKIPPED[/] {question}: there is no {what.cell.data.path}", soft_wrap=True)
            yield Found(what, None, 0.0, "skipped")
            continue
        console.print(question)
        watch = Stopwatch()
        value = measure(what)
        apart = abs(value - what.expected) > what.tolerance or value <= what.floor
        yield Found(what, value, watch.read()["seconds"], "DIFFERENT" if apart else "as expected")


def measure(what: Expectation) -> float:
    """Fit and judge it once more."""
    cell, recipe = what.cell, Effort(own_overrides=what.overrides).recipe(what.cell, what.form)
    prepared = cell.prepare(recipe)
    if what.system == "lmrec":
        with tempfile.TemporaryDirectory() as folder:
            run = fit_run(None, None, out=Path(folder) / "run", recipe=recipe, prepared=prepared).run
            judged = judge_run(run.path, ["baselines.names=[]"])
            return judged.evaluations[own_name(run)].aggregate[CHOSEN_BY]
    n_items = prepared.dataset.catalog.n_items
    text_vec = encode_words(prepared, recipe) if what.system.startswith("content") else None
    rival = INSIDE[what.system].make(what.settings, 0, text_vec)
    fitted = rival.fit(log_arrays(prepared.split.train_and_validation, n_items))
    return evaluate(fitted, prepared.split.test, n_items, recipe.evaluation).aggregate[CHOSEN_BY]


def as_table(found: list[Found]) -> Table:
    table = Table(title="The benchmark's small part again", title_justify="left")
    for column in ("data, protocol", "system", "metric", "expected", "found", "seconds", ""):
        table.add_column(column)
    for one in found:
        what = one.what
        style = {"as expected": "green", "DIFFERENT": "bold red", "skipped": "bold yellow"}[one.verdict]
        table.add_row(
            f"{what.data}, {what.cell.protocol.form_name(what.form)}",
            what.system,
            CHOSEN_BY,
            f"{what.expected:.4f} ± {what.tolerance:g}"
            + (f", above {what.above}'s {what.floor:.4f}" if what.above else ""),
            "" if one.value is None else f"{one.value:.4f}",
            f"{one.seconds:.0f}",
            f"[{style}]{one.verdict}[/{style}]",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
