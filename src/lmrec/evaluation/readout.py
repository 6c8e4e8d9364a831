"""What was shown and what came of it: all lists by generation, and an experiment's as the command line judges them.

Lists and what followed them are counted over the same span. To redraw users takes them all in memory, so an experiment of
very many lists is read by its newest ones, and says so.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from lmrec.data.weighing import PLAIN, Weighing
from lmrec.evaluation.compare import wilson_interval
from lmrec.evaluation.experiments import ReadOut, ShownOutcome, read_out, who_saw
from lmrec.evaluation.shadowing import read_shadow
from lmrec.feedback.experiments import ExperimentRow
from lmrec.feedback.outcomes import Lists
from lmrec.feedback.shown import EXPERIMENT, Shown
from lmrec.feedback.store import Store
from lmrec.feedback.walk import walk_outcomes
from lmrec.fields import ItemId

MAX_LISTS = 200_000
_REDRAWS = 500


@dataclass(frozen=True)
class GenerationResult:
    """Lists that a generation showed, and how many led to something; `low` and `high`: the rate's 95 % interval."""

    generation: str
    lists: int
    lists_with_success: int
    rate: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_generations(store: Store, since_ts: float, weighing: Weighing = PLAIN) -> list[GenerationResult]:
    """All lists shown since then, none left out, but those tried out in the console."""
    return [
        GenerationResult(name, n, successes, successes / n, *wilson_interval(successes, n))
        for name, n, successes in store.generation_outcomes(since_ts, weighing)
    ]


def read_experiment(
    store: Store, row: ExperimentRow, weighing: Weighing = PLAIN, max_lists: int = MAX_LISTS
) -> dict[str, Any]:
    """`split` or `shadow`, by the experiment's mode, and the other None."""
    is_split = row.experiment.mode == "split"
    wanted = Lists(row.started_ts - 1.0, row.experiment.name, with_arm=is_split)
    lists, n_left_out = store.newest_lists(wanted, max_lists)
    notes = (*_let_go(row), *_left_out(lists, n_left_out))
    if not is_split:
        shadow = read_shadow(_lists_of(store, lists, weighing), _REDRAWS)
        return {"split": None, "shadow": {**shadow.as_dict(), "warnings": list(notes)}}
    outcomes = _outcomes(store, lists, weighing)
    control = row.experiment.arms[0].name
    found = read_out(
        outcomes,
        against=control if any(one.arm == control for one in outcomes) else None,
        shares={arm.name: arm.share for arm in row.experiment.arms},
        n_bootstrap=_REDRAWS,
    )
    return {"split": replace(found, warnings=(*notes, *found.warnings)).as_dict(), "shadow": None}


def compare_lists(
    store: Store,
    since_ts: float,
    weighing: Weighing = PLAIN,
    *,
    against: str | None = None,
    effect: float = 0.05,
    max_lists: int = MAX_LISTS,
) -> ReadOut:
    """All lists since then by the arm in their context, else by their generation. Raises InputError for an `against`
    that showed none."""
    lists, n_left_out = store.newest_lists(Lists(since_ts), max_lists)
    found = read_out(_outcomes(store, lists, weighing), against=against, effect=effect)
    return replace(found, warnings=(*_left_out(lists, n_left_out), *found.warnings))


def _outcomes(store: Store, lists: Lists, weighing: Weighing) -> list[ShownOutcome]:
    return [
        ShownOutcome(one.arm, who_saw(one.user_id, one.request_id), one.succeeded, one.time_ts)
        for one in store.list_outcomes(lists, weighing)
    ]


def _lists_of(store: Store, lists: Lists, weighing: Weighing) -> Iterator[tuple[Shown, frozenset[ItemId]]]:
    for shown, followed in walk_outcomes(store, lists.after_ts, weighing):
        if shown.context.get(EXPERIMENT) == lists.experiment and not shown.is_trial:
            yield shown, followed


def _left_out(lists: Lists, n: int) -> Iterator[str]:
    if n:
        yield f"only the newest lists are read, those since {_moment(lists.after_ts)}; {n:,} earlier ones are left out"


def _let_go(row: ExperimentRow) -> Iterator[str]:
    if row.lists_from_ts is not None:
        yield f"its lists from before {_moment(row.lists_from_ts)} are not kept any more, and count for nothing here"


def _moment(time_ts: float) -> str:
    return f"{datetime.fromtimestamp(time_ts, UTC):%Y-%m-%d %H:%M} UTC"
