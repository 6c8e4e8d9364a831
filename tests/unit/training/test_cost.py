"""What a stage cost: only what is measured, and validation is no part of it."""

import time

import numpy as np
import pytest
from torch import nn

from lmrec.training.cost import StageCost, count_trainable


def test_seconds_are_the_mean_of_the_epochs() -> None:
    cost = StageCost(7, 3)
    cost.seconds = [1.0, 2.0]
    assert cost.as_dict() == {
        "tower_parameters": 7, "encoder_parameters": 3, "seconds": 1.5, "epochs": 2, "peak_mb": 0, "growth_mb": 0,
    }  # fmt: skip


def test_no_epoch_has_no_seconds() -> None:
    assert StageCost().as_dict()["seconds"] is None


def test_memory_that_comes_and_goes_within_an_epoch_is_seen() -> None:
    cost = StageCost()
    for n_mb in (120, 40):
        with cost.epoch():
            block = np.ones(n_mb * 2**17)  # of eight bytes each
            time.sleep(0.2)  # long enough to be looked at
            del block
    assert cost.as_dict()["epochs"] == 2
    assert cost.growth_mb == pytest.approx(120, abs=40)
    assert cost.peak_mb > cost.growth_mb


def test_what_does_not_learn_is_not_counted() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    module[0].requires_grad_(False)
    assert count_trainable(module) == 5
    assert count_trainable(None) == 0
