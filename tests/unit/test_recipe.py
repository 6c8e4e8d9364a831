"""The recipe: every choice in one place, named wrongly only once."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from lmrec.errors import RecipeError
from lmrec.recipe import Recipe, describe_keys, load_heard, load_recipe, recipe_toml


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("encoder.max_token", "encoder.max_tokens"),
        ("max_tokens", "encoder.max_tokens"),
        ("learning_rate", "training.learning_rate"),
        ("encodr.max_tokens", "encoder"),
        ("encodr", "encoder"),
        ("training.frozen_epoch", "training.frozen_epochs"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(key: str, meant: str) -> None:
    with pytest.raises(RecipeError, match=f"Did you mean '{meant}'"):
        load_recipe(overrides=[f"{key}=3"])


def test_an_unknown_key_of_a_file_is_refused_too(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text("[encoder]\nmax_token = 3\n")
    with pytest.raises(RecipeError, match=r"unknown key 'encoder.max_token'. Did you mean 'encoder.max_tokens'"):
        load_recipe(file)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoder.max_tokens=0", r"encoder.max_tokens = 0: .*greater than or equal to 1"),
        ("encoder.max_tokens=many", r"encoder.max_tokens = 'many': it should be a whole number"),
        (
            "data.text_columns=title",
            r"""data.text_columns = 'title': it should be a list.*data.text_columns=\["one", "two"\]""",
        ),
        ("encoder=3", r"encoder = 3: it is a table of choices, such as encoder.NAME=VALUE"),
        ("data.kind_weights=3", r"data.kind_weights = 3: it should be a table.*data.kind_weights=\{a = 1\}"),
        ("training.mask_seen=perhaps", r"it should be true or false"),
        ("encoder.pooling=max", r"encoder.pooling = 'max': .*'mean', 'cls' or 'last'"),
        ("training.precision=fp16", r"training.precision = 'fp16'"),
        ("user_model.heads=3", r"user_model.heads is 3 and must divide item.width, which is 128"),
        ("split.test=0.95", r"leave nothing to train on"),
        ("encoder=5", r"encoder = 5"),
    ],
)
def test_a_bad_value_is_named_with_its_rule(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(overrides=[override])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["training.layer_decay=0.9", "training.tuned_epochs=0"],
            "training.layer_decay is 0.9, .* without a language",
        ),
        (
            ["training.layer_decay=0.9", "encoder.train=none"],
            "training.layer_decay is 0.9, .* without a language",
        ),
        (
            ["kind=lora", "encoder.train=all", "item.source=id"],
            "encoder.adapter.kind is .* without a language model",
        ),
        (["kind=lora", "encoder.train=none"], r"'none' beside encoder.adapter.kind 'lora'.*'all' or 'all_but_first'"),
        (["kind=prefix"], r"'last_layers' beside encoder.adapter.kind 'prefix': a prefix stands in every layer"),
        (
            ["kind=prefix", "encoder.train=all", "training.layer_decay=0.9"],
            "training.layer_decay needs layers to act on",
        ),
        (
            ["kind=ia3", "encoder.adapter.rank=4"],
            r"rank is 4, .* without encoder.adapter.kind 'lora' or 'adalora'",
        ),
        (["encoder.adapter.bottleneck=9"], r"bottleneck is 9, .* 'houlsby' or 'pfeiffer'"),
        (["kind=adalora", "encoder.adapter.rank=12"], r"initial_rank is 12 and must be above .*rank, which is 12"),
    ],
)
def test_adapters_and_rates_that_would_do_nothing_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(overrides=[key.replace("kind=", "encoder.adapter.kind=") for key in overrides])


def test_several_faults_are_all_named() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(overrides=["encoder.max_tokens=0", "item.width=1", "head.king=dot"])
    assert len(str(caught.value).splitlines()) == 3


UNTRAINED = ("training.frozen_epochs=0", "training.tuned_epochs=0")


def test_nothing_need_be_trained_where_something_is_fused() -> None:
    assert not load_recipe(overrides=UNTRAINED).trains
    assert load_recipe(overrides=[UNTRAINED[1]]).trains


@pytest.mark.parametrize(
    "overrides",
    [
        ["user_model.kind=text", "item.source=id"],
        [*UNTRAINED, "fusion.transitions=false", "fusion.content=false", "fusion.popularity=false"],
        [*UNTRAINED, "user_model.kind=text"],
        [*UNTRAINED, "objective.label_smoothing=0.1"],
        [*UNTRAINED, "augment.words.delete=0.1"],
        [*UNTRAINED, "training.ema=0.9"],
        [*UNTRAINED, "training.start_seed=3"],
        [*UNTRAINED, "training.mask_seen=true"],
        ["training.frozen_epochs=0", "encoder.train=none"],
        ["training.frozen_epochs=0", "item.source=id"],
    ],
)
def test_choices_that_make_no_training_together_are_refused(overrides: list[str]) -> None:
    with pytest.raises(RecipeError, match=r"needs words|nothing would be trained|without a training"):
        load_recipe(overrides=overrides)


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("encoder.max_tokens=32", 32),
        ("encoder.name=my/model", "my/model"),
        ('encoder.name="quoted"', "quoted"),
        ("template.item={title}. By {author}", "{title}. By {author}"),
        ("template.item=a=b {title}", "a=b {title}"),
        ("training.learning_rate=1e-4", 1e-4),
        ("training.mask_seen=false", False),
        ('data.text_columns=["title", "plot"]', ("title", "plot")),
        ("data.item_columns.item_id=movie", {"item_id": "movie"}),
        (" encoder.max_tokens = 32 ", 32),
    ],
)
def test_set_values_are_toml_or_plain_text(override: str, found: object) -> None:
    value: Any = load_recipe(overrides=[override])
    for part in override.partition("=")[0].strip().split(".")[:2]:
        value = getattr(value, part)
    assert value == found


@pytest.mark.parametrize("override", ["encoder.max_tokens", "=3", ""])
def test_set_without_key_and_value_is_refused_with_an_example(override: str) -> None:
    with pytest.raises(RecipeError, match=r"is not key=value. Example: --set encoder.max_tokens=64"):
        load_recipe(overrides=[override])


def test_a_path_through_a_value_is_refused() -> None:
    with pytest.raises(RecipeError, match="goes through 'name', which is a value"):
        load_recipe(overrides=["encoder.name=a", "encoder.name.b=c"])


def test_later_words_win_over_earlier_ones_and_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text("[encoder]\nmax_tokens = 10\npooling = 'cls'\n[split]\nkind = 'last'\n")
    recipe = load_recipe(file, ["encoder.max_tokens=11", "encoder.max_tokens=12"], {"split.kind": "none"})
    assert (recipe.encoder.max_tokens, recipe.encoder.pooling, recipe.split.kind) == (12, "cls", "none")


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no recipe"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("[encoder")
    with pytest.raises(RecipeError, match=r"broken.toml is not a TOML file"):
        load_recipe(tmp_path / "broken.toml")


def leaves(model: BaseModel, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        found |= leaves(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else {f"{prefix}{name}": value}
    return found


def test_every_default_survives_a_round_trip_through_toml(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(recipe_toml(Recipe()), encoding="utf-8")
    assert load_recipe(file) == Recipe()
    written = tomllib.loads(file.read_text(encoding="utf-8"))
    for key, value in leaves(Recipe()).items():
        *parts, name = key.split(".")
        table = written
        for part in parts:
            table = table[part]
        assert (name in table) == (value is not None), key


def test_a_recipe_of_other_choices_survives_too(tmp_path: Path) -> None:
    recipe = load_recipe(
        overrides=[
            'data.text_columns=["title"]',
            "data.item_columns.item_id=movie",
            "data.min_rating=4",
            "template.item={title} – «{plot}»",
            "template.history_separator=\\n",
            "evaluation.max_cases=100",
            'baselines.names=["als"]',
            "user_model.kind=mean",
        ]
    )
    file = tmp_path / "recipe.toml"
    file.write_text(recipe_toml(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe


def test_every_choice_is_described() -> None:
    rows = describe_keys()
    assert [key for key, _, _ in rows] == list(leaves(Recipe()))
    for key, default, effect in rows:
        # Empty there means every text column, the run's own language model or template, and no words of one's own or of users.
        empty = ("template.item", "template.user", *(f"reranker.{name}" for name in ("name", "prompt", "item", "user")))
        assert default or key in empty, key
        assert len(effect) > 10, f"{key} says nothing about its effect"


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().encoder.max_tokens = 3


def test_what_lies_within_a_key_that_is_heard_or_holds_a_part_is_heard_too() -> None:
    said = ["data.columns.item_id=asin", "pretrain={objective = 'simcse'}"]
    recipe, unheard = load_heard(None, said, {}, lambda _: ["data.columns", "pretrain.*"], "this")
    assert (recipe.data.columns, recipe.pretrain.objective, unheard) == ({"item_id": "asin"}, "simcse", ())
    with pytest.raises(RecipeError, match="--set data.language is not heard by this"):
        load_heard(None, [*said, "data.language=en"], {}, lambda _: ["data.columns", "pretrain.*"], "this")


def test_an_override_that_another_command_alone_hears_is_refused(tmp_path: Path) -> None:
    """A file may be that command's, too."""
    file = tmp_path / "recipe.toml"
    file.write_text("tune.trials = 7\npretrain.epochs = 2\n")
    assert load_recipe(file, ["training.seed=3"], command="lmrec fit").tune.trials == 7
    for override, owner in (("tune.trials=8", "lmrec tune"), ("pretrain.epochs=9", "lmrec pretrain")):
        with pytest.raises(RecipeError, match=rf"--set .* is heard by `{owner}` and not by `lmrec fit`"):
            load_recipe(file, [override], command="lmrec fit")
    assert load_recipe(file, ["tune.trials=8"], command="lmrec tune").tune.trials == 8


def test_a_recipe_that_was_made_takes_overrides() -> None:
    made = load_recipe(overrides=["training.seed=3", "encoder.max_tokens=32"])
    again = load_recipe(made, ["encoder.max_tokens=48"])
    assert (again.training.seed, again.encoder.max_tokens) == (3, 48)
