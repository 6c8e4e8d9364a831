"""No split leaks, on random logs by the plain definitions; and the proof notices a leak that is made on purpose."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from lmrec.data.history import Cases, FirstMeetings
from lmrec.data.interactions import Interactions
from lmrec.data.proof import SplitMasks, prove_no_leak
from lmrec.data.split import Split, SplitConfig, split_interactions
from lmrec.errors import InputError

from .random_logs import N_ITEMS, logs

CONFIGS = [
    SplitConfig(kind="time", validation=0.2, test=0.3),
    SplitConfig(kind="time", validation=0.2, test=0.3, target="window"),
    SplitConfig(kind="last"),
    SplitConfig(kind="last_n", n=2),
    SplitConfig(kind="last_n", n=2, target="window"),
    SplitConfig(kind="cold_items", validation=0.2, test=0.3, seed=1),
    SplitConfig(kind="cold_users", validation=0.2, test=0.3, seed=1),
]


def split_or_skip(log: Interactions, config: SplitConfig) -> Split:
    try:
        return split_interactions(log, N_ITEMS, config)
    except InputError:
        assume(False)
        raise


def events_of(log: Interactions) -> list[tuple[int, int, float]]:
    return list(zip(log.user_idx.tolist(), log.item_idx.tolist(), log.time_ts.tolist(), strict=True))


@given(logs(min_events=10), st.sampled_from(CONFIGS))
def test_no_split_leaks(log: Interactions, config: SplitConfig) -> None:
    split = split_or_skip(log, config)
    assert split.proof.holds, split.proof.as_dict()
    everything = events_of(log)
    for cases in (split.validation, split.test):
        for row in range(len(cases)):
            user, instant = int(cases.user_idx[row]), float(cases.instants[row])
            past = [item for u, item, ts in everything if u == user and ts < instant]
            history, relevant = cases.history[row].tolist(), cases.relevant[row].tolist()
            if config.kind == "cold_items":
                warm = set(split.train.item_idx.tolist())
                assert history == [item for item in past if item in warm]
                assert not warm & set(relevant)
            else:
                assert history == past
            assert relevant
            assert len(relevant) == len(set(relevant))
            assert not set(relevant) & set(past)
            future = {item for u, item, ts in everything if u == user and ts >= instant}
            assert set(relevant) <= future


@given(logs(min_events=10), st.sampled_from(CONFIGS))
def test_parts_add_up(log: Interactions, config: SplitConfig) -> None:
    split = split_or_skip(log, config)
    train, both = events_of(split.train), events_of(split.train_and_validation)
    assert len(train) <= len(both) < len(log)
    assert split.train.user_ids == log.user_ids
    if config.target == "next" and config.kind != "cold_items":
        held_out = {(u, ts) for u, _, ts in events_of(log)}
        asked = list(zip(split.test.user_idx.tolist(), split.test.instants.tolist(), strict=True))
        assert len(asked) == len(set(asked))
        assert set(asked) <= held_out


@given(logs(min_events=10), st.sampled_from(CONFIGS[:2]))
def test_time_split_cuts_between_instants(log: Interactions, config: SplitConfig) -> None:
    split = split_or_skip(log, config)
    assert split.cut_ts is not None
    first, second = split.cut_ts
    assert split.train.time_ts.max() < first <= split.validation.instants.min()
    assert split.train_and_validation.time_ts.max() < second <= split.test.instants.min()
    assert split.proof.weaknesses == ()


def test_next_and_window_by_hand() -> None:
    #                                 train       | validation | test
    log = Interactions.from_arrays(
        ["a", "b"],
        [0, 1, 0, 1, 0, 0, 1, 0, 0, 1],
        [0, 0, 1, 2, 2, 3, 3, 0, 4, 4],
        [1, 2, 3, 4, 5, 6, 7, 8, 8, 9],
    )
    config = SplitConfig(kind="time", validation=0.2, test=0.3)
    split = split_interactions(log, 5, config)
    assert split.cut_ts == (6.0, 8.0)
    assert split.train.time_ts.tolist() == [1, 2, 3, 4, 5]
    assert [case.tolist() for case in (split.test.user_idx, split.test.instants)] == [[0, 1], [8.0, 9.0]]
    # At 8, user a repeats item 0 and meets item 4: only 4 is asked for.
    assert [split.test.relevant[row].tolist() for row in range(2)] == [[4], [4]]
    assert [split.test.history[row].tolist() for row in range(2)] == [[0, 1, 2, 3], [0, 2, 3]]
    window = split_interactions(log, 5, SplitConfig(kind="time", validation=0, test=0.5, target="window"))
    assert len(window.validation) == 0
    assert [window.test.relevant[row].tolist() for row in range(2)] == [[3, 4], [3, 4]]
    assert [window.test.history[row].tolist() for row in range(2)] == [[0, 1, 2], [0, 2]]


def test_dropped_questions_are_counted() -> None:
    log = Interactions.from_arrays(["a"], [0] * 5, [0, 1, 2, 0, 3], [1, 2, 3, 4, 5])
    split = split_interactions(log, 4, SplitConfig(kind="time", validation=0, test=0.4))
    assert split.n_dropped == (0, 1)
    assert split.test.instants.tolist() == [5.0]


def test_last_keeps_users_with_few_events_in_training() -> None:
    log = Interactions.from_arrays(["a", "b"], [0, 0, 0, 1, 1], [0, 1, 2, 0, 1], [1, 2, 3, 1, 9])
    split = split_interactions(log, 3, SplitConfig(kind="last"))
    assert events_of(split.train) == [(0, 0, 1.0), (1, 0, 1.0), (1, 1, 9.0)]
    assert (split.validation.relevant[0].tolist(), split.test.relevant[0].tolist()) == ([1], [2])
    assert split.proof.weaknesses[0].startswith(
        "33.3% of the training events are later than some test event of another"
    )
    assert split.proof.as_dict()["holds"] is True


def test_last_names_ties_and_positions() -> None:
    tied = Interactions.from_arrays(["a"], [0] * 4, [0, 1, 2, 3], [1, 2, 3, 3])
    weaknesses = split_interactions(tied, 4, SplitConfig(kind="last")).proof.weaknesses
    assert weaknesses == (
        "for 1 of 1 users the cut runs between events of one instant, whose order is only that of the table",
    )
    ordered = Interactions.from_arrays(["a"], [0] * 4, [0, 1, 2, 3], [0, 1, 2, 3], time_kind="position")
    assert "cannot be measured" in split_interactions(ordered, 4, SplitConfig(kind="last")).proof.weaknesses[0]


def test_cold_users_leave_training_whole() -> None:
    rng = np.random.default_rng(0)
    log = Interactions.from_arrays(
        [str(user) for user in range(10)], rng.integers(10, size=200), rng.integers(N_ITEMS, size=200), np.arange(200)
    )
    split = split_interactions(log, N_ITEMS, SplitConfig(kind="cold_users", validation=0.2, test=0.2))
    assert len(set(split.train.user_idx.tolist())) == 6
    assert not set(split.test.user_idx.tolist()) & set(split.train_and_validation.user_idx.tolist())


def test_none_keeps_everything() -> None:
    log = Interactions.from_arrays(["a"], [0], [0], [1])
    split = split_interactions(log, 1, SplitConfig(kind="none"))
    assert (len(split.train), len(split.validation), len(split.test)) == (1, 0, 0)
    assert split.proof.holds


def test_none_lets_the_newest_choose_and_leaves_nothing_for_the_judge() -> None:
    users, items = np.arange(20) % 4, np.arange(20) % 7
    ids = [f"u{user}" for user in range(4)]
    timed = Interactions.from_arrays(ids, users, items, np.arange(20))
    split = split_interactions(timed, 7, SplitConfig(kind="none", validation=0.2))
    assert (len(split.train), len(split.train_and_validation), len(split.test)) == (16, 20, 0)
    assert split.validation.instants.min() == 16
    placed = Interactions.from_arrays(ids, users, items, np.arange(20) // 4, time_kind="position")
    split = split_interactions(placed, 7, SplitConfig(kind="none"))
    assert (len(split.train), len(split.train_and_validation), len(split.test)) == (16, 20, 0)
    assert split.proof.holds
    kept = split_interactions(timed, 7, SplitConfig(kind="none", validation=0.0))
    assert (len(kept.train), len(kept.validation)) == (20, 0)


def test_none_learns_from_everything_where_the_newest_ask_nothing_new() -> None:
    log = Interactions.from_arrays(["a"], [0] * 10, [0] * 10, np.arange(10))  # the same item again and again
    split = split_interactions(log, 1, SplitConfig(kind="none"))
    assert (len(split.train), len(split.validation)) == (10, 0)
    at_once = Interactions.from_arrays(["a", "b"], [0, 1], [0, 0], [5, 5])
    assert len(split_interactions(at_once, 1, SplitConfig(kind="none")).train) == 2


def test_positions_cannot_be_split_by_time() -> None:
    log = Interactions.from_arrays(["a"], [0] * 3, [0, 1, 2], [0, 1, 2], time_kind="position")
    with pytest.raises(InputError, match=r"have a position .* cannot be split by time\. Use --split last"):
        split_interactions(log, 3, SplitConfig())


def test_a_part_that_comes_out_empty_is_refused() -> None:
    same_time = Interactions.from_arrays(["a"], [0] * 3, [0, 1, 2], [1, 1, 1])
    with pytest.raises(InputError, match=r"leaves none of 3 events to train on\. Use --split last"):
        split_interactions(same_time, 3, SplitConfig())
    with pytest.raises(InputError, match=r"'last' leaves no validation question: no user has 3 events.*--split none"):
        split_interactions(same_time.select(np.array([True, True, False])), 3, SplitConfig(kind="last"))
    repeats = Interactions.from_arrays(["a"], [0] * 4, [0, 0, 0, 0], [1, 2, 3, 4])
    with pytest.raises(InputError, match=r"the part has no event in which a user met something new"):
        split_interactions(repeats, 1, SplitConfig(validation=0.25, test=0.25))


def test_config_refuses_nonsense() -> None:
    with pytest.raises(ValidationError, match="leave nothing to train on"):
        SplitConfig(validation=0.5, test=0.5)
    with pytest.raises(ValidationError, match="target 'window' needs a cut in time"):
        SplitConfig(kind="cold_items", target="window")
    with pytest.raises(ValidationError, match="Extra inputs"):
        SplitConfig(tset=0.1)  # type: ignore[call-arg]


@given(logs(min_events=10))
def test_the_proof_notices_a_leak(log: Interactions) -> None:
    split = split_or_skip(log, CONFIGS[0])
    masks = SplitMasks(
        validation=(log.time_ts >= split.cut_ts[0]) & (log.time_ts < split.cut_ts[1]),  # type: ignore[index]
        test=log.time_ts >= split.cut_ts[1],  # type: ignore[index]
    )
    meetings = FirstMeetings.from_interactions(log, N_ITEMS)

    def prove(masks: SplitMasks, test: Cases) -> bool:
        return prove_no_leak("time", log, masks, split.validation, test, meetings).holds

    assert prove(masks, split.test)
    # The answer in the history; a question asked earlier than the training ends; an event in two parts.
    assert not prove(masks, replace(split.test, history=split.test.relevant))
    assert not prove(masks, replace(split.test, instants=np.full(len(split.test), log.time_ts[0])))
    assert not prove(SplitMasks(masks.validation | masks.test, masks.test), split.test)
