"""AdaLoRA's ranks: fewer and fewer until there are as many as asked for, then fixed; stopped and resumed, the same."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lmrec.errors import RecipeError
from lmrec.models.adaptation import adapter_weights, attach_adapter, put_adapter_weights
from lmrec.models.encoder import EncoderConfig, TextEncoder, load_encoder
from lmrec.models.rank_allocation import RankAllocation

N_STEPS, N_MATRICES = 20, 6
CONFIG = EncoderConfig.model_validate(
    {"name": "tiny", "train": "all", "adapter": {"kind": "adalora", "rank": 2, "initial_rank": 5}}
)


def start(tiny_bert: Path) -> tuple[TextEncoder, RankAllocation]:
    encoder = load_encoder(tiny_bert, CONFIG)
    torch.manual_seed(0)
    attach_adapter(encoder, CONFIG)
    assert encoder.allocation is not None
    encoder.allocation.begin(N_STEPS)
    return encoder, encoder.allocation


def learn(encoder: TextEncoder, optimizer: torch.optim.Optimizer, step: int) -> None:
    """One step towards vectors that are drawn anew each time."""
    ids, mask = torch.tensor([[2, 9, 8, 3], [2, 30, 41, 3]]), torch.ones(2, 4, dtype=torch.bool)
    wanted = torch.randn(2, 32, generator=torch.Generator().manual_seed(step))
    assert encoder.allocation is not None
    loss: Tensor = -(encoder(ids, mask) * wanted).sum() + encoder.allocation.penalty()
    torch.autograd.backward(loss)
    optimizer.step()
    encoder.allocation.after_step()
    optimizer.zero_grad(set_to_none=True)


def optimizer_of(encoder: TextEncoder) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.05)


def test_ranks_are_taken_away_until_as_many_are_left_as_asked_for(tiny_bert: Path) -> None:
    encoder, allocation = start(tiny_bert)
    optimizer, totals = optimizer_of(encoder), []
    for step in range(N_STEPS):
        learn(encoder, optimizer, step)
        totals.append(sum(allocation.ranks))
    assert totals[1] == N_MATRICES * 5  # at full rank first
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == N_MATRICES * 2
    assert len(set(totals)) > 4  # little by little
    fixed = totals.index(N_MATRICES * 2)
    assert 5 < fixed <= 13  # the last third learns with the ranks as they are
    assert int(allocation.kept.sum()) == N_MATRICES * 2


@pytest.mark.parametrize("stop", [1, 6, 13, 17])
def test_stopped_and_resumed_it_ends_with_equal_weights(stop: int, tiny_bert: Path) -> None:
    whole, _ = start(tiny_bert)
    optimizer = optimizer_of(whole)
    for step in range(stop):
        learn(whole, optimizer, step)
    state = {name: value.clone() for name, value in whole.state_dict().items()}
    again, _ = start(tiny_bert)
    again.load_state_dict(state)
    for encoder, own in ((whole, optimizer), (again, optimizer_of(again))):
        for step in range(stop, N_STEPS):
            learn(encoder, own, step)
    for name, value in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_step_without_the_language_model_is_no_step(tiny_bert: Path) -> None:
    _, allocation = start(tiny_bert)
    allocation.after_step()
    assert int(allocation.step) == 0


def test_in_a_later_training_ranks_stay_as_they_are(tiny_bert: Path) -> None:
    encoder, _ = start(tiny_bert)
    optimizer = optimizer_of(encoder)
    for step in range(N_STEPS):
        learn(encoder, optimizer, step)
    later, allocation = start(tiny_bert)
    put_adapter_weights(later, adapter_weights(encoder))
    allocation.begin(1)  # too few to allocate in, and nothing is to be allocated
    before = {name: value == 0 for name, value in adapter_weights(later).items() if "lora_E" in name}
    for step in range(3):
        learn(later, optimizer_of(later), step)
    after = adapter_weights(later)
    assert all(torch.equal(after[name] == 0, gone) for name, gone in before.items())
    assert any(not torch.equal(after[name], value) for name, value in adapter_weights(encoder).items())


def test_what_never_learnt_may_learn_later(tiny_bert: Path) -> None:
    """Where validation kept the first stage, all singular values are zero as they began, and none was taken away."""
    encoder, _ = start(tiny_bert)
    later, allocation = start(tiny_bert)
    put_adapter_weights(later, adapter_weights(encoder))
    assert allocation.settled
    for step in range(3):
        learn(later, optimizer_of(later), step)
    assert all(rank > 0 for rank in allocation.ranks)


@pytest.mark.parametrize("n_steps", [0, 1, 2])
def test_too_few_steps_are_refused_with_ways_out(n_steps: int, tiny_bert: Path) -> None:
    _, allocation = start(tiny_bert)
    with pytest.raises(RecipeError, match=r"needs at least 3 steps.*Raise training.tuned_epochs.*or choose .*'lora'"):
        allocation.begin(n_steps)


def test_three_steps_are_enough(tiny_bert: Path) -> None:
    encoder, allocation = start(tiny_bert)
    allocation.begin(3)
    optimizer = optimizer_of(encoder)
    for step in range(3):
        learn(encoder, optimizer, step)
    assert sum(allocation.ranks) == N_MATRICES * 2


def test_the_penalty_is_zero_where_directions_are_orthonormal(tiny_bert: Path) -> None:
    encoder, allocation = start(tiny_bert)
    assert float(allocation.penalty().detach()) > 0.1
    with torch.no_grad():
        for name, p in encoder.backbone.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                p.copy_(torch.eye(*p.shape))
    assert float(allocation.penalty().detach()) == pytest.approx(0.0, abs=1e-6)
