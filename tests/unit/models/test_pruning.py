"""Fewer layers, heads and units: a pruned model says what the whole one says with the same parts shut, and loads again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lmrec.errors import RecipeError
from lmrec.models.encoder import EncoderConfig, TextEncoder, load_encoder, save_encoder
from lmrec.models.layers import transformer_layers
from lmrec.models.pruning import (
    LayerRows,
    LayerSize,
    can_prune,
    cut,
    gated,
    is_pruned,
    layer_sizes,
    with_fewer_layers,
)

CONFIG = EncoderConfig(name="tiny", max_tokens=30)
KEPT = [
    LayerRows(np.array([1]), np.arange(0, 64, 2)),
    LayerRows(np.array([0, 1]), np.array([3, 5, 60])),
    LayerRows(np.array([0]), np.arange(64)),
]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.from_numpy(np.random.default_rng(0).integers(4, 40, (5, 9)))
    return ids, torch.arange(9) < torch.tensor([[9], [4], [1], [7], [2]])


@torch.no_grad()
def vectors_of(encoder: TextEncoder) -> torch.Tensor:
    vectors: torch.Tensor = encoder.eval()(*batch())
    return vectors


def gates_of(encoder: TextEncoder) -> list[tuple[torch.Tensor, torch.Tensor]]:
    gates = []
    for size, rows in zip(layer_sizes(encoder.backbone), KEPT, strict=True):
        heads, units = torch.zeros(1, size.heads), torch.zeros(1, size.units)
        heads[0, rows.heads] = 1.0
        units[0, rows.units] = 1.0
        gates.append((heads, units))
    return gates


@pytest.fixture(params=["bert", "distilbert", "roberta", "electra"])
def encoder(request: pytest.FixtureRequest, tiny_bert: Path) -> TextEncoder:
    """Three layers of two heads and 64 units, of each architecture that can be pruned."""
    if request.param == "bert":
        return load_encoder(tiny_bert, CONFIG)
    import transformers

    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 50, "max_position_embeddings": 40}
    if request.param == "distilbert":
        config: Any = transformers.DistilBertConfig(dim=32, n_layers=3, n_heads=2, hidden_dim=64, **shape)
    else:
        kind = transformers.RobertaConfig if request.param == "roberta" else transformers.ElectraConfig
        config = kind(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=64,
            initializer_range=0.1,
            **shape,
        )
    backbone = transformers.AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    return TextEncoder(backbone, "mean").eval()


def test_cut_it_says_what_it_says_with_the_same_parts_shut_and_is_smaller(encoder: TextEncoder) -> None:
    whole = vectors_of(encoder)
    with gated(encoder.backbone, gates_of(encoder)):
        shut = vectors_of(encoder)
    assert (shut - whole).abs().max() > 1e-3
    torch.testing.assert_close(vectors_of(encoder), whole)  # the gates are gone
    n_before = sum(p.numel() for p in encoder.parameters())
    cut(encoder.backbone, KEPT)
    assert layer_sizes(encoder.backbone) == [LayerSize(1, 32), LayerSize(2, 3), LayerSize(1, 64)]
    torch.testing.assert_close(vectors_of(encoder), shut, atol=1e-5, rtol=0)
    # A head of 16 numbers: rows of three maps with their biases, columns of a fourth; a unit: a row with its bias, a column.
    n_gone = 2 * (16 * (4 * 32 + 3)) + (32 + 61) * (32 + 1 + 32)
    assert n_before - sum(p.numel() for p in encoder.parameters()) == n_gone


def test_it_loads_again_from_safetensors_and_json_alone(encoder: TextEncoder, tmp_path: Path) -> None:
    assert not is_pruned(encoder.backbone)
    cut(encoder.backbone, KEPT)
    assert is_pruned(encoder.backbone)
    save_encoder(encoder, tmp_path)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}
    again = load_encoder(tmp_path, CONFIG)
    torch.testing.assert_close(vectors_of(again), vectors_of(encoder), atol=1e-6, rtol=0)
    assert layer_sizes(again.backbone) == layer_sizes(encoder.backbone)


def test_files_that_do_not_fit_together_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_bert, CONFIG)
    cut(encoder.backbone, KEPT)
    save_encoder(encoder, tmp_path)
    sizes = json.loads((tmp_path / "pruned.json").read_text())
    for change in ({"layers": sizes["layers"][:2]}, {"layers": [{"heads": 2, "units": 64}] * 3}, {}, [1]):
        (tmp_path / "pruned.json").write_text(json.dumps(change))
        with pytest.raises(RecipeError, match="could not be loaded"):
            load_encoder(tmp_path, CONFIG)
    import transformers

    with pytest.raises(OSError, match="model.safetensors"):  # nobody takes it for a whole model
        transformers.AutoModel.from_pretrained(tmp_path)


def test_a_student_has_its_teachers_layers_and_loads_as_any_model(encoder: TextEncoder, tmp_path: Path) -> None:
    student = TextEncoder(with_fewer_layers(encoder.backbone, [0, 2]), "mean")
    assert len(transformer_layers(student)) == 2
    theirs, ours = transformer_layers(encoder), transformer_layers(student)
    for own, other in zip(ours, (theirs[0], theirs[2]), strict=True):
        for name, value in own.state_dict().items():
            assert torch.equal(value, other.state_dict()[name])
            assert value.data_ptr() != other.state_dict()[name].data_ptr()
    save_encoder(student, tmp_path)
    assert not (tmp_path / "pruned.json").exists()
    torch.testing.assert_close(vectors_of(load_encoder(tmp_path, CONFIG)), vectors_of(student))
    every = TextEncoder(with_fewer_layers(encoder.backbone, [0, 1, 2]), "mean")
    torch.testing.assert_close(vectors_of(every), vectors_of(encoder))


def test_a_pruned_model_has_students_too(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_bert, CONFIG)
    cut(encoder.backbone, KEPT)
    student = TextEncoder(with_fewer_layers(encoder.backbone, [1, 2]), "mean")
    assert layer_sizes(student.backbone) == [LayerSize(2, 3), LayerSize(1, 64)]
    save_encoder(student, tmp_path)
    torch.testing.assert_close(vectors_of(load_encoder(tmp_path, CONFIG)), vectors_of(student))


def test_gpt_types_give_students_and_are_not_pruned(tiny_gpt: Path, tiny_llama: Path) -> None:
    for folder in (tiny_gpt, tiny_llama):
        encoder = load_encoder(folder, EncoderConfig(name="gpt", pooling="last"))
        assert not can_prune(encoder.backbone)
        assert not is_pruned(encoder.backbone)
        with pytest.raises(RecipeError, match="cannot be pruned"):
            layer_sizes(encoder.backbone)
        student = TextEncoder(with_fewer_layers(encoder.backbone, [1]), "last")
        assert len(transformer_layers(student)) == 1
        assert vectors_of(student).shape == (5, 32)
