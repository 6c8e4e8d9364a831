"""Nothing that is chosen is silently ignored: every key says when it is heard, or is always."""

import re
from pathlib import Path

import pytest

from lmrec.errors import RecipeError
from lmrec.idle import NOTED, REFUSED, idle_notes
from lmrec.recipe import Recipe, describe_keys, load_fitted, load_recipe, recipe_toml, with_choices

# Heard whatever else is chosen, by the command that they are of.
ALWAYS = {
    "data": "columns item_columns interaction_columns user_columns text_columns max_bad_share max_text_chars min_rating "
    "kind_weights return_kinds weight_from language secret_tags future_slack_s",  # two are noted by the source: below
    "split": "kind target",
    "template": "item history_separator max_chars max_words",
    "encoder": "name pooling max_tokens batch_tokens runtime",
    "training": "seed frozen_epochs",
    "fusion": "transitions als ease bm25_knn content popularity new_items repeats",
    "evaluation": "ks exclude_seen block_size max_cases n_bootstrap confidence seed metric",
    "update": "min_events held_out epochs rate_share replay anchor tolerance min_slice_users keep_refused",
    "reranker": "task form name prompt item max_words max_tokens top_k validation_events search_cases judge_cases",
    "distil": "n_events epochs batch_lists learning_rate temperature weight",
    "compress": "layers kept widths tolerance epochs max_texts batch_texts learning_rate held_out tower_epochs",
    "index": "kind",
    "pretrain": "objective epochs batch_texts learning_rate dropout held_out new_words",
    "tune": "trials sampler prune space",
    "tracking": "to",
}
KEYS = [key for key, _, _ in describe_keys()]
WITH_A_RULE = {key for rule in (*REFUSED, *NOTED) for key in rule.keys}


def test_every_key_has_a_rule_or_is_always_heard() -> None:
    """A new key stands in neither until somebody has asked what it needs."""
    always = {f"{part}.{name}" for part, names in ALWAYS.items() for name in names.split()}
    assert not always & WITH_A_RULE
    assert always | WITH_A_RULE == set(KEYS)


def test_what_a_rule_asks_for_is_a_key_that_there_is() -> None:
    for rule in (*REFUSED, *NOTED):
        named = re.findall(r"\b[a-z_]+\.[a-z_.]*[a-z_]\b", rule.needs)
        assert named, rule.needs
        assert all(any(key == one or key.startswith(f"{one}.") for key in KEYS) for one in named), rule.needs


