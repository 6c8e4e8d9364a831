"""Why this item: what each item of the history and each word gave, and what would have kept the item off the list.

Contributions add up: base + their sum = score. The base is the score for someone without a history; a profile,
where one is known, is part of it. Items join the
history one by one, and each is credited with the change of the score; this is done twice, once from the oldest to the
newest and once the other way round (each part-history being read in its own order of time), and the two are averaged: a
Shapley value over two of the H! orders, at 2 H scores instead of 2^H. Words are credited with what the score loses when
they alone are left out of the item's text, so they need not add up. All is said of the model's own score, before boosts.
A free text counts as the newest item of the history: it is credited like one, and each of its words with what the score loses
without that word.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmrec.fields import ITEM_ID, FloatArray, ItemId
from lmrec.retrieval.answers import LiveQuery
from lmrec.retrieval.live_lists import popularity_now, wish_of, without_unwanted
from lmrec.retrieval.standing import Standing

if TYPE_CHECKING:
    from lmrec.retrieval.live import LiveRecommender, LiveState
    from lmrec.retrieval.snapshot import Snapshot

MAX_WORDS = 100
MAX_CHANGE = 5
_TRIED = 16  # history items whose removal is tried at each step


@dataclass(frozen=True)
class Contribution:
    item_id: ItemId
    title: str
    contribution: float


@dataclass(frozen=True)
class WordAttribution:
    word: str
    attribution: float


@dataclass(frozen=True)
class Explanation:
    """contributions: oldest first. place: from 1 among what the question may show, None where the item itself may not be
    shown. Of somebody of whom nothing is known, score and base are how popular the item is: their lists are made of that.

    smallest_change: the fewest history items found (greedily, at most 5) without which the item is off the first k; None
    where it is not on them, or no such few do. because: a sentence, None where nothing of the history speaks for it.
    text: what the free text gave, None without one; text_words: what each of its words did; text_read: whether what it wants
    is read at all.
    """

    item_id: ItemId
    title: str
    score: float
    base: float
    place: int | None
    contributions: tuple[Contribution, ...]
    words: tuple[WordAttribution, ...]
    smallest_change: tuple[Contribution, ...] | None
    because: str | None
    text: float | None = None
    text_words: tuple[WordAttribution, ...] = ()
    text_read: bool = True


def explain(live: "LiveRecommender", query: LiveQuery, item_id: ItemId, words: bool = True) -> Explanation:
    """Why the item stands where it does in the list of `query`; words: which of the words moved its score, too.

    Raises UnknownIdError where the catalog lacks the item, InputError for a text that cannot be read and where ranks are
    summed. Of a history the newest items that the model reads count.
    """
    live.scorer.check_explains()
    query = live.settled(query)
    state = live.state
    snapshot = state.snapshot
    row = live.known_row(snapshot, item_id)
    rows = snapshot.known_rows(query.history)
    wish = wish_of(snapshot, query.text)
    wanted = live.read_of(wish)
    is_read = wanted is not None or not wish.wanted
    others = _Others(live, state, row, wanted, without_unwanted(snapshot, query, wish), frozenset(rows))
    profile = query.profile
    if not rows and wanted is None and not live.scorer.knows(profile):
        popularity = float(snapshot.popularity[row])
        return Explanation(
            item_id=item_id,
            title=snapshot.titles[row],
            score=popularity,
            base=popularity,
            place=others.place([]),
            contributions=(),
            words=(),
            smallest_change=None,
            because=None,
            text_read=is_read,
        )
    recent = rows[-live.scorer.scorer.reach :]
    scores, gained = contributions(live, snapshot, recent, [row], wanted, profile)
    values, base, score = gained[: len(recent), 0], float(scores[0, 0]), float(scores[-1, 0])
    credited = tuple(
        Contribution(snapshot.ids[at], snapshot.titles[at], float(value))
        for at, value in zip(recent, values, strict=True)
    )
    place = others.place(recent)
    change = _smallest_change(others, recent, values, query.k) if place is not None and place <= query.k else None
    reasons = [(one.title, one.contribution) for one in credited]
    if wanted is not None:
        reasons.append((f"'{wanted}'", float(gained[-1, 0])))
    strongest, most = max(reasons, key=lambda one: one[1], default=("", 0.0))
    return Explanation(
        item_id=item_id,
        title=snapshot.titles[row],
        score=score,
        base=base,
        place=place,
        contributions=credited,
        words=_words(live, state, recent, wanted, row, profile) if words else (),
        smallest_change=None if change is None else tuple(credited[at] for at in change),
        because=f"because of {strongest}" if most > 0 else None,
        text=None if wanted is None else float(gained[-1, 0]),
        text_words=_text_words(live, snapshot, recent, wanted, row, profile) if words and wanted is not None else (),
        text_read=is_read,
    )


def contributions(
    live: "LiveRecommender",
    snapshot: "Snapshot",
    history: Sequence[int],
    rows: Sequence[int],
    text: str | None = None,
    profile: Mapping[str, Any] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """(H + 1, K) the scores of K rows for each beginning of the history, from none of it to all, and (H, K) what each
    item of the history gave each of them. With a text, which stands after the newest item, one more of each. Raises
    InputError where ranks are summed."""
    live.scorer.check_explains()
    n, ends = len(history), [None] if text is None else [None, text]
    forward = [(history[:end], None) for end in range(n + 1)] + [(history, end) for end in ends[1:]]
    backward = [(history[n:], end) for end in ends[:-1]] + [(history[start:], ends[-1]) for start in range(n, -1, -1)]
    asked, texts = zip(*forward, *backward, strict=True)
    scores = live.scorer.scores_of_rows(snapshot, asked, rows, texts, profile)
    joined_last, joined_first = scores[: len(forward)], scores[len(forward) :]
    return joined_last, (np.diff(joined_last, axis=0) + np.diff(joined_first, axis=0)[::-1]) / 2.0


def _text_words(
    live: "LiveRecommender", snapshot: "Snapshot", history: list[int], text: str, row: int, profile: Mapping[str, Any]
) -> tuple[WordAttribution, ...]:
    """Each word that somebody typed, and what the score loses without it."""
    said = text.split()[:MAX_WORDS]
    without = [" ".join([*said[:at], *said[at + 1 :]]) or None for at in range(len(said))]
    asked = [" ".join(said), *without]
    scores = live.scorer.scores_of_rows(snapshot, [history] * len(asked), [row], asked, profile)[:, 0]
    return tuple(WordAttribution(word, float(scores[0] - lost)) for word, lost in zip(said, scores[1:], strict=True))


def _words(
    live: "LiveRecommender",
    state: "LiveState",
    history: list[int],
    text: str | None,
    row: int,
    profile: Mapping[str, Any],
) -> tuple[WordAttribution, ...]:
    """Each word of the item's text, in order, and what the score loses without it; one batch for all of them."""
    if live.recommender.checkpoint.configs.item.source == "id":
        return ()
    snapshot = state.snapshot
    (fields,) = snapshot.fields([row])
    said = live.recommender.checkpoint.template.render_item({**fields, ITEM_ID: snapshot.ids[row]}).split()[:MAX_WORDS]
    if not said:
        return ()
    without = [" ".join([*said[:at], *said[at + 1 :]]) for at in range(len(said))]
    text_vec = live.scorer.catalog.encode_texts([" ".join(said), *without])
    learnt = snapshot.bank.take(np.array([row])).item_vec - live.scorer.scorer.project(text_vec[:1])
    origin = int(snapshot.origin[row])
    scores = live.scorer.scores_of_words(snapshot, history, text, text_vec, learnt, origin, profile)
    return tuple(WordAttribution(word, float(scores[0] - lost)) for word, lost in zip(said, scores[1:], strict=True))


