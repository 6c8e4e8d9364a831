"""The read-out of experiments: right rates, honest intervals, and warnings where one fools oneself."""

import numpy as np
import pytest

from lmrec.errors import InputError
from lmrec.evaluation.experiments import ShownOutcome, always_valid_p, lists_needed, read_out
from lmrec.feedback.assignment import Arm, Experiment, assign, unit_hash

HALVES = Experiment("first", (Arm("a", "0", 0.5), Arm("b", "0001", 0.5)), salt="s")


def shows(arm: str, n_users: int, n_each: int, rate: float, seed: int, start: float = 0.0) -> list[ShownOutcome]:
    rng = np.random.default_rng(seed)
    return [
        ShownOutcome(arm, f"{arm}{user}", bool(rng.random() < rate), start + each)
        for user in range(n_users)
        for each in range(n_each)
    ]


def test_a_real_difference_is_clear_and_none_is_not() -> None:
    found = read_out([*shows("a", 400, 3, 0.2, 1), *shows("b", 400, 3, 0.3, 2)])
    (gap,) = found.differences
    assert (gap.arm, gap.against) == ("b", "a")
    assert gap.mean == pytest.approx(found.arms[1].rate - found.arms[0].rate)
    assert gap.low < gap.mean < gap.high
    assert gap.is_clear
    assert gap.p < 0.01
    assert found.arms[0].users == 400
    assert found.arms[0].low < found.arms[0].rate < found.arms[0].high
    same = read_out([*shows("a", 400, 3, 0.2, 1), *shows("b", 400, 3, 0.2, 6)], against="b")
    assert (same.differences[0].against, same.differences[0].is_clear) == ("b", False)


def test_users_are_redrawn_not_lists() -> None:
    """Users who always or never click: 2,000 lists of 20 users tell as much as 20 lists."""
    lists = [ShownOutcome("ab"[user % 2], f"u{user}", user % 4 < 2, float(n)) for user in range(20) for n in range(100)]
    found = read_out(lists)
    arm = found.arms[0]
    assert arm.lists == 1000
    assert arm.high - arm.low > 0.4
    needed = found.differences[0].lists_needed
    independent = lists_needed(arm.rate, 0.05)
    assert needed is not None
    assert independent is not None
    assert needed > 30 * independent


@pytest.mark.parametrize(("n_users", "n_others"), [(60, 60), (300, 4), (5, 5)])
def test_no_effect_is_found_in_about_one_of_twenty(n_users: int, n_others: int) -> None:
    """Also where one arm has a handful of users."""
    false_alarms = sum(
        read_out([*shows("a", n_users, 8, 0.3, 2 * k), *shows("b", n_others, 8, 0.3, 2 * k + 1)], n_bootstrap=300)
        .differences[0]
        .p
        < 0.05
        for k in range(100)
    )
    assert false_alarms <= 12


def test_who_looks_often_is_not_fooled() -> None:
    """No effect, and a look after every 20 lists of each arm: the usual p value falls below 0.05 somewhere in a third of
    such experiments, the other one in few."""
    rng = np.random.default_rng(0)
    fooled = {"once": 0, "always": 0}
    for _ in range(300):
        clicks = rng.random((2, 1000)) < 0.2
        ends = np.arange(20, 1001, 20)
        rates = clicks.cumsum(axis=1)[:, ends - 1] / ends
        variance = (rates * (1 - rates)).sum(axis=0) / ends
        gaps = rates[1] - rates[0]
        once = np.abs(gaps) / np.sqrt(np.maximum(variance, 1e-9)) > 1.96
        always = [always_valid_p(float(gap), float(v), 0.05) < 0.05 for gap, v in zip(gaps, variance, strict=True)]
        fooled["once"] += bool(once.any())
        fooled["always"] += any(always)
    assert fooled["once"] > 75
    assert fooled["always"] <= 20


