"""What an experiment says so far: its lists and what followed them, judged as the command line judges them."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from lmrec.evaluation.experiments import join_outcomes, read_out
from lmrec.evaluation.shadowing import read_shadow
from lmrec.feedback.experiments import ExperimentRow
from lmrec.feedback.shown import ARM, EXPERIMENT, Shown
from lmrec.feedback.store import Store
from lmrec.feedback.walk import walk_followed, walk_shown

_MAX_LISTS = 200_000
_MAX_EVENTS = 500_000
_REDRAWS = 500


def read_experiment(store: Store, row: ExperimentRow) -> dict[str, Any]:
    """`split` or `shadow`, by the experiment's mode, and the other None. Looks at the newest half million events."""
    followed = walk_followed(store, max(0, store.last_seq() - _MAX_EVENTS))
    lists = list(islice(_lists_of(store, row), _MAX_LISTS))
    if row.experiment.mode == "shadow":
        return {"split": None, "shadow": read_shadow(lists, followed, _REDRAWS).as_dict()}
    outcomes = join_outcomes(lists, followed)
    control = row.experiment.arms[0].name
    found = read_out(
        outcomes,
        against=control if any(one.arm == control for one in outcomes) else None,
        shares={arm.name: arm.share for arm in row.experiment.arms},
        n_bootstrap=_REDRAWS,
    )
    return {"split": found.as_dict(), "shadow": None}


def _lists_of(store: Store, row: ExperimentRow) -> Iterator[Shown]:
    """Those of users, not of somebody who tries things out in the console."""
    name, is_split = row.experiment.name, row.experiment.mode == "split"
    for shown in walk_shown(store, row.started_ts - 1.0):
        if shown.context.get(EXPERIMENT) == name and not shown.is_trial and (not is_split or ARM in shown.context):
            yield shown