UNTRAINED = ["training.frozen_epochs=0", "training.tuned_epochs=0"]
FROZEN = ["training.tuned_epochs=0"]
LIKELY = ["reranker.form=likelihood"]
REFUSALS: list[tuple[list[str], str, str]] = [
    (["data.weight_from=none"], "data.weight_scale=log", "data.weight_from 'weight'"),
    ([], "split.n=2", "split.kind 'last_n'"),
    ([], "split.seed=3", "'cold_items' or 'cold_users'"),
    ([], "template.user={age}", "read as text"),
    ([], "template.shorten=keywords", "template.max_words above 0"),
    ([], "encoder.adapter.rank=4", "encoder.adapter.kind 'lora' or 'adalora'"),
    (["encoder.adapter.kind=lora"], "encoder.adapter.bottleneck=9", "'houlsby' or 'pfeiffer'"),
    (["encoder.adapter.kind=ia3"], "encoder.adapter.dropout=0.1", "'lora' or 'adalora' or 'houlsby' or 'pfeiffer'"),
    (FROZEN, "encoder.adapter.kind=lora", "a language model that learns"),
    (["encoder.train=none"], "encoder.checkpointing=true", "a language model that learns"),
    (["item.source=id"], "item.whiten=16", "item.source 'text' or 'text+id'"),
    (["item.source=text"], "item.id_dropout=0.7", "item.source 'text+id'"),
    (["user_model.kind=mean"], "user_model.layers=7", "user_model.kind 'transformer'"),
    (["user_model.kind=attention"], "user_model.heads=8", "user_model.kind 'transformer'"),
    (["user_model.kind=text", "baselines.names=[]"], "user_model.dropout=0.4", "other than 'text'"),
    (["user_model.kind=text"], "user_model.item_dropout=0.4", "other than 'text'"),
    (["head.kind=dot"], "head.temperature=0.5", "head.kind 'cosine'"),
    ([], "training.momentum=0", "training.optimizer 'sgd'"),
    (FROZEN, "training.layer_decay=0.9", "a language model that learns"),
    (["encoder.n_layers=1"], "training.layer_decay=0.9", "layers one above the other that learn"),
    (UNTRAINED, "training.start_seed=0", "a training"),
    (["objective.kind=full"], "objective.max_full_items=9", "objective.kind 'auto'"),
    (["objective.kind=sampled"], "objective.max_full_items=9", "objective.kind 'auto'"),
    (["objective.kind=full"], "objective.sampler.n_negatives=7", "objective.kind 'sampled', or 'auto'"),
    (["objective.sampler.kind=uniform"], "objective.sampler.exponent=0.5", "sampler.kind 'popularity'"),
    (["objective.sampler.kind=hard"], "objective.sampler.uniform_share=0.1", "sampler.kind 'mixed'"),
    ([], "objective.sampler.n_queries=3", "sampler.kind 'hard'"),
    ([], "objective.auxiliary.min_items=3", "objective.auxiliary.column"),
    (["fusion.popularity=false"], "objective.trend_half_life_days=2.0", "fusion.popularity"),
    ([], "objective.shown_negatives=3", "objective.shown above 0"),
    (UNTRAINED, "objective.label_smoothing=0.1", "a training"),
    (UNTRAINED, "objective.auxiliary.column=genre", "a training"),
    (UNTRAINED, "augment.words.delete=0.1", "a training"),
    (UNTRAINED, 'augment.history.kinds=["crop"]', "a training"),
    (UNTRAINED, "regularisers.r_drop=1", "a training"),
    (UNTRAINED, "adversarial.kind=fgm", "a training"),
    (["augment.words.swap=0.1"], "augment.words.wordnet=folder", "augment.words.synonyms above 0"),
    ([], "augment.words.variants=9", "augment.words.synonyms, swap, delete or back_translate"),
    ([], "augment.history.share=0.9", "augment.history.kinds"),
    (['augment.history.kinds=["crop"]'], "augment.history.mask_share=0.4", "'mask' in augment.history.kinds"),
    (['augment.history.kinds=["mask"]'], "augment.history.crop_keep=0.4", "'crop' in augment.history.kinds"),
    (['augment.history.kinds=["mask"]'], "augment.history.reorder_share=0.4", "'reorder' in augment"),
    (["user_model.dropout=0", "item.id_dropout=0"], "regularisers.r_drop=1", "some dropout"),
    (FROZEN, "regularisers.l2_sp=1", "a language model that learns"),
    (["encoder.adapter.kind=lora"], "regularisers.l2_sp=1", "leaves the pretrained weights as they are"),
    ([], "adversarial.radius=0.1", "an adversarial.kind"),
    (["adversarial.kind=fgm"], "adversarial.steps=3", "'pgd', 'freelb' or 'smart'"),
    (["adversarial.kind=pgd"], "adversarial.weight=3", "adversarial.kind 'smart'"),
    (['baselines.names=["popularity"]'], "baselines.search_cases=9", "baselines.names"),
    (["encoder.train=none"], "update.tuned_epochs=1", "may learn"),
    (["reranker.task=classes"], "reranker.n_negatives=5", "reranker.task 'binary'"),
    (LIKELY, "reranker.n_events=9", "a reranker.form that learns"),
    (LIKELY, "reranker.dropout=0.2", "a reranker.form that learns"),
    ([], "reranker.rank=4", "reranker.train 'lora'"),
    ([], "reranker.n_layers=1", "reranker.train 'last_layers'"),
    (["reranker.form=yes_no"], "reranker.head_learning_rate=1e-3", "reranker.form 'classifier'"),
    (["user_model.kind=text"], "reranker.user={age}", "template.user"),
    (["compress.kept=[1.0]"], 'compress.parts=["heads"]', "a share below 1 in compress.kept"),
    (["compress.tower_epochs=0"], "compress.rate_share=0.5", "compress.tower_epochs above 0"),
    (["index.kind=sketch"], "index.exact_mb=1", "index.kind 'auto'"),
    (["index.kind=exact"], "index.recall=0.9", "other than 'exact'"),
    (["pretrain.objective=clm"], "pretrain.mask_share=0.3", "pretrain.objective 'mlm'"),
    (["pretrain.objective=simcse"], "pretrain.head_epochs=2", "'mlm' or 'clm'"),
    ([], "pretrain.temperature=0.1", "'simcse' or 'pairs'"),
    ([], "pretrain.max_pairs=9", "pretrain.objective 'pairs'"),
    ([], "pretrain.new_word_count=2", "pretrain.new_words above 0"),
    (["tune.sampler=random", "tune.prune=false"], "tune.startup=9", "tune.sampler 'tpe' or tune.prune"),
]


