"""Runs with adapters: what they leave on the disk, whom they are served with, and what an update makes of them."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lmrec.artifacts.checkpoint import read_checkpoint
from lmrec.data.dataset import Dataset
from lmrec.data.history import HistoryIndex
from lmrec.errors import Interrupted, RecipeError, RunFolderError
from lmrec.feedback.events import Event
from lmrec.feedback.store import Store
from lmrec.models.encoder import TextEncoder, encode_tokens
from lmrec.retrieval.answers import LiveQuery
from lmrec.retrieval.live import LiveRecommender
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.scorer import build_bank
from lmrec.retrieval.words import WordEncoder
from lmrec.text.tokens import tokenize_texts
from lmrec.workflows import train
from lmrec.workflows.judge import FROZEN, frozen_scorer, judge_run
from lmrec.workflows.train import fit_run
from lmrec.workflows.update import update_run

FitAdapted: TypeAlias = Callable[..., Path]
NEW = {"title": "The Merry Tiger and the Violin", "description": "A funny tale of a reef, a choir and a happy moon."}
KINDS = {"lora": ("rank=2",), "adalora": ("rank=2", "initial_rank=4"), "houlsby": ("bottleneck=4",)}


@pytest.fixture(scope="module")
def fit_adapted(
    world_folder: Path, tiny_bert: Path, quick_choices: list[str], tmp_path_factory: pytest.TempPathFactory
) -> FitAdapted:
    """A run whose adapter is at its best in the second stage; the base is a folder of its own."""
    base = Path(shutil.copytree(tiny_bert, tmp_path_factory.mktemp("base") / "bert"))

    def fit(kind: str, *more: str, out: Path | None = None, resume: bool = False) -> Path:
        out = out or tmp_path_factory.mktemp(kind) / "run"
        choices = [
            *quick_choices,
            f"encoder.name={base}",
            "encoder.train=all",
            f"encoder.adapter.kind={kind}",
            *(f"encoder.adapter.{choice}" for choice in KINDS[kind]),
            "training.frozen_epochs=0",
            "training.tuned_epochs=3",
            "training.tuned_batch_events=200",
            "training.encoder_interval=1",
            "training.encoder_learning_rate=1e-2",
            "training.max_encoded_items=32",
            *more,
        ]
        tables = world_folder / "items.csv", world_folder / "events.csv"
        fit_run(*tables, out=out, overrides=choices, resume=resume, show=False)
        return out

    return fit


@pytest.fixture(scope="module")
def runs(fit_adapted: FitAdapted) -> dict[str, Path]:
    return {kind: fit_adapted(kind) for kind in KINDS}


def texts_of(recommender: Recommender) -> list[str]:
    return recommender.checkpoint.template.render_items(recommender.catalog.frame)


def base_of(run: Path) -> Path:
    return Path(json.loads((run / "checkpoint" / "encoder" / "adapter.json").read_text())["base"]["location"])


def encoded_by(encoder: TextEncoder, recommender: Recommender) -> Tensor:
    """(N, Dt) the run's texts."""
    config = recommender.checkpoint.configs.encoder
    tokens = tokenize_texts(recommender.checkpoint.load_tokenizer(), texts_of(recommender), config.max_tokens)
    return torch.from_numpy(encode_tokens(encoder, tokens.ids, 4096, torch.device("cpu")))


def scores_by(recommender: Recommender, encoder: TextEncoder) -> Tensor:
    """(B, N) cosine times scale, of all users' histories with all items, by the run's towers over this encoder's vectors."""
    towers, log = recommender.towers_scorer, recommender.interactions
    scorer = towers.over(build_bank(towers.towers, encoded_by(encoder, recommender)))
    return torch.from_numpy(scorer.score(HistoryIndex.from_interactions(log).all(np.arange(log.n_users))))


def untuned(run: Path) -> Tensor:
    """What the base makes of the run's texts."""
    from lmrec.models.encoder import load_encoder

    recommender = Recommender.load(run)
    return encoded_by(load_encoder(base_of(run), recommender.checkpoint.configs.encoder), recommender)


