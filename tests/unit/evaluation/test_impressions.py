"""Lists that were shown: metrics as the literature has them, ties, and decisions from validation alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrec.errors import DataError, InputError
from lmrec.evaluation.casefile import JudgedCases, JudgedLists, fingerprint_lists
from lmrec.evaluation.evaluator import EvaluationConfig
from lmrec.evaluation.impressions import (
    METRICS,
    CatalogScorer,
    ImpressionTable,
    ShownLists,
    auc_of_lists,
    build_impression_table,
    evaluate_lists,
    fit_click_rule,
    mrr_of_clicks,
    rank_shown,
)
from lmrec.evaluation.metrics import ndcg_at
from lmrec.fields import BoolArray, FloatArray, Ragged

LISTS = st.lists(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=2, max_size=8), min_size=1, max_size=6)
N_LISTS = 300


class Known:
    """The click itself, under noise."""

    def __init__(self, name: str, clicked_of: dict[int, float], noise: float) -> None:
        self.name, self.clicked_of, self.noise = name, clicked_of, noise

    def score_shown(self, history: Ragged, candidates: Ragged, time_ts: FloatArray) -> FloatArray:
        rng = np.random.default_rng(len(candidates.values))
        worth = np.array([self.clicked_of[int(item)] for item in candidates.values])
        return worth + self.noise * rng.standard_normal(len(worth))


def make_lists(seed: int) -> tuple[ShownLists, dict[int, float]]:
    """Every candidate is an item of its own; one to three of each list were clicked."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 30, N_LISTS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.arange(offsets[-1]) + seed * 100_000
    clicked = np.zeros(len(items), np.bool_)
    for first, length in zip(offsets[:-1], lengths, strict=True):
        clicked[first + rng.choice(length, rng.integers(1, 4), replace=False)] = True
    users, history = np.arange(N_LISTS, dtype=np.int32) // 2, Ragged.from_rows([[0]] * N_LISTS)
    lists = ShownLists(users, np.arange(N_LISTS, dtype=np.float64), history, Ragged(items, offsets), clicked)
    return lists, {int(item): float(click) for item, click in zip(items, clicked, strict=True)}


def auc_by_hand(scores: FloatArray, clicked: BoolArray) -> float:
    pairs = scores[clicked][:, None] - scores[~clicked][None, :]
    return float(np.mean((pairs > 0) + 0.5 * (pairs == 0)))


@given(LISTS)
def test_auc_and_mrr_are_those_of_the_literature_list_by_list(rows: list[list[tuple[int, bool]]]) -> None:
    rows = [[*row, (0, True), (1, False)] for row in rows]
    scores = np.array([float(score) for row in rows for score, _ in row])
    clicked = np.array([click for row in rows for _, click in row])
    lists = Ragged.from_rows([list(range(len(row))) for row in rows])
    found = auc_of_lists(scores, lists, clicked)
    ranks = rank_shown(scores, lists, clicked)
    mrr = mrr_of_clicks(ranks)
    for at in range(len(rows)):
        part = slice(int(lists.offsets[at]), int(lists.offsets[at + 1]))
        assert found[at] == pytest.approx(auc_by_hand(scores[part], clicked[part]))
        # The worst order among equals.
        order = np.lexsort((clicked[part], -scores[part]))
        places = np.flatnonzero(clicked[part][order]) + 1
        assert ranks.ranks[at].tolist() == places.tolist()
        assert mrr[at] == pytest.approx(np.mean(1 / places))
        gain = sum(1 / np.log2(place + 1) for place in places if place <= 5)
        best = sum(1 / np.log2(place + 1) for place in range(1, min(5, len(places)) + 1))
        assert ndcg_at(ranks, 5)[at] == pytest.approx(gain / best)


def test_a_scorer_that_knows_is_told_from_one_that_guesses() -> None:
    (past, of_past), (asked, of_asked) = make_lists(1), make_lists(2)
    known = of_past | of_asked
    good = evaluate_lists(Known("good", known, 0.5), asked, past)
    guess = evaluate_lists(Known("guess", dict.fromkeys(known, 0.0), 1.0), asked, past)
    perfect = evaluate_lists(Known("perfect", known, 0.0), asked, past)
    assert perfect.metrics["auc"].min() == 1.0
    assert good.metrics["auc"].mean() > 0.9
    assert guess.metrics["auc"].mean() == pytest.approx(0.5, abs=0.05)
    sentence, rate = "asked.", float(asked.clicked.mean())
    config = EvaluationConfig(n_bootstrap=200)
    table = build_impression_table([guess, good, perfect], ["guess"], sentence, rate, config, {"good": "knows a bit"})
    rows = {row.name: row for row in table.rows}
    assert [row.name for row in table.ranked] == ["perfect", "good", "guess"]
    assert rows["perfect"].metrics["f1"].value == pytest.approx(1.0, abs=0.05)
    assert rows["guess"].metrics["f1"].value < 0.4
    assert set(rows["good"].metrics) == set(METRICS)
    assert rows["good"].differences["auc"].is_clear
    assert table.best_baseline == "guess"
    assert ImpressionTable.from_dict(table.as_dict()) == table


