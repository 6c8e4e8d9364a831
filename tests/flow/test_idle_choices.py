"""What a recipe calls idle changes nothing: a fit with all of it ends with the same towers as a fit without."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from lmrec.idle import unheard
from lmrec.recipe import load_recipe, with_choices
from lmrec.workflows.train import fit_run

# Another value for what a fit reads: as many of these as are idle are said at once.
OTHER: dict[str, Any] = {
    "encoder.train": "all",
    "encoder.n_layers": 3,
    "encoder.dropout": 0.5,
    "encoder.states_mb": 7,
    "encoder.checkpointing": True,
    "encoder.adapter.rank": 3,
    "item.whiten": 8,
    "item.id_dropout": 0.7,
    "user_model.layers": 3,
    "user_model.heads": 2,
    "user_model.dropout": 0.6,
    "user_model.item_dropout": 0.4,
    "head.temperature": 0.5,
    "training.momentum": 0.3,
    "training.batch_events": 99,
    "training.learning_rate": 0.5,
    "training.tuned_batch_events": 77,
    "training.tuned_learning_rate": 0.5,
    "training.encoder_learning_rate": 0.5,
    "training.encoder_interval": 2,
    "training.max_encoded_items": 3,
    "training.patience": 9,
    "training.validation_cases": 9,
    "objective.max_full_items": 3,
    "objective.sampler.n_negatives": 7,
    "objective.sampler.exponent": 0.2,
    "objective.sampler.uniform_share": 0.2,
    "objective.sampler.n_queries": 2,
    "objective.auxiliary.weight": 3.0,
    "objective.auxiliary.min_items": 1,
    "objective.shown_negatives": 2,
    "augment.words.variants": 9,
    "augment.history.share": 0.9,
    "augment.history.crop_keep": 0.9,
    "augment.history.mask_share": 0.9,
    "augment.history.reorder_share": 0.9,
    "adversarial.radius": 0.4,
    "adversarial.steps": 2,
    "adversarial.weight": 9.0,
    "regularisers.l2_sp": 3.0,
    "fusion.method": "learnt",
    "template.shorten": "keywords",
    "tracking.project": "other",
}
BASES: dict[str, tuple[str, ...]] = {
    "mean, dot, words, frozen": (
        "user_model.kind=mean",
        "head.kind=dot",
        "item.source=text",
        "training.tuned_epochs=0",
        "objective.kind=full",
    ),
    "attention, second alone": (
        "user_model.kind=attention",
        "training.frozen_epochs=0",
        "encoder.train=all",
        'augment.history.kinds=["mask"]',
    ),
    "transformer of ids": ("item.source=id", "objective.kind=sampled", "split.validation=0", "adversarial.kind=none"),
    "text": ("user_model.kind=text", "objective.sampler.kind=uniform"),
}


@pytest.mark.parametrize("base", BASES)
def test_what_is_idle_changes_nothing(base: str, world_folder: Path, tmp_path: Path, quick_choices: list[str]) -> None:
    plain = load_recipe(
        overrides=[*quick_choices, *BASES[base], "training.batch_events=400", "fusion.transitions=false"]
    )
    idle = {key: OTHER[key] for key in unheard(plain) if key in OTHER}
    assert len(idle) > 15
    said = with_choices(plain, idle)
    assert {one.key for one in said.idle} >= set(idle)
    tables = world_folder / "items.csv", world_folder / "events.csv"
    one, other = (
        load_file(
            fit_run(*tables, out=tmp_path / name, recipe=recipe, show=False).run.checkpoint / "towers.safetensors"
        )
        for name, recipe in (("plain", plain), ("said", said))
    )
    assert one.keys() == other.keys()
    unread = ("item_tower.mean", "item_tower.directions") if plain.item.source == "id" else ()
    assert [name for name in one if name not in unread and not bool((one[name] == other[name]).all())] == []


def test_a_fit_says_what_changes_nothing_and_what_finds_nothing_to_draw(
    world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    more = ["training.tuned_epochs=0", "objective.sampler.n_negatives=7", "data.language=zh"]
    tables = world_folder / "items.csv", world_folder / "events.csv"
    fitted = fit_run(*tables, out=tmp_path / "run", overrides=[*quick_choices, *more], show=False)
    told = "\n".join(fitted.notes)
    assert "training.tuned_batch_events, training.max_encoded_items change nothing here without" in told
    assert "objective.sampler.n_negatives: no negatives are drawn" in told
    assert "data.language changes nothing here: it is of --source mind" in told
    assert [note for note in fitted.run.read_record()["notes"] if "n_negatives" in note]
