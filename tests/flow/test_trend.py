"""Towers that learn beside a popularity which moves with time (objective.trend_half_life_days), from fit to update."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lmrec.data.sources.synthetic import planted_world
from lmrec.errors import RecipeError
from lmrec.feedback.events import Event
from lmrec.feedback.store import Store
from lmrec.recipe import load_recipe
from lmrec.retrieval.recommender import Recommender
from lmrec.service.settings import default_store
from lmrec.workflows.judge import FROZEN, FUSED, judge_run
from lmrec.workflows.train import fit_run
from lmrec.workflows.update import update_run

DAY = 86_400.0
TREND = "objective.trend_half_life_days=2"


@dataclass(frozen=True)
class Fashions:
    items: pl.DataFrame
    events: pl.DataFrame


@pytest.fixture(scope="module")
def fashions() -> Fashions:
    """A planted taste, and over it a fashion: half of all choices fall on four items, other ones each fifteen days."""
    world = planted_world(n_users=120, n_items=64, n_events_per_user=14, n_topics=8, seed=2)
    log, rng = world.interactions, np.random.default_rng(0)
    days = np.sort(rng.uniform(0, 60, log.n_events))
    fashion = (days // 15).astype(int)[:, None] * 4 + rng.integers(0, 4, (log.n_events, 1))
    followed = rng.random(log.n_events) < 0.5
    item = np.where(followed, fashion[:, 0] % world.catalog.n_items, log.item_idx)
    events = pl.DataFrame(
        {
            "user_id": [log.user_ids[user] for user in log.user_idx],
            "item_id": [world.catalog.ids[one] for one in item],
            "timestamp": (days * DAY).astype(np.int64) + 1_600_000_000,
        }
    )
    return Fashions(world.catalog.frame, events)


@pytest.fixture(scope="module")
def runs(fashions: Fashions, learning_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trend")
    choices = [*learning_choices, "training.tuned_epochs=0", "training.frozen_epochs=6", "update.epochs=1"]
    for name, more in {"plain": [], "trend": [TREND]}.items():
        fit_run(fashions.items, fashions.events, out=folder / name, overrides=[*choices, *more], show=False)
    return {name: folder / name for name in ("plain", "trend")}


def test_it_is_judged_beside_what_was_popular(runs: dict[str, Path]) -> None:
    tables = {name: judge_run(run, show=False).table for name, run in runs.items()}
    found = {name: table.row(FUSED).metrics["ndcg@10"].value for name, table in tables.items()}
    assert found["trend"] > 0.9 * found["plain"], found
    assert found["trend"] > 1.2 * tables["trend"].row("popularity").metrics["ndcg@10"].value
    weights = Recommender.load(runs["trend"]).fusion.weights
    assert weights.popularity > 0
    # Its first stage, towers that leave fashion to the popularity, stands in the table beside as much of it as is served.
    assert tables["trend"].row(FROZEN).metrics["ndcg@10"].value > 0


def test_it_recommends_what_is_in_fashion_and_goes_on_learning(runs: dict[str, Path], fashions: Fashions) -> None:
    recommender = Recommender.load(runs["trend"])
    (answer,) = recommender.recommend(users=["a stranger"], k=4)
    popular = (
        fashions.events.sort("timestamp")
        .tail(100)["item_id"]
        .value_counts()
        .sort("count", descending=True)["item_id"][:4]
        .to_list()
    )
    assert len({item.item_id for item in answer.items} & set(popular)) >= 3
    now = 1_600_000_000.0 + 61 * DAY
    chosen = [item.item_id for item in answer.items] * 15
    events = [Event(f"e{place}", f"user{place // 4}", item, "click", now + place) for place, item in enumerate(chosen)]
    store = default_store(runs["trend"])
    (runs["trend"] / "service").mkdir(exist_ok=True)
    with Store.open(store) as heard:
        heard.add_events(events)
    result = update_run(runs["trend"], show=False, force=True)
    assert result.generation is not None, result.reason
    assert result.decision is not None
    assert result.decision.slices[0].candidate > 0


def test_what_is_served_must_know_what_is_popular() -> None:
    with pytest.raises(RecipeError, match=r"trend_half_life_days is 2\.0, and nothing would come of it without fusion"):
        load_recipe(overrides=[TREND, "fusion.popularity=false"])


def test_an_order_without_times_has_no_half_life(
    fashions: Fashions, learning_choices: list[str], tmp_path: Path
) -> None:
    order = fashions.events.drop("timestamp").with_columns(pl.int_range(pl.len()).over("user_id").alias("position"))
    choices = [*learning_choices, "training.tuned_epochs=0", "training.frozen_epochs=1", "split.kind=last"]
    with pytest.raises(RecipeError, match="this log has no times, only an order"):
        fit_run(fashions.items, order, out=tmp_path / "run", overrides=[*choices, TREND], show=False)
    endless = [*choices, "objective.trend_half_life_days=inf"]
    fit_run(fashions.items, order, out=tmp_path / "run", overrides=endless, show=False)
    assert Recommender.load(tmp_path / "run").recommend(users=["a stranger"], k=3)[0].items
