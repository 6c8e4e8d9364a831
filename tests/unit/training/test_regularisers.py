"""Label smoothing, R-Drop's divergence, the pull to earlier weights and the average of weights against their formulas."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmrec.training.averaging import average_decay, average_in
from lmrec.training.batches import TrainBatch
from lmrec.training.learner import Learner
from lmrec.training.losses import ObjectiveConfig, build_objective
from lmrec.training.objectives import Asked, Seen, full_divergence, smoothing_gap, symmetric_kl
from lmrec.training.regularisers import RegularisersConfig, pull_to

N_ITEMS, N_TARGETS = 9, 5
Batches = Callable[[int, int], list[TrainBatch]]


def make_asked(seed: int = 0, with_seen: bool = True) -> Asked:
    generator = torch.Generator().manual_seed(seed)
    seen = Seen(
        torch.randint(N_ITEMS, (N_TARGETS, 4), generator=generator), torch.rand(N_TARGETS, 4, generator=generator) < 0.7
    )
    return Asked(
        torch.randn(N_TARGETS, 3, generator=generator, dtype=torch.float64).requires_grad_(),
        torch.randn(N_ITEMS, 3, generator=generator, dtype=torch.float64).requires_grad_(),
        torch.tensor([0, 1, 2, 3, 8]),
        torch.tensor([1.0, 2.0, 1.0, 0.5, 1.0], dtype=torch.float64),
        torch.tensor(1.3, dtype=torch.float64).requires_grad_(),
        seen if with_seen else None,
    )


def candidates_of(asked: Asked, row: int) -> list[int]:
    seen = set() if asked.seen is None else set(asked.seen.item_idx[row][asked.seen.mask[row]].tolist())
    return [item for item in range(N_ITEMS) if item not in seen or item == int(asked.target[row])]


def log_shares(asked: Asked, row: int) -> Tensor:
    """Log-softmax over the candidates of one target."""
    logits = asked.scale * asked.user_vec[row] @ asked.item_vec.T
    return logits[candidates_of(asked, row)].log_softmax(0)


@pytest.mark.parametrize("with_seen", [False, True])
@pytest.mark.parametrize("candidates", ["all", "chosen"])
def test_smoothed_cross_entropy_is_that_of_the_smoothed_answer(with_seen: bool, candidates: str) -> None:
    """Written out target by target, with gradients; all items have events, so all are candidates either way."""
    asked, share = make_asked(with_seen=with_seen), 0.2
    config = ObjectiveConfig.model_validate({"kind": "full", "label_smoothing": share, "candidates": candidates})
    found = build_objective(config, np.ones(N_ITEMS, np.int64))(asked, np.random.default_rng(0))
    losses = []
    for row in range(N_TARGETS):
        among, logs = candidates_of(asked, row), log_shares(asked, row)
        answer = torch.full_like(logs, share / len(among))
        answer[among.index(int(asked.target[row]))] += 1 - share
        losses.append(-(answer * logs).sum())
    expected = (asked.weight * torch.stack(losses)).sum() / asked.weight.sum()
    leaves = (asked.user_vec, asked.item_vec, asked.scale)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves))


def test_items_that_nobody_chose_get_no_share_of_the_answer() -> None:
    asked, counts = make_asked(with_seen=False), np.ones(N_ITEMS, np.int64)
    counts[[5, 6]] = 0
    smoothed = build_objective(ObjectiveConfig(kind="full", label_smoothing=0.3), counts)
    (gradient,) = torch.autograd.grad(smoothed(asked, np.random.default_rng(0)), asked.item_vec)
    assert (gradient[[5, 6]] == 0).all()
    assert (gradient[[4, 7]] != 0).any()


def test_of_drawn_negatives_only_the_sum_is_drawn_and_never_the_smoothing() -> None:
    asked, counts = make_asked(), np.arange(1, N_ITEMS + 1)
    rng = np.random.default_rng

    def loss(share: float) -> Tensor:
        config = {"kind": "sampled", "label_smoothing": share, "sampler": {"kind": "uniform", "n_negatives": 4}}
        return build_objective(ObjectiveConfig.model_validate(config), counts)(asked, rng(1))

    torch.testing.assert_close(loss(0.4) - loss(0.0), 0.4 * smoothing_gap(asked))


@pytest.mark.parametrize("chunk", [0, 1, 2, 100])
@pytest.mark.parametrize("with_seen", [False, True])
def test_the_divergence_in_chunks_is_the_plain_one_with_its_gradients(chunk: int, with_seen: bool) -> None:
    one, other = make_asked(with_seen=with_seen), replace(make_asked(7), seen=None)
    rows = []
    for row in range(N_TARGETS):
        p, q = log_shares(one, row), log_shares(replace(other, seen=one.seen, target=one.target), row)
        rows.append((p.exp() * (p - q)).sum() + (q.exp() * (q - p)).sum())
    expected = (one.weight * torch.stack(rows)).sum() / one.weight.sum()
    found = full_divergence(one, other, chunk)
    torch.testing.assert_close(found, expected)
    leaves = (one.user_vec, one.item_vec, one.scale, other.user_vec, other.item_vec, other.scale)
    torch.testing.assert_close(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves))


def test_equal_passes_do_not_diverge_and_others_do() -> None:
    asked, weight = make_asked(), torch.ones(1)
    assert full_divergence(asked, asked).item() == pytest.approx(0.0, abs=1e-12)
    assert symmetric_kl(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]), weight) > 0.1


@pytest.mark.parametrize("kind", ["full", "sampled"])
def test_two_passes_are_drawn_together_by_r_drop(
    kind: str, make_learner: Callable[..., Learner], world_batches: Batches
) -> None:
    """After some steps two passes under dropout differ less where their divergence was part of the loss."""
    counts = np.ones(32, np.int64)
    config = ObjectiveConfig.model_validate({"kind": kind, "candidates": "all"})
    found = {}
    for strength in (0.0, 5.0):
        learner = make_learner(dropout=0.3, objective=build_objective(config, counts))
        learner.regularisers = RegularisersConfig(r_drop=strength)
        torch.manual_seed(0)
        optimizer = torch.optim.AdamW(learner.towers.parameters(), lr=1e-2)
        for batch in world_batches(0, 0):
            for loss in learner.losses(batch, np.random.default_rng(0)):
                torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        (batch,) = world_batches(1, 5)[:1]
        with torch.no_grad():
            one, other = learner._ask(batch, learner.text_vec), learner._ask(batch, learner.text_vec)
        found[strength] = float(full_divergence(one, other))
    assert found[5.0] < 0.7 * found[0.0]


def test_the_pull_is_the_squared_distance_of_what_learns() -> None:
    module = nn.ModuleDict({"learns": nn.Linear(2, 1), "frozen": nn.Linear(2, 1)})
    module["frozen"].requires_grad_(False)
    pull = pull_to(module, 0.5)
    assert pull is not None
    with torch.no_grad():
        for name, by in (("learns", 2.0), ("frozen", 9.0)):
            next(module[name].parameters()).add_(by)
    assert pull(module).item() == pytest.approx(0.5 * 2 * 4.0)
    assert pull_to(module, 0.0) is None


def test_the_pull_to_pretrained_weights_holds_them_back(
    make_learner: Callable[..., Learner], world_batches: Batches
) -> None:
    moved = {}
    for strength in (0.0, 1e3):
        learner = make_learner()
        assert learner.encoder is not None
        before = [p.detach().clone() for p in learner.encoder.parameters()]
        learner.start_pull = pull_to(learner.encoder, strength)
        learner.regime = "tuned"
        optimizer = torch.optim.SGD(learner.encoder.parameters(), lr=1e-4, momentum=0.5)
        for batch in world_batches(1, 0)[:4]:
            for _ in range(3):
                torch.autograd.backward(learner(batch, np.random.default_rng(0)))
                for charged in (*learner.pass_on(np.random.default_rng(0)), *learner.penalties()):
                    torch.autograd.backward(charged)
                optimizer.step()
                optimizer.zero_grad()
        moved[strength] = sum(
            float((p.detach() - old).square().sum())
            for p, old in zip(learner.encoder.parameters(), before, strict=True)
        )
    assert 0 < moved[1e3] < 0.5 * moved[0.0]


def test_the_average_follows_its_formula_and_forgets_its_start() -> None:
    average, weights, decay = {"w": torch.zeros(2)}, {"w": torch.tensor([1.0, 2.0]), "other": torch.ones(1)}, 0.9
    expected = torch.zeros(2)
    for step in range(1, 60):
        kept = average_decay(decay, step)
        average_in(average, weights, kept)
        expected = kept * expected + (1 - kept) * weights["w"]
    torch.testing.assert_close(average["w"], expected)
    torch.testing.assert_close(average["w"], weights["w"], atol=1e-2, rtol=0)
