"""Augmentation in the arc: shown first, on in training only, each combination fits or is refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import Result

from lmrec.errors import RecipeError
from lmrec.recipe import load_recipe
from lmrec.workflows.judge import judge_run
from lmrec.workflows.train import fit_run

Invoke = Callable[..., Result]
WORDS = ["augment.words.swap=0.3", "augment.words.delete=0.3", "augment.words.variants=2"]
HISTORY = ['augment.history.kinds=["crop", "mask", "reorder"]', "augment.history.share=1.0"]


@pytest.fixture
def fit(world_folder: Path, tmp_path: Path, quick_choices: list[str]) -> Callable[..., Any]:
    def run(name: str, *choices: str) -> Any:
        items, events = world_folder / "items.csv", world_folder / "events.csv"
        small = ["training.validation_cases=20", "split.validation=0.05", 'baselines.names=["popularity"]']
        more = [*quick_choices, *small, *choices]
        return fit_run(items, events, out=tmp_path / name, overrides=more, show=False)

    return run


def towers_of(fitted: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(fitted.run.checkpoint / "towers.safetensors")
    return found


def test_training_sees_other_words_and_histories_and_judging_does_not(fit: Callable[..., Any]) -> None:
    """Without learning, a fit with augmentation is judged as one without it; with learning, its weights differ."""
    still = [f"training.{name}learning_rate=1e-30" for name in ("", "tuned_", "encoder_")]
    still += ["training.weight_decay=0", "user_model.dropout=0", "item.id_dropout=0"]
    judged = []
    for name, choices in (("plain", ()), ("augmented", (*WORDS, *HISTORY))):
        fitted = fit(name, *still, *choices)
        judged.append(
            {row: found.aggregate for row, found in judge_run(fitted.run.path, show=False).evaluations.items()}
        )
    assert judged[0] == judged[1]
    plain, words, history = fit("learnt"), fit("words", *WORDS), fit("history", *HISTORY)
    for other in (words, history):
        assert any(not torch.equal(value, towers_of(plain)[name]) for name, value in towers_of(other).items())
    assert any("variants of each of the 32 item texts (augment.words), such as" in note for note in words.notes)
    assert any("100% of the training histories are changed (crop, mask, reorder" in note for note in history.notes)
    again = fit("again", *WORDS)
    assert all(torch.equal(value, towers_of(words)[name]) for name, value in towers_of(again).items())


@pytest.mark.parametrize("kind", ["attention", "mean", "text"])
def test_changed_histories_suit_every_user_model(fit: Callable[..., Any], kind: str) -> None:
    fitted = fit(kind, *HISTORY, f"user_model.kind={kind}")
    assert {row["stage"] for row in fitted.run.read_metrics()} >= {"frozen", "tuned"}


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        (["item.source=id"], "item.source 'id' reads none"),
        (["user_model.kind=text"], "user_model.kind 'text' reads whole histories"),
    ],
)
def test_words_that_nobody_would_read_are_refused(choices: list[str], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load_recipe(overrides=[*WORDS, *choices])


def test_the_command_shows_what_a_fit_would_train_on(invoke: Invoke, world_folder: Path) -> None:
    items = world_folder / "items.csv"
    words = [word for choice in WORDS for word in ("--set", choice)]
    found = json.loads(invoke("augment", items, "--show", 3, "--json", *words).stdout)["items"]
    assert len(found) == 3
    assert all(len(item["variants"]) == 2 and item["text"] not in item["variants"] for item in found)
    assert found == json.loads(invoke("augment", items, "--show", 3, "--json", *words).stdout)["items"]
    assert "variant 2" in invoke("augment", items, *words).stdout
    assert "this recipe augments no words" in invoke("augment", items, code=2).stderr
    assert "give the table of items, or --source" in invoke("augment", *words, code=2).stderr


@pytest.fixture(scope="module")
def translators(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two sequence-to-sequence models that have learnt nothing: what they say is noise, but seeded noise."""
    from transformers import BartConfig, BartForConditionalGeneration

    folders = []
    for name in ("there", "back"):
        torch.manual_seed(len(name))
        config = BartConfig(
            vocab_size=len(tiny_tokenizer),
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=3,
            decoder_start_token_id=2,
            forced_eos_token_id=3,
        )
        folder = tmp_path_factory.mktemp("translators") / name
        BartForConditionalGeneration(config).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        folders.append(folder)
    return folders


def test_texts_are_translated_there_and_back_once(
    invoke: Invoke, world_folder: Path, translators: list[Path], own_cache: Path
) -> None:
    there, back = translators
    words = ["--set", f'augment.words.back_translate=["{there}", "{back}"]', "--set", "augment.words.variants=2"]
    words += ["--set", "encoder.max_tokens=10", "--json", "--quiet"]
    (item,) = json.loads(invoke("augment", world_folder / "items.csv", "--show", 1, *words).stdout)["items"]
    assert len({item["text"], *item["variants"]}) == 3
    kept = sorted((own_cache / "translations").iterdir())
    assert len(kept) == 2
    for file in kept:  # a second call reads what the first one kept
        file.write_text(json.dumps(["kept words"]))
    (again,) = json.loads(invoke("augment", world_folder / "items.csv", "--show", 1, *words).stdout)["items"]
    assert again["variants"] == ["kept words", "kept words"]
    wrong = ["--set", f'augment.words.back_translate=["{world_folder}", "{back}"]']
    told = invoke("augment", world_folder / "items.csv", *wrong, code=2).stderr
    assert "could not be loaded" in told
    assert "sequence-to-sequence models" in told
