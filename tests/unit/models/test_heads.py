"""Heads: scores as documented, and a temperature that stays within its bounds."""

import math

import pytest
import torch

from lmrec.models.heads import CosineHead, DotHead, HeadConfig, build_head, score


def test_cosine_is_the_cosine_over_the_temperature() -> None:
    torch.manual_seed(0)
    users, items = torch.randn(3, 5), torch.randn(4, 5)
    expected = torch.nn.functional.cosine_similarity(users.unsqueeze(1), items.unsqueeze(0), dim=-1) / 0.07
    torch.testing.assert_close(score(CosineHead(0.07), users, items), expected)


def test_dot_is_the_product_over_the_root_of_the_width() -> None:
    torch.manual_seed(0)
    users, items = torch.randn(3, 16), torch.randn(4, 16)
    torch.testing.assert_close(score(DotHead(16), users, items), users @ items.T / 4.0)


def test_cosine_does_not_see_lengths_and_dot_does() -> None:
    user, item = torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0]])
    cosine, dot = CosineHead(0.1), DotHead(2)
    torch.testing.assert_close(score(cosine, user, 10 * item), score(cosine, user, item))
    torch.testing.assert_close(score(dot, user, 10 * item), 10 * score(dot, user, item))


@pytest.mark.parametrize(("log_scale", "expected"), [(-3.0, 1.0), (math.log(20.0), 20.0), (9.0, 100.0)])
def test_the_inverse_temperature_stays_between_1_and_100(log_scale: float, expected: float) -> None:
    head = CosineHead(0.07)
    with torch.no_grad():
        head.log_scale.fill_(log_scale)
    assert head.scale.item() == pytest.approx(expected, rel=1e-5)


def test_the_temperature_is_learnt_and_the_dots_scale_is_not() -> None:
    assert [name for name, _ in CosineHead(0.07).named_parameters()] == ["log_scale"]
    assert list(DotHead(8).parameters()) == []
    assert "fixed_scale" in DotHead(8).state_dict()


def test_a_zero_vector_scores_zero_not_nan() -> None:
    assert score(CosineHead(0.07), torch.zeros(1, 4), torch.randn(3, 4)).tolist() == [[0.0, 0.0, 0.0]]


def test_scores_are_fp32_also_of_bf16_vectors() -> None:
    users, items = torch.randn(2, 4).bfloat16(), torch.randn(3, 4).bfloat16()
    for kind in ("cosine", "dot"):
        head = build_head(HeadConfig.model_validate({"kind": kind}), 4)
        assert score(head, users, items).dtype == torch.float32


@pytest.mark.parametrize("kind", ["cosine", "dot"])
def test_a_narrower_head_compares_the_first_numbers_alone(kind: str) -> None:
    users, items = torch.randn(3, 8), torch.randn(5, 8)
    head = build_head(HeadConfig.model_validate({"kind": kind, "width": 4}), 8)
    whole = build_head(HeadConfig.model_validate({"kind": kind}), 8)
    assert head.prepare(items).shape == (5, 4)
    torch.testing.assert_close(
        head.prepare(items), (torch.nn.functional.normalize(items[:, :4], dim=1) if kind == "cosine" else items[:, :4])
    )
    torch.testing.assert_close(head.prepare(items), head.prepare(whole.prepare(items)))
    torch.testing.assert_close(score(head, users, items), head.scale * head.prepare(users) @ head.prepare(items).T)
    assert head.state_dict().keys() == whole.state_dict().keys()
    torch.testing.assert_close(head.scale, whole.scale)
