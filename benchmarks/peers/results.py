"""The tables: every row with its interval, its paired difference to the best rival, its time and memory, and what made it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import own
from benchmarks.peers.cells import Cell, choose_cells
from benchmarks.peers.kept import load_row, read_facts
from benchmarks.peers.known import Facts, Known, ratios, results_file
from benchmarks.peers.rivals import TITLES
from benchmarks.peers.steps import prepare_cell
from benchmarks.peers.work import Effort, Place, trials_of
from lmrec.artifacts.files import read_json, write_json
from lmrec.evaluation.evaluator import Evaluation
from lmrec.evaluation.slices import COLD_ITEMS, slices_of
from lmrec.evaluation.table import JudgementTable, TableForm, build_table

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
_TITLES = {**TITLES, **own.TITLES}


def build_results(places: Sequence[Place], effort: Effort) -> str:
    """A JSON file for each form of each cell that has rows, beside them, and all of them as one text of Markdown."""
    sections = []
    for place in places:
        for form in place.cell.protocol.forms:
            found = tabulate(place, form, effort)
            if found is not None:
                write_json(results_file(place.kept, place.cell, form), found)
                sections.append(render(place.cell, form, found))
    return "\n\n".join(sections)


def known_results(kept: Path) -> str:
    """Every table that there is, as one text of Markdown."""
    files = [(cell, form, results_file(kept, cell, form)) for cell in choose_cells() for form in cell.protocol.forms]
    return "\n\n".join(render(cell, form, read_json(file)) for cell, form, file in files if file.exists())


def tabulate(place: Place, form: str, effort: Effort) -> dict[str, Any] | None:
    """The table of one form; None where nothing is known. Seeds of a system are averaged case by case.

    What an earlier table holds of rows that are not kept stands beside those that are.
    """
    before, paths = Known.read(place.kept, place.cell, form), alike(place.rows(form))
    if not paths:
        return None if before is None else dict(read_json(results_file(place.kept, place.cell, form)))
    prepared, recipes = prepare_cell(place, effort)
    split, n_items = prepared.split, prepared.dataset.catalog.n_items
    rows = {system: [load_row(path, split.test) for path in found] for system, found in paths.items()}
    means = [_mean([evaluation for _, evaluation in found]) for found in rows.values()]
    config = recipes[form].evaluation
    n_users = len(np.unique(split.test.user_idx))
    shape = TableForm(split.kind, split.target, len(split.test), n_users, n_items, config.exclude_seen)
    rivals = set(rows) - set(own.TITLES)
    table = build_table(means, rivals, shape, config, slices_of(split.test, split.train_and_validation, n_items))
    if before is not None and not before.answers(prepared.dataset.fingerprint, len(split.test)):
        before = None
    systems: dict[str, Mapping[str, Any]] = {
        system: {**_facts([facts for facts, _ in found], table.metric), "trials": _trials_of(place, system, before)}
        for system, found in rows.items()
    }
    if before is not None:
        table, systems = before.beside(table), {**before.systems, **systems}
    return {
        "data": place.cell.data.name,
        "protocol": place.cell.protocol.form_name(form),
        "data_fingerprint": prepared.dataset.fingerprint,
        "systems": ratios(table, systems),
        "table": table.as_dict(),
    }


def alike(rows: Iterable[tuple[str, Path]]) -> dict[str, list[Path]]:
    """System -> its rows, without those that were made otherwise than its newest one: of settings chosen before, of a recipe
    that has changed since."""
    found: dict[str, list[tuple[Path, Facts]]] = defaultdict(list)
    for system, path in rows:
        found[system].append((path, read_facts(path)))
    newest = {system: max(many, key=_when)[1] for system, many in found.items()}
    return {
        system: [path for path, facts in many if _how(facts) == _how(newest[system])] for system, many in found.items()
    }


def _when(row: tuple[Path, Facts]) -> str:
    return str(row[1]["made"])


def _how(facts: Facts) -> tuple[Any, ...]:
    # What lmrec's own search found differs from seed to seed.
    return facts.get("recipe"), {name: value for name, value in facts["settings"].items() if name != "fusion"}


def _mean(evaluations: Sequence[Evaluation]) -> Evaluation:
    first = evaluations[0]
    metrics = {name: np.mean([found.metrics[name] for found in evaluations], axis=0) for name in first.metrics}
    return replace(first, metrics=metrics, aggregate={name: float(value.mean()) for name, value in metrics.items()})


def _facts(seeds: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """What the seeds of one system have in common and what they have not."""
    return {
        "seeds": [facts["seed"] for facts in seeds],
        "per_seed": [facts[metric] for facts in seeds],
        "settings": seeds[0]["settings"],
        "seconds": float(np.mean([facts.get("seconds", np.nan) for facts in seeds])),
        "cpu_seconds": float(np.mean([facts.get("cpu_seconds", np.nan) for facts in seeds])),
        "peak_mb": max(facts.get("peak_mb", 0) for facts in seeds),
        "commits": sorted({facts["commit"] for facts in seeds}),
        "machine": seeds[0]["machine"],
        "made": max(facts["made"] for facts in seeds),
    }


def _trials_of(place: Place, system: str, known: Known | None) -> int | None:
    """How many settings were tried on validation, here or before; None for lmrec, which runs its recipe."""
    if trials := trials_of(place, system):
        return len(trials)
    return known.systems[system]["trials"] if known is not None and system in known.systems else None


def render(cell: Cell, form: str, found: Mapping[str, Any]) -> str:
    """One section of RESULTS.md."""
    table = JudgementTable.from_dict(found["table"])
    name, systems, best = cell.protocol.form_name(form), found["systems"], table.best_baseline
    commits = sorted({commit for facts in systems.values() for commit in facts["commits"]})
    machines = sorted({facts["machine"] for facts in systems.values()})
    cold = next(part for part in table.slices if part.name == COLD_ITEMS)
    shows_cold = 0 < cold.n_cases < table.form.n_cases
    header = [
        "",
        "NDCG@10 [95 %]",
        "HR@10",
        f"difference to {_TITLES.get(best or '', best)} [95 %]",
        "x best rival",
        *([f"NDCG@10, {cold.n_cases:,} new answers"] if shows_cold else []),
        "trials",
        "seeds: lowest to highest",
        "seconds (CPU)",
        "peak MB",
    ]
    lines = [
        f"### {cell.data.name}, {name}",
        "",
        f"{table.form.sentence} `{_command(cell, name, systems)}` goes on with it (how many trials and "
        f"seeds a row had stands in it); data fingerprint "
        f"{found['data_fingerprint']}; commits {', '.join(commits)}; {'; '.join(machines)}.",
        "",
        _cells(header),
        "|" + "---|" * len(header),
    ]
    for row in sorted(table.rows, key=lambda row: row.metrics[table.metric].value):
        facts, main = systems[row.name], row.metrics[table.metric]
        gap, seeds = row.differences.get(table.metric), facts["per_seed"]
        new = [_number(cold.values[row.name].value, ".4f") if row.name in cold.values else ""]
        lines.append(
            _cells(
                [
                    _title(row.name, facts),
                    f"{main.value:.4f} [{main.low:.4f}, {main.high:.4f}]",
                    f"{row.metrics['hit@10'].value:.4f}",
                    f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]" if gap else "",
                    _number(facts["ratio_to_best_rival"], ".2f"),
                    *(new if shows_cold else []),
                    str(facts["trials"] or ""),
                    f"{len(seeds)}: {min(seeds):.4f} to {max(seeds):.4f}",
                    f"{_number(facts['seconds'], '.1f')} ({_number(facts['cpu_seconds'], '.1f')})",
                    str(facts["peak_mb"]),
                ]
            )
        )
    return "\n".join(lines)


def _command(cell: Cell, name: str, systems: Mapping[str, Mapping[str, Any]]) -> str:
    """What goes on with these rows: with what was set beside lmrec's recipe, for a row of another recipe is made anew."""
    said = f"make bench-peers DATASET={cell.data.name} PROTOCOL={name}"
    chosen = systems.get(own.OWN, {}).get("settings", {}).get("set", ())
    return f'{said} SET="{" ".join(chosen)}"' if chosen else said


def _cells(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"


def _title(system: str, facts: Mapping[str, Any]) -> str:
    return own.title_of(system, facts["settings"]) if system in own.TITLES else TITLES.get(system, system)


def _number(value: float | None, form: str) -> str:
    return "" if value is None or not np.isfinite(value) else format(value, form)
