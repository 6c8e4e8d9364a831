"""What pretraining asks: which words are hidden, which pairs are near, and what a right answer is worth."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmrec.data.history import HistoryIndex
from lmrec.training.pretrain import Hiding, contrastive_loss, hide_words, near_pairs, next_words, part_rows

CLS, SEP, MASK = 2, 3, 4


def rows_of(*lengths: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts of these many words from 10 on, between their special tokens."""
    width = max(lengths) + 2
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, n in enumerate(lengths):
        ids[row, : n + 2] = torch.tensor([CLS, *range(10, 10 + n), SEP])
        mask[row, : n + 2] = True
    return ids, mask


@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=6), seed=st.integers(0, 99), share=st.floats(0.05, 0.9)
)
def test_hidden_words_are_words_and_every_text_hides_one(lengths: list[int], seed: int, share: float) -> None:
    ids, mask = rows_of(*lengths)
    hiding = Hiding(MASK, np.array([0, CLS, SEP, MASK]), 100, share)
    answer, seen, where = hide_words(ids, mask, hiding, np.random.default_rng(seed))
    assert answer.tolist() == ids[where].tolist()
    assert all(10 <= word < 30 for word in answer.tolist())
    assert where.any(1).tolist() == [n > 0 for n in lengths]
    assert torch.equal(seen[~where], ids[~where])


def test_most_hidden_words_show_the_mask_some_another_word_and_some_themselves() -> None:
    ids, mask = rows_of(*[40] * 100)
    hiding = Hiding(MASK, np.array([0, CLS, SEP]), 10_000, 0.5)
    answer, seen, where = hide_words(ids, mask, hiding, np.random.default_rng(0))
    shown = seen[where]
    assert len(answer) == pytest.approx(2000, abs=150)
    assert float((shown == MASK).float().mean()) == pytest.approx(0.8, abs=0.03)
    assert float((shown == answer).float().mean()) == pytest.approx(0.1, abs=0.03)


def test_the_next_word_stands_one_place_further_and_padding_is_never_asked_for() -> None:
    ids, mask = rows_of(2, 1)
    answer, chosen = next_words(ids, mask)
    assert answer.tolist() == [10, 11, SEP, 10, SEP]
    assert chosen.tolist() == [[True, True, True, False], [True, True, False, False]]


def test_pairs_are_near_in_one_history_and_stand_once() -> None:
    users, items = [0, 0, 0, 0, 1, 1], [5, 3, 3, 1, 9, 5]
    index = HistoryIndex(np.array([0, 4, 6]), np.array(items, np.int32), np.arange(6.0), np.ones(6, np.float32))
    assert users == index.user_idx.tolist()
    assert near_pairs(index, 1).tolist() == [[1, 3], [3, 5], [5, 9]]
    assert near_pairs(index, 3).tolist() == [[1, 3], [1, 5], [3, 5], [5, 9]]


def test_the_contrastive_loss_is_cross_entropy_without_answers_that_say_the_same() -> None:
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=1)
    apart = torch.tensor([[0, 3], [1, 4], [2, 5]])
    logits = vectors @ vectors.T / 0.5
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(3))
    torch.testing.assert_close(contrastive_loss(vectors, vectors, apart, 0.5), expected)
    twins = torch.tensor([[0, 3], [1, 4], [2, 3]])  # the right answers of the first and the third are one text
    masked = logits.clone()
    masked[0, 2] = masked[2, 0] = float("-inf")
    expected = torch.nn.functional.cross_entropy(masked, torch.arange(3))
    torch.testing.assert_close(contrastive_loss(vectors, vectors, twins, 0.5), expected)


def test_parts_share_nothing_and_something_is_always_measured() -> None:
    learnt, measured = part_rows(50, 0.1, 1)
    assert sorted([*learnt, *measured]) == list(range(50))
    assert len(measured) == 5
    assert len(part_rows(3, 0.01, 0)[1]) == 1
    assert len(part_rows(100_000, 0.4, 0)[1]) == 1000
