"""What earlier runs of this benchmark found and left in benchmarks/peers/results: the rivals that need not be tried again.

Of some rows there is the table alone and none of the cases behind it. They stand as they were found, and where the one rival
that the others are compared with is among them, it is fitted again, with the settings that its search had chosen then.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from benchmarks.peers.cells import Cell
from benchmarks.peers.rivals import INSIDE
from benchmarks.peers.work import Place
from lmrec.artifacts.files import read_json
from lmrec.evaluation.table import JudgementTable, SliceRow, TableRow

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """One file of results. `systems`: name -> settings, seeds, seconds and so on of each row of `table`."""

    data_fingerprint: str
    systems: Mapping[str, Facts]
    table: JudgementTable

    @classmethod
    def read(cls, folder: Path, cell: Cell, form: str) -> Self | None:
        """None where nothing is known."""
        if not results_file(folder, cell, form).exists():
            return None
        values = read_json(results_file(folder, cell, form))
        return cls(values["data_fingerprint"], values["systems"], JudgementTable.from_dict(values["table"]))

    def answers(self, data_fingerprint: str, n_cases: int) -> bool:
        """Whether it is of the same data and asked as much."""
        return self.data_fingerprint == data_fingerprint and self.table.form.n_cases == n_cases

    def rival_to_fit(self, place: Place, form: str) -> str | None:
        """The best rival, where its cases are not at hand and can be had in seconds; None otherwise."""
        best = self.table.best_baseline
        if best not in INSIDE or any(place.rows(form, best)):
            return None
        return best

    def beside(self, table: JudgementTable) -> JudgementTable:
        """The rows of `table`, and after them those of its rows that are known alone.

        Differences are to the best rival of all: rows that were compared with another have none, and neither have rows that
        were compared with what an earlier search had made of it.
        """
        old = [row for row in self.table.rows if all(row.name != here.name for here in table.rows)]
        rivals = [row for row in (*table.rows, *old) if row.is_baseline]
        best = max(rivals, key=lambda row: row.metrics[table.metric].value).name if rivals else None
        here = [row if best == table.best_baseline else replace(row, differences={}) for row in table.rows]
        there = [row if self._is_best(best, rivals, table.metric) else replace(row, differences={}) for row in old]
        names = {row.name for row in old}
        return replace(
            table,
            best_baseline=best,
            rows=tuple(here + there),
            slices=tuple(_joined(part, self.table.slices, names) for part in table.slices),
        )

    def _is_best(self, best: str | None, rivals: Sequence[TableRow], metric: str) -> bool:
        """Whether the best of these rivals is the one that the known rows were compared with, at the same settings."""
        if best is None or best != self.table.best_baseline:
            return False
        values = {row.name: row.metrics[metric].value for row in rivals}
        return math.isclose(values[best], self.table.row(best).metrics[metric].value, rel_tol=1e-6)


def results_file(folder: Path, cell: Cell, form: str) -> Path:
    return folder / f"{cell.data.name}-{cell.protocol.form_name(form)}.json"


def ratios(table: JudgementTable, systems: Mapping[str, Facts]) -> dict[str, dict[str, Any]]:
    """The systems' facts with how many times the best rival each of them is."""
    best = table.row(table.best_baseline).metrics[table.metric].value if table.best_baseline else None
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(table.rows, key=_name):
        value = row.metrics[table.metric].value
        found[row.name] = {**systems[row.name], "ratio_to_best_rival": value / best if best else None}
    return found


def _name(row: TableRow) -> str:
    return row.name


def _joined(part: SliceRow, known: Sequence[SliceRow], names: set[str]) -> SliceRow:
    """A slice with the values of those systems from the known slice of the same cases."""
    old = next((one for one in known if one.name == part.name and one.n_cases == part.n_cases), None)
    added = {} if old is None else {name: value for name, value in old.values.items() if name in names}
    return replace(part, values={**part.values, **added})
