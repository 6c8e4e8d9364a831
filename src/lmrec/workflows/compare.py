"""Compare: judged runs and their rows beside each other, on the same cases or not at all."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lmrec.artifacts.run import open_run
from lmrec.errors import InputError, nearest
from lmrec.evaluation.casefile import JudgedCases
from lmrec.evaluation.comparison import Comparison, compare_systems
from lmrec.evaluation.metrics import Ranks

ALL_ROWS: Final = "all"


@dataclass(frozen=True, eq=False)
class _Judged:
    path: Path
    cases: JudgedCases


def compare_runs(
    paths: Sequence[Path | str],
    rows: Sequence[str] = (),
    against: str | None = None,
    metrics: Sequence[str] = (),
    n_bootstrap: int = 10_000,
) -> Comparison:
    """Paired differences between systems of judged runs.

    rows: which rows of each run's table ("all": every one); by default each run's own model, and for a single run all
    rows, its own model against each. against: one row, which is compared with each other one; by default all pairs.
    metrics: by default the main metric of the first run. Rows of several runs are called RUN/ROW; one that two runs
    answered alike, such as popularity, stands there once. Raises InputError for runs that answered other questions.
    """
    judged = [_read(path) for path in paths]
    for other in judged[1:]:
        _require_same_questions(judged[0], other)
    first = judged[0].cases
    if len(judged) == 1:
        chosen: Mapping[str, Ranks] = _pick(judged[0], rows or (ALL_ROWS,))
        against = against or (first.own if first.own in chosen else None)
    else:
        chosen = _pick_of_all(judged, rows)
    metrics = metrics or (first.metric,)
    return compare_systems(chosen, first.user_idx, first.form, metrics, against, n_bootstrap)


def _read(path: Path | str) -> _Judged:
    run = open_run(path)
    if not run.cases_file.exists():
        raise InputError(f"'{path}' has no judged cases to compare (cases.parquet). Type: lmrec evaluate {path}")
    return _Judged(Path(path), JudgedCases.from_parquet(run.cases_file))


def _require_same_questions(one: _Judged, other: _Judged) -> None:
    """Names what differs, for numbers of different questions cannot be compared."""
    a, b = one.cases, other.cases
    same_form = (a.form.exclude_seen, a.form.n_items) == (b.form.exclude_seen, b.form.n_items)
    if a.questions == b.questions and same_form:
        return
    differing = [
        f"{words} ({getattr(a.form, name)} against {getattr(b.form, name)})"
        for name, words in (
            ("split", "split.kind"),
            ("target", "split.target"),
            ("exclude_seen", "evaluation.exclude_seen"),
            ("n_items", "items in the catalog"),
            ("n_cases", "cases"),
            ("n_users", "users"),
        )
        if getattr(a.form, name) != getattr(b.form, name)
    ]
    if a.data != b.data:
        differing.append("the data they were fitted on")
    raise InputError(
        f"'{one.path}' and '{other.path}' were not asked the same, so their numbers cannot be compared; they differ in "
        f"{', '.join(differing) or 'the cases that were drawn (evaluation.seed, split.seed or shares)'}. Judge both alike: "
        "the same data, split and evaluation settings"
    )


def _pick(judged: _Judged, rows: Sequence[str]) -> dict[str, Ranks]:
    found = judged.cases.ranks
    if ALL_ROWS in rows:
        return dict(found)
    for row in rows:
        if row not in found:
            raise InputError(f"'{judged.path}' has no row '{row}'. {nearest(row, found)} Rows: {', '.join(found)}")
    return {row: found[row] for row in rows}


def _pick_of_all(judged: Sequence[_Judged], rows: Sequence[str]) -> dict[str, Ranks]:
    chosen: dict[str, Ranks] = {}
    for one, label in zip(judged, _labels([entry.path for entry in judged]), strict=True):
        for row, ranks in _pick(one, rows or (one.cases.own,)).items():
            twin = any(_equal(ranks, known) for name, known in chosen.items() if name.endswith(f"/{row}"))
            if not (twin and row != one.cases.own):
                chosen[f"{label}/{row}"] = ranks
    return chosen


def _labels(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart.

    >>> _labels([Path("runs/a/run"), Path("runs/b/run")]), _labels([Path("x/a"), Path("x/b")])
    (['a/run', 'b/run'], ['a', 'b'])
    """
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-depth:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    ((twice, _),) = Counter(parts).most_common(1)
    raise InputError(f"'{Path(*twice)}' is given twice. Name each run once")


def _equal(a: Ranks, b: Ranks) -> bool:
    return a.ranks.values.tobytes() == b.ranks.values.tobytes()