def test_a_real_difference_stays_clear_and_what_is_needed_is_said() -> None:
    found = read_out([*shows("a", 400, 3, 0.2, 1), *shows("b", 400, 3, 0.3, 2)])
    gap = found.differences[0]
    assert max(gap.p, gap.p_always) < 0.05
    assert any("are needed to find a gain of 5%" in warning for warning in found.warnings)
    assert found.as_dict()["differences"][0]["is_clear"] is True
    all_or_nothing = read_out([*shows("a", 20, 1, 0.0, 1), *shows("b", 20, 1, 1.0, 2)]).differences[0]
    assert all_or_nothing.is_clear
    assert not read_out([*shows("a", 2, 1, 0.0, 1), *shows("b", 2, 1, 1.0, 2)]).differences[0].is_clear
    assert always_valid_p(0.1, 0.0, 0.05) == 1.0, "without any spread nothing is known"


def test_no_success_and_one_user_are_no_certainty() -> None:
    """Redraws of one user, or of nothing but failures, do not vary: their interval would be a point."""
    found = read_out([ShownOutcome("a", "ann", False, 1.0), ShownOutcome("b", "bob", False, 9.0)])
    assert [(arm.low, arm.rate) for arm in found.arms] == [(0.0, 0.0)] * 2
    assert all(arm.high > 0.7 for arm in found.arms)
    assert found.differences[0].low < -0.7
    assert found.differences[0].high > 0.7
    assert found.differences[0].p == 1.0
    hundred = read_out(shows("a", 100, 1, 0.0, 1)).arms[0]
    assert hundred.low == 0.0
    assert hundred.high == pytest.approx(0.037, abs=0.001)
    devoted = read_out([ShownOutcome("a", "ann", n % 2 == 0, float(n)) for n in range(100)]).arms[0]
    assert devoted.high - devoted.low > 0.8, "a hundred lists of one user are one user"
    lucky = read_out([ShownOutcome("a", "ann", False, 1.0), ShownOutcome("b", "bob", True, 2.0)]).differences[0]
    assert lucky.low < 0.0
    assert lucky.p > 0.05


def test_few_lists_one_after_the_other_are_no_sign_of_different_times() -> None:
    def warned(n_early: int, n_late: int) -> bool:
        lists = [ShownOutcome("a", f"u{n}", False, float(n)) for n in range(n_early)]
        lists += [ShownOutcome("b", f"v{n}", False, 1e3 + n) for n in range(n_late)]
        return any("not served at the same time" in warning for warning in read_out(lists).warnings)

    assert not warned(1, 1)
    assert not warned(1, 500)
    assert not warned(5, 5)
    assert warned(8, 8)
    one_user = [ShownOutcome("ab"[n >= 50], "uv"[n >= 50], False, float(n)) for n in range(100)]
    assert not any("not served" in warning for warning in read_out(one_user).warnings), "two users, one after the other"


def test_what_spoils_an_experiment_is_said() -> None:
    early, late = shows("a", 50, 2, 0.2, 1), shows("b", 50, 2, 0.2, 2, start=1e6)
    assert any("not served at the same time" in warning for warning in read_out([*early, *late]).warnings)
    both = [ShownOutcome(arm, f"u{user}", False, 0.0) for arm in "ab" for user in range(50)]
    assert any("saw more than one arm" in warning for warning in read_out(both).warnings)
    lopsided = [*shows("a", 500, 1, 0.2, 1), *shows("b", 300, 1, 0.2, 2)]
    halves = {"a": 0.5, "b": 0.5}
    assert any("were meant to get" in warning for warning in read_out(lopsided, shares=halves).warnings)
    fair = {"a": 5 / 8, "b": 3 / 8}
    assert not any("were meant to get" in warning for warning in read_out(lopsided, shares=fair).warnings)
    assert any("were meant to get" in warning for warning in read_out(lopsided, shares={"a": 1.0}).warnings)
    assert read_out(early).warnings == ("only one arm has shown lists, so there is nothing to compare",)
    assert read_out([]).arms == ()
    with pytest.raises(InputError, match="'c'. Arms with lists: a, b"):
        read_out(lopsided, against="c")


