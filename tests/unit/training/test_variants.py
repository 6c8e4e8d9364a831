"""Variants of texts: drawn while training alone, in both regimes, and gone from the cache after each epoch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from lmrec.fields import IntArray, Ragged
from lmrec.models.encoder import encode_tokens
from lmrec.training.batches import TrainBatch
from lmrec.training.learner import Learner
from lmrec.training.variants import TextVariants

Batches = Callable[[int, int], list[TrainBatch]]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def numbered(n_variants: int, n_items: int) -> TextVariants:
    """Variant v of item i has the vector (v, i)."""
    grid = torch.stack(torch.meshgrid(torch.arange(n_variants), torch.arange(n_items), indexing="ij"), 2).float()
    return TextVariants(grid, Ragged.from_rows([[2, 5]] * (n_variants * n_items)))


def test_each_item_draws_its_own_vector_or_one_of_its_variants_by_equal_chances() -> None:
    variants, own = numbered(3, 4000), torch.full((4000, 2), -1.0)
    drawn = variants.draw_vectors(own, rng())
    assert (own == -1).all(), "the cache itself must stay"
    varied = drawn[:, 0] >= 0
    torch.testing.assert_close(drawn[varied, 1], torch.arange(4000.0)[varied])
    shares = torch.bincount((drawn[:, 0] + 1).long(), minlength=4) / 4000
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.03, rtol=0)
    torch.testing.assert_close(drawn, variants.draw_vectors(own, rng()))


@pytest.fixture
def varied(make_learner: Callable[..., Learner]) -> Learner:
    """The small learner with two variants: each text's words backwards, and its first word alone."""
    learner = make_learner(dropout=0.0)
    assert learner.tokens is not None
    assert learner.encoder is not None
    rows: list[IntArray] = [learner.tokens[row][::-1] for row in range(len(learner.tokens))]
    rows += [learner.tokens[row][:2] for row in range(len(learner.tokens))]
    tokens = Ragged.from_rows(rows)
    vectors = torch.from_numpy(encode_tokens(learner.encoder, tokens, 4096, torch.device("cpu")))
    learner.variants = TextVariants(vectors.view(2, -1, vectors.shape[1]), tokens)
    return learner


def test_the_frozen_stage_trains_on_them_and_judging_does_not(varied: Learner, world_batches: Batches) -> None:
    batch = world_batches(0, 0)[0]

    def loss(seed: int) -> float:
        return float(varied(batch, rng(seed)).detach())

    one, other = loss(0), loss(1)
    assert one != other
    varied.eval()
    judged = loss(0)
    varied.variants = None
    assert judged == loss(1)
    varied.train()
    assert loss(0) not in (one, other)


def test_the_tuned_stage_reads_a_variant_with_gradient_and_the_cache_forgets_it(
    varied: Learner, world_batches: Batches
) -> None:
    varied.regime = "tuned"
    varied.encoder_config = varied.encoder_config.model_copy(update={"states_mb": 0})  # exact, no kept states in bf16
    variants = varied.variants
    assert variants is not None
    assert varied.encoder is not None
    own = varied.text_vec.clone()
    torch.autograd.backward(varied(world_batches(0, 0)[0], rng()))
    for surrogate in varied.pass_on(rng()):
        torch.autograd.backward(surrogate)
    changed = ((varied.text_vec - own).abs().amax(1) > 1e-4).nonzero().squeeze(1)
    assert 0 < len(changed) <= 8
    for row in changed:
        distance = (variants.text_vec[:, row] - varied.text_vec[row]).abs().amax(1)
        assert float(distance.min()) < 1e-5, "what is read is one of the item's own variants"
    assert any(p.grad is not None and bool(p.grad.any()) for p in varied.encoder.parameters())
    varied.refresh()
    torch.testing.assert_close(varied.text_vec, own, atol=1e-5, rtol=0)
