"""A language model reads on in a catalog, is measured before and after, and any fit starts from its folder."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.models.bert.modeling_bert import BertIntermediate
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from typer.testing import Result

from lmrec.artifacts.curves import Curves
from lmrec.errors import Interrupted, RunFolderError
from lmrec.models.causal_lm import load_causal_lm
from lmrec.models.encoder import EncoderConfig, load_encoder
from lmrec.models.precision import autocast
from lmrec.models.reading import Way
from lmrec.recipe import load_recipe
from lmrec.text.tokens import load_tokenizer, tokenize_texts
from lmrec.text.vocabulary import add_new_words, choose_new_words
from lmrec.training.pretrain import PairTask, Reading
from lmrec.workflows import pretrain
from lmrec.workflows.prepare import prepare
from lmrec.workflows.train import fit_run

Invoke = Callable[..., Result]
QUICK = ["pretrain.epochs=8", "pretrain.batch_texts=8", "pretrain.learning_rate=3e-3", "training.precision=fp32"]
PAIRS = "pretrain.max_pairs=60"  # of objective "pairs" alone


@pytest.fixture(scope="module")
def masked_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT, which has no head, with a token to hide words behind in the place of a letter nobody uses."""
    folder = Path(shutil.copytree(tiny_bert, tmp_path_factory.mktemp("masked") / "bert"))
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"mask_token": "|"})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def words(world_folder: Path) -> Callable[..., list[Any]]:
    def of(encoder: Path, objective: str, *more: str) -> list[Any]:
        choices = [*QUICK, 'data.text_columns=["title", "description"]', "template.item={title}. {description}", *more]
        tables = [world_folder / "items.csv"]
        events = ["--interactions", world_folder / "events.csv", "--set", PAIRS] if objective == "pairs" else []
        said = [word for choice in choices for word in ("--set", choice)]
        return [
            "pretrain",
            *tables,
            *events,
            "--encoder",
            encoder,
            "--objective",
            objective,
            *said,
            "--quiet",
            "--json",
        ]

    return of


@pytest.mark.parametrize("objective", ["mlm", "clm", "simcse", "pairs"])
def test_each_objective_lowers_its_measure_and_a_fit_starts_from_the_folder(
    objective: str,
    invoke: Invoke,
    words: Callable[..., list[Any]],
    masked_bert: Path,
    tiny_gpt: Path,
    tmp_path: Path,
    world_folder: Path,
    quick_choices: list[str],
) -> None:
    encoder, out = tiny_gpt if objective == "clm" else masked_bert, tmp_path / "encoder"
    done = json.loads(invoke(*words(encoder, objective, "pretrain.held_out=0.2"), "--out", out).stdout)
    assert done["after"] < done["before"]
    assert done["head_was_made"] == (objective == "mlm")
    record = json.loads((out / "pretraining.json").read_text())
    assert (record["before"], record["after"], record["finished"]) == (done["before"], done["after"], True)
    before, after = load_file(encoder / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in before if "layer" in name or "h." in name} <= changed | {n for n in before if "attn" in n}
    if objective == "mlm":  # its head is drawn too
        invoke(*words(encoder, objective, "pretrain.held_out=0.2"), "--out", tmp_path / "again")
        again = load_file(tmp_path / "again" / "model.safetensors")
        assert all(torch.equal(again[name], after[name]) for name in after)
    choices = [*quick_choices, f"encoder.name={out}", "training.tuned_epochs=0"]
    fitted = fit_run(
        world_folder / "items.csv", world_folder / "events.csv", out=tmp_path / "run", overrides=choices, show=False
    )
    used = load_file(fitted.run.checkpoint / "encoder" / "model.safetensors")
    assert all(torch.equal(used[name], after[name]) for name in after)


def test_dropout_inside_a_llama_is_felt_while_it_reads_on(
    invoke: Invoke, words: Callable[..., list[Any]], tiny_llama: Path, tmp_path: Path
) -> None:
    found = []
    for share in ("0", "0.6"):
        out = tmp_path / share
        invoke(*words(tiny_llama, "clm", "pretrain.epochs=1", f"pretrain.dropout={share}"), "--out", out)
        found.append(load_file(out / "model.safetensors"))
    assert not all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("objective", ["mlm", "simcse", "clm"])