def test_f1_and_accuracy_count_over_all_candidates_together() -> None:
    (past, of_past), (asked, of_asked) = make_lists(3), make_lists(4)
    scorer = Known("x", of_past | of_asked, 0.8)
    found = evaluate_lists(scorer, asked, past)
    rule = fit_click_rule(
        scorer.score_shown(past.history, past.candidates, past.time_ts), past.candidates, past.clicked
    )
    foretold = (
        rule.chance(scorer.score_shown(asked.history, asked.candidates, asked.time_ts), asked.candidates)
        >= rule.threshold
    )
    hit, wrong, missed, right = found.decisions.sum(axis=0)
    assert hit == (foretold & asked.clicked).sum()
    assert hit + missed == asked.clicked.sum()
    assert hit + wrong + missed + right == len(asked.clicked)
    table = build_impression_table([found], [], "x", 0.1, EvaluationConfig(n_bootstrap=20), {})
    assert table.rows[0].metrics["f1"].value == pytest.approx(2 * hit / (2 * hit + wrong + missed))
    assert table.rows[0].metrics["accuracy"].value == pytest.approx((hit + right) / len(asked.clicked))


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (1e-3, 5.0)])
def test_decisions_do_not_depend_on_the_scale_of_scores(scale: float, shift: float) -> None:
    past, known = make_lists(5)
    scores = Known("x", known, 0.5).score_shown(past.history, past.candidates, past.time_ts)
    first = fit_click_rule(scores, past.candidates, past.clicked)
    other = fit_click_rule(scale * scores + shift, past.candidates, past.clicked)
    chosen = first.chance(scores, past.candidates) >= first.threshold
    again = other.chance(scale * scores + shift, past.candidates) >= other.threshold
    assert np.mean(chosen == again) > 0.99


def test_a_catalog_scorer_gives_each_candidate_its_own_score(monkeypatch: pytest.MonkeyPatch) -> None:
    class Numbered:
        name = "n"

        def score(self, history: Ragged) -> FloatArray:
            firsts = history.values[history.offsets[:-1]].astype(np.float32)
            return firsts[:, None] * 100 + np.arange(10, dtype=np.float32)

    monkeypatch.setattr("lmrec.evaluation.evaluator.BLOCK_BYTES", 80)  # two lists a block
    history = Ragged.from_rows([[1], [2], [3]])
    candidates = Ragged.from_rows([[4, 5], [0], [9, 9]])
    found = CatalogScorer("n", Numbered(), 10).score_shown(history, candidates, np.zeros(3))
    assert found.tolist() == [104, 105, 200, 309, 309]


def test_scores_that_do_not_fit_are_refused() -> None:
    past, known = make_lists(6)

    class Short(Known):
        def score_shown(self, history: Ragged, candidates: Ragged, time_ts: FloatArray) -> FloatArray:
            return super().score_shown(history, candidates, time_ts)[1:]

    with pytest.raises(InputError, match="one each is needed"):
        evaluate_lists(Short("short", known, 0.0), past, past)
    with pytest.raises(InputError, match="NaN"):
        evaluate_lists(Known("nan", dict.fromkeys(known, np.nan), 0.0), past, past)


def test_judged_lists_come_back_from_their_file(tmp_path: Path) -> None:
    lists, clicked_of = make_lists(0)
    validation, past_of = make_lists(1)
    found = [evaluate_lists(Known(name, clicked_of | past_of, 1.0), lists, validation) for name in ("a", "b of c")]
    kept, file = JudgedLists.of(found, "300 lists.", "data", "questions", "b of c"), tmp_path / "shown.parquet"
    kept.save_parquet(file)
    back = JudgedLists.from_parquet(file)
    assert (back.sentence, back.data, back.questions, back.own) == ("300 lists.", "data", "questions", "b of c")
    np.testing.assert_array_equal(back.user_idx, lists.user_idx)
    assert list(back.values) == ["a", "b of c"]
    for one in found:
        assert set(back.values[one.name]) == set(one.metrics) == set(METRICS) - {"f1", "accuracy"}
        for metric, values in one.metrics.items():
            np.testing.assert_array_equal(back.values[one.name][metric], values)
    with pytest.raises(DataError, match="no file of judged cases"):
        JudgedCases.from_parquet(file)
    file.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="no file of judged lists"):
        JudgedLists.from_parquet(file)


def test_lists_are_known_by_outside_ids_and_by_what_was_clicked() -> None:
    lists, _ = make_lists(0)
    users, items = [f"u{row}" for row in range(N_LISTS)], [f"i{row}" for row in range(len(lists.clicked))]
    first = fingerprint_lists(lists, users, items)
    assert first == fingerprint_lists(replace(lists, candidates=lists.candidates.slice(0, N_LISTS)), users, items)
    others = np.roll(lists.clicked, 1)
    for other in (replace(lists, clicked=others), replace(lists, time_ts=lists.time_ts + 1)):
        assert first != fingerprint_lists(other, users, items)
    assert first != fingerprint_lists(lists, users, [*items[1:], items[0]])
