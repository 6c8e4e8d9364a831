"""Soups: the mean of runs' weights as a run, chosen on validation; what makes no soup is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lmrec.artifacts.checkpoint import Checkpoint, read_checkpoint
from lmrec.artifacts.run import RunFolder
from lmrec.data.split import split_interactions
from lmrec.errors import InputError
from lmrec.recipe import load_recipe
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.judge import judge_run
from lmrec.workflows.soup import soup_runs
from lmrec.workflows.train import fit_run

from .conftest import Invoke


def fit(folder: Path, world_folder: Path, choices: list[str]) -> Path:
    tables = world_folder / "items.csv", world_folder / "events.csv"
    return fit_run(*tables, out=folder, overrides=choices, show=False).run.path


@pytest.fixture(scope="module")
def runs(world_folder: Path, quick_choices: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One start, two courses; the first ends in the tuned stage's towers and the second never tunes."""
    folder = tmp_path_factory.mktemp("soup")
    lost = ("training.learning_rate=1e-6", "training.tuned_learning_rate=1e-2")
    other = ("training.tuned_epochs=0", "training.start_seed=0", "training.seed=5")
    return [
        fit(
            folder / "a",
            world_folder,
            [*quick_choices, *lost],
        ),
        fit(
            folder / "b",
            world_folder,
            [*quick_choices, *other],
        ),
    ]


def test_it_serves_the_mean_of_the_weights_and_is_judged(invoke: Invoke, runs: list[Path], tmp_path: Path) -> None:
    made = soup_runs(runs, tmp_path / "soup", "uniform", show=False)
    assert made.chosen == (0, 1)
    assert all(RunFolder(path).read_record()["training"]["refit_epochs"] for path in runs)
    one, other, mixed = (read_checkpoint(RunFolder(path).checkpoint) for path in (*runs, made.run.path))
    whitened = [found.load_towers().item_tower.directions for found in (one, other)]
    assert torch.equal(*whitened)  # by the un-tuned vectors, also where the tuned ones are served
    loads: tuple[Callable[[Checkpoint], nn.Module], ...] = (Checkpoint.load_towers, Checkpoint.load_encoder)
    for load in loads:
        weights = [load(found).state_dict() for found in (one, other, mixed)]
        for name, value in weights[2].items():
            expected = (weights[0][name] + weights[1][name]) / 2 if value.is_floating_point() else weights[0][name]
            torch.testing.assert_close(value, expected)
    found = Recommender.load(made.run.path)
    encoder = found.checkpoint.load_encoder()
    texts = found.checkpoint.template.render_items(found.catalog.frame)
    batch = found.checkpoint.load_tokenizer()(texts[:3], padding=True, return_tensors="pt")
    with torch.no_grad():
        vectors = encoder(batch["input_ids"], batch["attention_mask"].bool())
    torch.testing.assert_close(found.vectors.text_vec[:3], vectors, atol=1e-5, rtol=1e-4)
    rows = {row.name for row in judge_run(made.run.path, show=False).table.rows}
    assert "PLM tuned (second stage)" in rows
    assert len(json.loads(invoke("recommend", made.run.path, "--user", "user0", "--json").stdout)["items"]) == 10


def test_greedily_it_is_on_validation_no_worse_than_the_best_alone(
    invoke: Invoke, runs: list[Path], tmp_path: Path
) -> None:
    answer = json.loads(invoke("soup", *runs, "--out", tmp_path / "soup", "--json").stdout)
    assert answer["validation"] >= max(answer["alone"])
    assert answer["chosen"][0] == int(np.argmax(answer["alone"]))
    again = json.loads(invoke("soup", tmp_path / "soup", runs[1], "--out", tmp_path / "more", "--json").stdout)
    assert again["alone"][0] == pytest.approx(answer["validation"], abs=1e-9)


def test_what_a_run_is_worth_does_not_hang_on_its_place(runs: list[Path], tmp_path: Path) -> None:
    """The second run's language model is as it came, so its vectors are not the first one's, whose was tuned."""
    one = soup_runs(runs, tmp_path / "one", show=False)
    other = soup_runs(runs[::-1], tmp_path / "other", show=False)
    assert one.alone == other.alone[::-1]
    assert one.metric == other.metric
    assert one.chosen == tuple(1 - place for place in other.chosen)
    members = [Recommender.load(path).vectors.text_vec for path in runs]
    assert not torch.allclose(members[0], members[1], atol=1e-4)
    if len(one.chosen) == 1:
        torch.testing.assert_close(Recommender.load(one.run.path).vectors.text_vec, members[one.chosen[0]])


