"""Compressed runs: what is saved scores as it was measured, is judged, served, updated and compressed again."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from lmrec.artifacts.checkpoint import read_checkpoint
from lmrec.artifacts.run import RunFolder
from lmrec.data.split import split_interactions
from lmrec.errors import InputError, Interrupted
from lmrec.evaluation.evaluator import evaluate
from lmrec.models.encoder import load_encoder
from lmrec.models.layers import transformer_layers
from lmrec.models.pruning import layer_sizes
from lmrec.recipe import load_recipe
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows import compress as module
from lmrec.workflows.compress import Compression, compress_run
from lmrec.workflows.ensemble import ensemble_runs
from lmrec.workflows.judge import FUSED, REFIT, judge_run, training_scorer
from lmrec.workflows.pretrain import pretrain_encoder
from lmrec.workflows.rerank import fit_reranker
from lmrec.workflows.soup import soup_runs
from lmrec.workflows.train import fit_run
from lmrec.workflows.update import update_run

from .conftest import Fitted, Invoke
from .running import NEW_ITEM, running

QUICK = ["compress.epochs=1", "compress.tower_epochs=1", "compress.importance_texts=16"]
ONE = [*QUICK, "compress.layers=[2]", "compress.kept=[0.5]", "compress.widths=[8]", "compress.tolerance=1"]


@pytest.fixture(scope="module")
def made(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> Compression:
    """Two of three layers, half of their heads and units, 8 of 16 numbers."""
    return compress_run(fitted, tmp_path_factory.mktemp("compressed") / "run", ONE, show=False)


def path_of(made: Compression) -> Path:
    assert made.run is not None
    return made.run.path


def test_the_saved_run_is_what_was_measured_and_smaller(made: Compression, fitted: Path) -> None:
    found, source = Recommender.load(path_of(made)), Recommender.load(fitted)
    chosen = made.curve.chosen
    assert chosen is not None
    assert (chosen.layers, chosen.kept, chosen.width) == (2, 0.5, 8)
    encoder = found.checkpoint.load_encoder()
    sizes = layer_sizes(encoder.backbone)
    assert len(sizes) == 2
    assert sum(size.heads for size in sizes) == 2
    assert 64 <= sum(size.units for size in sizes) < 64 + 2 * 8  # half of them, in blocks of eight
    n_bytes = sum(file.stat().st_size for file in (path_of(made) / "checkpoint" / "encoder").glob("*.safetensors"))
    assert n_bytes == pytest.approx(1e6 * chosen.encoder_mb, rel=0.15)
    assert chosen.encoder_mb < made.curve.whole.encoder_mb
    assert found.scorer.bank.matrix.shape[1] < source.scorer.bank.matrix.shape[1]
    recipe = load_recipe(found.run.recipe_file)
    split = split_interactions(found.interactions, found.catalog.n_items, recipe.split)
    cases = split.validation.sample(recipe.training.validation_cases, recipe.training.seed)
    judged = evaluate(training_scorer(found, split), cases, found.catalog.n_items, recipe.evaluation)
    assert judged.aggregate[recipe.evaluation.metric] == pytest.approx(chosen.metric, abs=1e-9)
    assert load_encoder(path_of(made) / "checkpoint" / "encoder", found.checkpoint.configs.encoder).width == 32


def test_its_vectors_are_those_of_its_own_encoder_and_scores_are_of_the_first_numbers(made: Compression) -> None:
    found = Recommender.load(path_of(made))
    torch.testing.assert_close(found.encode_texts(found.texts[:4]), found.vectors.text_vec[:4], atol=1e-5, rtol=0)
    scorer = found.towers_scorer
    item_vec = found.vectors.item_vec
    assert item_vec.shape[1] == 16
    first = torch.nn.functional.normalize(item_vec[:, :8], dim=-1)
    torch.testing.assert_close(scorer.bank.matrix, first)
    history = found._all_histories.slice(0, 3)
    query = scorer.query(history)
    assert query.shape == (3, 8)
    torch.testing.assert_close(
        query.norm(dim=1), found.towers.head.scale.detach().expand(3)
    )  # a cosine at its temperature
    np.testing.assert_allclose(scorer.score(history), (query @ first.T).numpy(), atol=1e-5)


def test_it_is_judged_through_the_command_line(invoke: Invoke, made: Compression, tmp_path: Path) -> None:
    run = Path(shutil.copytree(path_of(made), tmp_path / "run"))
    rows = {row.name for row in judge_run(run, show=False).table.rows}
    assert rows & {FUSED, REFIT}
    assert json.loads(invoke("recommend", run, "--user", "user0", "--json").stdout)["items"]
    assert "popularity" in invoke("evaluate", run, "--quiet").output


def test_it_is_served_and_learns_on(made: Compression, tmp_path: Path) -> None:
    run = Path(shutil.copytree(path_of(made), tmp_path / "run"))
    with running(run) as service:
        assert len(service.recommend(user_id="user0", k=5)["items"]) == 5
        service.put("/v1/items/new", NEW_ITEM)  # read by the small language model
        assert "new" in service.shown(history=["film1", "film2"], k=100)
        for number in range(6):
            for user in range(5):
                event = {"user_id": f"user{user}", "item_id": f"film{(7 * user + number) % 32}", "kind": "click"}
                service.post("/v1/events", {**event, "time": 2e9 + number})
    result = update_run(run, force=True, show=False, overrides=["update.tuned_epochs=1"])
    assert result.status in ("promoted", "kept")
    assert result.generation is not None
    later = read_checkpoint(run / "generations" / result.generation / "checkpoint")
    assert layer_sizes(later.load_encoder().backbone) == layer_sizes(
        read_checkpoint(run / "checkpoint").load_encoder().backbone
    )
    assert later.configs.head.width == 8


def test_the_table_tells_of_every_point_and_the_smallest_good_one_is_taken(
    invoke: Invoke, fitted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    choices = ("--set", "compress.layers=[3,1]", "--set", "compress.kept=[1.0]", "--set", "compress.widths=[16,8]")
    # With all heads kept nothing is pruned, so no texts are read to find out what matters.
    quick = [word for choice in QUICK if "importance_texts" not in choice for word in ("--set", choice)]
    answer = json.loads(invoke("compress", fitted, "--out", out, *choices, *quick, "--json", "--tolerance", 1).stdout)
    assert [(point["layers"], point["width"]) for point in answer["points"]] == [(3, 16), (3, 8), (1, 16), (1, 8)]
    smallest = min(answer["points"], key=lambda point: point["encoder_mb"] + point["vectors_mb"])
    assert answer["chosen"] == smallest
    for point in answer["points"]:
        assert min(point[name] for name in ("metric", "texts_per_s", "text_ms", "search_ms")) > 0
    assert answer["points"][0]["encoder_mb"] == answer["whole"]["encoder_mb"]
    assert answer["points"][3]["vectors_mb"] < answer["points"][2]["vectors_mb"]
    assert answer["points"][0]["off"] == 0 < answer["points"][2]["off"]
    kept = json.loads((out / "compression.json").read_text())
    assert kept["points"] == answer["points"]
    assert (out / "compression.png").read_bytes().startswith(b"\x89PNG")
    assert len(transformer_layers(read_checkpoint(out / "checkpoint").load_encoder())) == 1
    # A run of its own: the one that it was made of may go.
    assert Recommender.load(out).recommend(users=["user0"], k=3)[0].items


def test_where_nothing_is_good_enough_the_table_is_shown_and_nothing_kept(
    invoke: Invoke, learnt: Fitted, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    choices = ("--set", "compress.widths=[2]", "--set", "compress.layers=[1]", "--set", "compress.kept=[0.01]")
    teach = ("--set", "compress.learning_rate=1e-9", "--set", "compress.tower_epochs=0", "--set", "compress.epochs=1")
    found = invoke("compress", learnt.run, "--out", out, *choices, *teach, "--quiet", "--tolerance", 0, code=2)
    assert "1 %" in found.output
    assert "nothing smaller keeps" in found.output
    assert "Raise --tolerance" in found.output.replace("\n", " ")
    assert not out.exists()


def test_it_is_compressed_again(made: Compression, tmp_path: Path) -> None:
    choices = [*QUICK, "compress.layers=[1]", "compress.kept=[0.5]", "compress.widths=[4]", "compress.tolerance=1"]
    again = compress_run(path_of(made), tmp_path / "run", choices, show=False)
    found = Recommender.load(path_of(again))
    assert len(transformer_layers(found.checkpoint.load_encoder())) == 1
    assert found.towers_scorer.bank.matrix.shape[1] == 4
    assert again.curve.whole.width == 8


def test_an_adapter_is_merged_into_what_is_taught(world_folder: Path, tmp_path: Path, quick_choices: list[str]) -> None:
    def fit(kind: str) -> Path:
        tables = world_folder / "items.csv", world_folder / "events.csv"
        choices = [*quick_choices, f"encoder.adapter.kind={kind}", "training.frozen_epochs=0"]
        return fit_run(*tables, out=tmp_path / kind, overrides=choices, show=False).run.path

    made = compress_run(fit("lora"), tmp_path / "small", ONE, show=False)
    found = Recommender.load(path_of(made))
    assert found.checkpoint.configs.encoder.adapter.kind == "none"
    torch.testing.assert_close(found.encode_texts(found.texts[:4]), found.vectors.text_vec[:4], atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="has learnt in an adapter .pfeiffer. that cannot be merged"):
        compress_run(fit("pfeiffer"), tmp_path / "other", ONE, show=False)


def test_wrong_choices_are_refused_before_any_work(invoke: Invoke, fitted: Path, tmp_path: Path) -> None:
    for choice, reason in (
        ("compress.layers=[4]", "has 3 layers of the language model"),
        ("compress.layers=[0]", "compress.layers names 0"),
        ("compress.widths=[32]", "has 16 numbers in the vectors that are compared"),
        ("compress.kept=[0.0]", "no share of heads and units"),
        ("compress.depth=2", "unknown key 'compress.depth'"),
        ("encoder.train=all", "compress.* can"),
        ("compress.tolerance=2", "less than or equal to 1"),
    ):
        out = invoke("compress", fitted, "--out", tmp_path / "out", "--set", choice, code=2).output
        assert reason in " ".join(out.split())
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    assert "is not empty" in " ".join(invoke("compress", fitted, "--out", tmp_path / "full", code=2).output.split())


def test_runs_without_a_language_model_of_their_own_are_refused(
    world_folder: Path, fitted: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    tables = world_folder / "items.csv", world_folder / "events.csv"
    short = [*quick_choices, "training.tuned_epochs=0"]
    for choice, reason in (
        ("user_model.kind=text", "reads histories as text"),
        ("item.source=id", "reads no words"),
        ("split.validation=0", "leaves none"),
    ):
        run = tmp_path / choice
        fit_run(*tables, out=run, overrides=[*short, choice], show=False)
        with pytest.raises(InputError, match=reason):
            compress_run(run, tmp_path / "out", ONE, show=False)
    twin = Path(shutil.copytree(fitted, tmp_path / "twin"))
    ensemble_runs([fitted, twin], tmp_path / "both")
    with pytest.raises(InputError, match="is an ensemble; compress its members"):
        compress_run(tmp_path / "both", tmp_path / "out", ONE, show=False)


def test_what_cannot_take_a_pruned_model_says_so(made: Compression, fitted: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is pruned"):
        fit_reranker(Path(shutil.copytree(path_of(made), tmp_path / "run")), show=False)
    with pytest.raises(InputError, match="is compressed"):
        soup_runs([fitted, path_of(made)], tmp_path / "soup", show=False)
    own = f"encoder.name={path_of(made) / 'checkpoint' / 'encoder'}"
    with pytest.raises(InputError, match="is pruned"):
        pretrain_encoder(Recommender.load(fitted).catalog, load_recipe(overrides=[own]), tmp_path / "bert", show=False)


def test_a_fit_starts_from_a_pruned_model(
    made: Compression, world_folder: Path, quick_choices: list[str], tmp_path: Path
) -> None:
    own = f"encoder.name={path_of(made) / 'checkpoint' / 'encoder'}"
    tables = world_folder / "items.csv", world_folder / "events.csv"
    fitted = fit_run(*tables, out=tmp_path / "run", overrides=[*quick_choices, own], show=False).run
    encoder = Recommender.load(fitted.path).checkpoint.load_encoder()
    assert layer_sizes(encoder.backbone) == layer_sizes(
        read_checkpoint(path_of(made) / "checkpoint").load_encoder().backbone
    )


def test_gpt_types_lose_layers_and_widths_only(
    tiny_gpt: Path, world_folder: Path, tmp_path: Path, quick_choices: list[str]
) -> None:
    tables = world_folder / "items.csv", world_folder / "events.csv"
    choices = [*quick_choices, f"encoder.name={tiny_gpt}", "encoder.pooling=last", "training.tuned_epochs=0"]
    fit_run(*tables, out=tmp_path / "gpt", overrides=choices, show=False)
    made = compress_run(tmp_path / "gpt", tmp_path / "small", [*QUICK, "compress.tolerance=1"], show=False)
    assert {point.kept for point in made.curve.points} == {1.0}
    assert "not known here" in made.notes[0]
    assert len(transformer_layers(Recommender.load(path_of(made)).checkpoint.load_encoder())) == 1
    with pytest.raises(InputError, match="cannot be pruned"):
        compress_run(tmp_path / "gpt", tmp_path / "other", ONE, show=False)


def test_a_stop_keeps_nothing(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    before = {str(file): file.stat().st_mtime_ns for file in fitted.rglob("*") if file.is_file()}
    for n_asked in (0, 2, 6, 12):
        asked = iter(range(10_000))

        def should_stop(n: int = n_asked, asked: Any = asked) -> bool:
            return bool(next(asked) >= n)

        monkeypatch.setattr(module, "stop_on_interrupt", lambda: nullcontext(should_stop))
        with pytest.raises(Interrupted, match="nothing is kept"):
            compress_run(fitted, tmp_path / "out", ONE, show=False)
        assert not (tmp_path / "out").exists()
    assert {str(file): file.stat().st_mtime_ns for file in fitted.rglob("*") if file.is_file()} == before


def test_a_new_item_is_known_by_its_words(made: Compression) -> None:
    found = Recommender.load(path_of(made))
    grown = found.add_items(pl.DataFrame([{"item_id": "new", **NEW_ITEM}]))
    assert grown.similar(item="new", k=3)
    assert RunFolder(path_of(made)).compression_file.exists()
