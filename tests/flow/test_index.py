"""A run that was fitted with an index answers through it, and says the same as without it."""

import shutil
from pathlib import Path

from lmrec.artifacts.run import RunFolder
from lmrec.retrieval.live import LiveQuery, LiveRecommender
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.train import fit_run


def test_the_index_is_saved_with_the_run_and_used(world_folder: Path, quick_choices: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    tables = (world_folder / "items.csv", world_folder / "events.csv")
    fit_run(*tables, out=out, overrides=[*quick_choices, "index.kind=lists"], show=False)
    indexed = Recommender.load(out)
    assert indexed.index is not None
    assert indexed.index.n_rows == indexed.catalog.n_items
    live = LiveRecommender(indexed)
    assert live.state.snapshot.index is indexed.index
    users = indexed.interactions.user_ids[:5]
    answers = indexed.recommend(users=users, k=6)
    (online,) = live.recommend([LiveQuery(history=("film3", "film8"), k=6)])
    shutil.rmtree(RunFolder(out).index)
    plain = Recommender.load(out)
    assert plain.index is None
    for one, other in zip(answers, plain.recommend(users=users, k=6), strict=True):
        assert [item.item_id for item in one.items] == [item.item_id for item in other.items]
    (expected,) = plain.recommend(histories=[["film3", "film8"]], k=6)
    assert [item.item_id for item in online.items] == [item.item_id for item in expected.items]
