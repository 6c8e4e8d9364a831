"""A planted world: made-up films and viewers that follow a known rule, so that we know what a good model must find.

Every item has a topic and a flavour, both told by its words only. Every user has one flavour for life and walks through
the topics in a cycle that is the same for all: after a film of topic t comes one of topic `cycle[t]`, of the user's own
flavour, that the user has not seen. So the order of a history tells the next topic and its words tell the flavour;
popularity tells nothing. In the shuffled control the same items are dealt to the events at random: all counts stay,
the rule is gone, and nothing can beat chance.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from lmrec.data.catalog import Catalog
from lmrec.data.dataset import Dataset
from lmrec.data.interactions import Interactions
from lmrec.errors import InputError
from lmrec.fields import ITEM_ID

_TOPIC_WORDS: dict[str, tuple[str, ...]] = {
    "space": ("rocket", "galaxy", "astronaut", "comet", "orbit", "planet", "starship", "moon"),
    "sea": ("whale", "sailor", "harbour", "reef", "captain", "island", "lighthouse", "storm"),
    "kitchen": ("chef", "bakery", "recipe", "pepper", "soup", "oven", "banquet", "spice"),
    "courtroom": ("lawyer", "verdict", "jury", "judge", "witness", "trial", "oath", "appeal"),
    "music": ("violin", "choir", "guitar", "melody", "drummer", "opera", "concert", "piano"),
    "farm": ("barn", "harvest", "tractor", "shepherd", "orchard", "meadow", "plough", "hen"),
    "school": ("teacher", "pupil", "classroom", "exam", "library", "homework", "lesson", "chalk"),
    "castle": ("knight", "dragon", "queen", "sword", "throne", "tower", "wizard", "crown"),
    "desert": ("camel", "oasis", "dune", "caravan", "nomad", "mirage", "cactus", "scorpion"),
    "hospital": ("nurse", "surgeon", "patient", "clinic", "doctor", "remedy", "ambulance", "ward"),
    "sports": ("football", "goalkeeper", "stadium", "coach", "marathon", "referee", "boxer", "trophy"),
    "railway": ("train", "station", "conductor", "tunnel", "locomotive", "platform", "ticket", "signal"),
    "winter": ("snow", "glacier", "sledge", "icicle", "frost", "blizzard", "skater", "igloo"),
    "detective": ("murder", "clue", "inspector", "alibi", "suspect", "detective", "poison", "thief"),
    "jungle": ("tiger", "monkey", "vine", "parrot", "explorer", "jaguar", "river", "temple"),
    "machine": ("robot", "engine", "computer", "circuit", "android", "factory", "laser", "inventor"),
}
_FLAVOUR_WORDS: dict[str, tuple[str, ...]] = {
    "cheerful": ("funny", "happy", "silly", "merry", "joyful", "playful"),
    "grim": ("dark", "bleak", "cruel", "tragic", "haunted", "deadly"),
    "tender": ("romantic", "loving", "gentle", "sweet", "wistful", "dreamy"),
    "daring": ("heroic", "wild", "brave", "reckless", "epic", "fearless"),
}
MAX_TOPICS = len(_TOPIC_WORDS)
MAX_FLAVOURS = len(_FLAVOUR_WORDS)
_START_TS = 1_700_000_000.0
_STEP_S = 60.0


def planted_world(
    n_users: int = 300,
    n_items: int = 64,
    n_events_per_user: int = 28,
    n_topics: int = 8,
    seed: int = 0,
    shuffled: bool = False,
    n_flavours: int = 2,
) -> Dataset:
    """A world with a known answer; see the module. Users take turns, so a time split cuts through everybody's life.

    Items come in `n_topics * n_flavours` equal groups; a user of flavour f who is at topic t is next seen with an
    unseen item of group (cycle[t], f), each equally likely. The attributes `topic` and `flavour` tell the answer and
    must not be shown to a model. Raises `InputError` where a user would run out of unseen items.
    """
    group_size = _check_sizes(n_items, n_events_per_user, n_topics, n_flavours)
    rng = np.random.default_rng(seed)
    groups = rng.permutation(n_items).reshape(n_topics, n_flavours, group_size)
    catalog = _make_catalog(groups, rng)

    # Users and steps at once: (n_users, n_events_per_user). The cycle over topics is 0, 1, 2, ... after the items,
    # and so the topics' words, have been dealt at random.
    steps = np.arange(n_events_per_user)
    topics = (rng.integers(n_topics, size=(n_users, 1)) + steps) % n_topics
    flavours = rng.integers(n_flavours, size=(n_users, 1))
    # An order of its own for each user and topic: what a user chose of one topic tells nothing about the next.
    own_orders = rng.random((n_users, n_topics, group_size)).argsort(axis=2)
    places = own_orders[np.arange(n_users)[:, None], topics, steps // n_topics]
    items = groups[topics, flavours, places].ravel()
    turns = rng.random((n_users, n_events_per_user)).argsort(axis=0)
    times = _START_TS + _STEP_S * (steps * n_users + turns)
    if shuffled:
        items = rng.permutation(items)
    interactions = Interactions.from_arrays(
        [f"user{number}" for number in range(n_users)],
        np.repeat(np.arange(n_users), n_events_per_user),
        items,
        times.ravel(),
    )
    name = "shuffled control of a planted world" if shuffled else "planted world"
    return Dataset(catalog, interactions, source=f"{name} (seed {seed})")


def planted_ceiling(n_seen: int, n_items: int = 64, n_topics: int = 8, n_flavours: int = 2, k: int = 10) -> float:
    """The expected NDCG@k of whoever knows the rule, for the next event of a user with `n_seen` events.

    The next item is equally likely any of the r unseen ones of its group: the mean of 1 / log2(1 + rank), ranks 1 to r.

    >>> round(planted_ceiling(0, n_items=32, n_topics=8, n_flavours=2), 4)  # groups of 2: (1 + 1 / log2(3)) / 2
    0.8155
    """
    unseen = n_items // (n_topics * n_flavours) - n_seen // n_topics
    return float((1 / np.log2(np.arange(2, 2 + min(unseen, k)))).sum() / unseen)


def _check_sizes(n_items: int, n_events_per_user: int, n_topics: int, n_flavours: int) -> int:
    """The size of a group, all items of one topic and flavour."""
    if not 2 <= n_topics <= MAX_TOPICS or not 1 <= n_flavours <= MAX_FLAVOURS:
        raise InputError(
            f"n_topics={n_topics}, n_flavours={n_flavours}: there are words for 2 to {MAX_TOPICS} topics and "
            f"1 to {MAX_FLAVOURS} flavours. Choose numbers within"
        )
    if n_items % (n_topics * n_flavours):
        raise InputError(f"n_items={n_items} must be a multiple of n_topics * n_flavours = {n_topics * n_flavours}")
    most = n_items // n_flavours
    if n_events_per_user > most:
        raise InputError(
            f"n_events_per_user={n_events_per_user}, but a user finds only {most} unseen items of one flavour. "
            "Ask for fewer events or more items"
        )
    return n_items // (n_topics * n_flavours)


def _make_catalog(groups: npt.NDArray[np.int64], rng: np.random.Generator) -> Catalog:
    topics = list(_TOPIC_WORDS)
    # Which words stand for which step of the cycle changes with the seed.
    topic_order = rng.permutation(MAX_TOPICS)[: groups.shape[0]]
    flavour_order = rng.permutation(MAX_FLAVOURS)[: groups.shape[1]]
    rows: list[dict[str, str]] = [{} for _ in range(groups.size)]
    for (topic_step, flavour_step, _), item in np.ndenumerate(groups):
        topic = topics[topic_order[topic_step]]
        flavour = list(_FLAVOUR_WORDS)[flavour_order[flavour_step]]
        rows[item] = {ITEM_ID: f"film{item}", **_write_film(topic, flavour, rng), "topic": topic, "flavour": flavour}
    return Catalog(pl.DataFrame(rows), text_columns=("title", "description"), attribute_columns=("topic", "flavour"))


def _write_film(topic: str, flavour: str, rng: np.random.Generator) -> dict[str, str]:
    nouns = rng.permutation(_TOPIC_WORDS[topic])
    moods = rng.permutation(_FLAVOUR_WORDS[flavour])
    return {
        "title": f"The {moods[0].title()} {nouns[0].title()} and the {nouns[1].title()}",
        "description": f"A {moods[1]} tale of a {nouns[2]}, a {nouns[3]} and a {moods[2]} {nouns[4]}.",
    }
