"""Compare: judged runs and their rows beside each other, on the same cases or not at all."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from lmrec.artifacts.run import open_run
from lmrec.errors import InputError, nearest
from lmrec.evaluation.casefile import JudgedCases, JudgedLists
from lmrec.evaluation.comparison import Comparison, ShownForm, compare_systems, compare_values
from lmrec.evaluation.impressions import MAIN
from lmrec.evaluation.metrics import Ranks

ALL_ROWS: Final = "all"
_Answers = TypeVar("_Answers")  # what is kept of one row
_Kept = TypeVar("_Kept", JudgedCases, JudgedLists)


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
    judged = [_read(open_run(path).cases_file, JudgedCases, "cases") for path in paths]
    for path, other in zip(paths[1:], judged[1:], strict=True):
        _require_same_questions(paths[0], judged[0], path, other)
    first, metrics = judged[0], metrics or (judged[0].metric,)
    chosen, against = _choose(paths, [(one.own, one.ranks) for one in judged], rows, against, _bytes_of_ranks)
    return compare_systems(chosen, first.user_idx, first.form, metrics, against, n_bootstrap)


def compare_shown(
    paths: Sequence[Path | str],
    rows: Sequence[str] = (),
    against: str | None = None,
    metrics: Sequence[str] = (),
    n_bootstrap: int = 10_000,
) -> Comparison:
    """As `compare_runs`, on the lists that were shown; by default their AUC. Raises InputError for runs that were asked about
    other lists, and for a metric that is no mean over lists."""
    judged = [_read(open_run(path).shown_file, JudgedLists, "lists that were shown") for path in paths]
    first, metrics = judged[0], metrics or (MAIN,)
    for path, other in zip(paths[1:], judged[1:], strict=True):
        if other.questions != first.questions:
            raise InputError(
                f"'{paths[0]}' and '{path}' were not asked about the same lists, so their numbers cannot be compared "
                f"({first.sentence} {other.sentence}). Fit and judge both on the same data and split"
            )
    known = first.values[first.own]
    for metric in metrics:
        if metric not in known:
            raise InputError(
                f"'{metric}' is not measured list by list. {nearest(metric, known)} Known: {', '.join(known)}"
            )
    chosen, against = _choose(paths, [(one.own, one.values) for one in judged], rows, against, _bytes_of_values)
    return compare_values(chosen, first.user_idx, ShownForm(first.sentence), metrics, against, n_bootstrap)


def _read(file: Path, kind: type[_Kept], what: str) -> _Kept:
    if not file.exists():
        raise InputError(
            f"'{file.parent}' has no judged {what} to compare ({file.name}). Type: lmrec evaluate {file.parent}"
        )
    return kind.from_parquet(file)


def _require_same_questions(path: Path | str, a: JudgedCases, other_path: Path | str, b: JudgedCases) -> None:
    """Names what differs, for numbers of different questions cannot be compared."""
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
        f"'{path}' and '{other_path}' were not asked the same, so their numbers cannot be compared; they differ in "
        f"{', '.join(differing) or 'the cases that were drawn (evaluation.seed, split.seed or shares)'}. Judge both alike: "
        "the same data, split and evaluation settings"
    )


def _choose(
    paths: Sequence[Path | str],
    judged: Sequence[tuple[str, Mapping[str, _Answers]]],
    rows: Sequence[str],
    against: str | None,
    bytes_of: Callable[[_Answers], bytes],
) -> tuple[dict[str, _Answers], str | None]:
    """Which rows are compared, under which names, and with which one. judged: each run's own row, and all of them."""
    if len(judged) == 1:
        own, found = judged[0]
        chosen = _pick(paths[0], found, rows or (ALL_ROWS,))
        return chosen, against or (own if own in chosen else None)
    chosen = {}
    for path, label, (own, found) in zip(paths, _labels([Path(path) for path in paths]), judged, strict=True):
        for row, answers in _pick(path, found, rows or (own,)).items():
            same = (known for name, known in chosen.items() if name.endswith(f"/{row}"))
            if row == own or not any(bytes_of(answers) == bytes_of(known) for known in same):
                chosen[f"{label}/{row}"] = answers
    return chosen, against


def _pick(path: Path | str, found: Mapping[str, _Answers], rows: Sequence[str]) -> dict[str, _Answers]:
    if ALL_ROWS in rows:
        return dict(found)
    for row in rows:
        if row not in found:
            raise InputError(f"'{path}' has no row '{row}'. {nearest(row, found)} Rows: {', '.join(found)}")
    return {row: found[row] for row in rows}


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


def _bytes_of_ranks(found: Ranks) -> bytes:
    return found.ranks.values.tobytes()


def _bytes_of_values(found: Mapping[str, Any]) -> bytes:
    return b"".join(values.tobytes() for values in found.values())
