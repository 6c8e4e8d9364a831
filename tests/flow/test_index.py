"""A run that was fitted with an index answers through it, and says the same as without it."""

import json
import shutil
from pathlib import Path

import pytest

from lmrec.artifacts.generation import promote
from lmrec.artifacts.run import RunFolder
from lmrec.errors import InputError, RecipeError, RunFolderError
from lmrec.recipe import load_recipe
from lmrec.retrieval.live import LiveQuery, LiveRecommender
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.ensemble import ensemble_runs
from lmrec.workflows.index import index_run
from lmrec.workflows.train import fit_run

from .conftest import Invoke
from .running import new_generation


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


def test_a_run_is_indexed_anew_and_its_served_generation_with_it(run: Path, invoke: Invoke) -> None:
    assert Recommender.load(run).index is None  # of 32 films
    name = new_generation(run)
    promote(run, name, "a test")
    made = index_run(run, ["index.kind=lists", "index.recall=0.9"])
    assert [one.run for one in made] == [run, run / "generations" / name]
    for one in made:
        recommender = Recommender.load(one.run)
        assert one.index is not None
        assert recommender.index is not None
        assert (recommender.index.n_rows, recommender.index.recall) == (32, one.index.recall)
        assert load_recipe(one.run / "recipe.toml").index.kind == "lists"
        assert len(recommender.recommend(histories=[["film3"]], k=5)[0].items) == 5
    (first, _) = json.loads(invoke("index", run, "--set", "index.kind=exact", "--json").stdout)
    assert (first["kind"], first["items"], first["recall"], first["bytes"]) == ("exact", 32, 1.0, 0)
    assert Recommender.load(run).index is None
    assert "each of 32 items is scored" in invoke("index", run).output


def test_an_index_of_an_earlier_lmrec_is_refused_with_the_way_out(run: Path) -> None:
    index_run(run, ["index.kind=lists"])
    file = RunFolder(run).index / "index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 1}))
    with pytest.raises(RunFolderError, match=f"Type: lmrec index {run}"):
        _ = Recommender.load(run).index
    index_run(run)
    assert Recommender.load(run).index is not None


def test_what_has_no_index_says_so(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--set encoder.max_tokens cannot change here. index\.\* can"):
        index_run(run, ["encoder.max_tokens=9"])
    with pytest.raises(RunFolderError, match="there is no run folder"):
        index_run(tmp_path / "nothing")
    ensemble_runs([run, run], tmp_path / "both")
    with pytest.raises(InputError, match="is an ensemble, of which every item is scored"):
        index_run(tmp_path / "both")