@pytest.mark.parametrize("kind", KINDS)
def test_the_adapter_alone_is_kept_and_gives_the_vectors_that_were_learnt(kind: str, runs: dict[str, Path]) -> None:
    run = runs[kind]
    kept = run / "checkpoint" / "encoder"
    assert not (kept / "model.safetensors").exists()
    assert (kept / "adapter.safetensors").stat().st_size < (base_of(run) / "model.safetensors").stat().st_size / 3
    recommender = Recommender.load(run)
    found = recommender.encode_texts(texts_of(recommender))
    torch.testing.assert_close(found, recommender.vectors.text_vec, atol=1e-5, rtol=0)
    assert (found - untuned(run)).abs().max() > 1e-2
    learning = read_checkpoint(run / "checkpoint").load_encoder("learn")
    served = read_checkpoint(run / "checkpoint").load_encoder()
    assert bool(served.adapter_names) == (kind == "houlsby")  # the others are merged into the base
    ids, mask = torch.tensor([[2, 9, 8, 3]]), torch.ones(1, 4, dtype=torch.bool)
    torch.testing.assert_close(served(ids, mask), learning(ids, mask), atol=1e-5, rtol=0)
    by_served, by_learning = (scores_by(recommender, encoder) for encoder in (served, learning))
    # Cosines are equal to 1e-5. A score is one times the scale (here about 14), and so is the rounding of merged weights in
    # single precision, which whitening makes larger before: up to 5e-5 of a score was seen.
    scale = float(recommender.towers_scorer.towers.head.scale.detach())
    torch.testing.assert_close(by_served, by_learning, atol=1e-5 * scale, rtol=0)
    assert by_served.std() > 0.05, "scores that do differ"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("runtime", ["torch-bf16", "onnx"])
@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_a_quicker_runtime_runs_the_model_with_what_its_adapter_has_learnt(
    kind: str, runtime: str, runs: dict[str, Path]
) -> None:
    if runtime == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    recommender = Recommender.load(runs[kind])
    checkpoint = recommender.checkpoint
    config = checkpoint.configs.encoder.model_copy(update={"runtime": runtime})
    words = WordEncoder(replace(checkpoint, configs=replace(checkpoint.configs, encoder=config)), recommender.catalog)
    assert words.runtime.name == runtime
    error = 1 - (words.encode(texts_of(recommender)) * recommender.vectors.text_vec).sum(1)
    assert float(error.abs().max()) < (1e-6 if runtime == "onnx" else 2e-4)


def test_the_record_says_what_it_cost(runs: dict[str, Path]) -> None:
    costs = {k: json.loads((run / "run.json").read_text())["training"]["costs"]["tuned"] for k, run in runs.items()}
    assert costs["lora"]["encoder_parameters"] == 3 * 2 * (2 * 32 + 32 * 2)  # layers, queries and values, A and B
    assert costs["houlsby"]["encoder_parameters"] == 3 * 2 * (2 * 32 * 4 + 4 + 32)
    for cost in costs.values():
        assert cost["epochs"] >= 1
        assert cost["seconds"] > 0
        assert cost["peak_mb"] > 10
        assert cost["growth_mb"] >= 0


def test_runs_of_one_base_share_its_weights_and_give_each_its_own_vectors(runs: dict[str, Path]) -> None:
    recommenders = [Recommender.load(run) for run in runs.values()]
    encoders = [recommender.checkpoint.load_encoder() for recommender in recommenders]
    words = [encoder.backbone.get_parameter("embeddings.word_embeddings.weight") for encoder in encoders]
    assert len({weight.data_ptr() for weight in words}) == 1
    sizes = [sum(p.numel() for p in encoder.parameters()) for encoder in encoders]
    together = {p.data_ptr(): p.numel() for encoder in encoders for p in encoder.parameters()}
    assert sum(together.values()) < 0.5 * sum(sizes)
    found = [recommender.encode_texts(texts_of(recommender)) for recommender in recommenders]
    for place, one in enumerate(found):
        torch.testing.assert_close(one, recommenders[place].vectors.text_vec, atol=1e-5, rtol=0)
        assert all((one - other).abs().max() > 1e-3 for other in found[:place])
    alone = recommenders[0].checkpoint.load_encoder("learn")
    assert alone.backbone.get_parameter("embeddings.word_embeddings.weight").data_ptr() != words[0].data_ptr()


