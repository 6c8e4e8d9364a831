"""A world in which the user table alone tells what somebody will choose."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lmrec.feedback.events import Event
from lmrec.feedback.store import Store
from lmrec.workflows.update import update_run

N_USERS, N_ITEMS, N_GROUPS = 160, 40, 4
TASTES = ("jazz", "chess", "rugby", "opera")


def write_world(folder: Path) -> None:
    """The taste of a user, which only the user table tells, decides each choice: in order of time, whatever came before."""
    rng = np.random.default_rng(0)
    items = [{"item_id": f"i{at}", "title": f"film {at}", "description": f"tale {at % 7}"} for at in range(N_ITEMS)]
    users, events = [], []
    for user in range(N_USERS):
        taste = user % N_GROUPS
        users.append({"user_id": f"u{user}", "interests": f"{TASTES[taste]}|tea", "age": 20 + 10 * taste + user % 9})
        for place, item in enumerate(rng.permutation(N_ITEMS // N_GROUPS)[:4] * N_GROUPS + taste):
            time_ts = 1_700_000_000 + 1000 * (place * N_USERS + int(rng.integers(N_USERS)))
            events.append({"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": time_ts})
    for taste, name in enumerate(TASTES):  # nothing but attributes is known of these
        users.append({"user_id": f"new {name}", "interests": name, "age": 20 + 10 * taste})
    for name, rows in (("items", items), ("users", users), ("events", events)):
        pl.DataFrame(rows).write_csv(folder / f"{name}.csv")


def share_of_taste(items: Sequence[Any], taste: int) -> float:
    return float(np.mean([int(item.item_id[1:]) % N_GROUPS == taste for item in items]))


def updated(run: Path) -> Path:
    """The generation that an update makes of what newcomers did."""
    (run / "service").mkdir()
    events = [Event(f"e{n}", f"later {n % 40}", f"i{(n // 40) % 6}", "click", 1_750_000_000.0 + n) for n in range(240)]
    with Store.open(f"sqlite:///{run / 'service' / 'store.db'}") as store:
        store.add_events(events)
    result = update_run(run, show=False, force=True)
    assert result.generation is not None, result
    return run / "generations" / str(result.generation)