def test_layers_that_run_again_for_their_gradient_learn_the_same(
    objective: str,
    masked_bert: Path,
    tiny_gpt: Path,
    world: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind: Any = GPT2MLP if objective == "clm" else BertIntermediate  # one to a layer
    plain, runs = kind.forward, list[int]()

    def counting(*args: Any, **named: Any) -> Any:
        runs[-1] += torch.is_grad_enabled()
        return plain(*args, **named)

    monkeypatch.setattr(kind, "forward", counting)
    for checkpointing in ("false", "true"):
        choices = [
            *QUICK,
            "pretrain.epochs=1",
            f"encoder.name={tiny_gpt if objective == 'clm' else masked_bert}",
            f"pretrain.objective={objective}",
            f"encoder.checkpointing={checkpointing}",
        ]
        runs.append(0)
        pretrain.pretrain_encoder(world.catalog, load_recipe(overrides=choices), tmp_path / checkpointing, show=False)
    assert runs[1] >= 1.5 * runs[0]  # not twice where a head was made, which learnt alone first
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("false", "true"))
    for name in one:
        torch.testing.assert_close(other[name], one[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("objective", "choice"),
    [
        ("mlm", "encoder.adapter.kind=lora"),
        ("mlm", "encoder.train=all"),
        ("mlm", "encoder.dropout=0.4"),
        ("mlm", "encoder.pooling=cls"),
        ("clm", "training.optimizer=sgd"),
        ("clm", "training.accumulate=4"),
        ("clm", "data.min_rating=4"),
        ("simcse", "regularisers.l2_sp=1"),
        ("simcse", "adversarial.kind=fgm"),
        ("simcse", "split.kind=last"),
        ("pairs", "reranker.top_k=3"),
        ("pairs", "encoder.batch_tokens=3"),
        ("pairs", "template.user={age}"),
    ],
)
def test_a_choice_that_no_pretraining_hears_is_refused(
    objective: str, choice: str, invoke: Invoke, words: Callable[..., list[Any]], masked_bert: Path, tmp_path: Path
) -> None:
    result = invoke(*words(masked_bert, objective, choice), "--out", tmp_path / "out", code=2)
    told = " ".join(result.stderr.split())
    heard = "which hears pretrain.*, tracking.*, encoder.name"
    assert f"--set {choice.partition('=')[0]} is not heard by lmrec pretrain, {heard}" in told
    assert not (tmp_path / "out").exists()


def test_of_a_fits_recipe_what_is_not_heard_is_said_and_changes_nothing(
    invoke: Invoke, words: Callable[..., list[Any]], masked_bert: Path, tmp_path: Path
) -> None:
    file = tmp_path / "fit.toml"
    file.write_text(
        'training = {optimizer = "sgd", tuned_epochs = 0}\nencoder = {dropout = 0.4}\nregularisers = {r_drop = 1.0}\n'
        'template = {user = "{age}"}\nuser_model = {kind = "text"}\nsplit = {kind = "last"}\n'
    )
    told = [word for word in words(masked_bert, "pairs", "pretrain.epochs=1") if word != "--json"]
    said = " ".join(invoke(*told, "--out", tmp_path / "said", "--recipe", file).stderr.split())
    for key in ("training.optimizer", "encoder.dropout", "regularisers.r_drop", "template.user", "user_model.kind"):
        assert key in said.partition("does not hear ")[2]
    assert "split.kind" not in said
    assert "does not hear" not in invoke(*told, "--out", tmp_path / "plain", "--set", "split.kind=last").stderr
    check_same_weights(tmp_path / "said", tmp_path / "plain")


def test_new_words_get_the_mean_of_their_pieces_and_one_token_each(
    invoke: Invoke, words: Callable[..., list[Any]], masked_bert: Path, tmp_path: Path
) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\n" + "".join(f"{n},Zyzzyva qux {n}\n" for n in range(6)))
    told = words(
        masked_bert, "mlm", "pretrain.new_words=1", "pretrain.learning_rate=1e-12", 'data.text_columns=["title"]'
    )
    told[1] = items
    told = ["template.item={title}" if str(word).startswith("template.item") else word for word in told]
    done = json.loads(invoke(*told, "--out", tmp_path / "out").stdout)
    assert [new["word"] for new in done["new_words"]] == ["zyzzyva"]
    old, new = load_tokenizer(masked_bert), load_tokenizer(tmp_path / "out")
    pieces = old("Zyzzyva", add_special_tokens=False)["input_ids"]
    (token,) = new("Zyzzyva", add_special_tokens=False)["input_ids"]
    assert new.convert_ids_to_tokens(new("zyzzyvas qux")["input_ids"]).count("zyzzyva") == 0
    vectors = [
        load_encoder(folder, EncoderConfig()).backbone.get_input_embeddings().weight  # type: ignore[operator]
        for folder in (masked_bert, tmp_path / "out")
    ]
    torch.testing.assert_close(vectors[1][token], vectors[0][pieces].mean(0), atol=1e-5, rtol=0)
    assert len(vectors[1]) == len(vectors[0]) + 1


def test_a_word_that_is_a_piece_of_others_is_no_new_word() -> None:
    """Byte-level: with a space before it it is cut, and without one it is a token, whose vector stands in other words."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = {token: number for number, token in enumerate([*letters, "ĠE", "EM", "EMA", "EMAI", "EMAIL"])}
    merges = [("Ġ", "E"), ("E", "M"), ("EM", "A"), ("EMA", "I"), ("EMAI", "L")]
    backend = Tokenizer(models.BPE(known, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)  # type: ignore[no-untyped-call]
    assert len(tokenizer(" EMAIL")["input_ids"]) == 5
    assert tokenizer("GEMAIL")["input_ids"] == [known["G"], known["EMAIL"]]
    words = choose_new_words(tokenizer, ["An EMAIL label"] * 3, 5, 2, 3)
    assert [new.word for new in words] == ["label", "An"]
    assert add_new_words(tokenizer, words) == [len(known), len(known) + 1]


@contextmanager
def wish_after(n_asked: int) -> Iterator[Callable[[], bool]]:
    """A Ctrl-C that is there when somebody looks for the n-th time."""
    asked: list[int] = []

    def wish() -> bool:
        asked.append(1)
        return len(asked) > n_asked

    yield wish


@pytest.mark.parametrize(("objective", "stops"), [("mlm", (0, 4, 8)), ("simcse", (2, 6)), ("clm", (5,))])
def test_a_stopped_pretraining_can_be_used_and_the_same_call_ends_with_the_weights_of_one_that_nobody_stopped(
    objective: str,
    stops: tuple[int, ...],
    masked_bert: Path,
    tiny_gpt: Path,
    world: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped in its first step, in the middle of an epoch and at an epoch's end; mlm also while its head learns alone."""
    encoder = tiny_gpt if objective == "clm" else masked_bert
    choices = [
        *QUICK,
        "pretrain.epochs=3",
        f"encoder.name={encoder}",
        f"pretrain.objective={objective}",
        *([PAIRS] if objective == "pairs" else []),
    ]
    recipe = load_recipe(overrides=choices)
    whole = pretrain.pretrain_encoder(world.catalog, recipe, tmp_path / "whole", show=False)
    for n_asked in stops:
        with monkeypatch.context() as patch:
            patch.setattr(pretrain, "stop_on_interrupt", lambda n_asked=n_asked: wish_after(n_asked))
            with pytest.raises(Interrupted, match="can be used. The same command goes on from there"):
                pretrain.pretrain_encoder(world.catalog, recipe, tmp_path / "out", show=False)
        assert load_encoder(tmp_path / "out", EncoderConfig()).width == 32
        assert json.loads((tmp_path / "out" / "pretraining.json").read_text())["finished"] is False
    other = load_recipe(overrides=[*choices, "pretrain.learning_rate=1e-5"])
    with pytest.raises(RunFolderError, match="was stopped, of other choices, texts or events"):
        pretrain.pretrain_encoder(world.catalog, other, tmp_path / "out", show=False)
    done = pretrain.pretrain_encoder(world.catalog, recipe, tmp_path / "out", show=False)
    assert (done.before, done.after, done.n_steps) == (whole.before, whole.after, whole.n_steps)
    assert not (tmp_path / "out" / "training_state").exists()
    check_same_weights(tmp_path / "whole", tmp_path / "out")
    told, told_whole = (
        [{name: value for name, value in row.items() if name != "seconds"} for row in Curves(tmp_path / name).read()]
        for name in ("out", "whole")
    )
    assert told == told_whole, "epochs are told once, however often it was stopped"
    measured = [row[whole.measure] for row in told if row["stage"] == "pretrain"]
    assert (len(measured), measured[0], measured[-1]) == (1 + 3, whole.before, whole.after)


def test_a_killed_pretraining_goes_on_from_the_last_epochs_end(
    masked_bert: Path, world: Any, world_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choices = [*QUICK, "pretrain.epochs=3", f"encoder.name={masked_bert}", "pretrain.objective=pairs", PAIRS]
    recipe = load_recipe(overrides=choices)
    train = prepare(world_folder / "items.csv", world_folder / "events.csv", None, recipe).split.train
    pretrain.pretrain_encoder(world.catalog, recipe, tmp_path / "whole", train, show=False)
    steps: list[int] = []

    def dying(*args: Any) -> Any:
        steps.append(1)
        if len(steps) == 14:  # of 8 an epoch
            raise SystemError("killed")
        return PairTask.loss(*args)

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "PairTask", type("Dying", (PairTask,), {"loss": dying}))
        with pytest.raises(SystemError, match="killed"):
            pretrain.pretrain_encoder(world.catalog, recipe, tmp_path / "out", train, show=False)
    assert not (tmp_path / "out" / "pretraining.json").exists()
    assert json.loads((tmp_path / "out" / "training_state" / "state.json").read_text())["epoch"] == 1
    assert pretrain.pretrain_encoder(world.catalog, recipe, tmp_path / "out", train, show=False).finished
    check_same_weights(tmp_path / "whole", tmp_path / "out")


def check_same_weights(one: Path, other: Path) -> None:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_cannot_be_done_is_refused_with_the_reason(
    invoke: Invoke,
    words: Callable[..., list[Any]],
    masked_bert: Path,
    tiny_bert: Path,
    tiny_gpt: Path,
    world_folder: Path,
    tmp_path: Path,
) -> None:
    out, events = ["--out", tmp_path / "out"], ("--interactions", world_folder / "events.csv")
    pairs = [word for word in words(masked_bert, "pairs") if word not in events]
    refused = {
        "reads from left to right: choose 'clm'": [*words(tiny_gpt, "mlm"), *out],
        "reads in both directions: choose 'mlm'": [*words(masked_bert, "clm"), *out],
        "this tokenizer has none": [*words(tiny_bert, "mlm"), *out],
        "there is none: set pretrain.dropout above 0": [*words(masked_bert, "simcse", "pretrain.dropout=0"), *out],
        "read by pretrain.objective 'pairs' alone": [
            *words(masked_bert, "mlm"), *out, *events],
        "--interactions missing": [*pairs, *out],
        "exists and is not empty": [*words(masked_bert, "mlm"), "--out", world_folder],
    }  # fmt: skip
    for told, command in refused.items():
        result = invoke(*command, code=2)
        assert told in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("objective", "least"), [("mlm", 2), ("simcse", 4)])
