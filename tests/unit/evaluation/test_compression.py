"""Which of the points is taken, and the picture."""

from dataclasses import replace
from pathlib import Path

import pytest

from lmrec.evaluation.compression import CompressionCurve, CompressionPoint, draw_compression

WHOLE = CompressionPoint(6, 1.0, 128, 0.5, 90.0, 10.0, 100.0, 8.0, 0.5, 0.0)


def point(metric: float, encoder_mb: float, vectors_mb: float = 10.0) -> CompressionPoint:
    return replace(WHOLE, layers=3, metric=metric, encoder_mb=encoder_mb, vectors_mb=vectors_mb)


def test_the_smallest_that_is_good_enough_is_taken() -> None:
    worst, small, better, large = point(0.1, 10.0), point(0.49, 50.0), point(0.492, 50.0), point(0.6, 80.0)
    points = (large, small, worst, better, point(0.9, 90.0))
    assert CompressionCurve("ndcg@10", WHOLE, points, 0.02).chosen is better  # of two of one size the better
    assert CompressionCurve("ndcg@10", WHOLE, points, 0.0).chosen is large
    assert CompressionCurve("ndcg@10", WHOLE, points, 0.9).chosen is worst
    assert CompressionCurve("ndcg@10", WHOLE, (worst, point(0.9, 90.0)), 0.02).chosen is None  # the last is no smaller


def test_vectors_count_beside_the_encoder() -> None:
    narrow = point(0.5, 90.0, 5.0)
    assert CompressionCurve("ndcg@10", WHOLE, (narrow,), 0.0).chosen is narrow


def test_what_is_lost_is_a_share_of_the_runs_own() -> None:
    curve = CompressionCurve("ndcg@10", WHOLE, (), 0.02)
    assert curve.lost(point(0.4, 1.0)) == pytest.approx(0.2)
    assert curve.lost(point(0.6, 1.0)) == pytest.approx(-0.2)
    assert curve.least == pytest.approx(0.49)
    assert CompressionCurve("ndcg@10", replace(WHOLE, metric=0.0), (), 0.02).lost(WHOLE) == 0.0


def test_names_and_the_document() -> None:
    one = replace(WHOLE, layers=1, kept=0.25, width=64)
    assert one.name == "1 layer, 25 %, 64 wide"
    assert WHOLE.name == "6 layers, 100 %, 128 wide"
    found = CompressionCurve("ndcg@10", WHOLE, (one,), 0.02).as_dict()
    assert found["points"][0]["width"] == 64
    assert found["chosen"] is None


def test_the_picture_is_written(tmp_path: Path) -> None:
    points = tuple(replace(point(0.4 + width / 1000, 50.0), width=width) for width in (128, 64, 32, 16, 8, 4))
    draw_compression(tmp_path / "picture.png", CompressionCurve("ndcg@10", WHOLE, points, 0.5))
    assert (tmp_path / "picture.png").stat().st_size > 5_000
