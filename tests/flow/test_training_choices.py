"""How it trains, in pairs: every choice fits together with every other on a tiny model, or is refused when a recipe is read."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from lmrec.artifacts.run import RunFolder
from lmrec.errors import RecipeError
from lmrec.recipe import load_recipe
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.ensemble import ensemble_runs
from lmrec.workflows.judge import judge_run
from lmrec.workflows.train import fit_run

# One line a choice: none of them is the default, and each works with all others.
CHOICES: dict[str, tuple[str, ...]] = {
    "sgd": ("training.optimizer=sgd", "training.momentum=0.8", "training.learning_rate=0.1"),
    "adafactor": ("training.optimizer=adafactor",),
    "inverse_sqrt": ("training.schedule=inverse_sqrt",),
    "ema": ("training.ema=0.9",),
    "accumulate": ("training.accumulate=2",),
    "checkpointing": ("encoder.checkpointing=true",),
    "label_smoothing": ("objective.label_smoothing=0.1",),
    "sampled": ("objective.kind=sampled", "objective.sampler.n_negatives=8"),
    "r_drop": ("regularisers.r_drop=1",),
    "l2_sp": ("regularisers.l2_sp=0.01",),
    "item_dropout": ("user_model.item_dropout=0.2",),
    "dropout": ("encoder.dropout=0.2",),
    "fgm": ("adversarial.kind=fgm",),
    "pgd": ("adversarial.kind=pgd", "adversarial.steps=2"),
    "freelb": ("adversarial.kind=freelb", "adversarial.steps=2", "adversarial.radius=0.02"),
    "smart": ("adversarial.kind=smart", "adversarial.weight=0.5"),
    "attention": ("user_model.kind=attention",),
    "dot": ("head.kind=dot",),
    "narrow head": ("head.width=8",),
    "lora": ("encoder.adapter.kind=lora",),
    "houlsby": ("encoder.adapter.kind=houlsby",),
    "prefix": ("encoder.adapter.kind=prefix", "encoder.train=all"),
    "layer_decay": ("training.layer_decay=0.8", "encoder.n_layers=2"),
    "all layers": ("encoder.train=all",),
    "adalora": ("encoder.adapter.kind=adalora",),
    "ia3": ("encoder.adapter.kind=ia3",),
    "pfeiffer": ("encoder.adapter.kind=pfeiffer",),
    "mean": ("user_model.kind=mean",),
    "text": ("user_model.kind=text",),
    "category": ("objective.auxiliary.column=topic",),
    "other words": ("augment.words.swap=0.3", "augment.words.variants=2"),
    "other histories": ('augment.history.kinds=["crop", "mask", "reorder"]',),
    "first token": ("encoder.pooling=cls",),
    "last token": ("encoder.pooling=last",),
    "second alone": ("training.frozen_epochs=0",),
    "snapshots": ("training.snapshots=2", "training.frozen_epochs=2"),
    "gpt": ("encoder.name=tiny_gpt",),
    "llama": ("encoder.name=tiny_llama",),
}


ADAPTERS = ("lora", "houlsby", "prefix", "adalora", "ia3", "pfeiffer")
REFUSED = {  # tested below
    *(frozenset(("text", other)) for other in ("item_dropout", "other words", "snapshots")),
    frozenset(("ema", "adalora")),
    *(frozenset(("snapshots", other)) for other in ("ema", "inverse_sqrt")),
    *(frozenset(("l2_sp", adapter)) for adapter in ADAPTERS),
    frozenset(("checkpointing", "prefix")),
    frozenset(("layer_decay", "prefix")),
    *(frozenset(("first token", writer)) for writer in ("gpt", "llama")),
}


def keys(name: str) -> set[str]:
    return {choice.partition("=")[0] for choice in CHOICES[name]}


def fit_together(one: str, other: str) -> bool:
    return not keys(one) & keys(other) and frozenset((one, other)) not in REFUSED


PAIRS = [pair for pair in combinations(CHOICES, 2) if fit_together(*pair)]


def covering() -> list[tuple[str, ...]]:
    """Few sets of choices that together hold every pair of them: each set takes what has most pairs still to show."""
    left, sets = {frozenset(pair) for pair in PAIRS}, list[tuple[str, ...]]()
    while left:
        chosen = sorted(min(left, key=sorted))
        for name in CHOICES:
            fits = name not in chosen and all(fit_together(name, other) for other in chosen)
            if fits and any(frozenset((name, other)) in left for other in chosen):
                chosen.append(name)
        left -= {frozenset(pair) for pair in combinations(chosen, 2)}
        sets.append(tuple(chosen))
    return sets


COVERING = covering()


@pytest.mark.parametrize("chosen", COVERING, ids="+".join)
def test_every_pair_of_choices_trains_both_stages_and_answers(
    chosen: tuple[str, ...],
    world_folder: Path,
    tmp_path: Path,
    quick_choices: list[str],
    request: pytest.FixtureRequest,
) -> None:
    choices = [*quick_choices, *(choice for name in chosen for choice in CHOICES[name])]
    for name in {"gpt", "llama"} & {*chosen}:
        choices.append(f"encoder.name={request.getfixturevalue(f'tiny_{name}')}")
    if "adalora" in chosen:  # it takes ranks away step by step, and wants some
        choices += ["training.encoder_interval=1", "training.tuned_batch_events=100"]
    tables = world_folder / "items.csv", world_folder / "events.csv"
    more = ["training.batch_events=400", "training.validation_cases=20", "fusion.transitions=false"]
    run = fit_run(*tables, out=tmp_path / "run", overrides=[*choices, *more], show=False).run
    rows = run.curves.read()
    n_first = {"second alone": 0, "snapshots": 2}.get(next(iter({"second alone", "snapshots"} & {*chosen}), ""), 1)
    assert [row["stage"] for row in rows].count("frozen") == n_first
    assert [row["stage"] for row in rows].count("tuned") == 1
    assert any(row["stage"] == "refit" for row in rows) == (bool(n_first) and "text" not in chosen)
    assert all(np.isfinite(row["loss"]) for row in rows)
    (answer,) = Recommender.load(run.path).recommend(users=["user0"], k=5)
    assert len({item.item_id for item in answer.items}) == 5


def test_every_pair_is_among_the_sets_of_the_test_above() -> None:
    shown = {frozenset(pair) for chosen in COVERING for pair in combinations(chosen, 2)}
    assert {frozenset(pair) for pair in PAIRS} <= shown


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        (["training.momentum=0.9"], "training.momentum is 0.9, .* without training.optimizer 'sgd'"),
        (["training.momentum=0.9", "training.optimizer=adafactor"], "without training.optimizer 'sgd'"),
        (
            ["user_model.item_dropout=0.1", "user_model.kind=text"],
            "without a user_model.kind other than 'text'",
        ),
        (["regularisers.r_drop=1", "user_model.dropout=0", "item.id_dropout=0"], "without some dropout"),
        (["regularisers.r_drop=1", "user_model.dropout=0", "item.source=text"], "without some dropout"),
        (["regularisers.r_drop=1", "user_model.kind=text", "item.source=text"], "without some dropout"),
        (
            ["regularisers.l2_sp=1", "training.tuned_epochs=0"],
            "without a language model that learns",
        ),
        (
            ["regularisers.l2_sp=1", "encoder.train=none"],
            "regularisers.l2_sp is 1.0, .* without",
        ),
        (
            ["encoder.checkpointing=true", "encoder.train=none"],
            "encoder.checkpointing is True, .* without",
        ),
        (["regularisers.l2_sp=1", "encoder.adapter.kind=lora"], "an adapter leaves the pretrained weights as they are"),
        (["encoder.checkpointing=true", "encoder.train=all", "encoder.adapter.kind=prefix"], "would not see"),
        (["training.ema=0.9", "encoder.adapter.kind=adalora"], "averages bring back the ranks"),
        (["adversarial.kind=fgm", "item.source=id"], "adversarial.kind needs the words"),
        (["adversarial.radius=0.1"], "adversarial.radius is 0.1, .* without an adversarial.kind"),
        (["adversarial.kind=fgm", "adversarial.steps=3"], "without adversarial.kind 'pgd', 'freelb' or 'smart'"),
        (["training.snapshots=4"], "training.frozen_epochs is 10, and must be a multiple of it"),
        (["training.snapshots=2", "training.refit=false"], "comes from the second stage"),
        (["training.ema=1"], "training.ema = 1"),
    ],
)
def test_what_nothing_would_come_of_is_refused_when_the_recipe_is_read(choices: list[str], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        load_recipe(overrides=choices)


def test_dropout_of_an_adapter_is_enough_for_two_readings_of_one_history_to_differ() -> None:
    text = ["regularisers.r_drop=1", "user_model.kind=text", "item.source=text", "encoder.adapter.kind=lora"]
    assert load_recipe(overrides=[*text, "encoder.adapter.dropout=0.1"]).drops
    with pytest.raises(RecipeError, match="encoder.adapter.dropout"):
        load_recipe(overrides=text)


@pytest.mark.parametrize(
    "choices",
    [
        ["encoder.train=all_but_first", "encoder.n_layers=2"],
        ["encoder.train=all_but_first", "encoder.n_layers=2", "encoder.adapter.kind=lora"],
    ],
)
def test_rates_that_decay_over_one_layer_are_refused_before_anything_is_encoded(
    choices: list[str], world_folder: Path, tmp_path: Path, quick_choices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many layers the model has is known only once it is read."""
    monkeypatch.setattr("lmrec.workflows.encode.untuned_vectors", lambda *_: pytest.fail("something was encoded"))
    tables = world_folder / "items.csv", world_folder / "events.csv"
    overrides = [*quick_choices, *choices, "training.layer_decay=0.8"]
    with pytest.raises(RecipeError, match="training.layer_decay is 0.8, and what learns of .* stands in one layer"):
        fit_run(*tables, out=tmp_path / "run", overrides=overrides, show=False)
    assert not (tmp_path / "run").exists()