def test_so_few_texts_are_enough_and_fewer_are_refused(
    objective: str, least: int, invoke: Invoke, masked_bert: Path, tmp_path: Path
) -> None:
    titles = ["red lamp", "blue lamp", "old chair", "new chair"]
    choices = [
        "pretrain.epochs=1",
        'data.text_columns=["title"]',
        "tracking.to=[]",
    ]  # what is told makes the folder, too
    command = [
        "pretrain",
        tmp_path / "items.csv",
        "--encoder",
        masked_bert,
        "--objective",
        objective,
        "--json",
        "--quiet",
    ]
    command += [word for choice in choices for word in ("--set", choice)]
    for n in (least, least - 1):
        lines = ["item_id,title", *(f"i{at},{title}" for at, title in enumerate(titles[:n]))]
        (tmp_path / "items.csv").write_text("\n".join(lines) + "\n")
        result = invoke(*command, "--out", tmp_path / str(n), code=0 if n == least else 2)
        if n == least:
            assert all(np.isfinite(json.loads(result.stdout)[when]) for when in ("before", "after"))
        else:
            assert f"needs {least} at least" in " ".join(result.stderr.split())


def test_what_was_killed_before_anything_was_kept_is_begun_anew(masked_bert: Path, world: Any, tmp_path: Path) -> None:
    recipe = load_recipe(overrides=[*QUICK, "pretrain.epochs=1", f"encoder.name={masked_bert}"])
    killed = Curves(tmp_path / "out")
    (tmp_path / "out" / "training_state").mkdir(parents=True)
    killed.append({"stage": "pretrain", "epoch": 0})
    killed.tensorboard.mkdir()
    (killed.tensorboard / "events").write_text("of the call that was killed")
    pretrain.pretrain_encoder(world.catalog, recipe, tmp_path / "out", show=False)
    assert [row["stage"] for row in killed.read()] == ["pretrain, head alone", "pretrain", "pretrain"]
    assert not (killed.tensorboard / "events").exists()
    stranger = Curves(tmp_path / "other")
    stranger.append({"stage": "mine", "epoch": 0})
    with pytest.raises(RunFolderError, match="exists and is not empty"):
        pretrain.pretrain_encoder(world.catalog, recipe, stranger.folder, show=False)
    assert stranger.metrics_file.exists()


