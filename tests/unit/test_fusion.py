"""The fused scorer is the sum of its parts, its weights are found on validation, and all of it survives being saved."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lmrec.artifacts.checkpoint import ModelConfigs, read_checkpoint, save_checkpoint
from lmrec.data.history import Cases
from lmrec.data.interactions import Interactions
from lmrec.evaluation.evaluator import EvaluationConfig, evaluate
from lmrec.fields import Ragged
from lmrec.models.encoder import EncoderConfig, load_encoder
from lmrec.models.fusion import NEIGHBOUR_KINDS, Fusion, FusionConfig, FusionWeights
from lmrec.models.heads import HeadConfig
from lmrec.models.transitions import ItemTransitionsConfig
from lmrec.models.two_tower import ItemTowerConfig, TwoTower
from lmrec.models.user_model import UserModelConfig
from lmrec.retrieval.ensemble import RankedEnsemble, answering
from lmrec.retrieval.scorer import Scorer, build_bank
from lmrec.text.template import Template
from lmrec.text.tokens import load_tokenizer
from lmrec.workflows.counting import Counted, fit_fusion
from lmrec.workflows.fuse import search_weights
from lmrec.workflows.warm import carry_fusion

DAY = 86_400.0
N_ITEMS = 6


def events(rows: list[list[int]], days: list[list[float]] | None = None) -> Interactions:
    users = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    items = np.concatenate([np.asarray(row) for row in rows])
    times = np.arange(len(items)) if days is None else np.concatenate([np.asarray(day) for day in days])
    return Interactions.from_arrays([f"u{row}" for row in range(len(rows))], users, items, times * DAY)


@pytest.fixture
def text_vec() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(N_ITEMS, 8)).astype(np.float32))


@pytest.fixture
def plain(text_vec: torch.Tensor) -> Scorer:
    torch.manual_seed(0)
    item, user = ItemTowerConfig(width=4, whiten=4), UserModelConfig(heads=2)
    towers = TwoTower(text_vec.numpy(), np.ones(N_ITEMS, bool), item, user, HeadConfig(temperature=1.0)).eval()
    return Scorer("towers", towers, build_bank(towers, text_vec), max_history=10)


def test_a_fused_score_is_the_sum_of_its_parts(plain: Scorer, text_vec: torch.Tensor) -> None:
    weights = FusionWeights(transitions=3.0, content=2.0, n_last=2, decay=0.5, popularity=0.7, half_life_days=2.0)
    fusion = fit_fusion(weights, events([[0, 1, 2], [3, 4, 0]]), N_ITEMS)
    fused = plain.fused(fusion)
    history = Ragged.from_rows([[0, 1], [], [4, 2, 0]])
    unit = text_vec.numpy() / np.linalg.norm(text_vec.numpy(), axis=1, keepdims=True)
    newest = np.vstack([unit[1] + 0.5 * unit[0], np.zeros(8), unit[0] + 0.5 * unit[2]])
    length = np.linalg.norm(newest, axis=1, keepdims=True)
    content = np.divide(newest, length, out=np.zeros_like(newest), where=length > 0) @ unit.T
    # The log's days are 0 to 5, so item 0, seen on days 0 and 5, counts 2^(-5/2) + 1; item 5 was never seen.
    recent = np.log1p([2**-2.5 + 1.0, 2**-2.0, 2**-1.5, 2**-1.0, 2**-0.5, 0.0])
    transitions = fusion.neighbours["transitions"].sparse_scores(history, N_ITEMS).toarray()
    expected = plain.score(history) + 3.0 * transitions + 2.0 * content + 0.7 * recent
    np.testing.assert_allclose(fused.score(history), expected, rtol=1e-4, atol=1e-4)
    query = fused.query(history)
    np.testing.assert_allclose(fused.scores_of(history, query, 2), expected[:, 2], rtol=1e-4, atol=1e-4)


def test_who_remembers_answers_alike_and_reads_a_history_once(plain: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    log, histories = (
        events([[0, 1, 2], [3, 4, 0]]),
        [Ragged.from_rows(rows) for rows in ([[0, 1], [], [4]], [[0, 1], [2], [4]])],
    )
    some = [fit_fusion(FusionWeights(transitions=weight, content=2.0), log, N_ITEMS) for weight in (1.0, 3.0)]
    expected = [plain.fused(fusion).score(history) for fusion in some for history in histories]
    read: list[int] = []
    compute = Scorer._users

    def counted(self: Scorer, block: Ragged) -> torch.Tensor:
        read.append(len(block))
        return compute(self, block)

    monkeypatch.setattr(Scorer, "_users", counted)
    remembering = plain.remembering()
    found = [remembering.fused(fusion).score(history) for fusion in some for history in histories]
    np.testing.assert_array_equal(found, expected)
    assert read == [3, 3], "each block of histories once, however it is fused"
    other = remembering.over(build_bank(plain.towers, torch.flip(plain.bank.text_vec, [0])))
    assert not np.allclose(other.score(histories[0]), remembering.score(histories[0])), "another bank, other users"


def test_an_item_without_events_borrows_of_those_it_reads_like(plain: Scorer, text_vec: torch.Tensor) -> None:
    log, history = events([[0, 1, 2], [3, 1, 0], [3, 0]]), Ragged.from_rows([[3], [0, 3], []])  # nobody had 4 or 5
    like = text_vec.clone()
    like[5] = like[1]
    scorer = plain.over(build_bank(plain.towers, like))
    weights = FusionWeights(transitions=3.0, popularity=0.5)
    without, whole = (
        scorer.fused(fit_fusion(weights.model_copy(update=change), log, N_ITEMS))
        for change in ({}, {"borrowed": 1.5, "newcomer": 2.0})
    )
    assert whole.fusion.loans is not None
    loans = whole.fusion.loans.toarray()
    assert not loans[:4].any()
    np.testing.assert_allclose(loans[4:].sum(axis=1), 1.0, rtol=1e-5)
    assert loans[5].argmax() == 1
    transitions = whole.fusion.neighbours["transitions"].sparse_scores(history, N_ITEMS).toarray()
    expected_popularity = np.minimum(2.0 * loans[4:] @ np.log1p([3.0, 2.0, 1.0, 2.0, 0.0, 0.0]), np.log1p(3.0))
    gained = whole.score(history) - without.score(history)
    np.testing.assert_allclose(gained[:, :4], 0.0, atol=1e-5)
    expected = 3.0 * 1.5 * transitions @ loans[4:].T + 0.5 * expected_popularity
    np.testing.assert_allclose(gained[:, 4:], expected, rtol=1e-4, atol=1e-4)


def test_items_of_the_history_are_lowered_once_where_they_may_be_shown(plain: Scorer) -> None:
    log, history = events([[0, 1, 2], [3, 4, 0]]), Ragged.from_rows([[0, 1, 0], [], [5]])
    for weights in (FusionWeights(repeated=-4.0), FusionWeights(repeated=-4.0, transitions=2.0)):
        whole = plain.fused(fit_fusion(weights, log, N_ITEMS))
        without = plain.fused(fit_fusion(weights.model_copy(update={"repeated": 0.0}), log, N_ITEMS))
        expected = np.zeros((3, N_ITEMS))
        expected[0, [0, 1]] = expected[2, 5] = -4.0
        np.testing.assert_allclose(whole.score(history) - without.score(history), expected, atol=1e-5)
        assert whole.lowers
        assert not without.lowers


def test_whether_the_history_comes_again_is_found_where_it_may(plain: Scorer) -> None:
    rows = [[user % 3, 3 + user % 3] for user in range(60)]
    log, history, users = events(rows), Ragged.from_rows(rows), np.arange(60, dtype=np.int32)
    config = FusionConfig(transitions=False, popularity=False, content=False)
    judging = EvaluationConfig(ks=(10,), exclude_seen=False)
    again, other = Ragged.from_rows([row[:1] for row in rows]), Ragged.from_rows([[(row[0] + 1) % 3] for row in rows])
    lowered = []
    for relevant in (again, other):
        cases = Cases(users, np.full(60, 1e9), history, relevant)
        lowered.append(search_weights(plain, log, cases, config, judging, 0, False)[0].repeated)
    assert lowered[0] > 0
    assert lowered[1] < 0
    hidden = judging.model_copy(update={"exclude_seen": True})
    assert search_weights(plain, log, cases, config, hidden, 0, False)[0].repeated == 0


def test_a_few_repeats_do_not_forbid_that_the_history_loses(plain: Scorer) -> None:
    """To and fro as below; one question in twenty is of something had before."""
    rows = [[2 * (user % 2), 2 * (user % 2) + 1] * 3 + [4 + user % 2] for user in range(60)]
    log, history = events(rows), Ragged.from_rows([row[:2] for row in rows])
    relevant = Ragged.from_rows([row[:1] if user < 3 else row[-1:] for user, row in enumerate(rows)])
    cases = Cases(np.arange(60, dtype=np.int32), np.full(60, 1e9), history, relevant)
    judging = EvaluationConfig(ks=(1,), metric="ndcg@1", exclude_seen=False)
    found = {}
    for method in ("weighted", "learnt"):
        config = FusionConfig(new_items=False, popularity=False, content=False, method=method)
        weights, metric = search_weights(plain, log, cases, config, judging, 0, False)
        assert weights.repeated < 0
        found[method] = metric
    assert (found["learnt"] or 0.0) >= 0.9 * (found["weighted"] or 0.0) > 0.5


def test_what_the_history_loses_is_found_beside_all_that_is_fused(plain: Scorer) -> None:
    """Items follow each other to and fro, so transitions put what is in the history on top; nothing of it is asked for."""
    rows = [[2 * (user % 2), 2 * (user % 2) + 1] * 3 + [4 + user % 2] for user in range(60)]
    log, history = events(rows), Ragged.from_rows([row[:2] for row in rows])
    cases = Cases(
        np.arange(60, dtype=np.int32), np.full(60, 1e9), history, Ragged.from_rows([row[-1:] for row in rows])
    )
    config = FusionConfig(new_items=False, popularity=False, content=False)
    judging = EvaluationConfig(ks=(1,), metric="ndcg@1", exclude_seen=False)
    weights, found = search_weights(plain, log, cases, config, judging, 0, False)
    assert weights.transitions
    never = plain.fused(fit_fusion(weights.model_copy(update={"repeated": -1e4}), log, N_ITEMS))
    assert found == pytest.approx(evaluate(answering(never), cases, N_ITEMS, judging).aggregate["ndcg@1"])


def test_what_new_items_borrow_is_found_where_known_items_are_asked_for_too(plain: Scorer) -> None:
    """Items of two kinds of words, each kind followed by its own; towers of random numbers know nothing of it."""
    rng, n = np.random.default_rng(0), 60
    kind = np.arange(n) % 2
    words = torch.from_numpy((rng.normal(size=(n, 8)) * 0.1 + np.where(kind, 1.0, -1.0)[:, None]).astype(np.float32))
    towers = TwoTower(
        words.numpy(), np.ones(n, bool), ItemTowerConfig(width=4, whiten=4), UserModelConfig(heads=2), HeadConfig()
    )
    scorer = Scorer("towers", towers.eval(), build_bank(towers, words), max_history=10)
    rows = [list(rng.permutation(np.flatnonzero(kind == user % 2))[:6]) for user in range(200)]
    log = events([row[:5] for row in rows])
    n_users = len(rows)
    cases = Cases(
        np.arange(n_users, dtype=np.int32),
        np.full(n_users, 1e9),
        Ragged.from_rows([row[:5] for row in rows]),
        Ragged.from_rows([row[5:] for row in rows]),
    )
    config, judging = FusionConfig(popularity=False, content=False), EvaluationConfig(ks=(10,))
    weights, _ = search_weights(scorer, log, cases, config, judging, 0, False)
    assert weights.transitions > 0
    assert weights.borrowed > 0
    off, _ = search_weights(scorer, log, cases, config.model_copy(update={"new_items": False}), judging, 0, False)
    assert off.borrowed == 0


@pytest.mark.parametrize(("n_between", "window"), [(10, 20), (0, 5)])
def test_how_far_apart_events_belong_together_is_found_on_validation(n_between: int, window: int) -> None:
    rng, n_kinds, n = np.random.default_rng(0), 20, 100
    towers = TwoTower(
        np.eye(n, 8, dtype=np.float32),
        np.ones(n, bool),
        ItemTowerConfig(width=4),
        UserModelConfig(heads=2),
        HeadConfig(),
    )
    scorer = Scorer("towers", towers.eval(), build_bank(towers, torch.eye(n, 8)), max_history=10)
    # What opens a history decides what ends it: item k is followed by item n_kinds + k, with others between them.
    kinds = np.arange(400) % n_kinds
    rows = [[k, *rng.choice(np.arange(2 * n_kinds, n), n_between, replace=False), n_kinds + k] for k in kinds]
    log = events(rows[:300])
    asked = [[int(item) for item in row] for row in rows[300:]]
    cases = Cases(
        np.arange(len(asked), dtype=np.int32),
        np.full(len(asked), 1e9),
        Ragged.from_rows([row[:-1] for row in asked]),
        Ragged.from_rows([row[-1:] for row in asked]),
    )
    config = FusionConfig(popularity=False, content=False, new_items=False)
    weights, _ = search_weights(scorer, log, cases, config, EvaluationConfig(ks=(10,)), 0, False)
    assert weights.pairs.window == window


def test_new_items_have_no_popularity_and_known_ones_keep_theirs(plain: Scorer, text_vec: torch.Tensor) -> None:
    fused = plain.fused(Fusion(FusionWeights(popularity=1.0), popularity=np.arange(1.0, 7.0)))
    asked = float(fused.query(Ragged.from_rows([[]]))[0, -1])  # what a popularity counts in the product

    def popularity_in(matrix: torch.Tensor) -> list[float]:
        assert matrix[:, -1].abs().max() <= 0.5  # an index codes all numbers of a row with one step
        return (asked * matrix[:, -1]).round(decimals=5).tolist()

    assert popularity_in(fused.bank_rows(text_vec[:2]).matrix) == [0.0, 0.0]
    assert popularity_in(fused.bank_rows(text_vec[:3], origin=np.array([5, -1, 0])).matrix) == [6.0, 0.0, 1.0]
    assert popularity_in(fused.bank.matrix) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_popularity_follows_its_items_into_another_catalog() -> None:
    served = fit_fusion(FusionWeights(popularity=1.0, transitions=1.0), events([[0, 1], [1, 2]]), 3)
    carried = carry_fusion(served, np.array([2, -1, 1]))  # what were rows 2 and 1, and a new item between them
    assert carried.popularity is not None
    np.testing.assert_allclose(carried.popularity, [np.log1p(1.0), np.nan, np.log1p(2.0)])


def test_a_new_item_is_as_popular_as_its_words_let_expect_in_the_catalog_and_later(plain: Scorer) -> None:
    words = torch.eye(N_ITEMS, 8) * 3.0
    words[5] = words[4] = words[1] + words[2]
    scorer = plain.over(build_bank(plain.towers, words))
    known = np.array([4.0, 1.0, 3.0, 0.5, np.nan, 9.0])
    for factor, expected in ((0.0, 0.0), (0.5, 0.5 * 9.0), (4.0, 9.0)):  # as its like; never above the most popular
        fused = scorer.fused(Fusion(FusionWeights(popularity=2.0, newcomer=factor), popularity=known))
        later = fused.bank_rows(words[4:5])
        unit = float(fused.query(Ragged.from_rows([[]]))[0, -1]) / 2.0
        of_rows = (fused.bank.matrix[:, -1] * unit).tolist()
        np.testing.assert_allclose(of_rows[:4] + of_rows[5:], [4.0, 1.0, 3.0, 0.5, 9.0], rtol=1e-5)
        # its twin lends nearly all: cosine^8 of the two it is made of is a sixteenth each
        lent = 0.0 if not factor else min(factor * (9.0 + (1.0 + 3.0) / 16) / (1 + 2 / 16), 9.0)
        np.testing.assert_allclose([of_rows[4], float(later.matrix[0, -1]) * unit], lent, rtol=1e-4)
        assert factor == 0 or lent == pytest.approx(expected, rel=0.1)


def test_what_has_gone_out_of_fashion_lends_and_what_is_measured_is_what_is_served(
    plain: Scorer, text_vec: torch.Tensor
) -> None:
    """Of weights that differ in the half-life alone, lenders too are those of a fresh count. Of item 0 only words are left."""
    log = events([[0], [1], [2]] * 5, [[0.0], [50.0], [100.0]] * 5)
    like = text_vec.clone()
    like[5] = like[0]
    scorer, counted = plain.over(build_bank(plain.towers, like)), Counted.of(log, N_ITEMS)
    expected = {}
    for days in (None, 1 / 48):
        weights = FusionWeights(popularity=1.0, half_life_days=days, newcomer=1.0)
        measured = scorer.fused(counted.fusion(weights))
        counted.remember(measured.fusion)
        served = scorer.fused(fit_fusion(weights, log, N_ITEMS))
        np.testing.assert_array_equal(measured.fusion.standing, served.fusion.standing)
        assert served.fusion.loans is not None
        assert np.flatnonzero(np.diff(served.fusion.loans.indptr)).tolist() == [3, 4, 5]
        expected[days] = served.fusion.standing[5]
    assert expected[None] == pytest.approx(np.log1p(5.0), rel=1e-5)
    assert expected[1 / 48] < 0.5 * expected[None]


def test_an_item_that_came_later_is_as_popular_to_a_ranking_as_to_the_whole(plain: Scorer) -> None:
    """Item 3 is all the fashion and follows nothing, so it lends nothing, whoever asks."""
    log = events([[0, 1], [1, 0], [0, 1], *[[3]] * 20])
    words = torch.eye(N_ITEMS, 8)
    words = torch.cat([words, words[3:4] + 0.3 * words[:1]])
    scorer = plain.over(build_bank(plain.towers, words, torch.zeros(len(words), 4)))
    weights = FusionWeights(transitions=1.0, popularity=1.0, newcomer=1.0, ranks=True)
    whole = scorer.fused(fit_fusion(weights, log, N_ITEMS))
    ranked = answering(whole)
    assert isinstance(ranked, RankedEnsemble)
    np.testing.assert_allclose(ranked.members[-1].bank.matrix[:, -1], whole.bank.matrix[:, -1])
    assert 0 < whole.bank.matrix[-1, -1] < whole.bank.matrix[3, -1]


def test_where_no_item_follows_any_the_popular_lend_all_the_same(plain: Scorer) -> None:
    words = torch.eye(N_ITEMS, 8)
    words[4] = words[0]
    scorer = plain.over(build_bank(plain.towers, words))
    weights = FusionWeights(transitions=1.0, popularity=1.0, newcomer=1.0)
    log = events([[0], [1], [0]])
    standing = scorer.fused(fit_fusion(weights, log, N_ITEMS)).fusion.standing
    np.testing.assert_allclose(standing, np.log1p([2.0, 1.0, 0.0, 0.0, 2.0, 0.0]), rtol=1e-6)


def test_where_every_item_is_new_none_is_popular(plain: Scorer, text_vec: torch.Tensor) -> None:
    unknown = Fusion(FusionWeights(popularity=1.0, newcomer=1.0), popularity=np.full(N_ITEMS, np.nan))
    fused, history = plain.fused(unknown), Ragged.from_rows([[0], []])
    np.testing.assert_allclose(fused.score(history), plain.score(history), rtol=1e-5)
    assert fused.bank_rows(text_vec[:1]).matrix[0, -1] == 0


def test_what_is_in_fashion_is_found_on_validation(plain: Scorer) -> None:
    # Item 0 was bought by everybody long ago, item 5 by a few of late; newcomers now take item 5. Counted over all time,
    # item 0 leads by more than any weight can turn.
    old, new = [[0]] * 3000, [[5]] * 6
    log = events(old + new, [[0.0]] * 3000 + [[100.0 + day] for day in range(6)])
    n = 20
    nothing = Ragged(np.zeros(0, np.int32), np.zeros(n + 1, np.int64))
    cases = Cases(np.zeros(n, np.int32), np.full(n, 106.0 * DAY), nothing, Ragged.from_rows([[5]] * n))
    config = FusionConfig(transitions=False, content=False)
    weights, metric = search_weights(plain, log, cases, config, EvaluationConfig(ks=(1, 10)), 0, False)
    assert weights.popularity > 0
    assert weights.half_life_days is not None
    assert metric == 1.0
    unasked = search_weights(
        plain, log, cases, config.model_copy(update={"popularity": False}), EvaluationConfig(), 0, False
    )
    assert unasked == (FusionWeights(), None)


def test_a_popularity_of_hours_that_is_all_there_is_to_know_is_found(plain: Scorer) -> None:
    """Words, transitions and towers say nothing. Item 5 was chosen twice of late, 4 often this morning, 0 always."""
    days = [[float(day)] for day in range(100)] + [[99.7]] * 40 + [[99.99]] * 2
    log = events([[0]] * 100 + [[4]] * 40 + [[5]] * 2, days)
    n = 20
    known = Ragged.from_rows([[row % 5] for row in range(n)])
    cases = Cases(np.zeros(n, np.int32), np.full(n, 100.0 * DAY), known, Ragged.from_rows([[5]] * n))
    weights, metric = search_weights(plain, log, cases, FusionConfig(), EvaluationConfig(ks=(1, 10)), 0, False)
    assert weights.half_life_days is not None
    assert weights.half_life_days < 0.1
    assert metric == 1.0


@pytest.mark.parametrize("is_new_popular", [False, True])
def test_how_popular_a_new_item_counts_is_chosen_without_what_it_borrows(plain: Scorer, is_new_popular: bool) -> None:
    """No neighbours are asked for; validation asks for what is popular, or for the two items without events."""
    log = events([[0, 1]] * 30 + [[2, 3]])
    n = 20
    asked = [[4], [5]] * (n // 2) if is_new_popular else [[2], [1]] * (n // 2)
    history = Ragged.from_rows([[0]] * n)
    cases = Cases(np.zeros(n, np.int32), np.full(n, 1e9), history, Ragged.from_rows(asked))
    config = FusionConfig(transitions=False, content=False)
    weights, _ = search_weights(plain, log, cases, config, EvaluationConfig(ks=(1, 10)), 0, False)
    assert weights.borrowed == 0
    assert weights.popularity > 0
    assert (weights.newcomer > 0) == is_new_popular
    off = config.model_copy(update={"new_items": False})
    assert search_weights(plain, log, cases, off, EvaluationConfig(ks=(1, 10)), 0, False)[0].newcomer == 0


def test_a_saved_fusion_comes_back(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = load_encoder(tiny_bert, EncoderConfig(name="tiny", max_tokens=20))
    configs = ModelConfigs(
        EncoderConfig(name="tiny", max_tokens=20),
        ItemTowerConfig(width=8, whiten=6),
        UserModelConfig(heads=2),
        HeadConfig(),
    )
    words = np.random.default_rng(0).normal(size=(N_ITEMS, encoder.width)).astype(np.float32)
    towers = TwoTower(words, np.ones(N_ITEMS, bool), configs.item, configs.user_model, configs.head)
    pairs = ItemTransitionsConfig(window=3, n_last=4)
    weights = FusionWeights(
        transitions=2.0,
        pairs=pairs,
        ease=1.0,
        bm25_knn=1.0,
        als=1.0,
        popularity=0.4,
        half_life_days=7.0,
        borrowed=1.0,
        newcomer=0.5,
    )
    plain = Scorer("towers", towers.eval(), build_bank(towers, torch.from_numpy(words)), max_history=10)
    fusion = plain.fused(fit_fusion(weights, events([[0, 1, 2], [3, 4, 0]]), N_ITEMS)).fusion
    template = Template("{title}", " | ", 100)
    save_checkpoint(tmp_path / "c", towers, encoder, load_tokenizer(tiny_bert), template, configs, None, fusion=fusion)
    loaded = read_checkpoint(tmp_path / "c").load_fusion()
    assert loaded.weights == weights
    assert tuple(loaded.neighbours) == tuple(fusion.neighbours) == NEIGHBOUR_KINDS
    for kind in NEIGHBOUR_KINDS:
        ours, theirs = loaded.neighbours[kind], fusion.neighbours[kind]
        assert (ours.matrix != theirs.matrix).nnz == 0
        assert (ours.n_last, ours.decay) == (theirs.n_last, theirs.decay)
    assert loaded.factors is not None
    assert fusion.factors is not None
    np.testing.assert_array_equal(loaded.factors.vectors, fusion.factors.vectors)
    histories = Ragged.from_rows([[0, 1], [4], []])
    np.testing.assert_array_equal(loaded.factors.fold_in(histories), fusion.factors.fold_in(histories))
    np.testing.assert_allclose(loaded.popularity, fusion.popularity, rtol=1e-6)  # type: ignore[arg-type]
    assert loaded.loans is not None
    assert fusion.loans is not None
    assert fusion.loans.nnz > 0
    assert (loaded.loans != fusion.loans).nnz == 0
