"""What orders lists without training or with very little: live counts see no future, weights find what was planted."""

import numpy as np
import pytest

from lmrec.errors import InputError
from lmrec.fields import Ragged
from lmrec.models.click_rates import ClickRate, ClickRateConfig, ClicksSoFar, Freshness, LiveCounts, ShownLog
from lmrec.models.labels import LabelMatch, LabelMatchConfig
from lmrec.models.live_stack import LIVE_PARTS, OWN, Fared, LoggedCounts, counts_at_end, fit_live_stack
from lmrec.models.stacking import fit_stack

HOUR = 3600.0
LOG = ShownLog(
    item_idx=np.array([1, 0, 1, 0, 1]),
    time_ts=np.array([5.0, 1.0, 3.0, 2.0, 4.0]) * HOUR,
    clicked=np.array([True, True, False, False, False]),
    n_items=3,
)


def one(item: int, hours: float) -> tuple[Ragged, Ragged, np.ndarray]:
    return Ragged.from_rows([[]]), Ragged.from_rows([[item]]), np.array([hours * HOUR])


@pytest.mark.parametrize(
    ("item", "hours", "shows", "clicks"),
    [(0, 1.0, 0, 0), (0, 1.5, 1, 1), (0, 2.5, 2, 1), (1, 5.0, 2, 0), (1, 5.5, 3, 1), (2, 9.0, 0, 0)],
)
def test_live_counts_are_of_what_came_strictly_before(item: int, hours: float, shows: int, clicks: int) -> None:
    rate = ClickRate(ClickRateConfig(prior_shows=10.0)).fit(LOG, LOG.clicked.mean())
    assert rate.score_shown(*one(item, hours))[0] == pytest.approx((clicks + 10 * 0.4) / (shows + 10))
    assert ClicksSoFar(LOG).score_shown(*one(item, hours))[0] == pytest.approx(np.log1p(clicks))


def test_counts_fade_by_half_in_their_half_life() -> None:
    rate = ClickRate(ClickRateConfig(half_life_hours=2.0, prior_shows=1.0)).fit(LOG, LOG.clicked.mean())
    shows, clicks = 2.0**-1.5 + 2.0**-1.0, 2.0**-1.5  # three and two hours ago
    assert rate.score_shown(*one(0, 4.0))[0] == pytest.approx((clicks + 0.4) / (shows + 1.0))


def test_freshness_falls_with_the_hours_since_the_first_show() -> None:
    found = [Freshness(LOG).score_shown(*one(1, hours))[0] for hours in (2.0, 3.0, 4.0, 9.0)]
    assert found[0] == found[1] == 0.0  # not shown before
    assert found[1] > found[2] > found[3]
    assert found[2] == pytest.approx(-np.log(2.0))


def test_words_and_labels_match_as_their_formula_says() -> None:
    text_vec = np.eye(4, dtype=np.float32)[[0, 1, 0, 3]]
    labels = [np.array([0, 0, 1, -1])]
    history, shown = Ragged.from_rows([[0, 1]]), Ragged.from_rows([[0, 2, 3]])
    words = LabelMatch(text_vec, labels, LabelMatchConfig(labels=0.0)).score_shown(history, shown, np.zeros(1))
    assert words.tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0.0])
    both = LabelMatch(text_vec, labels, LabelMatchConfig()).score_shown(history, shown, np.zeros(1))
    assert (both - words).tolist() == pytest.approx([1.0, 0.0, 0.0])  # a blank label matches nothing


def test_learnt_weights_find_what_the_choices_were_made_by() -> None:
    rng = np.random.default_rng(0)
    lists = Ragged(np.arange(6000), np.arange(0, 6001, 6))
    parts = rng.standard_normal((6000, 3)) * np.array([1.0, 50.0, 1.0]) + np.array([0.0, 300.0, 0.0])
    logits = 1.5 * parts[:, 0] - 0.02 * parts[:, 1]
    chances = np.exp(logits).reshape(1000, 6)
    chosen = np.zeros((1000, 6), np.bool_)
    for row in range(1000):
        chosen[row, rng.choice(6, p=chances[row] / chances[row].sum())] = True
    stack = fit_stack(["a", "b", "noise"], parts, lists, chosen.ravel())
    in_own_units = np.array(stack.weights) / np.array(stack.scale)
    assert in_own_units[0] == pytest.approx(1.5, rel=0.15)
    assert in_own_units[1] == pytest.approx(-0.02, rel=0.2)
    assert abs(in_own_units[2]) < 0.15
    assert stack.words().startswith("+1.")
    never_turned = fit_stack(["a", "b", "noise"], parts, lists, chosen.ravel(), nonnegative=True)
    assert never_turned.weights[1] == 0.0
    with pytest.raises(InputError, match="hold none"):
        fit_stack(["a"], parts[:, :1], lists, np.zeros(6000, np.bool_))


def test_a_part_that_never_differs_weighs_nothing() -> None:
    lists = Ragged(np.arange(40), np.arange(0, 41, 4))
    parts = np.stack([np.tile([1.0, 0.0, 0.0, 0.0], 10), np.repeat(np.arange(10.0), 4)], axis=1)
    stack = fit_stack(["told", "flat"], parts, lists, np.tile([True, False, False, False], 10))
    assert stack.weights[0] > 1.0
    assert stack.weights[1] == 0.0


