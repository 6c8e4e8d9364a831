"""Augmentation in the arc: shown first, on in training only, each combination fits or is refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import Result

from lmrec.errors import RecipeError
from lmrec.recipe import load_recipe
from lmrec.text.template import build_template
from lmrec.text.translate import draw_tokens, load_translator
from lmrec.workflows.judge import judge_run
from lmrec.workflows.prepare import prepare
from lmrec.workflows.show_augmented import show_histories
from lmrec.workflows.train import batch_source, fit_run

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
    assert {row["stage"] for row in fitted.run.curves.read()} >= {"frozen", "tuned"}


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
    words = sets(*WORDS)
    found = json.loads(invoke("augment", items, "--show", 3, "--json", *words).stdout)["items"]
    assert len(found) == 3
    assert all(len(item["variants"]) == 2 and item["text"] not in item["variants"] for item in found)
    assert found == json.loads(invoke("augment", items, "--show", 3, "--json", *words).stdout)["items"]
    assert "variant 2" in invoke("augment", items, *words).stdout
    assert "augments neither words nor histories" in invoke("augment", items, code=2).stderr
    assert "give the table of items, or --source" in invoke("augment", *words, code=2).stderr


def sets(*choices: str) -> list[str]:
    return [word for choice in choices for word in ("--set", choice)]


@pytest.mark.parametrize("kind", ["crop", "mask", "reorder"])
def test_the_command_shows_histories_before_and_after(invoke: Invoke, world_folder: Path, kind: str) -> None:
    call = ["augment", world_folder / "items.csv", "--interactions", world_folder / "events.csv", "--show", 3]
    call += sets(f'augment.history.kinds=["{kind}"]', "training.seed=4")
    found = json.loads(invoke(*call, "--json").stdout)
    assert found["items"] == []
    histories = found["histories"]
    assert histories["seed"] == 4
    assert 3 <= histories["n_changed"] <= 0.8 * histories["n"], "about half of them"
    assert len(histories["shown"]) == 3
    for history in histories["shown"]:
        before, after = history["before"], history["after"]
        assert history["kind"] == kind
        if kind == "crop":
            assert len(after) < len(before)
            assert any(before[at : at + len(after)] == after for at in range(len(before)))
        elif kind == "mask":
            assert None in after
            assert all(new in (old, None) for old, new in zip(before, after, strict=True))
        else:
            assert after != before
            assert sorted(after) == sorted(before)
    said = invoke(*call)
    assert f"{histories['n_changed']} of {histories['n']} histories are changed in the first epoch" in said.stderr
    assert "training.seed 4" in said.stderr
    assert "history 3, oldest first" in said.stdout
    assert ("(hidden)" in said.stdout) == (kind == "mask")


def test_what_the_command_shows_is_what_the_first_epoch_reads(world_folder: Path, quick_choices: list[str]) -> None:
    """The very batches that a fit trains on hold the histories shown."""
    recipe = load_recipe(overrides=[*quick_choices, *HISTORY])
    prepared = prepare(world_folder / "items.csv", world_folder / "events.csv", None, recipe)
    texts = build_template(recipe.template, prepared.dataset.catalog).render_items(prepared.dataset.catalog.frame)
    read = [
        tuple(None if gone else texts[item] for item, gone in zip(items[mask], hidden[mask], strict=True))
        for batch in batch_source(recipe, prepared.split.train)(0, 0)
        for items, mask, hidden in zip(
            batch.history_idx,
            batch.history_mask,
            torch.zeros_like(batch.history_mask) if batch.hidden is None else batch.hidden,
            strict=True,
        )
    ]
    found = show_histories(prepared, recipe, 1000)
    assert found.n == len(read)
    assert len(found.shown) == found.n_changed > 0
    assert all(history.after in read for history in found.shown)


def test_histories_without_events_are_told_how_to_be_seen(invoke: Invoke, world_folder: Path) -> None:
    items, history = world_folder / "items.csv", sets('augment.history.kinds=["crop"]')
    said = invoke("augment", items, "--json", *history)
    assert json.loads(said.stdout) == {"items": [], "histories": None}
    assert "give --interactions FILE" in said.stderr
    both = invoke("augment", items, *history, *sets(*WORDS))
    assert "variant 2" in both.stdout
    assert "give --interactions FILE" in both.stderr
    events = ["--interactions", world_folder / "events.csv"]
    both = invoke("augment", items, *events, *history, *sets(*WORDS))
    assert "variant 2" in both.stdout
    assert "history 5, oldest first" in both.stdout
    assert (
        "augment.history.kinds alone, which is empty" in invoke("augment", items, *events, *sets(*WORDS), code=2).stderr
    )
    assert "--interactions missing" in invoke("augment", items, "--users", items, *history, code=2).stderr


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


def test_a_text_is_translated_alike_whatever_stands_beside_it(translators: list[Path]) -> None:
    """What `lmrec augment` shows of five items is what a fit reads of all."""
    translator = load_translator(translators[0], 12)
    texts = ["a quiet river", "the loud fish of the deep sea", "", "rain", "a funny tale of a tiger and a happy moon"]
    together = translator.translate(texts, 3)
    assert together == [translator.translate([text], 3)[0] for text in texts]
    assert together == translator.translate(texts[::-1], 3)[::-1]
    assert together != translator.translate(texts, 4)
    assert together[2] == ""
    assert len(set(together)) == len(texts)


def test_a_token_is_drawn_as_likely_as_the_model_finds_it() -> None:
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(4000, 1)
    rngs = [np.random.default_rng((1, row)) for row in range(len(scores))]
    found = np.bincount(draw_tokens(rngs, torch.zeros(0), scores).argmax(1), minlength=4) / len(scores)
    np.testing.assert_allclose(found, [0.5, 0.3, 0.15, 0.05], atol=0.03)


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
