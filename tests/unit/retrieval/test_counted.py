"""What everything that is counted from a log owes once it is part of a run: saved, loaded, asked and served alike."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from lmrec.errors import RunFolderError
from lmrec.fields import Ragged
from lmrec.models.fusion import COLLABORATIVE
from lmrec.retrieval.explain import explain
from lmrec.retrieval.live import LiveQuery, LiveRecommender
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.counting import fit_fusion

from .conftest import FUSED, N_ITEMS, make_run, make_tastes

KINDS = (*COLLABORATIVE, "all")
HISTORIES = [["3", "7", "3"], ["20"], ["35"], ["3", "35", "21"], [str(row) for row in range(14)]]
NEW = {"item_id": "new", "title": "rocket galaxy 99", "description": "a film of rocket galaxy"}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("counted") / "run", tiny_bert, fused=kind)


@pytest.fixture
def recommender(folder: Path) -> Recommender:
    return Recommender.load(folder)


def assert_served(live: LiveRecommender, offline: Recommender, histories: list[list[str]]) -> None:
    """The lists that the service makes are those that are made offline."""
    expected = offline.recommend(histories=histories, k=N_ITEMS + 1)
    answers = live.recommend([LiveQuery(history=tuple(history), k=N_ITEMS + 1) for history in histories])
    for answer, one in zip(answers, expected, strict=True):
        ours, theirs = ({item.item_id: item.score for item in items} for items in (answer.items, one.items))
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4)
        assert [item.item_id for item in answer.items][:5] == [item.item_id for item in one.items][:5]


def test_a_saved_run_scores_as_it_did(kind: str, recommender: Recommender) -> None:
    made = recommender.towers_scorer.fused(fit_fusion(FUSED[kind], make_tastes(), N_ITEMS))
    histories = Ragged.from_rows([[int(item) for item in history] for history in [*HISTORIES, []]])
    np.testing.assert_allclose(recommender.scorer.score(histories), made.score(histories), rtol=1e-5, atol=1e-6)


def test_taste_decides_what_is_recommended(kind: str, recommender: Recommender) -> None:
    one, other = recommender.recommend(histories=[["1", "2", "8"], ["15", "22", "26"]], k=6)
    if kind == "all":  # random towers have their say
        assert one.items != other.items
        return
    assert {int(item.item_id) for item in one.items} <= set(range(14))
    assert {int(item.item_id) for item in other.items} <= {5, *range(14, 28)}


def test_served_answers_are_the_offline_ones(folder: Path, recommender: Recommender) -> None:
    assert_served(LiveRecommender.load(folder), recommender, HISTORIES)


def test_seen_items_are_left_out_unless_asked_for(recommender: Recommender) -> None:
    for history, hidden, shown in zip(
        HISTORIES,
        recommender.recommend(histories=HISTORIES, k=N_ITEMS),
        recommender.recommend(histories=HISTORIES, k=N_ITEMS, exclude_seen=False),
        strict=True,
    ):
        assert {item.item_id for item in hidden.items} == {str(row) for row in range(N_ITEMS)} - set(history)
        assert len(shown.items) == N_ITEMS


def test_who_has_no_history_gets_what_is_popular(kind: str, recommender: Recommender) -> None:
    (answer,) = recommender.recommend(histories=[[]], k=N_ITEMS)
    assert answer.basis == "nothing"
    if kind != "all":
        assert answer.items[0].item_id == "5"
        counts = np.bincount(make_tastes().item_idx, minlength=N_ITEMS)
        order = [int(counts[int(item.item_id)]) for item in answer.items]
        assert order == sorted(order, reverse=True)


def test_an_item_of_which_nothing_is_known_stays_behind_and_asks_nothing(kind: str, folder: Path) -> None:
    live, offline = LiveRecommender.load(folder), Recommender.load(folder).add_items(pl.DataFrame([NEW]))
    live.upsert([NEW])
    assert_served(live, offline, [*HISTORIES, ["3", "new"], ["new"]])
    if kind == "all":
        return
    taste, alone, nothing = offline.recommend(histories=[["1", "2", "8"], ["new"], []], k=N_ITEMS)
    assert "new" not in [item.item_id for item in taste.items[:10]]
    assert [item.item_id for item in alone.items] == [item.item_id for item in nothing.items if item.item_id != "new"]


def test_items_that_go_and_change_while_it_is_live(kind: str, folder: Path) -> None:
    live = LiveRecommender.load(folder)

    def answer(history: tuple[str, ...]) -> dict[str, float]:
        (found,) = live.recommend([LiveQuery(history=history, k=N_ITEMS + 1)])
        return {item.item_id: item.score for item in found.items}

    before = answer(("1", "8"))
    live.delete(["2"])
    after = answer(("1", "8"))
    assert "2" not in after
    assert after == pytest.approx({item: score for item, score in before.items() if item != "2"})
    assert answer(("1", "2", "8")) == pytest.approx(after), "what is gone asks nothing"
    live.upsert([{"item_id": "3", "title": "violin choir", "description": "a film of violin choir"}])
    live.compact()
    changed = answer(("1", "8"))
    if kind == "all":
        assert changed["3"] != pytest.approx(after["3"])  # its words are part of the score
        assert {**changed, "3": 0.0} == pytest.approx({**after, "3": 0.0}, rel=1e-4, abs=1e-4)
    else:
        assert changed == pytest.approx(after, rel=1e-4, abs=1e-4), "words change nothing of what is counted"
    live.upsert([{"item_id": "2", "title": "back again"}])
    assert answer(("1", "8"))["2"] == pytest.approx(before["2"], rel=1e-3, abs=1e-3) or kind == "all"


def test_what_each_item_of_the_history_gave_adds_up(folder: Path) -> None:
    live = LiveRecommender.load(folder)
    (answer,) = live.recommend([LiveQuery(history=("1", "2", "8"), k=3)])
    for item in answer.items:
        found = explain(live, LiveQuery(history=("1", "2", "8"), k=3), item.item_id, words=False)
        given = [one.contribution for one in found.contributions]
        assert found.base + sum(given) == pytest.approx(found.score, abs=1e-4)
        assert found.score == pytest.approx(item.score, abs=1e-4)
        assert max(given) > 0


def test_damaged_counts_are_refused(kind: str, folder: Path, tmp_path: Path) -> None:
    if kind == "all":
        return
    run = Path(shutil.copytree(folder, tmp_path / "run"))
    file = run / "checkpoint" / f"{kind}.safetensors"
    arrays = load_file(file)
    damages: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
        ("vectors", lambda value: value[:-1]),
        ("vectors", lambda value: value * float("nan")),
        ("offsets", lambda value: value[:-1]),
        ("values", lambda value: -value),
        ("columns", lambda value: value + N_ITEMS),
    )
    for name, damaged in damages:
        if name in arrays:
            save_file({**arrays, name: damaged(arrays[name]).contiguous()}, file)
            with pytest.raises(RunFolderError, match="missing or damaged"):
                Recommender.load(run)
    file.unlink()
    with pytest.raises(RunFolderError, match="missing or damaged"):
        Recommender.load(run)


def test_similar_and_audience_need_no_trained_towers(kind: str, recommender: Recommender) -> None:
    assert len(recommender.similar("3", k=3)) == 3
    liked = recommender.audience(item="2", k=4)
    assert [user.score for user in liked] == sorted((user.score for user in liked), reverse=True)
    if kind != "all":
        assert {int(user.user_id[1:]) % 2 for user in liked} == {0}, "users of the item's own taste"
