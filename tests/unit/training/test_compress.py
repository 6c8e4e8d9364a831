"""Compressing: what is weighed is what moves the vectors, what is taught comes near its teacher, and widths nest."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lmrec.errors import RecipeError
from lmrec.fields import Ragged
from lmrec.models.encoder import EncoderConfig, TextEncoder, encode_tokens, load_encoder, pad_tokens
from lmrec.models.heads import CosineHead, DotHead, HeadConfig, build_head
from lmrec.models.layers import sublayers_of, transformer_layers
from lmrec.models.pruning import LayerRows, LayerSize, gated, layer_sizes
from lmrec.progress import progress_bar
from lmrec.training.catalog_softmax import full_softmax
from lmrec.training.compress import (
    Matryoshka,
    VectorTask,
    choose_taught,
    measure_importance,
    most_important,
    prune,
    shrink_layers,
    shut_gates,
)
from lmrec.training.losses import FullSoftmax
from lmrec.training.objectives import Asked
from lmrec.training.pretrain import learn

CONFIG = EncoderConfig(name="tiny", max_tokens=16)
CPU = torch.device("cpu")


@pytest.fixture
def encoder(tiny_bert: Path) -> TextEncoder:
    return load_encoder(tiny_bert, CONFIG).eval()


def test_importance_is_how_far_a_vector_moves_where_a_gate_shuts_a_little(
    encoder: TextEncoder, world_tokens: Ragged
) -> None:
    tokens, step = world_tokens.take(np.arange(8)), 1e-2
    ids, mask = pad_tokens(tokens)
    estimated = [measure_importance(encoder, tokens, 4096, seed) for seed in range(60)]
    for place, n_gates in ((0, 2), (1, 4)):  # every head; the first units
        for gate in range(n_gates):
            gates = [(torch.ones(1, 2), torch.ones(1, 64)) for _ in range(3)]
            gates[1][place][0, gate] = 1 - step
            with torch.no_grad():
                whole = encoder(ids, mask)
                with gated(encoder.backbone, gates):
                    moved = encoder(ids, mask) - whole
            truth = float((moved / step).square().sum(1).mean())
            found = float(np.mean([one[1][place][gate] for one in estimated]))
            assert found == pytest.approx(truth, rel=0.4, abs=1e-7)
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())


def test_a_head_that_says_nothing_goes_first(encoder: TextEncoder, world_tokens: Ragged) -> None:
    layer = transformer_layers(encoder)[1]
    names = sublayers_of(layer)
    assert names is not None
    with torch.no_grad():
        layer.get_parameter(f"{names.attention_out}.weight")[:, 16:] = 0.0  # the second of two heads of 16
        layer.get_parameter(f"{names.feed_out}.weight")[:, 8:] = 0.0
    importance = measure_importance(encoder, world_tokens, 4096, 0)
    assert importance[1][0][1] == 0
    assert (importance[1][1][8:] == 0).all()
    kept = most_important(importance, 5 / 6, ("heads", "units"))
    assert [len(rows.heads) for rows in kept] == [2, 1, 2]
    assert kept[1].heads.tolist() == [0]
    before = encode_tokens(encoder, world_tokens, 4096, CPU)
    after = encode_tokens(
        prune(encoder, [kept[0], LayerRows(np.array([0]), np.arange(8)), kept[2]], world_tokens),
        world_tokens,
        4096,
        CPU,
    )
    whole_units = [LayerRows(rows.heads, np.arange(64)) for rows in kept]
    same = encode_tokens(prune(encoder, whole_units, world_tokens), world_tokens, 4096, CPU)
    np.testing.assert_allclose(same, before, atol=1e-5)
    assert np.abs(after - before).max() < 0.5


def test_shares_are_of_all_layers_together_and_no_layer_goes_empty() -> None:
    strong, weak = np.arange(16, 32, dtype=np.float32), np.arange(16, dtype=np.float32)
    kept = most_important([(strong[:4], strong), (weak[:4], weak)], 0.5, ("heads", "units"))
    assert [len(rows.heads) for rows in kept] == [3, 1]
    assert kept[0].heads.tolist() == [1, 2, 3]
    assert kept[1].heads.tolist() == [3]
    assert [len(rows.units) for rows in kept] == [16, 8]  # whole blocks
    only = most_important([(strong[:4], strong), (weak[:4], weak)], 0.5, ("units",))
    assert [len(rows.heads) for rows in only] == [4, 4]
    most = most_important([(strong[:4], strong), (weak[:4], weak)], 1.0, ("heads", "units"))
    assert [(len(rows.heads), len(rows.units)) for rows in most] == [(4, 16)] * 2


def test_a_student_comes_near_its_teacher_also_on_texts_it_has_not_read(
    encoder: TextEncoder, world_tokens: Ragged
) -> None:
    teacher = encode_tokens(encoder, world_tokens, 4096, CPU)
    student = shrink_layers(encoder, 1, CONFIG)
    words = encoder.embed_words(torch.tensor([[5]]))
    rows = np.arange(len(world_tokens))
    task = VectorTask(student, world_tokens, teacher, rows[4:], rows[:4], 8)
    assert task.held_out() == pytest.approx(
        float((1 - (encode_tokens(student, world_tokens, 4096, CPU)[:4] * teacher[:4]).sum(1)).mean()), abs=1e-6
    )
    choose_taught(student)
    before = task.held_out()
    with progress_bar("", show=False) as bar:
        learn(task, [(student, 3e-3)], 12, 0, lambda: False, bar)
    assert task.held_out() < 0.7 * before
    torch.testing.assert_close(student.embed_words(torch.tensor([[5]])), words)  # words stay the teacher's


def test_a_model_that_is_other_than_it_looks_is_not_pruned(encoder: TextEncoder, world_tokens: Ragged) -> None:
    class Odd(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input.flip(-1)) if input.shape[-1] == 32 else super().forward(input)

    layer = transformer_layers(encoder)[0]
    names = sublayers_of(layer)
    assert names is not None
    layer.get_submodule(names.attention_out).__class__ = Odd  # it reads its heads backwards
    kept = [LayerRows(np.array([1]), np.arange(64)), *[LayerRows(np.arange(2), np.arange(64))] * 2]
    with pytest.raises(RecipeError, match="cannot be pruned: cut, it is off by"):
        prune(encoder, kept, world_tokens)


def test_shut_gates_are_of_what_is_not_kept(encoder: TextEncoder) -> None:
    kept = [LayerRows(np.array([1]), np.array([0, 63]))] * 3
    heads, units = shut_gates(encoder, kept)[2]
    assert heads.tolist() == [[0.0, 1.0]]
    assert units.nonzero()[:, 1].tolist() == [0, 63]
    assert layer_sizes(prune(encoder, kept, Ragged.from_rows([[2, 5, 3]])).backbone) == [LayerSize(1, 2)] * 3


@pytest.mark.parametrize("unit", [True, False])
def test_a_matryoshka_loss_is_the_mean_of_its_beginnings(unit: bool) -> None:
    torch.manual_seed(0)
    head = CosineHead(0.1) if unit else DotHead(8)
    users, items = head.prepare(torch.randn(5, 8)), head.prepare(torch.randn(7, 8))
    asked = Asked(users, items, torch.tensor([0, 1, 2, 3, 6]), torch.ones(5), head.scale)
    rng = np.random.default_rng(0)
    losses = []
    for width in (8, 4, 2):
        narrow = build_head(HeadConfig(kind="cosine" if unit else "dot", width=width), 8)
        own = narrow.prepare(users), narrow.prepare(items)
        losses.append(full_softmax(*own, asked.target, asked.weight, head.scale))
    objective = Matryoshka(FullSoftmax(), (8, 4, 2), unit)
    torch.testing.assert_close(objective(asked, rng), torch.stack(losses).mean())
    other = Asked(head.prepare(torch.randn(5, 8)), items, asked.target, asked.weight, head.scale)
    assert objective.divergence(asked, asked, rng).item() == pytest.approx(0.0, abs=1e-6)
    assert objective.divergence(asked, other, rng).item() > 0.01