def test_another_base_is_refused_and_a_lost_one_is_named(runs: dict[str, Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(runs["lora"], tmp_path / "run"))
    description = run / "checkpoint" / "encoder" / "adapter.json"
    base = Path(shutil.copytree(base_of(run), tmp_path / "bert"))
    checkpoint_file = run / "checkpoint" / "checkpoint.json"
    checkpoint_file.write_text(checkpoint_file.read_text().replace(str(base_of(run)), str(base)))
    Recommender.load(run).checkpoint.load_encoder("learn")  # the same weights elsewhere are the same base
    weights = load_file(base / "model.safetensors")
    weights["embeddings.LayerNorm.bias"] += 1e-3
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        RunFolderError, match=r"was learnt on a language model with the fingerprint .* Put the model back"
    ):
        Recommender.load(run).checkpoint.load_encoder("learn")
    shutil.rmtree(base)
    read_checkpoint(run / "checkpoint").load_encoder("learn")  # where it was when the run was fitted
    values = json.loads(description.read_text())
    values["base"]["location"] = "nowhere"
    description.write_text(json.dumps(values))
    with pytest.raises(RunFolderError, match=r"needs its base, and encoder.name .* could not be loaded.*in nowhere"):
        read_checkpoint(run / "checkpoint").load_encoder("learn")


@pytest.mark.parametrize("change", ["missing", "extra", "reshaped", "damaged", "no file"])
def test_an_adapter_loads_strictly(change: str, runs: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(runs["houlsby"] / "checkpoint", tmp_path / "checkpoint"))
    file = checkpoint / "encoder" / "adapter.safetensors"
    weights = load_file(file)
    first = next(iter(weights))
    match change:
        case "missing":
            del weights[first]
        case "extra":
            weights["more"] = torch.zeros(1)
        case "reshaped":
            weights[first] = torch.zeros(3)
    save_file(weights, file)
    if change == "damaged":
        file.write_bytes(file.read_bytes()[:60])
    if change == "no file":
        file.unlink()
    with pytest.raises(RunFolderError, match=r"(?s)adapter.safetensors does not fit its checkpoint.json"):
        read_checkpoint(checkpoint).load_encoder()


@pytest.mark.parametrize("kind", KINDS)
def test_a_living_catalog_takes_new_words(kind: str, runs: dict[str, Path]) -> None:
    recommender = Recommender.load(runs[kind])
    live = LiveRecommender(recommender)
    (encoded,) = live.upsert([{**NEW, "item_id": "fresh"}])
    text = recommender.checkpoint.template.render_item({**NEW, "item_id": "fresh"})
    torch.testing.assert_close(torch.from_numpy(encoded.text_vec), recommender.encode_texts([text])[0])
    (answer,) = live.recommend([LiveQuery(text=NEW["title"], k=100)])
    assert "fresh" in [item.item_id for item in answer.items]


def test_an_update_learns_on_from_the_adapter_and_keeps_the_ranks(
    runs: dict[str, Path], world: Dataset, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs["adalora"], tmp_path / "run"))
    before = load_file(run / "checkpoint" / "encoder" / "adapter.safetensors")
    (run / "service").mkdir()
    with Store.open(f"sqlite:///{run / 'service' / 'store.db'}") as store:
        items = world.catalog.ids
        store.add_events(
            [
                Event(f"{u}-{n}", f"new{u}", items[(u + n) % 32], "click", 1.75e9 + n)
                for u in range(12)
                for n in range(6)
            ]
        )
    choices = ["update.epochs=1", "update.tuned_epochs=2", "update.min_events=10", "evaluation.n_bootstrap=20"]
    result = update_run(run, overrides=choices, show=False)
    assert result.generation == "0001"
    after = load_file(run / "generations" / "0001" / "checkpoint" / "encoder" / "adapter.safetensors")
    assert after.keys() == before.keys()
    assert any(not torch.equal(after[name], before[name]) for name in after)
    gone = {name: before[name] == 0 for name in before if "lora_E" in name}
    assert sum(int(mask.sum()) for mask in gone.values()) > 0
    for name, mask in gone.items():
        assert torch.equal(after[name] == 0, mask)
    updated = Recommender.load(run / "generations" / "0001")
    found = updated.encode_texts(texts_of(updated))
    torch.testing.assert_close(found, updated.vectors.text_vec, atol=1e-5, rtol=0)


