"""What commands print: results on stdout, words about the work on stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from lmrec.evaluation.table import JudgementTable
    from lmrec.retrieval.recommender import RankedCandidates, Recommendation, ScoredItem, ScoredUser
    from lmrec.workflows.prepare import Prepared


def say(message: str) -> None:
    print(message, file=sys.stderr)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        say(f"note: {note}")


def print_data(prepared: "Prepared") -> None:
    """The summary, the proof and the notes of checked data."""
    table = _table("Data", ("", ""))
    for label, value in prepared.summary.rows():
        table.add_row(label, value)
    print_rich(table)
    proof = prepared.split.proof
    if prepared.split.kind != "none":
        held = sum(fact.holds for fact in proof.facts)
        say(f"Split '{prepared.split.kind}': {held} of {len(proof.facts)} leak checks hold")
        for fact in proof.facts:
            if not fact.holds:
                say(f"LEAK: {fact.claim}: {fact.evidence}")
        for weakness in proof.weaknesses:
            say(f"known weakness: {weakness}")
    print_notes(prepared.notes)
    for row in prepared.dataset.quarantine.unique("reason", keep="first", maintain_order=True).iter_rows(named=True):
        say(f"set aside: {row['file']}, row {row['row']}: {row['reason']} (the first of its kind)")


def print_items(items: Sequence["ScoredItem"]) -> None:
    table = _table("", ("rank", "item", "title", "score"))
    for place, item in enumerate(items, start=1):
        table.add_row(str(place), item.item_id, item.title, f"{item.score:.3f}")
    print_rich(table)


def print_recommendations(answers: Sequence["Recommendation | RankedCandidates"]) -> None:
    for answer in answers:
        who = f"user {answer.user_id}" if answer.user_id is not None else "you"
        basis = {
            "history": f"from {answer.n_history} items of history",
            "text": "from your words",
            "profile": "from what is known of them beside a history",
            "nothing": "nothing is known of them: what a newcomer is shown",
        }[answer.basis]
        say(f"For {who}, {basis}")
        print_items(answer.items)


def print_audience(users: Sequence["ScoredUser"]) -> None:
    table = _table("", ("rank", "user", "score", "last seen with"))
    for place, user in enumerate(users, start=1):
        table.add_row(str(place), user.user_id, f"{user.score:.3f}", "; ".join(user.liked))
    print_rich(table)


def print_table(table: "JudgementTable") -> None:
    print_rich(table.rich())
    if table.slices:
        print_rich(table.rich_slices())


def print_choices(rows: Iterable[tuple[str, str, str]]) -> None:
    table = _table("", ("key", "default", "effect"))
    for row in rows:
        table.add_row(*row)
    print_rich(table)


def print_catalogue(rows: Iterable[tuple[str, str, str, str]]) -> None:
    table = _table("", ("", "name", "what it is", "terms or package"))
    for row in rows:
        table.add_row(*row)
    print_rich(table)


def print_rows(title: str, rows: Iterable[tuple[str, str]]) -> None:
    table = _table(title, ("", ""))
    for row in rows:
        table.add_row(*row)
    print_rich(table)


def print_grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = _table(title, columns)
    for row in rows:
        table.add_row(*row)
    print_rich(table)


def _table(title: str, columns: Sequence[str]) -> "Table":
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title) or None, box=box.SIMPLE_HEAD, title_justify="left", show_header=any(columns))
    for column in columns:
        table.add_column(column, justify="right" if column in ("rank", "score") else "left", overflow="fold")
    return table


def print_rich(table: "Table") -> None:
    """On stdout; not squeezed into 80 columns where stdout is a file. Data is text, never markup."""
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, width=140)
    console.print(table)
