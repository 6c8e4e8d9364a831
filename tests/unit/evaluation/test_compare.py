"""The bootstrap: covers what it should, redraws users and not cases, pairs what is paired."""

import numpy as np
import pytest

from lmrec.errors import InputError
from lmrec.evaluation.compare import (
    LEAST_USERS,
    bootstrap_interval,
    bootstrap_means,
    difference_of,
    few_users_p,
    interval_of,
    paired_difference,
    share_interval,
    wilson_interval,
)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval(rng.random(150), np.arange(150), n=200, confidence=0.9, seed=trial)
        covered += low <= 0.5 <= high
    assert 165 <= covered <= 195


def test_many_cases_of_few_users_do_not_make_an_interval_narrow() -> None:
    rng = np.random.default_rng(1)
    by_user = rng.random(10)
    values, users = np.repeat(by_user, 100), np.repeat(np.arange(10), 100)
    low, high = bootstrap_interval(values, users)
    low_if_independent, high_if_independent = bootstrap_interval(values, np.arange(1000))
    assert high - low > 5 * (high_if_independent - low_if_independent)


def test_a_heavy_user_weighs_by_its_cases() -> None:
    values, users = np.array([1.0, 1.0, 1.0, 0.0]), np.array([0, 0, 0, 1])
    means = bootstrap_means(values[:, None], users, n=4000, seed=0)[:, 0]
    assert set(np.unique(means)) == {0.0, 0.75, 1.0}
    assert np.mean(means == 0.75) == pytest.approx(0.5, abs=0.03)


def test_a_small_steady_gain_is_clear_only_when_paired() -> None:
    rng = np.random.default_rng(2)
    b, users = rng.random(300), rng.integers(0, 60, 300)
    a = b + 0.02 + rng.normal(0, 0.01, 300)
    difference = paired_difference(a, b, users)
    assert difference.is_clear
    assert difference.low > 0.015
    assert difference.p < 0.01
    assert bootstrap_interval(a, users)[0] < bootstrap_interval(b, users)[1]


def test_the_same_system_twice_differs_by_nothing() -> None:
    values = np.random.default_rng(3).random(50)
    difference = paired_difference(values, values, np.arange(50))
    assert (difference.mean, difference.low, difference.high, difference.p) == (0.0, 0.0, 0.0, 1.0)
    assert not difference.is_clear


def test_redraws_do_not_depend_on_the_values_or_on_how_users_are_numbered() -> None:
    rng = np.random.default_rng(4)
    a, b, users = rng.random(80), rng.random(80), np.sort(rng.integers(0, 20, 80))
    apart = bootstrap_means(a[:, None], users, 50, 1) - bootstrap_means(b[:, None], users, 50, 1)
    together = bootstrap_means((a - b)[:, None], users * 1000, 50, 1)
    np.testing.assert_allclose(apart, together, atol=1e-12)


def test_redraws_in_parts_are_the_redraws(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    values, users = rng.random((80, 2)), rng.integers(0, 20, 80)
    whole = bootstrap_means(values, users, 50, 1)
    monkeypatch.setattr("lmrec.evaluation.compare._CELLS_AT_ONCE", 100)
    np.testing.assert_allclose(whole, bootstrap_means(values, users, 50, 1), rtol=1e-12)


def test_p_is_never_zero() -> None:
    assert 0.0 < difference_of(1.0, np.full(99, 1.0), 0.95, 99).p <= 0.03


@pytest.mark.parametrize("n_users", [1, 2, 3, 5, 6, 8, 12, 40])
def test_few_users_are_no_proof(n_users: int) -> None:
    """Where there is no difference, about one comparison in twenty or fewer comes out starred, however few the users."""
    starred = clear = 0
    for trial in range(300):
        gaps = np.random.default_rng(trial).normal(0, 0.1, n_users)
        found = paired_difference(gaps, np.zeros(n_users), np.arange(n_users), n=400)
        starred, clear = starred + (found.p < 0.05), clear + found.is_clear
    assert starred / 300 <= 0.08
    assert clear / 300 <= 0.09
    if n_users < LEAST_USERS:
        assert starred == clear == 0
    assert few_users_p(0.04, 10**6) == pytest.approx(0.04, rel=1e-3)


def test_unequal_lengths_and_nothing_are_refused() -> None:
    with pytest.raises(InputError, match="same cases"):
        paired_difference(np.zeros(3), np.zeros(4), np.arange(3))
    with pytest.raises(InputError, match="at least one"):
        bootstrap_interval(np.zeros(0), np.zeros(0, np.int64))


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (1, 1_000_000), (0, 0)])
def test_wilsons_interval_stays_within_0_and_1_and_holds_the_rate(successes: int, n: int) -> None:
    low, high = wilson_interval(successes, n)
    assert 0.0 <= low <= (successes / n if n else 0.5) <= high <= 1.0


@pytest.mark.parametrize("n_users", [2, 3, 5, 6, 10, 31])
def test_an_interval_of_few_users_says_what_their_p_says_and_holds_the_truth(n_users: int) -> None:
    rng, groups = np.random.default_rng(n_users), np.arange(n_users)
    held = apart = 0
    for _ in range(300):
        found = paired_difference(rng.normal(size=n_users), np.zeros(n_users), groups)
        held += found.low <= 0.0 <= found.high
        apart += (found.low > 0.0 or found.high < 0.0) and found.p > 0.06
    assert held >= 0.92 * 300
    assert apart <= 0.01 * 300


def test_five_users_who_agree_are_not_clear_and_six_are() -> None:
    for n_users in (5, 6):
        found = paired_difference(np.linspace(0.1, 0.12, n_users), np.zeros(n_users), np.arange(n_users))
        assert found.is_clear == (n_users == 6)
        assert (found.low > 0) == (n_users == 6)


def test_a_rate_of_few_users_stays_between_0_and_1() -> None:
    redraws = bootstrap_means(np.array([[1.0], [0.9], [0.2]]), np.arange(3), 500, 0)[:, 0]
    low, high = share_interval(redraws, 0.7, 3)
    assert low == 0.0
    assert high == 1.0


def test_where_redraws_do_not_vary_a_rate_is_not_certain() -> None:
    low, high = share_interval(np.ones(1000), 1.0, 1)
    assert low < 0.5 < high == 1.0
    assert interval_of(np.array([0.25, 0.25]), 0.95, 1) == (0.25, 0.25)