def test_adalora_ends_with_the_ranks_asked_for(runs: dict[str, Path]) -> None:
    """Six matrices of mean rank 2, where validation chose the last epoch; earlier ones have more."""
    encoder = read_checkpoint(runs["adalora"] / "checkpoint").load_encoder("learn")
    assert encoder.allocation is not None
    total = sum(encoder.allocation.ranks)
    best_epoch = json.loads((runs["adalora"] / "run.json").read_text())["training"]["best_epoch"]
    assert total == 6 * 2 if best_epoch == 3 else 6 * 2 <= total < 6 * 4


def test_stopped_and_resumed_it_ends_with_equal_weights(
    runs: dict[str, Path], fit_adapted: FitAdapted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    @contextmanager
    def in_the_middle() -> Iterator[Callable[[], bool]]:
        def should_stop() -> bool:
            asked.append(1)
            return len(asked) == 5

        yield should_stop

    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_on_interrupt", in_the_middle)
        with pytest.raises(Interrupted):
            fit_adapted("adalora", out=tmp_path / "run")
    resumed = fit_adapted("adalora", out=tmp_path / "run", resume=True)
    name = Path("checkpoint") / "encoder" / "adapter.safetensors"
    whole, again = load_file(runs["adalora"] / name), load_file(resumed / name)
    assert whole.keys() == again.keys()
    assert all(torch.equal(again[key], value) for key, value in whole.items())


def test_adalora_with_too_few_steps_is_refused_before_anything_is_trained(
    fit_adapted: FitAdapted, tmp_path: Path
) -> None:
    once = ("training.tuned_epochs=1", "training.tuned_batch_events=100000")
    with pytest.raises(RecipeError, match=r"AdaLoRA needs at least 3 steps of the language model, and .* has 1"):
        fit_adapted("adalora", *once, out=tmp_path / "run")
    assert fit_adapted("lora", *once, out=tmp_path / "run") == tmp_path / "run"  # takes the corrected command


def test_what_a_language_model_cannot_have_is_refused_and_leaves_no_folder(
    world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    tables = world_folder / "items.csv", world_folder / "events.csv"
    choices = [*quick_choices, "encoder.train=all", "encoder.adapter.kind=lora", 'encoder.adapter.targets=["q"]']
    with pytest.raises(
        RecipeError, match="no linear map in a layer of .* is called so. There are: attention.self.query"
    ):
        fit_run(*tables, out=tmp_path / "run", overrides=choices, show=False)
    assert not (tmp_path / "run").exists()


def test_a_prefix_is_there_from_the_first_stage_on(
    world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    """It is not the identity before it learns: both stages and the judge see the vectors that it makes."""
    run, tables = tmp_path / "run", (world_folder / "items.csv", world_folder / "events.csv")
    choices = [*quick_choices, "encoder.train=all", "encoder.adapter.kind=prefix", "encoder.adapter.prefix_tokens=2"]
    fitted = fit_run(*tables, out=run, overrides=choices, show=False)
    assert [row["stage"] for row in fitted.run.curves.read()] == ["frozen", "tuned", "refit"]
    recommender = Recommender.load(run)
    found = recommender.encode_texts(texts_of(recommender))
    torch.testing.assert_close(found, recommender.vectors.text_vec, atol=1e-5, rtol=0)
    first_stage = frozen_scorer(fitted.run, recommender).bank.text_vec
    assert (first_stage - untuned(run)).abs().max() > 1e-3
    assert judge_run(run, show=False).evaluations.keys() >= {FROZEN, "popularity"}