def test_what_makes_no_soup_is_refused_with_the_reason(
    invoke: Invoke, runs: list[Path], world_folder: Path, quick_choices: list[str], tmp_path: Path
) -> None:
    short = [*quick_choices, "training.tuned_epochs=0"]
    for name, choice, reason in (
        ("seed", "training.seed=1", "towers that began from other weights"),
        ("width", "item.width=8", "another shape of towers"),
        ("head", "head.width=4", "another shape of towers"),
        ("pooling", "encoder.pooling=cls", "another language model"),
        ("refit", "training.refit=false", "learning again in one and not in the other"),
        ("split", "split.validation=0.2", "another split"),
    ):
        path = fit(tmp_path / name, world_folder, [*short, choice])
        with pytest.raises(InputError, match=reason):
            soup_runs([runs[0], path], tmp_path / "out", show=False)
    assert not (tmp_path / "out").exists()
    turned = Path(shutil.copytree(runs[1], tmp_path / "turned"))
    weights = load_file(turned / "checkpoint" / "towers.safetensors")
    weights["item_tower.directions"][:, ::2] *= -1
    save_file(weights, turned / "checkpoint" / "towers.safetensors")
    with pytest.raises(InputError, match="whiten words in other directions"):
        soup_runs([runs[0], turned], tmp_path / "out", show=False)
    with pytest.raises(InputError, match="at least two runs"):
        soup_runs(runs[:1], tmp_path / "out", show=False)
    assert "it is greedy or uniform" in invoke("soup", *runs, "--out", tmp_path / "out", "--by", "taste", code=2).output


def test_a_soup_of_the_best_alone_serves_what_the_best_serves(
    runs: list[Path], world_folder: Path, quick_choices: list[str], tmp_path: Path
) -> None:
    """Fused as its recipe says, whichever run is named first; run.json tells of what is there alone."""
    fused = ["training.tuned_epochs=0", "training.start_seed=0", "training.learning_rate=1e-6"]
    bare = [*fused, *(f"fusion.{part}=false" for part in ("transitions", "popularity", "content", "new_items"))]
    best = fit(tmp_path / "best", world_folder, [*quick_choices, *fused, "training.learning_rate=0.01"])
    worst = fit(tmp_path / "worst", world_folder, [*quick_choices, *bare])
    record = json.loads((best / "run.json").read_text())
    (best / "run.json").write_text(json.dumps({**record, "reranker": {"weight": 0.5}}))
    made = soup_runs([worst, best], tmp_path / "soup", show=False)
    if made.chosen == (1,):
        told = RunFolder(made.run.path).read_record()
        assert told["fusion"] == record["fusion"]
        assert "reranker" not in told
        assert Recommender.load(made.run.path).checkpoint.fusion == Recommender.load(best).checkpoint.fusion
    else:
        pytest.fail(f"the best alone was not chosen: {made.alone}, {made.chosen}")
    judged = fit(tmp_path / "judged", world_folder, [*quick_choices, *fused, "evaluation.exclude_seen=false"])
    with pytest.raises(InputError, match="lists that are judged otherwise"):
        soup_runs([best, judged], tmp_path / "other", show=False)


def test_what_was_learnt_is_no_validation_part(world_folder: Path, quick_choices: list[str], tmp_path: Path) -> None:
    """Without refit nothing is held out of a split 'none'; who reads such a run later must not find something there."""
    choices = [
        *quick_choices,
        "training.tuned_epochs=0",
        "split.kind=none",
        "training.refit=false",
        "training.patience=2",
    ]
    runs = [
        fit(tmp_path / name, world_folder, [*choices, f"training.seed={seed}", "training.start_seed=0"])
        for seed, name in enumerate("ab")
    ]
    kept = Recommender.load(runs[0])
    split = load_recipe(RunFolder(runs[0]).recipe_file).split
    again = split_interactions(kept.interactions, kept.catalog.n_items, split)
    assert len(again.train) == len(kept.interactions)
    with pytest.raises(InputError, match="chosen on validation, and this split has none"):
        soup_runs(runs, tmp_path / "soup", show=False)
