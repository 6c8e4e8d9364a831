"""People who come back for the same: what they had is a right answer where lists may show it, and comes first."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lmrec.recipe import load_recipe
from lmrec.retrieval.live import LiveQuery, LiveRecommender
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.judge import judge_run
from lmrec.workflows.prepare import prepare
from lmrec.workflows.train import fit_run

N_ITEMS, N_USERS = 40, 60
WORDS = ['data.text_columns=["title"]', "template.item={title}"]
UNTRAINED = ["training.frozen_epochs=0", "training.tuned_epochs=0", 'baselines.names=["popularity", "item_knn"]']


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each user has three staples and buys one of them nine times of ten, else anything."""
    folder, rng = tmp_path_factory.mktemp("groceries"), np.random.default_rng(0)
    rows = []
    for user in range(N_USERS):
        staples, when = rng.choice(N_ITEMS, 3, replace=False), 1.6e9 + rng.integers(0, 86400 * 20)
        for _ in range(24):
            item = rng.choice(staples) if rng.random() < 0.9 else rng.integers(N_ITEMS)
            when += 86400 * rng.integers(1, 5)
            rows.append((f"u{user}", f"i{item}", int(when)))
    names = [f"grocery {chr(97 + item % 26)}{item}" for item in range(N_ITEMS)]
    items = pl.DataFrame({"item_id": [f"i{item}" for item in range(N_ITEMS)], "title": names})
    items.write_csv(folder / "items.csv")
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(folder / "events.csv")
    return folder


@pytest.mark.parametrize("method", ["weighted", "learnt"])
def test_what_people_had_is_right_where_lists_may_show_it(
    method: str, tables: Path, quick_choices: list[str], tmp_path: Path
) -> None:
    choices = [*quick_choices, *UNTRAINED, *WORDS, "evaluation.exclude_seen=false", f"fusion.method={method}"]
    fit_run(tables / "items.csv", tables / "events.csv", out=tmp_path / "run", overrides=choices, show=False)
    judged = judge_run(tmp_path / "run", show=False)
    assert not judged.table.form.excluded
    recommender, live = Recommender.load(tmp_path / "run"), LiveRecommender.load(tmp_path / "run")
    assert recommender.fusion.weights.repeated > 0
    assert not recommender.scorer.lowers
    users = recommender.interactions.user_ids[:20]
    log = recommender.interactions
    for user, answer in zip(users, recommender.recommend(users=users, k=10), strict=True):
        had = [recommender.catalog.ids[item] for item in log.item_idx[log.user_idx == log.user_ids.index(user)]]
        staples = sorted(set(had), key=had.count)[-3:]
        shown = [item.item_id for item in answer.items]
        assert set(staples) <= set(shown)
        (now,) = live.recommend([LiveQuery(history=tuple(had), k=10)])
        assert [item.item_id for item in now.items] == shown


def test_where_lists_hide_it_they_are_asked_for_what_is_new(tables: Path, quick_choices: list[str]) -> None:
    hidden = prepare(
        tables / "items.csv", tables / "events.csv", None, load_recipe(overrides=[*quick_choices, *WORDS])
    ).split
    shown_too = [*quick_choices, *WORDS, "evaluation.exclude_seen=false"]
    shown = prepare(tables / "items.csv", tables / "events.csv", None, load_recipe(overrides=shown_too)).split
    assert len(shown.test) == len(hidden.test) + hidden.n_dropped[1] > 4 * len(hidden.test)
    assert shown.n_dropped == (0, 0)
    assert not any("had met" in fact.claim for fact in shown.proof.facts)
    assert any("had met" in fact.claim for fact in hidden.proof.facts)
    cold = [*shown_too, "split.kind=cold_items", "split.validation=0.2", "split.test=0.2"]
    cold_split = prepare(tables / "items.csv", tables / "events.csv", None, load_recipe(overrides=cold)).split
    assert any("had met" in fact.claim for fact in cold_split.proof.facts)
