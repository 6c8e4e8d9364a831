"""Experiments: read from a store how the arms (or the generations) of a run did, and keep the answer beside the run."""

import time
from pathlib import Path
from typing import Any, Final

from lmrec.artifacts.files import read_json, write_json
from lmrec.artifacts.run import open_run
from lmrec.errors import RunFolderError
from lmrec.evaluation.experiments import ReadOut, join_outcomes, read_out
from lmrec.feedback.store import Store
from lmrec.feedback.walk import walk_followed, walk_shown
from lmrec.workflows.news import store_url

FILE: Final = "experiments.json"
_DAY_S: Final = 86_400.0


def read_experiments(
    path: Path | str, url: str | None = None, *, days: float = 30.0, against: str | None = None, effect: float = 0.05
) -> ReadOut:
    """Read out the lists of the last `days`, count this as a look, and write RUN/experiments.json.

    against: the arm that the others are compared with. effect: the relative gain that would matter. Looks are counted for
    as long as the same arms are compared.
    """
    run = open_run(path)
    now = time.time()
    since_ts = now - days * _DAY_S
    with Store.open(store_url(path, url)) as store:
        lists = (shown for shown in walk_shown(store, since_ts) if not shown.is_trial)
        outcomes = join_outcomes(lists, list(walk_followed(store)))
    arms = sorted({outcome.arm for outcome in outcomes})
    looks = _looks_before(run.path / FILE, arms) + 1
    found = read_out(outcomes, against=against, looks=looks, effect=effect)
    write_json(run.path / FILE, {"since": since_ts, "read": now, **found.as_dict()})
    return found


def _looks_before(file: Path, arms: list[str]) -> int:
    """How often these very arms were compared already; 0 where the last read-out is of others, or damaged."""
    if not file.exists():
        return 0
    try:
        last: dict[str, Any] = read_json(file)
        same = sorted(arm["arm"] for arm in last["arms"]) == arms
        return int(last["looks"]) if same else 0
    except (RunFolderError, KeyError, TypeError, ValueError):
        return 0
