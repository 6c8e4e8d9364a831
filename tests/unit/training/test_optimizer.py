"""The optimizer: what decays, what trains at which rate, and the course of the rate."""

from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lmrec.models.adaptation import attach_adapter
from lmrec.models.adapters import AdapterConfig
from lmrec.models.encoder import EncoderConfig, choose_trainable, load_encoder
from lmrec.training.optimizer import (
    OptimizerKind,
    Schedule,
    build_optimizer,
    layer_rates,
    learning_rate_factor,
    moments_of,
    parameter_groups,
    restore_moments,
    set_learning_rate,
)

KINDS: tuple[OptimizerKind, ...] = get_args(OptimizerKind)
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


def block() -> nn.Module:
    return nn.ModuleDict({"linear": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "ids": nn.Embedding(5, 4)})


def test_norms_and_biases_do_not_decay_and_matrices_do() -> None:
    module = block()
    decay = {
        id(parameter): group["weight_decay"]
        for group in parameter_groups([(module.parameters(), 0.1)], 0.01)
        for parameter in group["params"]
    }
    found = {name: decay[id(parameter)] for name, parameter in module.named_parameters()}
    assert found == {
        "linear.weight": 0.01,
        "linear.bias": 0.0,
        "norm.weight": 0.0,
        "norm.bias": 0.0,
        "ids.weight": 0.01,
    }


@pytest.mark.parametrize("kind", ["ia3", "adalora"])
def test_vectors_that_peft_keeps_as_matrices_do_not_decay(kind: Literal["ia3", "adalora"], tiny_bert: Path) -> None:
    """(IA)3 begins at one: pulled to zero, it would shrink keys, values and feed-forward units without evidence."""
    config = EncoderConfig(adapter=AdapterConfig(kind=kind))
    encoder = load_encoder(tiny_bert, config)
    attach_adapter(encoder, config)
    groups = parameter_groups([(encoder.parameters(), 1e-2)], 0.1, encoder.vectors)
    decaying = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    factors = {name: p for name, p in encoder.named_parameters() if "ia3_l" in name or "lora_E" in name}
    assert factors
    assert not {name for name, p in factors.items() if id(p) in decaying}
    assert bool(decaying) == (kind == "adalora")


def test_each_part_has_its_own_rate_and_frozen_parameters_are_left_out() -> None:
    first, second = block(), block()
    first.requires_grad_(False)
    first["linear"].weight.requires_grad_(True)  # type: ignore[index]
    groups = parameter_groups([(first.parameters(), 1e-5), (second.parameters(), 1e-3)], 0.01)
    assert [(group["lr"], len(group["params"])) for group in groups] == [(1e-5, 1), (1e-3, 2), (1e-3, 3)]
    first.requires_grad_(False)
    assert len(parameter_groups([(first.parameters(), 1e-5), (second.parameters(), 1e-3)], 0.01)) == 2


def test_each_layer_learns_at_a_share_of_the_rate_above_it(tiny_bert: Path) -> None:
    encoder = load_encoder(tiny_bert, EncoderConfig(name="tiny"))

    def rates() -> dict[str, float]:
        groups = parameter_groups(layer_rates(encoder, 1.0, 0.5), 0.01)
        rate = {id(p): group["lr"] for group in groups for p in group["params"]}
        found = [(name, rate[id(p)]) for name, p in encoder.backbone.named_parameters() if p.requires_grad]
        assert len(found) == len(rate)
        return dict(found)

    def expected(name: str) -> float:
        for place, share in enumerate((0.25, 0.5, 1.0)):
            if name.startswith(f"encoder.layer.{place}."):
                return share
        return 0.125 if name.startswith("embeddings.") else 1.0

    assert rates() == {name: expected(name) for name, _ in encoder.backbone.named_parameters()}
    choose_trainable(encoder, EncoderConfig(train="last_layers", n_layers=2))
    assert set(rates().values()) == {0.5, 1.0}
    ((parameters, rate),) = layer_rates(encoder, 1.0, 1.0)
    assert (len(parameters), rate) == (len(list(encoder.parameters())), 1.0)


def test_the_rate_is_the_base_rate_times_the_factor_however_often_it_is_set() -> None:
    groups = parameter_groups([(block().parameters(), 0.2)], 0.0)
    optimizer = torch.optim.AdamW(groups)
    for factor in (0.5, 0.5, 0.25):
        set_learning_rate(optimizer.param_groups, factor)
    assert {group["lr"] for group in optimizer.param_groups} == {0.05}


@given(
    n_steps=st.integers(1, 300), warmup=st.floats(0, 1), schedule=st.sampled_from(SCHEDULES), beyond=st.integers(0, 20)
)
def test_the_factor_rises_then_never_rises_again_and_stays_in_bounds(
    n_steps: int, warmup: float, schedule: Schedule, beyond: int
) -> None:
    factors = [learning_rate_factor(step, n_steps, warmup, schedule) for step in range(n_steps + beyond)]
    assert all(0.0 <= factor <= 1.0 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[0] > 0  # the first step is not wasted


def test_warm_up_is_a_straight_line_to_the_full_rate() -> None:
    found = [learning_rate_factor(step, 100, 0.05, "cosine") for step in range(6)]
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_the_shapes_at_half_time() -> None:
    found = {schedule: learning_rate_factor(50, 100, 0.0, schedule) for schedule in SCHEDULES}
    assert found == pytest.approx({"cosine": 0.5, "linear": 0.5, "constant": 1.0, "inverse_sqrt": 51**-0.5})
    assert learning_rate_factor(25, 100, 0.0, "cosine") > learning_rate_factor(25, 100, 0.0, "linear")


def test_the_inverse_square_root_falls_from_the_end_of_warm_up_on() -> None:
    found = [learning_rate_factor(step, 100, 0.04, "inverse_sqrt") for step in (0, 3, 15, 63)]
    assert found == pytest.approx([0.25, 1.0, 0.5, 0.25])


def fit_line(
    kind: OptimizerKind, n_steps: int, after: int = 0, momentum: float | None = None
) -> tuple[list[Any], float]:
    """Least squares with a matrix and a bias; after `after` steps the optimizer is made anew from its moments."""
    torch.manual_seed(0)
    model, inputs = nn.Linear(4, 3), torch.randn(40, 4)
    wanted = inputs @ torch.randn(4, 3) + 1.0
    optimizer = build_optimizer(kind, parameter_groups([(model.parameters(), 0.05)], 0.0), momentum)
    for step in range(n_steps):
        if after and step == after:
            kept = moments_of(optimizer)
            optimizer = build_optimizer(kind, parameter_groups([(model.parameters(), 0.05)], 0.0), momentum)
            restore_moments(optimizer, kept)
        loss = (model(inputs) - wanted).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()], float(loss.detach())


@pytest.mark.parametrize("kind", KINDS)
def test_each_learns_and_goes_on_exactly_from_what_it_remembers(kind: OptimizerKind) -> None:
    whole, loss = fit_line(kind, 150)
    resumed, _ = fit_line(kind, 150, after=60)
    assert loss < 0.05
    assert all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))


def test_momentum_is_heard_and_zero_of_it_needs_no_memory() -> None:
    assert fit_line("sgd", 20, momentum=0.0)[1] > fit_line("sgd", 20)[1]
    model = nn.Linear(2, 2)
    optimizer = build_optimizer("sgd", parameter_groups([(model.parameters(), 0.1)], 0.0), 0.0)
    torch.autograd.backward(model(torch.ones(1, 2)).sum())
    optimizer.step()
    assert moments_of(optimizer) == {}
