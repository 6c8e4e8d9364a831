"""The rule of promotion: better, clear of chance, and nobody harmed."""

from typing import Any

import numpy as np
import pytest

from lmrec.data.history import Cases
from lmrec.evaluation.evaluator import Evaluation, EvaluationConfig
from lmrec.evaluation.metrics import Ranks
from lmrec.evaluation.promotion import WATCHED, decide
from lmrec.fields import BoolArray, FloatArray, Ragged

N = 300
CONFIG = EvaluationConfig(n_bootstrap=300)
RNG = np.random.default_rng(0)
SERVED = RNG.random(N) * 0.5
NONE = np.zeros(N, np.bool_)


def evaluation(values: FloatArray) -> Evaluation:
    rows = Ragged.from_rows([[0]] * N)
    cases = Cases(np.arange(N, dtype=np.int32) // 2, np.zeros(N), rows, rows)
    return Evaluation(
        "x", Ranks.from_rows([[1]] * N, 5), {"ndcg@10": values}, np.zeros((N, 10), np.int32), {}, cases, 5
    )


def judge(gain: Any, *, tolerance: float = 0.0, **slices: BoolArray) -> Any:
    masks = {name: slices.get(name.replace(" ", "_"), NONE) for name in WATCHED}
    return decide(evaluation(SERVED), evaluation(SERVED + gain), masks, CONFIG, tolerance)


def test_a_clear_gain_is_promoted() -> None:
    decision = judge(0.05)
    assert decision.promote
    assert "no slice is harmed" in decision.reason
    assert [part.name for part in decision.slices] == ["all"]
    assert decision.as_dict()["slices"][0]["difference"] == pytest.approx(0.05)


def test_a_loss_and_a_gain_that_may_be_chance_are_not() -> None:
    assert "not better" in judge(-0.01).reason
    noise = RNG.normal(0, 0.3, N)
    lucky = noise - noise.mean() + 0.002
    unclear = judge(lucky)
    assert not unclear.promote
    assert "not clear" in unclear.reason
    assert judge(lucky, tolerance=0.5).promote
    assert not judge(-0.001 * np.ones(N), tolerance=0.9).promote


def test_nobody_may_be_harmed_but_a_handful_decides_nothing() -> None:
    gain, cold = np.full(N, 0.1), np.arange(N) < 60
    gain[:60] = -0.1
    harmful = judge(gain, cold_items=cold)
    assert not harmful.promote
    assert "harms 'cold items' (30 users) -0.1000" in harmful.reason
    few = judge(gain, cold_items=np.arange(N) < 10)
    assert few.promote
    assert [(part.name, part.decides, part.is_harmed) for part in few.slices] == [
        ("all", True, False),
        ("cold items", False, False),
    ]