@dataclass(frozen=True, eq=False)
class _Others:
    """Where an item stands among all that the query could show in its place, whatever of the history (`seen`, all of it) is
    left out of the question."""

    live: "LiveRecommender"
    state: "LiveState"
    row: int
    text: str | None
    query: LiveQuery
    seen: frozenset[int]

    def place(self, history: list[int]) -> int | None:
        ahead = self._count_ahead(history)
        return None if ahead is None else ahead + 1

    def margins(self, histories: list[list[int]], k: int) -> list[float]:
        """By how much the item beats the k-th best of the others, for each history; below 0 it is off the first k."""
        margins = []
        for standing in self._standings(histories):
            own = float(standing.exact(np.array([self.row]))[0]) if standing.is_shown(self.row) else -math.inf
            standing.rough[self.row] = -np.inf
            others, score_of = standing.best(k)
            margins.append(own - (score_of[others[-1]] if len(others) == k else -math.inf))
        return margins

    def _count_ahead(self, history: list[int]) -> int | None:
        (standing,) = self._standings([history])
        if not standing.is_shown(self.row):
            return None
        own = float(standing.exact(np.array([self.row]))[0])
        near = np.union1d(np.flatnonzero(standing.rough >= own - standing.off), [self.row])  # the others are behind
        scores = standing.exact(near)
        return int((scores > scores[near == self.row]).sum())

    def _standings(self, histories: list[list[int]]) -> list[Standing]:
        snapshot, rules = self.state.snapshot, self.state.rules.of(self.query.segment)
        known = self.text is not None or self.live.scorer.knows(self.query.profile)
        by_model = iter(self._by_model([history for history in histories if history or known]))
        standings = [
            next(by_model).lifted(rules.adjustment)
            if history or known
            else Standing.of(popularity_now(snapshot, rules, self.query.popular))
            for history in histories
        ]
        excluded = {*snapshot.known_rows(list(self.query.exclude)), *(self.seen if self.query.exclude_seen else ())}
        for standing in standings:
            standing.hide(snapshot, rules, self.query.filter, excluded)
        return standings

    def _by_model(self, histories: list[list[int]]) -> list[Standing]:
        if not histories:
            return []
        scorer, snapshot = self.live.scorer, self.state.snapshot
        n = len(histories)
        query = scorer.query(snapshot, histories, [self.text] * n, [self.query.profile] * n)
        return scorer.standings(snapshot, query, histories)


def _smallest_change(others: _Others, history: list[int], values: FloatArray, k: int) -> list[int] | None:
    """Places of the history. Each step leaves out what costs the item most; what turns out needless is put back."""
    removed: list[int] = []
    candidates = [int(at) for at in np.argsort(-values, kind="stable")]
    while len(removed) < min(MAX_CHANGE, len(history)):
        tried = [at for at in candidates if at not in removed][:_TRIED]
        margins = others.margins([_without(history, [*removed, at]) for at in tried], k)
        best = int(np.argmin(margins))
        removed.append(tried[best])
        if margins[best] < 0:
            return _needed(others, history, removed, k)
    return None


def _needed(others: _Others, history: list[int], removed: list[int], k: int) -> list[int]:
    for at in removed[:-1]:
        fewer = [place for place in removed if place != at]
        if others.margins([_without(history, fewer)], k)[0] < 0:
            removed = fewer
    return sorted(removed)


def _without(history: list[int], places: list[int]) -> list[int]:
    return [row for place, row in enumerate(history) if place not in places]
