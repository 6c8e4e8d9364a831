"""What a reranker learns from, and its loop: nothing of the future, no item of one's own as a negative, exact resume."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from lmrec.data.dataset import Dataset
from lmrec.data.history import HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.errors import InputError, Interrupted, RecipeError
from lmrec.fields import IntArray, Ragged
from lmrec.models.cross_encoder import load_cross_encoder
from lmrec.recipe import load_recipe
from lmrec.text.pairs import PairTokens
from lmrec.training.pair_trainer import LabelledPairs, PairTrainer, choose_pair_weights
from lmrec.training.pairs import Pairs, Ratings, RerankerConfig, draw_pairs, drawn_source, pair_loss, read_ratings


def rated(world: Dataset, ratings: list[float]) -> Interactions:
    log = world.interactions
    return Interactions.from_arrays(
        log.user_ids, log.user_idx, log.item_idx, log.time_ts, rating=np.resize(ratings, len(log))
    )


def draw(log: Interactions, config: RerankerConfig, ratings: Ratings | None = None, n: int = 200) -> Pairs:
    counts = np.bincount(log.item_idx, minlength=32)
    source = drawn_source(config, counts) if config.negatives != "hard" else first_items
    index = HistoryIndex.from_interactions(log)
    return draw_pairs(config, log, index, n, source, ratings or Ratings(), (0, 0))


def first_items(history: Ragged, rng: np.random.Generator) -> IntArray:
    return np.tile(np.arange(-1, 32), (len(history), 1))


@pytest.mark.parametrize("negatives", ["uniform", "popularity", "hard"])
def test_the_first_of_a_row_was_chosen_and_the_others_never_by_this_user(world: Dataset, negatives: str) -> None:
    log = world.interactions
    pairs = draw(log, RerankerConfig.model_validate({"negatives": negatives, "n_negatives": 2}))
    assert len(pairs.history) == len(pairs.candidates) == 200
    assert pairs.labels.sum() == 200
    own: dict[int, list[int]] = {}
    for user, item in zip(log.user_idx, log.item_idx, strict=True):
        own.setdefault(int(user), []).append(int(item))
    for at in range(200):
        history, items = pairs.history[at], pairs.candidates[at]
        users = [items_ for items_ in own.values() if items_[: len(history) + 1] == [*history, items[0]]]
        assert users, "history and chosen item are the beginning of somebody's life"
        assert len(set(items.tolist())) == len(items) <= 3
        assert any(not set(items[1:].tolist()) & set(life) for life in users)  # several may begin alike


@pytest.mark.parametrize("task", ["binary", "classes"])
def test_where_people_come_back_no_pair_is_told_by_standing_in_its_history(task: str) -> None:
    rng = np.random.default_rng(0)
    user_idx, item_idx = np.repeat(np.arange(20), 12), rng.integers(0, 6, 240)  # six favourites in twelve events
    ratings = np.resize([1.0, 5.0], 240)
    log = Interactions.from_arrays(
        [f"u{n}" for n in range(20)], user_idx, item_idx, np.tile(np.arange(12.0), 20), rating=ratings
    )
    config = RerankerConfig.model_validate({"task": task, "negatives": "uniform"})
    pairs = draw(log, config, read_ratings(config.task, log))
    assert 20 <= len(pairs.history) < 120
    for at in range(len(pairs.history)):
        assert not {*pairs.history[at].tolist()} & {*pairs.candidates[at].tolist()}
    nothing_new = log.select(np.arange(240) % 12 >= 6)
    with pytest.raises(InputError, match="items that are new to somebody with a history"):
        draw_pairs(
            config,
            replace(nothing_new, item_idx=np.zeros(120, np.int32)),
            HistoryIndex.from_interactions(replace(log, item_idx=np.zeros(240, np.int32))),
            9,
            first_items,
            Ratings((1.0, 5.0)),
            (0, 0),
        )


def test_the_same_seed_draws_the_same(world: Dataset) -> None:
    config = RerankerConfig(negatives="uniform")
    first, second = draw(world.interactions, config), draw(world.interactions, config)
    assert first.candidates.values.tolist() == second.candidates.values.tolist()


@pytest.mark.parametrize("task", ["classes", "regression"])
def test_events_without_a_rating_teach_no_rating(world: Dataset, task: Literal["classes", "regression"]) -> None:
    nan = float("nan")  # a view beside a rated purchase
    log = rated(world, [1.0, nan, 5.0, nan, nan])
    ratings, same = read_ratings(task, log), read_ratings(task, rated(world, [1.0, 5.0]))
    assert ratings.values == same.values == (1.0, 5.0)
    assert ratings.spread == pytest.approx(2.0, rel=0.01)
    pairs = draw(log, RerankerConfig(task=task), ratings)
    assert len(pairs.labels)
    assert set(np.sign(pairs.labels)) == ({0.0, 1.0} if task == "classes" else {-1.0, 1.0})
    with pytest.raises(InputError, match="this log has none"):
        read_ratings(task, rated(world, [nan]))


def test_ratings_become_classes_or_deviations(world: Dataset) -> None:
    log = rated(world, [1.0, 3.0, 5.0])
    classes = read_ratings("classes", log)
    assert classes.values == (1.0, 3.0, 5.0)
    assert classes.labels("classes", np.array([1.0, 5.0, 4.0, 0.0])).tolist() == [0, 2, 1, 0]
    assert set(draw(log, RerankerConfig(task="classes"), classes).labels.tolist()) == {0.0, 1.0, 2.0}
    deviations = read_ratings("regression", log).labels("regression", log.rating)  # type: ignore[arg-type]
    assert float(deviations.mean()) == pytest.approx(0.0, abs=1e-5)
    assert float(deviations.std()) == pytest.approx(1.0, abs=1e-5)


def test_what_cannot_be_learnt_is_refused(world: Dataset) -> None:
    with pytest.raises(InputError, match="learns ratings, and this log has none"):
        read_ratings("classes", world.interactions)
    with pytest.raises(InputError, match="all of them are 4"):
        read_ratings("regression", rated(world, [4.0]))
    with pytest.raises(InputError, match="30 different ratings, too many"):
        read_ratings("classes", rated(world, [float(r) for r in range(30)]))


def test_what_a_prompt_says_behind_the_item_is_of_no_use_to_its_likelihood() -> None:
    prompt = "reranker.prompt=Liked {history}, next {item}"
    likely = "reranker.form=likelihood"
    load_recipe(overrides=[prompt, likely])
    load_recipe(overrides=[f"{prompt} is right?", "reranker.form=yes_no"])
    with pytest.raises(
        RecipeError, match=r"says ' is right\?' after \{item\}, and .* 'likelihood' .* End it with \{item\}"
    ):
        load_recipe(overrides=[f"{prompt} is right?", likely])
    with pytest.raises(RecipeError, match=r"reranker.prompt 'Next \{item\}' must hold"):
        load_recipe(overrides=["reranker.prompt=Next {item}"])


def test_losses_are_those_of_their_tasks() -> None:
    outputs = torch.tensor([[0.0], [0.0]])
    assert float(pair_loss("binary", outputs, torch.tensor([0.0, 1.0]))) == pytest.approx(np.log(2))
    assert float(pair_loss("regression", outputs, torch.tensor([1.0, 3.0]))) == pytest.approx(5.0)
    assert float(pair_loss("classes", torch.zeros(2, 4), torch.tensor([0.0, 3.0]))) == pytest.approx(np.log(4))


@pytest.fixture
def toy() -> LabelledPairs:
    """Right where the item's token is above 100."""
    rng = np.random.default_rng(1)
    items = rng.integers(60, 140, 48)
    rows = [[2, *rng.integers(60, 140, rng.integers(1, 6)), 3, item, 3] for item in items]
    ids = Ragged.from_rows(rows)
    return LabelledPairs(PairTokens(ids, ids.lengths - 2, 0), (items > 100).astype(np.float32))


