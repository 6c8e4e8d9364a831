"""States of lower layers are handed on to who asks for the very same, and to nobody else."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmrec.fields import Ragged
from lmrec.models.shared_states import shared_states, sharing_states

TEXTS = Ragged.from_rows([[2, 9, 3], [2, 3]])
WAY = (4, "fp32")


@pytest.fixture
def make() -> Callable[[], Tensor]:
    made = iter(range(100))
    return lambda: torch.full((5, 2), float(next(made)))


def test_the_same_are_made_once_within_a_block_and_each_time_outside(make: Callable[[], Tensor]) -> None:
    lower = nn.Linear(2, 2)
    assert [float(shared_states(lower, TEXTS, WAY, make)[0, 0]) for _ in range(2)] == [0.0, 1.0]
    with sharing_states():
        first = shared_states(lower, TEXTS, WAY, make)
        with sharing_states():
            assert shared_states(lower, TEXTS, WAY, make) is first
        assert shared_states(lower, TEXTS, WAY, make) is first
    assert float(shared_states(lower, TEXTS, WAY, make)[0, 0]) == 3.0


@pytest.mark.parametrize("other", ["weights", "texts", "lengths", "way"])
def test_other_weights_texts_or_precision_make_their_own(other: str, make: Callable[[], Tensor]) -> None:
    lower, texts, way = nn.Linear(2, 2), TEXTS, WAY
    with sharing_states():
        first = shared_states(lower, texts, way, make)
        if other == "weights":
            with torch.no_grad():
                lower.bias[1] = torch.nextafter(lower.bias[1], torch.tensor(9.0))
        texts = {"texts": Ragged.from_rows([[2, 8, 3], [2, 3]]), "lengths": Ragged.from_rows([[2, 9], [3, 2, 3]])}.get(
            other, TEXTS
        )
        if other == "way":
            way = (4, "bf16")
        assert not torch.equal(shared_states(lower, texts, way, make), first)
        again = shared_states(lower, texts, way, make)
        assert np.isclose(float(again[0, 0]), 1.0), "the last ones are held"