@pytest.mark.parametrize(("others", "idle", "needs"), REFUSALS, ids=lambda one: str(one))
def test_what_is_of_another_choice_is_refused(others: list[str], idle: str, needs: str) -> None:
    load_recipe(overrides=others)  # by themselves they are a recipe
    with pytest.raises(RecipeError) as caught:
        load_recipe(overrides=[*others, idle])
    (told,) = str(caught.value).splitlines()
    key, _, value = idle.partition("=")
    assert told.startswith(f"{key} is ")
    assert value.strip('[]"') in told.replace("0.001", "1e-3").replace("True", "true")
    assert needs in told
    assert f"leave {key} out" in told


def test_every_refusal_is_shown_above() -> None:
    """But of the adapters' settings, whose rules are made from one table of kinds."""
    shown = [(idle.partition("=")[0], needs) for _, idle, needs in REFUSALS]
    assert [
        rule.needs
        for rule in REFUSED
        if not any(key in rule.keys and needs in rule.needs for key, needs in shown)
        and not rule.keys[0].startswith("encoder.adapter.")
    ] == []


NOTES: list[tuple[list[str], list[str], str]] = [
    (["split.kind=last"], ["split.validation=0.2"], "a split by shares"),
    (["split.kind=none"], ["split.test=0.2"], "has a test part"),
    (["encoder.train=all"], ["encoder.n_layers=1"], "encoder.train 'last_layers' or 'all_but_first'"),
    (FROZEN, ["encoder.train=all", "encoder.n_layers=1"], "encoder.n_layers"),
    (FROZEN, ["encoder.train=all"], "a second stage on words"),
    (["encoder.train=none"], ["encoder.dropout=0.5"], "runs while something learns"),
    (["encoder.train=all"], ["encoder.states_mb=7"], "layers below those that learn"),
    (FROZEN, ["encoder.states_mb=7"], "a language model that learns"),
    (["encoder.train=none"], ["training.encoder_learning_rate=1", "training.encoder_interval=1"], "encoder_interval"),
    (["item.source=id"], ["training.tuned_epochs=5"], "may learn"),
    (
        FROZEN,
        ["training.tuned_batch_events=9", "training.max_encoded_items=9"],
        "training.max_encoded_items change nothing",
    ),
    (["training.frozen_epochs=0"], ["training.learning_rate=0.1", "training.batch_events=9"], "a first stage"),
    (UNTRAINED, ["item.width=16", "head.kind=dot", "user_model.kind=mean", "training.patience=2"], "a training"),
    (UNTRAINED, ["objective.trend_half_life_days=2"], "only the rival id_sequence may learn by it"),
    (["split.validation=0"], ["training.patience=9", "training.validation_cases=9"], "a validation part"),
    (
        ["fusion.transitions=false", "fusion.content=false", "fusion.popularity=false"],
        ["fusion.method=learnt"],
        "is fused",
    ),
    (["split.validation=0"], ["fusion.search_cases=9"], "a validation part"),
    (["split.kind=none"], ['baselines.names=["ease"]'], "a test part"),
    ([], ["tracking.project=mine"], "'wandb' in tracking.to"),
    (["tracking.to=[]"], ["tracking.project=mine"], "'wandb' in tracking.to"),
]


