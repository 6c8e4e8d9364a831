"""Every combination of the parts' kinds either fits, answers and is judged, or is refused at load with the reason."""

from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from lmrec.errors import RecipeError
from lmrec.models.adapters import AdapterKind
from lmrec.models.encoder import Trained
from lmrec.recipe import load_recipe
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.judge import FROZEN, FUSED, TUNED, judge_run
from lmrec.workflows.train import fit_run

KINDS = ("transformer", "attention", "mean", "text")
SOURCES = ("text+id", "text", "id")
TRAINED = ("all", "last_layers", "none")
HEADS = ("cosine", "dot")
_WORDS = ("augment.words.swap=0.3", "augment.words.delete=0.2", "augment.words.variants=2")
_HISTORY = ('augment.history.kinds=["crop", "mask", "reorder"]', "augment.history.share=0.8")
AUGMENTED = {"plainly": (), "words": _WORDS, "history": _HISTORY, "both": (*_WORDS, *_HISTORY)}
COMBINED = [
    # What is augmented goes round, so that each way meets each kind, source, policy and head.
    (KINDS[k], SOURCES[s], TRAINED[t], HEADS[h], tuple(AUGMENTED)[(k + s + t + 2 * h) % 4])
    for k, s, t, h in product(range(len(KINDS)), range(len(SOURCES)), range(len(TRAINED)), range(len(HEADS)))
]


def augmentation_refused(kind: str, source: str, augmented: str) -> str:
    """Why, where what is augmented would be read by nobody; empty where it would be."""
    if augmented in ("words", "both") and source == "id":
        return "augment.words changes words, and item.source 'id' reads none"
    if augmented in ("words", "both") and kind == "text":
        return "augment.words makes variants of item texts, and user_model.kind 'text' reads whole histories"
    return ""


def test_what_is_augmented_meets_every_choice() -> None:
    for place, choices in enumerate((KINDS, SOURCES, TRAINED, HEADS)):
        assert {(one[place], one[4]) for one in COMBINED} == set(product(choices, AUGMENTED))


@pytest.mark.parametrize(("kind", "source", "augmented"), list(product(KINDS, SOURCES, AUGMENTED)))
@pytest.mark.parametrize("train", TRAINED)
@pytest.mark.parametrize("head", HEADS)
def test_augmentation_goes_with_it_or_is_refused(kind: str, source: str, augmented: str, train: str, head: str) -> None:
    choices = [f"user_model.kind={kind}", f"item.source={source}", f"encoder.train={train}", f"head.kind={head}"]
    told = augmentation_refused(kind, source, augmented)
    if kind == "text" and source == "id":
        told = "'text' needs words"
    if told:
        with pytest.raises(RecipeError, match=told):
            load_recipe(overrides=[*choices, *AUGMENTED[augmented]])
        return
    recipe = load_recipe(overrides=[*choices, *AUGMENTED[augmented]])
    assert recipe.augment.words.any == (augmented in ("words", "both"))
    assert bool(recipe.augment.history.kinds) == (augmented in ("history", "both"))


@pytest.mark.parametrize(("kind", "source", "train", "head", "augmented"), COMBINED)
def test_it_fits_and_answers_or_is_refused(
    kind: str,
    source: str,
    train: str,
    head: str,
    augmented: str,
    world_folder: Path,
    tmp_path: Path,
    quick_choices: list[str],
) -> None:
    choices = [
        *quick_choices,
        f"user_model.kind={kind}",
        f"item.source={source}",
        f"encoder.train={train}",
        f"head.kind={head}",
        "training.validation_cases=20",
        "split.validation=0.05",
        *AUGMENTED[augmented],
    ]
    if kind == "text" and source == "id":
        with pytest.raises(RecipeError, match="'text' needs words: set item.source to 'text' or 'text\\+id'"):
            load_recipe(overrides=choices)
        return
    if told := augmentation_refused(kind, source, augmented):
        with pytest.raises(RecipeError, match=told):
            load_recipe(overrides=choices)
        return
    items, events = world_folder / "items.csv", world_folder / "events.csv"
    fitted = fit_run(items, events, out=tmp_path / "run", overrides=choices, show=False)
    stages = [row["stage"] for row in fitted.run.curves.read()]
    tuned = [] if train == "none" or source == "id" else ["tuned"]
    assert stages == ["frozen", *tuned, *([] if kind == "text" else ["refit"])]
    assert all(np.isfinite(row["loss"]) for row in fitted.run.curves.read())
    recommender = Recommender.load(tmp_path / "run")
    known, newcomer = recommender.recommend(users=["user0", "stranger"], k=5)
    assert len(known.items) == len(newcomer.items) == 5
    assert all(np.isfinite(item.score) for item in (*known.items, *newcomer.items))
    if source == "text+id" and head == "cosine":
        judged = judge_run(tmp_path / "run", show=False)
        assert {row.name for row in judged.table.rows} & {FROZEN, TUNED}


