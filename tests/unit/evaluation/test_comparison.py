"""Comparison: Holm as published, stars only for what is there, one family over all pairs and metrics."""

from pathlib import Path

import numpy as np
import pytest

from lmrec.data.history import Cases
from lmrec.errors import DataError, InputError
from lmrec.evaluation.casefile import JudgedCases, fingerprint_questions
from lmrec.evaluation.comparison import MEANING, compare_systems, holm, measure_metric
from lmrec.evaluation.comparison_page import render_page, write_comparison
from lmrec.evaluation.evaluator import EvaluationConfig, evaluate
from lmrec.evaluation.metrics import Ranks
from lmrec.evaluation.table import TableForm

from .conftest import N_ITEMS, PlannedScorer

N = 400
USERS = np.arange(N) // 2
FORM = TableForm("time", "next", N, N // 2, 100, True, ("test from 2020",), ("3 cases",))


def ranked(shift: float, seed: int = 0) -> Ranks:
    """One relevant item a case; a larger shift puts it lower."""
    rng = np.random.default_rng(seed)
    values = np.clip(rng.integers(1, 40, N) + shift, 1, 100).astype(np.int64)
    return Ranks.from_rows([[int(value)] for value in values], n_candidates=100)


def test_holm_is_bonferroni_for_the_smallest_and_never_falls() -> None:
    p = [0.01, 0.5, 0.02, 0.9]
    assert holm(p) == pytest.approx([0.04, 1.0, 0.06, 1.0])
    adjusted = np.array(holm(list(np.random.default_rng(0).random(20) ** 3)))
    raw = np.random.default_rng(0).random(20) ** 3
    assert (adjusted >= raw).all()
    assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()


def test_a_real_difference_gets_stars_and_none_gets_none() -> None:
    systems = {"good": ranked(0), "bad": ranked(6), "as bad": ranked(6)}
    found = compare_systems(systems, USERS, FORM, ["ndcg@10", "mrr@20"], n_bootstrap=4000)
    assert [(pair.metric, pair.first, pair.second) for pair in found.pairs[:3]] == [
        ("ndcg@10", "good", "bad"),
        ("ndcg@10", "good", "as bad"),
        ("ndcg@10", "bad", "as bad"),
    ]
    assert len(found.pairs) == 6  # both metrics are one family
    assert [bool(pair.marks) for pair in found.pairs[:3]] == [True, True, False]
    assert found.pairs[0].adjusted_p > found.pairs[0].difference.p
    assert found.pairs[2].difference.mean == 0.0
    assert found.ranked[0] == "good"


def test_among_many_systems_that_differ_by_luck_alone_holm_finds_none() -> None:
    pairs = [
        pair
        for world in range(5)
        for pair in compare_systems(
            {f"system {seed}": ranked(0, 100 * world + seed) for seed in range(12)},
            USERS,
            FORM,
            ["ndcg@10"],
            n_bootstrap=4000,
        ).pairs
    ]
    assert sum(pair.difference.p < 0.05 for pair in pairs) > 5  # of 330
    assert not any(pair.marks for pair in pairs)


def test_one_system_can_stand_against_each_other() -> None:
    systems = {"a": ranked(0), "b": ranked(3), "c": ranked(6)}
    found = compare_systems(systems, USERS, FORM, ["hit@5"], against="c", n_bootstrap=200)
    assert {(pair.first, pair.second) for pair in found.pairs} == {("c", "a"), ("c", "b")}
    assert all(pair.difference.mean < 0 for pair in found.pairs)


def test_too_few_redraws_are_noticed() -> None:
    systems = {f"system {seed}": ranked(0, seed) for seed in range(8)}
    all_pairs = compare_systems(systems, USERS, FORM, ["ndcg@10"], n_bootstrap=500)
    assert all_pairs.out_of_reach == (("*", 1332), ("**", 7381), ("***", 89_493))
    assert (
        "500 redraws are too few for any star among 28 comparisons; all can come from --draws 89493" in all_pairs.legend
    )
    some = compare_systems(systems, USERS, FORM, ["ndcg@10"], n_bootstrap=7381)
    assert some.out_of_reach == (("***", 89_493),)


def test_three_stars_come_from_as_many_redraws_as_are_named() -> None:
    systems = {"best": ranked(9), **{f"system {seed}": ranked(0, seed) for seed in range(6)}}
    few, enough = (
        compare_systems(systems, USERS, FORM, ["ndcg@10"], against="best", n_bootstrap=n) for n in (10_000, 16_757)
    )
    assert few.out_of_reach == (("***", 16_757),)
    assert {pair.marks for pair in few.pairs} == {"**"}
    assert "10,000 redraws are too few for *** among 6 comparisons; all can come from --draws 16757 on" in few.legend
    assert few.legend in str(few.rich_pairs().caption)
    assert "too few for *** among 6" in render_page(few)
    assert not enough.out_of_reach
    assert {pair.marks for pair in enough.pairs} == {"***"}
    assert enough.legend == MEANING


def test_few_users_have_no_stars_and_it_is_said() -> None:
    systems = {"a": ranked(9), "b": ranked(0)}
    found = compare_systems(systems, np.arange(N) % 4, FORM, ["ndcg@10"])
    assert [pair.marks for pair in found.pairs] == [""]
    assert "4 users are too few for any star among 1 comparisons" in found.legend


def test_wrong_names_are_refused() -> None:
    systems = {"a": ranked(0), "b": ranked(1)}
    with pytest.raises(InputError, match="no metric 'ndgc@10'"):
        compare_systems(systems, USERS, FORM, ["ndgc@10"])
    with pytest.raises(InputError, match="no row 'c'"):
        compare_systems(systems, USERS, FORM, ["ndcg@10"], against="c")
    with pytest.raises(InputError, match="only 'a'"):
        compare_systems({"a": ranked(0)}, USERS, FORM, ["ndcg@10"])


def test_the_picture_is_a_png_or_a_page_that_escapes(tmp_path: Path) -> None:
    found = compare_systems({"<b>": ranked(0), "b": ranked(6)}, USERS, FORM, ["ndcg@10"], n_bootstrap=200)
    page = render_page(found)
    assert "<svg" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    picture = write_comparison(tmp_path / "differences.png", found)
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"\.jpg"):
        write_comparison(tmp_path / "differences.jpg", found)