def test_a_layer_of_its_own_that_guesses_next_words_stays_with_what_was_learnt(
    invoke: Invoke, words: Callable[..., list[Any]], tiny_llama: Path, tmp_path: Path
) -> None:
    untied = Path(shutil.copytree(tiny_llama, tmp_path / "untied"))
    config = AutoConfig.from_pretrained(untied)
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    published = LlamaForCausalLM(config)
    published.save_pretrained(untied)
    invoke(*words(untied, "clm", "pretrain.held_out=0.2"), "--out", tmp_path / "encoder")
    first, again = (load_causal_lm(tmp_path / "encoder").state_dict()["lm_head.weight"] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, published.lm_head.weight)
    assert torch.corrcoef(torch.stack([first.flatten(), published.lm_head.weight.flatten()]))[0, 1] > 0.3
    reads = load_encoder(tmp_path / "encoder", EncoderConfig(name=str(tmp_path / "encoder"), train="none"))
    assert sum(1 for _ in reads.parameters()) == sum(1 for _ in published.model.parameters())


def test_held_out_pairs_are_measured_in_parts_that_are_alike(masked_bert: Path, world: Any) -> None:
    """By what tells no two texts apart each pair costs ln of how many there are, also where they do not go up in batches."""
    recipe = load_recipe(
        overrides=["pretrain.objective=simcse", "pretrain.batch_texts=8", f"encoder.name={masked_bert}"]
    )
    texts = [f"{title} {at}" for at, title in enumerate(world.catalog.titles[:18])]
    tokens = tokenize_texts(load_tokenizer(masked_bert), texts, 16).ids
    way = Way(64, torch.device("cpu"), partial(autocast, torch.device("cpu"), False))
    reading = Reading(tokens, np.arange(18), np.arange(18), recipe.pretrain, way, 0)
    encoder = load_encoder(masked_bert, recipe.encoder)
    held = np.stack([np.arange(18), np.arange(18)], 1)

    class Blind(PairTask):
        def _encode(self, rows: Any) -> torch.Tensor:
            return torch.ones(len(rows), 4) / 2

    assert Blind(encoder, reading, lambda rng: held, held).held_out() == pytest.approx(np.log(6), abs=1e-5)
