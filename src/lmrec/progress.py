"""Progress bars with time left, on stderr; the same call works in a terminal, a notebook and a log file."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]  # (done, total)


class Bar:
    """One bar. Call it with (done, total), as all long work here does; `say` puts a short note behind it."""

    def __init__(self, update: Callable[[int, int, str], None]) -> None:
        self._update = update
        self._state = (0, 1)
        self._note = ""

    def __call__(self, done: int, total: int) -> None:
        self._state = (done, total)
        self._update(done, total, self._note)

    def say(self, note: str) -> None:
        self._note = note
        self._update(*self._state, note)


@contextmanager
def progress_bar(label: str, show: bool = True) -> Iterator[Bar]:
    """A bar named `label` until the block ends; with `show` off it stays silent."""
    if not show:
        yield Bar(lambda done, total, note: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description:<24.24}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        console = Console(file=sys.stderr, width=120)  # a log file: one whole line when the bar ends
    with RichProgress(*columns, console=console, refresh_per_second=4) as bars:
        task = bars.add_task(label, total=None, note="")
        yield Bar(lambda done, total, note: bars.update(task, completed=done, total=total, note=note))