@pytest.mark.parametrize(("others", "idle", "told"), NOTES, ids=lambda one: str(one))
def test_what_is_of_something_switched_off_is_noted(others: list[str], idle: list[str], told: str) -> None:
    recipe = load_recipe(overrides=[*others, *idle])
    assert {one.partition("=")[0] for one in idle} <= {one.key for one in recipe.idle}
    assert any(told in note for note in idle_notes(recipe.idle))
    assert not any(one.refused for one in recipe.idle)
    quiet = load_recipe(overrides=others)
    assert not {one.partition("=")[0] for one in idle} & {one.key for one in quiet.idle}


def test_every_note_is_shown_above() -> None:
    shown = {one.needs for others, idle, _ in NOTES for one in load_recipe(overrides=[*others, *idle]).idle}
    assert [rule.needs for rule in NOTED if rule.needs not in shown] == []


@pytest.mark.parametrize(
    "overrides",
    [
        ["user_model.kind=mean", "user_model.heads=4"],  # the default is no choice
        ["item.source=text", "item.id_dropout=0"],  # nothing to switch off: it is off
        ["encoder.train=all", "encoder.states_mb=0"],
        [*UNTRAINED, "training.refit=false"],
        ["user_model.kind=text", "user_model.layers=2", "user_model.heads=2"],  # the id-only rival's
        ["encoder.train=none", "training.tuned_epochs=0"],
        ["training.frozen_epochs=0", "training.start_seed=3"],
        ["split.kind=last", "training.patience=9"],
        ["objective.max_full_items=9", "objective.sampler.n_negatives=8"],
    ],
)
def test_what_is_heard_or_switched_off_is_neither(overrides: list[str]) -> None:
    assert load_recipe(overrides=overrides).idle == ()


def test_all_that_is_idle_is_named_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            overrides=["user_model.kind=mean", "user_model.layers=7", "user_model.heads=8", "head.temperature=1"]
        )
    assert [line.split()[0] for line in str(caught.value).splitlines()] == ["user_model.layers", "user_model.heads"]


def test_a_fitted_run_is_read_as_it_is_and_only_what_is_asked_of_it_now_is_refused(tmp_path: Path) -> None:
    """A search may have drawn what stands in its recipe, or an earlier lmrec have let it pass."""
    file = tmp_path / "recipe.toml"
    idle = with_choices(Recipe(), {"reranker.rank": 4, "head.kind": "dot", "head.temperature": 0.5})
    file.write_text(recipe_toml(idle), encoding="utf-8")
    assert load_fitted(file) == idle
    assert load_fitted(file, ["reranker.top_k=9"], ["reranker.*"]).reranker.rank == 4
    with pytest.raises(RecipeError, match=r"reranker\.n_layers is 3, .*reranker\.train 'last_layers'"):
        load_fitted(file, ["reranker.n_layers=3"], ["reranker.*"])
    with pytest.raises(RecipeError, match=r"head\.temperature is 0\.5.*or set it to 0\.07"):
        load_recipe(file)
    assert not load_recipe(file, ["reranker.rank=8", "head.temperature=0.07"]).idle
