"""The reranker's model: padding and company change nothing, both types of language model are read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lmrec.errors import RecipeError
from lmrec.fields import Ragged
from lmrec.models.cross_encoder import CrossEncoder, load_cross_encoder, pad_pairs, score_pairs

ROWS = [[2, 50, 51, 52, 3, 60, 3], [2, 50, 3, 61, 62, 3], [2, 3, 63, 3], [2, *range(40, 60), 3, 64, 3]]
STARTS = np.array([5, 3, 2, 22])


@pytest.fixture(scope="module", params=["tiny_bert", "tiny_gpt", "tiny_llama"])
def model(request: pytest.FixtureRequest) -> CrossEncoder:
    torch.manual_seed(0)
    return load_cross_encoder(request.getfixturevalue(request.param), 3, pad_id=1).eval()


def test_a_pair_alone_and_among_others_has_the_same_outputs(model: CrossEncoder) -> None:
    together = score_pairs(model, Ragged.from_rows(ROWS), STARTS, batch_tokens=1000)
    alone = [
        score_pairs(model, Ragged.from_rows([row]), STARTS[at : at + 1], batch_tokens=8)[0]
        for at, row in enumerate(ROWS)
    ]
    assert together.shape == (4, 3)
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)
    assert len(np.unique(together[:, 0].round(5))) == 4  # it does read


def test_the_last_token_counts_for_a_gpt_type_and_the_mark_for_a_bert_type(model: CrossEncoder) -> None:
    ids, mask = pad_pairs(Ragged.from_rows(ROWS[:1]), model.pad_id)
    with torch.no_grad():
        usual, moved = (model(ids, mask, torch.tensor([start])) for start in (5, 2))
        other = ids.clone()
        other[0, -1] = 4
        changed = model(other, mask, torch.tensor([5]))
    assert torch.equal(usual, moved) == (not model.marks_item)
    assert not torch.allclose(usual, changed)


def test_outputs_of_nothing_are_nothing(model: CrossEncoder) -> None:
    assert score_pairs(model, Ragged.from_rows([]), np.zeros(0, np.int64), 100).shape[0] == 0


def test_what_cannot_be_loaded_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="language model 'nowhere' could not be loaded as a classifier"):
        load_cross_encoder(tmp_path / "nowhere", 1, 0, "nowhere")
