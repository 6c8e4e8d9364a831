"""An event that a running service hears weighs, after a merge and an update, what it weighs in a table; so does a return."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lmrec.artifacts.run import RunFolder
from lmrec.artifacts.weighing import read_weighing
from lmrec.data.dataset import Dataset
from lmrec.data.sources import TablesConfig, read_dataset
from lmrec.recipe import load_fitted
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.merge import MergeCounts
from lmrec.workflows.news import read_news
from lmrec.workflows.train import fit_run
from lmrec.workflows.update import update_run

from .running import Running, running

UNTRAINED = ("training.frozen_epochs=0", "training.tuned_epochs=0", "split.kind=none", "split.validation=0")
RECIPES: Mapping[str, tuple[str, ...]] = {
    "kinds, counts and returns": (
        "data.kind_weights={view = 0.1, purchase = 3, impression = 0}",
        "data.return_kinds={refund = 'purchase'}",
        "data.weight_scale=log",
    ),
    "stars": ("data.weight_from=rating", "data.kind_weights={view = 0.5}", "data.return_kinds={refund = 'purchase'}"),
    "what was liked": ("data.min_rating=3.5", "data.return_kinds={refund = 'purchase'}"),
    "nothing said": (),
}
ITEMS = pl.DataFrame(
    {
        "item_id": [f"i{n}" for n in range(12)],
        "title": [f"tale of reef {n}" for n in range(12)],
        "description": ["a funny moon"] * 12,
    }
)
FIRST_TS = 1_700_000_000.0
Key = tuple[str, str, float]


@dataclass(frozen=True)
class Told:
    """The events of all users, and those of them that come after the run was fitted."""

    every: pl.DataFrame
    later: pl.DataFrame
    run: Path
    config: TablesConfig


def write_log(n_users: int = 8, n_events: int = 30, seed: int = 0) -> pl.DataFrame:
    """All kinds of events, so close together that returns meet purchases, more often than not."""
    rng = np.random.default_rng(seed)
    n = n_users * n_events
    kinds = rng.choice(["view", "Purchase", "refund", "impression", "share"], n, p=[0.3, 0.35, 0.2, 0.05, 0.1])
    is_old = np.arange(n) < 2 * n // 3
    stars = np.where(is_old, rng.integers(2, 5, n), rng.integers(1, 6, n).clip(2, 4))
    items = np.where(is_old, rng.integers(5, size=n), rng.integers(8, size=n))  # and some are of what nobody had before
    return pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in rng.integers(n_users, size=n)],
            "item_id": [f"i{item}" for item in items],
            "timestamp": FIRST_TS + 100.0 * np.arange(n),
            "kind": kinds,
            "rating": pl.Series(stars.astype(float)).scatter(np.flatnonzero(rng.random(n) < 0.3), None),
            "weight": rng.integers(1, 4, n).astype(float),
        }
    )


@pytest.fixture(scope="module", params=RECIPES)
def told(request: pytest.FixtureRequest, quick_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> Told:
    every = write_log()
    old, later = every[: 2 * every.height // 3], every[2 * every.height // 3 :]
    run = tmp_path_factory.mktemp("weighed") / "run"
    choices = [*quick_choices, *UNTRAINED, *RECIPES[request.param], "update.min_slice_users=1"]
    fit_run(ITEMS, old, out=run, overrides=choices, show=False)
    return Told(every, later, run, load_fitted(run / "recipe.toml").data)


def weights_of(dataset: Dataset) -> dict[Key, float]:
    """Of each event, in order of time."""
    log, ids = dataset.interactions, dataset.catalog.ids
    keys = zip(log.user_idx.tolist(), log.item_idx.tolist(), log.time_ts.tolist(), strict=True)
    return {
        (log.user_ids[user], ids[item], when): weight
        for (user, item, when), weight in zip(keys, log.weight.tolist(), strict=True)
    }


def post(service: Running, events: pl.DataFrame) -> dict[str, Any]:
    sent = [
        {"event_id": f"e{row['timestamp']}", "time": row["timestamp"], **{
            name: value for name, value in row.items() if name != "timestamp" and value is not None
        }}
        for row in events.iter_rows(named=True)
    ]  # fmt: skip
    answer: dict[str, Any] = service.post("/v1/events", {"events": sent})
    assert answer["accepted"] == events.height
    return answer


def test_what_is_heard_weighs_what_it_would_in_the_table(told: Told) -> None:
    """Fit on the first part of a table, tell a running service the rest, and read the whole as one table."""
    whole = read_dataset(ITEMS, told.every, config=told.config)
    log = whole.interactions
    with running(told.run) as service:
        post(service, told.later)
        for user, user_id in enumerate(log.user_ids):
            of_table = [whole.catalog.ids[item] for item in log.item_idx[log.user_idx == user]]
            assert service.get(f"/v1/users/{user_id}")["history"] == of_table
    news = read_news(told.run)
    wanted = weights_of(whole)
    assert weights_of(news.merged.dataset) == pytest.approx(wanted, abs=1e-6)
    counts = news.merged.counts
    assert counts.heard_events == told.later.height == accounted(counts)
    now, then = news.merged.dataset.weighing, whole.weighing
    assert (now.lowest, now.highest) == (then.lowest, then.highest)
    assert now.unrated == pytest.approx(then.unrated)
    if told.config.return_kinds:
        assert counts.returns == (told.later["kind"] == "refund").sum()
        assert counts.returned_events > 0
    else:
        assert (counts.returns, counts.left_out_events) == (0, 0)

    result = update_run(told.run, force=True, show=False)
    assert result.generation is not None
    made = told.run / "generations" / result.generation
    learnt = Recommender.load(made)
    kept = Dataset(learnt.catalog, learnt.interactions, weighing=read_weighing(RunFolder(made)))
    assert weights_of(kept) == pytest.approx(wanted, abs=1e-6)
    assert kept.weighing == now


def test_what_cannot_count_is_refused_or_flagged(told: Told, tmp_path: Path) -> None:
    run = Path(shutil.copytree(told.run, tmp_path / "run", ignore=shutil.ignore_patterns("service")))
    knows_returns, is_rated = bool(told.config.return_kinds), told.config.min_rating is not None
    with running(run) as service:

        def answer(code: int, **more: Any) -> Any:
            sent = {"user_id": "new", "item_id": "i7", "kind": "purchase", "rating": 5, **more}
            found = service.client.post("/v1/events", json=sent)
            assert found.status_code == code, found.text
            return found.json()["flagged"] if code == 200 else found.json()["error"]["message"]

        assert "the kind 'purchse' is unknown" in answer(422, kind="purchse")
        assert "Did you mean 'purchase'?" in answer(422, kind="purchse")
        assert "data.return_kinds" in answer(422, kind="restitution")
        assert "the weight -2 is below 0" in answer(422, weight=-2)
        assert answer(422, weight=1e16).startswith("weight is 1e+16")
        # The log has these kinds, whether or not the recipe speaks of them.
        assert answer(200, kind="refund") == ({"nothing_bought": 1} if knows_returns else {})
        assert answer(200, kind=" Share") == {}
        assert answer(200, kind="impression") == ({"left_out": 1} if "impression" in told.config.kind_weights else {})
        assert answer(200, rating=None) == ({"left_out": 1} if is_rated else {})
        assert answer(200, item_id="i8", weight=2) == {}
        if knows_returns:
            assert answer(200, kind="refund", item_id="i8", rating=None) == {}
            assert "i8" in service.get("/v1/users/new")["history"], "one of two is left"
            assert answer(200, kind="REFUND", item_id="i8", weight=5) == {}
            assert "i8" not in service.get("/v1/users/new")["history"]
            assert answer(200, kind="refund", item_id="i8") == {"nothing_bought": 1}
        kept = service.get("/v1/users/new")["events"]
        said = {(event["kind"], event["weight"], event["rating"]) for event in kept}
        assert said >= {("share", None, 5.0), ("purchase", 2.0, 5.0)}


def accounted(counts: MergeCounts) -> int:
    return (
        counts.new_events + counts.negative_events + counts.taken_back_events + counts.events_of_unknown_items
        + counts.events_of_forgotten_users + counts.left_out_events + counts.returns + counts.returned_events
    )  # fmt: skip
