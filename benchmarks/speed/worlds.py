"""What the figures are measured on: real tables (LMREC_DATA), and worlds of any size with real words and real shapes."""

import os
from pathlib import Path

import polars as pl

from lmrec.data.dataset import Dataset
from lmrec.data.interactions import Interactions
from lmrec.data.sources.synthetic import planted_world
from lmrec.fields import ITEM_ID, TIMESTAMP, USER_ID
from lmrec.workflows.train import fit_run

ROOT = Path(__file__).resolve().parents[2]


def data_folder() -> Path:
    """Where the real data lies: `LMREC_DATA`, or ../shared/data beside the checkout."""
    return Path(os.environ.get("LMREC_DATA", ROOT.parent / "shared" / "data"))


def tables_of(world: Dataset) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Items and events as a user would have them."""
    events = world.interactions
    frame = pl.DataFrame(
        {
            USER_ID: [events.user_ids[user] for user in events.user_idx],
            ITEM_ID: [world.catalog.ids[item] for item in events.item_idx],
            TIMESTAMP: events.time_ts,
        }
    )
    return world.catalog.frame, frame


def fitted_run(out: Path, small: bool) -> Path:
    """A run as `lmrec fit` leaves it, quickly: real MiniLM, frozen; Scientific, or a planted world where small."""
    quick = ["training.frozen_epochs=1", "training.tuned_epochs=0", "fusion.search_cases=200"]
    if small:
        items, events = tables_of(planted_world(n_users=100, n_items=64, n_events_per_user=14))
        fit_run(items, events, out=out, overrides=quick, show=False)
    else:
        folder = data_folder() / "amazon-scientific"
        recipe = ROOT / "recipes" / "amazon-scientific.toml"
        tables = (folder / "items.parquet", folder / "interactions.parquet")
        fit_run(*tables, out=out, recipe=recipe, overrides=quick, show=False)
    return out


def first_user(run: Path) -> str:
    """An id that the run knows."""
    return Interactions.from_parquet(run / "data" / "interactions.parquet").user_ids[0]