def test_cases_come_back_from_their_file_and_give_any_metric(
    cases: Cases, config: EvaluationConfig, tmp_path_factory: pytest.TempPathFactory
) -> None:
    found = {name: evaluate(PlannedScorer(name, bonus), cases, N_ITEMS, config) for name, bonus in [("a", 2), ("b", 0)]}
    kept = JudgedCases.of(found, FORM, "ndcg@10", "data", "questions", "a")
    file = tmp_path_factory.mktemp("cases") / "cases.parquet"
    kept.save_parquet(file)
    back = JudgedCases.from_parquet(file)
    assert (back.form, back.metric, back.data, back.questions, back.own) == (FORM, "ndcg@10", "data", "questions", "a")
    np.testing.assert_array_equal(back.user_idx, cases.user_idx)
    for name in ("a", "b"):
        for metric in ("ndcg@10", "recall@5", "auc"):
            np.testing.assert_array_equal(measure_metric(back.ranks[name], metric), found[name].metrics[metric])
    file.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="lmrec evaluate"):
        JudgedCases.from_parquet(file)


def test_questions_are_known_by_outside_ids(cases: Cases) -> None:
    users, items = [f"u{row}" for row in range(12)], [f"i{row}" for row in range(N_ITEMS)]
    first = fingerprint_questions(cases, users, items)
    assert first == fingerprint_questions(cases.take(np.arange(len(cases))), users, items)
    assert first != fingerprint_questions(cases.take(np.arange(len(cases))[::-1]), users, items)
    assert first != fingerprint_questions(cases, users, [*items[1:], items[0]])