def test_lists_needed() -> None:
    small, large = lists_needed(0.1, 0.01), lists_needed(0.1, 0.2)
    assert small is not None
    assert large is not None
    assert small > 200 * large
    assert lists_needed(0.0, 0.1) is None
    assert lists_needed(0.9, 0.5) is None
    # The classic example: 20 % to 25 % at 80 % power takes about 1,090 a side.
    assert lists_needed(0.2, 0.25) == pytest.approx(1091, abs=3)


def test_users_stay_in_their_arm_and_arms_get_their_shares() -> None:
    uneven = Experiment("second", (Arm("a", "0", 0.9), Arm("b", "1", 0.1)))
    users = [f"user{n}" for n in range(5000)]
    arms = [assign(user, uneven).name for user in users]
    assert arms == [assign(user, uneven).name for user in users]
    assert arms.count("b") == pytest.approx(500, abs=80)
    # Known once and for all: a change of the hash would deal running experiments anew.
    assert [assign(user, HALVES).name for user in ("1", "4", "5", "émile")] == ["a", "b", "b", "a"]
    other = Experiment("first", HALVES.arms, salt="t")
    moved = sum(assign(user, HALVES) != assign(user, other) for user in users)
    assert moved == pytest.approx(2500, abs=200)
    assert all(0 <= unit_hash(user) < 1 for user in users)


def test_experiments_that_cannot_be_are_refused() -> None:
    made = Experiment.from_dict(
        {
            "name": "x",
            "arms": [{"name": "a", "generation": "0", "share": 0.25}, {"name": "b", "generation": "1", "share": 0.75}],
        }
    )
    assert made.arms[1] == Arm("b", "1", 0.75)
    for arms in ((Arm("a", "0", 1.0),), (Arm("a", "0", 0.5), Arm("a", "1", 0.5))):
        with pytest.raises(InputError, match="two or more"):
            Experiment("x", arms)
    for share in (0.4, -0.5):
        with pytest.raises(InputError, match="all together 1"):
            Experiment("x", (Arm("a", "0", 0.5), Arm("b", "1", share)))
    assert Experiment.from_dict(made.as_dict()) == made
    everybody = Experiment.of_two("x", "0", "0001", 1.0, "shadow")
    assert (assign("anybody", everybody).name, everybody.generations) == ("challenger", ("0", "0001"))
    with pytest.raises(InputError, match="all together 1"):
        Experiment.of_two("x", "0", "0001", 1.0)
    with pytest.raises(InputError, match="shadow has two arms"):
        Experiment("x", (Arm("a", "0", 0.4), Arm("b", "1", 0.3), Arm("c", "2", 0.3)), mode="shadow")
    with pytest.raises(InputError, match="the mode 'sideways'"):
        Experiment.from_dict({**made.as_dict(), "mode": "sideways"})
    with pytest.raises(InputError, match="this is not one"):
        Experiment.from_dict({"name": "x", "arms": [{"name": "a"}]})


def test_the_interval_between_arms_of_unequal_size_says_what_their_p_says() -> None:
    apart = held = 0
    for world in range(60):
        rng = np.random.default_rng(world)
        rates = {"a": rng.beta(2, 2, 200), "b": rng.beta(2, 2, 4)}
        lists = [
            ShownOutcome(arm, f"{arm}{user}", bool(rng.random() < rate), float(n))
            for arm, of in rates.items() for user, rate in enumerate(of) for n in range(20)
        ]  # fmt: skip
        (gap,) = read_out(lists).differences
        leaves_out = gap.low > 0 or gap.high < 0
        held += not leaves_out
        apart += leaves_out and gap.p > 0.06
    assert held >= 54
    assert apart == 0
