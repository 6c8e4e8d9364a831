"""The planted world follows its rule to the letter, and the control has the same counts without the rule."""

from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from lmrec.data.dataset import Dataset
from lmrec.data.history import HistoryIndex
from lmrec.data.sources.synthetic import MAX_TOPICS, planted_ceiling, planted_world
from lmrec.data.split import SplitConfig, split_interactions
from lmrec.errors import InputError


def topic_of_items(world: Dataset) -> list[str]:
    return world.catalog.frame["topic"].to_list()


def next_topics(world: Dataset) -> dict[str, set[str]]:
    """Topic -> the topics that were seen right after it."""
    topics, index = topic_of_items(world), HistoryIndex.from_interactions(world.interactions)
    follows: dict[str, set[str]] = {topic: set() for topic in topics}
    for user in range(index.n_users):
        items = index.item_idx[index.offsets[user] : index.offsets[user + 1]]
        for before, after in pairwise(items.tolist()):
            follows[topics[before]].add(topics[after])
    return follows


def test_the_next_topic_is_a_function_of_the_last() -> None:
    follows = next_topics(planted_world(n_users=40, seed=5))
    assert all(len(after) == 1 for after in follows.values())
    assert len(set.union(*follows.values())) == len(follows)
    assert all(len(after) > 3 for after in next_topics(planted_world(n_users=40, seed=5, shuffled=True)).values())


def test_users_have_one_flavour_and_see_nothing_twice() -> None:
    world = planted_world(n_users=30)
    flavours, index = world.catalog.frame["flavour"].to_list(), HistoryIndex.from_interactions(world.interactions)
    for user in range(30):
        items = index.all(np.array([user]))[0]
        assert len({flavours[item] for item in items}) == 1
        assert len(set(items.tolist())) == len(items)


def test_words_tell_topic_and_flavour() -> None:
    frame = planted_world().catalog.frame
    words = pl.concat_str("title", "description", separator=" ").str.to_lowercase().str.extract_all(r"[a-z]{3,}")
    per_group = frame.select("topic", words.alias("words")).explode("words").unique()
    shared = per_group.group_by("words").len().filter(pl.col("len") > 1)["words"].to_list()
    # Only little words and moods are shared between topics; every noun belongs to one.
    nouns = frame.select(pl.col("description").str.extract(r"of a (\w+),")).to_series()
    assert not set(nouns) & set(shared)


def test_the_control_keeps_all_counts() -> None:
    world, control = planted_world(seed=2), planted_world(seed=2, shuffled=True)
    assert world.catalog.fingerprint == control.catalog.fingerprint
    assert np.array_equal(world.interactions.user_idx, control.interactions.user_idx)
    assert np.array_equal(world.interactions.time_ts, control.interactions.time_ts)
    counts = [np.bincount(w.interactions.item_idx, minlength=w.catalog.n_items) for w in (world, control)]
    assert np.array_equal(counts[0], counts[1])


def test_whoever_knows_the_rule_reaches_the_ceiling_and_the_control_does_not() -> None:
    def oracle_ndcg(world: Dataset) -> float:
        follows = {topic: after.pop() for topic, after in next_topics(planted_world(seed=1)).items()}
        topics, flavours = topic_of_items(world), world.catalog.frame["flavour"].to_list()
        cases = split_interactions(world.interactions, world.catalog.n_items, SplitConfig(kind="last")).test
        gains = []
        for row in range(len(cases)):
            seen = cases.history[row].tolist()
            wanted = (follows[topics[seen[-1]]], flavours[seen[-1]])
            ranked = sorted(
                (item for item in range(world.catalog.n_items) if item not in seen),
                key=lambda item: (topics[item], flavours[item]) != wanted,
            )
            rank = ranked.index(int(cases.relevant[row][0]))
            gains.append(1 / np.log2(2 + rank) if rank < 10 else 0.0)
        return float(np.mean(gains))

    assert oracle_ndcg(planted_world(seed=1)) == pytest.approx(planted_ceiling(27)) == 1.0
    assert oracle_ndcg(planted_world(seed=1, shuffled=True)) < 0.25


def test_the_same_seed_gives_the_same_world() -> None:
    assert planted_world(seed=3).fingerprint == planted_world(seed=3).fingerprint
    assert planted_world(seed=3).fingerprint != planted_world(seed=4).fingerprint


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=rf"words for 2 to {MAX_TOPICS} topics"):
        planted_world(n_topics=MAX_TOPICS + 1)
    with pytest.raises(InputError, match=r"n_items=65 must be a multiple of n_topics \* n_flavours = 16"):
        planted_world(n_items=65)
    with pytest.raises(InputError, match=r"a user finds only 32 unseen items.*fewer events or more items"):
        planted_world(n_events_per_user=33)


def test_what_a_user_chose_of_one_topic_does_not_tell_what_comes_of_the_next() -> None:
    """Else somebody could beat the ceiling, which takes every unseen item of a group as equally likely."""
    world = planted_world(n_users=400, n_items=32, n_events_per_user=4, n_topics=4, seed=7)
    index = HistoryIndex.from_interactions(world.interactions)
    pairs: dict[int, list[int]] = {}
    for user in range(index.n_users):
        for before, after in pairwise(index.all(np.array([user]))[0].tolist()):
            pairs.setdefault(before, []).append(after)
    for after_items in pairs.values():
        counts = np.unique(after_items, return_counts=True)[1]
        assert len(counts) == 4
        assert counts.max() < 0.5 * counts.sum()