def log_of(seed: int, n: int = 300, n_items: int = 12) -> ShownLog:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 200 * HOUR, n))
    return ShownLog(rng.integers(0, n_items, n), times, rng.random(n) < 0.3, n_items)


def part_of(log: ShownLog, mask: np.ndarray) -> ShownLog:
    return ShownLog(log.item_idx[mask], log.time_ts[mask], log.clicked[mask], log.n_items)


@pytest.mark.parametrize("half_life_hours", [None, 6.0])
def test_counts_that_run_on_are_those_of_the_whole_log(half_life_hours: float | None) -> None:
    log, ids = log_of(0), [f"i{row}" for row in range(12)]
    first_ts, at_ts = 60 * HOUR, 150 * HOUR
    running = counts_at_end(part_of(log, log.time_ts < first_ts), ids, half_life_hours)
    later = np.flatnonzero((log.time_ts >= first_ts) & (log.time_ts < at_ts))
    for rows in np.array_split(np.random.default_rng(1).permutation(later), 9):  # in any order
        running.add_shows([([ids[log.item_idx[row]]], log.time_ts[row]) for row in rows])
        for row in rows[log.clicked[rows]]:
            running.add_click(ids[log.item_idx[row]], log.time_ts[row])
    running.add_shows([])
    candidates = Ragged.from_rows([[3, 0, 11, 7]])
    logged = LoggedCounts(log, half_life_hours).before(candidates, np.array([at_ts]))
    found = running.before([ids[row] for row in candidates[0]], at_ts)
    for name in ("shows", "clicks", "n_clicks", "age_s"):
        assert getattr(found, name) == pytest.approx(getattr(logged, name)), name
    never = running.before(["elsewhere"], at_ts)
    assert (never.shows[0], never.clicks[0], never.n_clicks[0]) == (0, 0, 0)
    assert never.age_s[0] < 0


def test_a_live_stack_finds_who_clicks_by_what() -> None:
    rng = np.random.default_rng(2)
    n = 4000
    lists = Ragged(np.arange(n), np.arange(0, n + 1, 8))
    own = rng.standard_normal(n)
    fared = Fared(
        rng.uniform(5, 50, n), rng.uniform(0, 5, n), rng.integers(0, 9, n).astype(float), rng.uniform(0, 9e4, n)
    )
    config = ClickRateConfig(prior_shows=5.0)
    rate = (fared.clicks + 5 * 0.1) / (fared.shows + 5)
    chosen = (2 * own + 20 * rate + rng.gumbel(size=n)).reshape(-1, 8)
    clicked = (chosen == chosen.max(axis=1, keepdims=True)).ravel()
    stack = fit_live_stack({OWN: own}, fared, config, 0.1, lists, clicked)
    weights = dict(zip(stack.stack.names, stack.stack.weights, strict=True))
    assert weights[OWN] > weights[ClickRate.name] > 4 * abs(weights[ClicksSoFar.name])
    without = fit_live_stack({}, fared, config, 0.1, lists, clicked)
    assert without.stack.names == LIVE_PARTS
    by_hand = sum(
        weight * part / scale
        for weight, scale, part in zip(
            without.stack.weights,
            without.stack.scale,
            (rate, np.log1p(fared.n_clicks), -np.log1p(fared.age_s / HOUR)),
            strict=True,
        )
    )
    assert without.score(None, fared) == pytest.approx(by_hand)


@pytest.mark.parametrize("half_life_hours", [None, 6.0, 1000.0])
@pytest.mark.parametrize("days", [1, 30, 3000])
def test_live_counts_are_those_of_their_definition_however_long_the_log(
    half_life_hours: float | None, days: int
) -> None:
    rng = np.random.default_rng(0)
    n, n_items = 4000, 7
    times = np.sort(np.round(1.7e9 + rng.uniform(0, days * 86400.0, n) ** (1 if days < 3000 else 0.98)))
    items, clicked = rng.integers(0, n_items - 1, n), rng.random(n) < 0.2  # the last item was never shown
    counts = LiveCounts(ShownLog(items, times, clicked, n_items), half_life_hours)
    instants = np.concatenate([times[[0, 1, n // 2, n - 1]], [times[-1] + 1.0, 1.6e9]])
    candidates = Ragged.from_rows([list(range(n_items))] * len(instants))
    shows, clicks = counts.before(candidates, instants)
    faded = np.zeros((2, len(instants), n_items))
    for row, instant in enumerate(instants):
        past = times < instant
        age = (instant - times[past]) / 3600.0
        worth = np.ones(len(age)) if half_life_hours is None else 0.5 ** (age / half_life_hours)
        faded[0, row] = np.bincount(items[past], worth, n_items)
        faded[1, row] = np.bincount(items[past], worth * clicked[past], n_items)
    np.testing.assert_allclose(np.stack([shows, clicks]), faded.reshape(2, -1), rtol=1e-9, atol=1e-12)


def test_live_counts_of_a_log_without_shows_are_nothing() -> None:
    nothing = ShownLog(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_), 3)
    shows, clicks = LiveCounts(nothing, 6.0).before(Ragged.from_rows([[0, 2]]), np.zeros(1))
    assert (shows.tolist(), clicks.tolist()) == ([0.0, 0.0], [0.0, 0.0])
