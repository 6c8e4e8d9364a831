"""Checkpoints: a strict round trip, and vectors that are refused where anything they came from has changed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lmrec.artifacts.checkpoint import (
    Checkpoint,
    ItemVectors,
    ModelConfigs,
    compute_item_vectors,
    load_vectors,
    read_checkpoint,
    save_checkpoint,
    save_vectors,
)
from lmrec.errors import RunFolderError
from lmrec.models.encoder import EncoderConfig, load_encoder
from lmrec.models.heads import HeadConfig
from lmrec.models.two_tower import ItemTowerConfig, TwoTower
from lmrec.models.user_model import UserModelConfig
from lmrec.text.template import Template
from lmrec.text.tokens import load_tokenizer

N_ITEMS = 7
TEMPLATE = Template("{title}", " | ", 100)
Edit = Callable[[dict[str, Any]], Any]


def make_configs(**item: Any) -> ModelConfigs:
    return ModelConfigs(
        EncoderConfig(name="tiny", max_tokens=20),
        ItemTowerConfig.model_validate({"width": 8, "whiten": 6, **item}),
        UserModelConfig(heads=2, max_history=5),
        HeadConfig(),
    )


def save(
    folder: Path, tiny_bert: Path, configs: ModelConfigs, frozen_stage: bool = False
) -> tuple[Checkpoint, TwoTower]:
    encoder = load_encoder(tiny_bert, configs.encoder)
    torch.manual_seed(1)
    text_vec = np.random.default_rng(0).standard_normal((N_ITEMS, encoder.width)).astype(np.float32)
    seen = np.arange(N_ITEMS) != 2
    towers = TwoTower(text_vec, seen, configs.item, configs.user_model, configs.head).eval()
    frozen = {name: torch.zeros_like(value) for name, value in towers.state_dict().items()} if frozen_stage else None
    return save_checkpoint(folder, towers, encoder, load_tokenizer(tiny_bert), TEMPLATE, configs, frozen), towers


@pytest.fixture
def saved(tiny_bert: Path, tmp_path: Path) -> tuple[Checkpoint, TwoTower]:
    return save(tmp_path / "checkpoint", tiny_bert, make_configs())


@pytest.mark.parametrize("source", ["text+id", "text", "id"])
@pytest.mark.parametrize("whiten", [0, 6, 500])
def test_towers_come_back_bit_for_bit(tiny_bert: Path, tmp_path: Path, source: str, whiten: int) -> None:
    configs = make_configs(source=source, whiten=whiten)
    _, towers = save(tmp_path / "checkpoint", tiny_bert, configs)
    loaded = read_checkpoint(tmp_path / "checkpoint")
    again = loaded.load_towers()
    assert not again.training
    assert loaded.configs == configs
    assert loaded.template == TEMPLATE
    assert again.state_dict().keys() == towers.state_dict().keys()
    for name, value in towers.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    text_vec = torch.randn(N_ITEMS + 2, 32)
    assert torch.equal(again.item_tower(text_vec), towers.item_tower(text_vec))


def test_the_language_model_and_its_tokenizer_come_back(saved: tuple[Checkpoint, TwoTower], tiny_bert: Path) -> None:
    checkpoint, _ = saved
    original = load_encoder(tiny_bert, checkpoint.configs.encoder).state_dict()
    loaded = checkpoint.load_encoder()
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in original.items())
    text = "The Funny Rocket"
    assert checkpoint.load_tokenizer()(text)["input_ids"] == load_tokenizer(tiny_bert)(text)["input_ids"]


def test_the_frozen_stage_is_kept_beside(tiny_bert: Path, tmp_path: Path, saved: tuple[Checkpoint, TwoTower]) -> None:
    checkpoint, _ = save(tmp_path / "two", tiny_bert, make_configs(), frozen_stage=True)
    assert all((value == 0).all() for value in checkpoint.load_towers(frozen_stage=True).state_dict().values())
    with pytest.raises(RunFolderError, match=r"frozen_stage.safetensors is missing"):
        saved[0].load_towers(frozen_stage=True)


def test_no_file_is_a_pickle(saved: tuple[Checkpoint, TwoTower]) -> None:
    endings = {path.suffix for path in saved[0].folder.rglob("*") if path.is_file()}
    assert endings <= {".json", ".safetensors", ".txt"}


@pytest.mark.parametrize("change", ["missing", "extra", "reshaped"])
def test_weights_that_do_not_fit_exactly_are_refused(saved: tuple[Checkpoint, TwoTower], change: str) -> None:
    file = saved[0].folder / "towers.safetensors"
    weights = load_file(file)
    if change == "missing":
        del weights["user_model.start"]
    elif change == "extra":
        weights["more"] = torch.zeros(1)
    else:
        weights["user_model.start"] = torch.zeros(3)
    save_file(weights, file)
    with pytest.raises(RunFolderError, match=r"(?s)does not fit its checkpoint.json.*Fit the run again"):
        saved[0].load_towers()


def test_a_damaged_weight_file_is_refused(saved: tuple[Checkpoint, TwoTower]) -> None:
    file = saved[0].folder / "towers.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RunFolderError, match="does not fit"):
        saved[0].load_towers()


EDITS: dict[str, Edit] = {
    "no template": lambda values: values.pop("template"),
    "no fingerprint": lambda values: values.pop("fingerprint"),
    "an unknown choice": lambda values: values["item"].update(colour="red"),
    "a value out of range": lambda values: values["item"].update(width=0),
    "a template of other keys": lambda values: values["template"].update(more=1),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_description_that_is_not_ours_is_refused(saved: tuple[Checkpoint, TwoTower], edit: Edit) -> None:
    file = saved[0].folder / "checkpoint.json"
    values = json.loads(file.read_text())
    edit(values)
    file.write_text(json.dumps(values))
    with pytest.raises(RunFolderError, match=r"checkpoint.json is not what lmrec writes"):
        read_checkpoint(saved[0].folder)


def test_a_template_edited_by_hand_is_noticed(saved: tuple[Checkpoint, TwoTower]) -> None:
    file = saved[0].folder / "checkpoint.json"
    file.write_text(file.read_text().replace("{title}", "{genres}"))
    with pytest.raises(RunFolderError, match="the template was edited by hand"):
        read_checkpoint(saved[0].folder)


def test_a_missing_description_is_an_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="is missing"):
        read_checkpoint(tmp_path)


@pytest.fixture
def vectors_file(saved: tuple[Checkpoint, TwoTower], tmp_path: Path) -> Path:
    checkpoint, towers = saved
    vectors = compute_item_vectors(towers, torch.arange(N_ITEMS * 32.0).view(N_ITEMS, 32))
    save_vectors(tmp_path / "vectors" / "v.safetensors", vectors, checkpoint, "catalog-1")
    return tmp_path / "vectors" / "v.safetensors"


def test_vectors_come_back(saved: tuple[Checkpoint, TwoTower], vectors_file: Path) -> None:
    checkpoint, towers = saved
    found = load_vectors(vectors_file, checkpoint, "catalog-1")
    assert isinstance(found, ItemVectors)
    torch.testing.assert_close(found.item_vec, towers.item_tower(found.text_vec))
    assert found.text_vec[0, 1] == 1.0


def test_vectors_of_another_origin_are_refused(saved: tuple[Checkpoint, TwoTower], vectors_file: Path) -> None:
    checkpoint = saved[0]
    others = {
        "template": (replace(checkpoint, template=Template("{genres}", " | ", 100)), "catalog-1"),
        "checkpoint": (replace(checkpoint, fingerprint="0" * 16), "catalog-1"),
        "catalog": (checkpoint, "catalog-2"),
    }
    for name, (other, catalog) in others.items():
        with pytest.raises(RunFolderError, match=rf"was made by another {name} .*Fit the run again"):
            load_vectors(vectors_file, other, catalog)


def test_vectors_that_are_missing_damaged_or_foreign_are_refused(
    saved: tuple[Checkpoint, TwoTower], vectors_file: Path
) -> None:
    with pytest.raises(RunFolderError, match="cannot be read"):
        load_vectors(vectors_file.with_name("none"), saved[0], "catalog-1")
    foreign = vectors_file.with_name("foreign.safetensors")
    save_file({"text_vec": torch.zeros(1), "item_vec": torch.zeros(1)}, foreign)
    with pytest.raises(RunFolderError, match="was made by another template"):
        load_vectors(foreign, saved[0], "catalog-1")
    vectors_file.write_bytes(vectors_file.read_bytes()[:50])
    with pytest.raises(RunFolderError, match="cannot be read"):
        load_vectors(vectors_file, saved[0], "catalog-1")


def test_the_fingerprint_follows_the_weights(
    saved: tuple[Checkpoint, TwoTower], tiny_bert: Path, tmp_path: Path
) -> None:
    again, _ = save(tmp_path / "again", tiny_bert, make_configs())
    assert again.fingerprint == saved[0].fingerprint
    other, _ = save(tmp_path / "other", tiny_bert, make_configs(width=12))
    assert other.fingerprint != saved[0].fingerprint