def test_snapshots_are_runs_that_an_ensemble_takes(
    world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    """Two cycles: the last snapshot is what the run itself serves, the first is another; each has its validated towers."""
    more = ["training.snapshots=2", "training.frozen_epochs=4", "training.tuned_epochs=1"]
    tables = world_folder / "items.csv", world_folder / "events.csv"
    run = fit_run(*tables, out=tmp_path / "run", overrides=[*quick_choices, *more], show=False).run
    paths = [run.path / "snapshots" / number for number in ("1", "2")]
    first, second, own = (load_file(path / "checkpoint" / "towers.safetensors") for path in (*paths, run.path))
    assert all((second[name] == own[name]).all() for name in own)
    assert any((first[name] != own[name]).any() for name in own)
    asked = [Recommender.load(path).recommend(users=["user0"], k=5)[0] for path in (paths[1], run.path)]
    assert [item.score for item in asked[0].items] == [item.score for item in asked[1].items]
    assert all(RunFolder(path).frozen_towers_file.exists() for path in paths)
    made = ensemble_runs(paths, tmp_path / "both", learn=True)
    names = {row.name for row in judge_run(made.path, show=False).table.rows}
    assert {"member 1", "member 2", "ensemble by scores"} <= names


def test_runs_that_share_a_start_begin_with_the_same_towers(world_folder: Path, quick_choices: list[str]) -> None:
    import torch

    from lmrec.workflows.prepare import prepare
    from lmrec.workflows.train import build_learner

    found = []
    for choices in (["training.seed=1"], ["training.seed=2"], ["training.seed=2", "training.start_seed=1"]):
        recipe = load_recipe(overrides=[*quick_choices, *choices])
        prepared = prepare(world_folder / "items.csv", world_folder / "events.csv", None, recipe)
        text_vec = torch.zeros(prepared.dataset.catalog.n_items, 32)
        found.append(build_learner(recipe, text_vec, prepared.split.train).towers.user_model.start)  # type: ignore[union-attr]
    one, other, shared = found
    assert torch.equal(one, shared)
    assert not torch.equal(one, other)


def test_trainings_of_one_process_have_each_their_own_precision(
    world_folder: Path, quick_choices: list[str], tmp_path: Path
) -> None:
    tables = (world_folder / "items.csv", world_folder / "events.csv")
    names = ("fp32", "bf16", "again")
    for name in names:
        choices = [*quick_choices, f"training.precision={name.replace('again', 'fp32')}"]
        fit_run(*tables, out=tmp_path / name, overrides=choices, show=False)
    first, second, third = (load_file(RunFolder(tmp_path / name).checkpoint / "towers.safetensors") for name in names)
    assert all(np.array_equal(first[key], third[key]) for key in first)
    assert not all(np.array_equal(first[key], second[key]) for key in first)