def trainer(
    tiny_bert: Path, folder: Path, should_stop: Callable[[], bool] = lambda: False, **choices: object
) -> PairTrainer:
    torch.manual_seed(0)
    config = RerankerConfig.model_validate(
        {"epochs": 2, "batch_pairs": 8, "learning_rate": 3e-3, "head_learning_rate": 3e-3, **choices}
    )
    model = load_cross_encoder(tiny_bert, 1, 0)
    return PairTrainer(model, config, 0, False, folder, "same", lambda row: None, should_stop, show=False)


def test_it_learns_and_keeps_the_best_epoch(tiny_bert: Path, tmp_path: Path, toy: LabelledPairs) -> None:
    learner = trainer(tiny_bert, tmp_path / "state", epochs=12)
    before = pair_loss("binary", torch.from_numpy(learner.outputs(toy)), torch.from_numpy(toy.labels))
    best = learner.run(toy, toy)
    after = pair_loss("binary", torch.from_numpy(learner.outputs(toy)), torch.from_numpy(toy.labels))
    assert best == pytest.approx(float(after), abs=1e-5)
    assert float(after) < 0.5 * float(before)


def test_a_stop_and_the_same_call_again_end_as_if_never_stopped(
    tiny_bert: Path, tmp_path: Path, toy: LabelledPairs
) -> None:
    whole = trainer(tiny_bert, tmp_path / "whole")
    whole.run(toy, toy)
    calls = iter([False] * 7 + [True])
    with pytest.raises(Interrupted, match="after step 8 of 12; nothing is lost. The same command goes on"):
        trainer(tiny_bert, tmp_path / "state", lambda: next(calls)).run(toy, toy)
    again = trainer(tiny_bert, tmp_path / "state")
    again.run(toy, toy)
    for (name, one), (_, other) in zip(whole.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name


def test_lora_learns_little_and_is_merged_away(tiny_bert: Path, tmp_path: Path, toy: LabelledPairs) -> None:
    learner = trainer(tiny_bert, tmp_path / "state", train="lora", epochs=8, learning_rate=3e-2)
    names = {name for name, p in learner.model.named_parameters() if p.requires_grad}
    parts = ("lora_", "pooler", "classifier")  # pretraining may never have used the pooler
    assert {part for name in names for part in parts if part in name} == {*parts}
    assert all(any(part in name for part in parts) for name in names)
    best = learner.run(toy, toy)
    assert best is not None
    assert best < np.log(2)
    assert not any("lora_" in name for name, _ in learner.model.named_parameters())
    after = pair_loss("binary", torch.from_numpy(learner.outputs(toy)), torch.from_numpy(toy.labels))
    assert float(after) == pytest.approx(best, abs=1e-5)  # merged, it says what it said


def test_only_what_is_named_learns(tiny_bert: Path) -> None:
    model = load_cross_encoder(tiny_bert, 1, 0)
    choose_pair_weights(model, RerankerConfig(train="last_layers", n_layers=1))
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(".layer.2." in name or "pooler" in name or name.startswith("backbone.classifier") for name in learning)
    assert {"backbone.classifier.weight", "backbone.bert.pooler.dense.weight"} < learning
    with pytest.raises(RecipeError, match="reranker.n_layers is 9, and the model has 3 layers"):
        choose_pair_weights(model, RerankerConfig(train="last_layers", n_layers=9))