# Every adapter and every policy, each with every user model, source and policy somewhere: pairs, for the product is large.
WHAT_TRAINS = (
    ("lora", "last_layers", "transformer", "text+id"),
    ("lora", "all", "text", "text"),
    ("adalora", "all", "text", "text+id"),
    ("adalora", "last_layers", "mean", "text"),
    ("ia3", "all_but_first", "attention", "text+id"),
    ("prefix", "all", "text", "text"),
    ("prefix", "all", "transformer", "text+id"),
    ("houlsby", "all_but_first", "mean", "text"),
    ("houlsby", "all", "transformer", "text+id"),
    ("pfeiffer", "last_layers", "attention", "text"),
    ("none", "norms_and_biases", "transformer", "text"),
    ("none", "all_but_embeddings", "attention", "text+id"),
    ("none", "all_but_first", "text", "text"),
    ("none", "all_but_first", "mean", "text+id"),
)


@pytest.mark.parametrize(("adapter", "train", "kind", "source"), WHAT_TRAINS)
def test_what_trains_is_what_answers(
    adapter: str, train: str, kind: str, source: str, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    """The second stage alone, so that it is served: words are read as they were when it was at its best."""
    has_layers = adapter != "prefix" and train != "last_layers"  # one layer here: there is nothing to decay over
    choices = [
        *quick_choices,
        f"encoder.adapter.kind={adapter}",
        f"encoder.train={train}",
        f"user_model.kind={kind}",
        f"item.source={source}",
        "training.frozen_epochs=0",
        "training.validation_cases=20",
        "split.validation=0.05",
        "training.encoder_interval=1",
        "training.tuned_batch_events=250",
        f"training.layer_decay={0.8 if has_layers else 1}",
        "training.encoder_learning_rate=1e-3",
    ]
    items, events = world_folder / "items.csv", world_folder / "events.csv"
    run = fit_run(items, events, out=tmp_path / "run", overrides=choices, show=False).run
    assert all(np.isfinite(row["loss"]) for row in run.curves.read())
    record = run.read_record()
    assert record["training"]["costs"]["tuned"]["encoder_parameters"] > 0
    assert list(record["laps"])[:2] == ["encode texts", "train"]
    assert sum(record["laps"].values()) <= record["training"]["seconds"] + 1
    recommender = Recommender.load(tmp_path / "run")
    known, newcomer = recommender.recommend(users=["user0", "stranger"], k=5)
    assert len(known.items) == len(newcomer.items) == 5
    read = recommender.encode_texts(recommender.checkpoint.template.render_items(recommender.catalog.frame))
    cosine = (read * recommender.vectors.text_vec).sum(1)
    assert (1 - cosine).abs().max() < 1e-3  # states of layers that do not learn are kept in bf16


@pytest.mark.parametrize(("adapter", "train"), list(product(get_args(AdapterKind), get_args(Trained))))
def test_an_adapter_goes_with_layers_or_is_refused(adapter: str, train: str) -> None:
    choices = [f"encoder.adapter.kind={adapter}", f"encoder.train={train}"]
    layers = ("all",) if adapter == "prefix" else ("all", "all_but_first", "last_layers")
    if adapter == "none" or train in layers:
        assert load_recipe(overrides=choices).encoder.train == train
        for off in ("training.tuned_epochs=0", "item.source=id"):
            if adapter != "none":
                with pytest.raises(
                    RecipeError, match="encoder.adapter.kind is .* without a language model that learns"
                ):
                    load_recipe(overrides=[*choices, off])
        return
    with pytest.raises(RecipeError, match=f"encoder.train is '{train}' beside encoder.adapter.kind '{adapter}'"):
        load_recipe(overrides=choices)


@pytest.mark.parametrize("kind", ["transformer", "text"])
def test_a_second_stage_that_wins_is_judged_beside_the_first(
    kind: str, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    """Whoever wins by validation here is chance; without a first stage the second always does."""
    more = [f"user_model.kind={kind}", "training.frozen_epochs=1", "training.learning_rate=1e-7"]
    more += ["training.tuned_learning_rate=1e-2", "training.tuned_epochs=2"]
    items, events = world_folder / "items.csv", world_folder / "events.csv"
    fit_run(items, events, out=tmp_path / "run", overrides=[*quick_choices, *more], show=False)
    names = [row.name for row in judge_run(tmp_path / "run", show=False).table.rows if row.name != FUSED]
    assert names[-2:] == [FROZEN, TUNED]


def test_a_second_stage_alone(world_folder: Path, tmp_path: Path, quick_choices: list[str]) -> None:
    items, events = world_folder / "items.csv", world_folder / "events.csv"
    choices = [*quick_choices, "training.frozen_epochs=0"]
    fit_run(items, events, out=tmp_path / "run", overrides=choices, show=False)
    names = [row.name for row in judge_run(tmp_path / "run", show=False).table.rows if row.name != FUSED]
    assert names[-1] == TUNED
