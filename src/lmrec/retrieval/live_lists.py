"""From scores over a snapshot to lists: what may be shown, the best of it, variety, pins, and the words to show."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmrec.errors import InputError
from lmrec.fields import BoolArray
from lmrec.retrieval.answers import Basis, LiveAnswer, LiveItem, LiveQuery
from lmrec.retrieval.casting import checked_text
from lmrec.retrieval.diversity import diversify
from lmrec.retrieval.filters import Filter
from lmrec.retrieval.live_scorer import LiveScorer
from lmrec.retrieval.rules import CompiledRules, SegmentRules, place_pins
from lmrec.retrieval.snapshot import Snapshot

MAX_TEXT = 4_000  # characters of a question in words
_POOL = 5  # candidates for each place where a list is not just the first k
_MIN_POOL = 50
_PHRASE_BONUS = 0.3
_WORDS_BONUS = 0.2
_MAX_WORDS = 8
_PERSONAL_WEIGHT = 0.1


@dataclass(frozen=True, eq=False)
class ListMaker:
    """Answers over the snapshot and rules that it is given; keeps nothing."""

    scorer: LiveScorer

    def recommend(self, snapshot: Snapshot, rules: CompiledRules, queries: Sequence[LiveQuery]) -> list[LiveAnswer]:
        for query in queries:
            _check(query)
        texts = [None if query.text is None else read_text(query.text) for query in queries]
        known = [snapshot.known_rows(query.history) for query in queries]
        in_forces = [rules.of(query.segment) for query in queries]
        scores = self._scores(snapshot, known, texts)
        for query, own, in_force, history in zip(queries, scores, in_forces, known, strict=True):
            if not history and query.text is None:
                own.copy_(_popularity(snapshot, in_force) if query.popular else torch.tensor(-math.inf))
            elif in_force.adjustment is not None:
                own += torch.from_numpy(in_force.adjustment)  # scores are logits: a factor on the odds is a sum
            excluded = [*snapshot.known_rows(list(query.exclude)), *(history if query.exclude_seen else ())]
            shown(own, snapshot, in_force, query.filter, excluded)
        tops = best_rows(scores, max((_pool(query) for query in queries), default=1))
        answers = []
        for at, query in enumerate(queries):
            rows = self._choose(snapshot, scores[at], tops[at], query, in_forces[at])
            shown_scores = scores[at][rows].tolist()
            items = self.items(snapshot, rows, shown_scores, rules.rule_ids, in_forces[at])
            answers.append(LiveAnswer(tuple(items), _basis(known[at], texts[at]), len(known[at])))
        return answers

    def similar(
        self, snapshot: Snapshot, rules: SegmentRules, row: int | None, text: str, k: int, item_filter: Filter | None
    ) -> tuple[LiveItem, ...]:
        _check_k(k)
        if row is None:
            item_vec = self.scorer.scorer.bank_rows(
                self.scorer.catalog.encode_texts([self.scorer.words(text)])
            ).item_vec
        else:
            item_vec = snapshot.bank.take(np.array([row])).item_vec
        cosine = snapshot.bank.item_scores(torch.nn.functional.normalize(item_vec, dim=1))[0]
        cosine /= torch.from_numpy(snapshot.length).clamp(min=1e-12)
        cosine = shown(cosine, snapshot, rules, item_filter, [] if row is None else [row])
        (rows,) = best_rows(cosine[None], k)
        return tuple(self.items(snapshot, rows, [float(cosine[at]) for at in rows]))

    def search(
        self,
        snapshot: Snapshot,
        rules: SegmentRules,
        words: str,
        k: int,
        history: list[int],
        item_filter: Filter | None,
    ) -> tuple[LiveItem, ...]:
        """Cosine of text vectors, plus what the title holds: 0.3 for the whole phrase and 0.2 times the share of its words.

        With a history, the best candidates are ordered anew: 0.1 is added for each standard deviation that the history's
        score of an item lies above their mean.
        """
        _check_k(k)
        text_vec = self.scorer.catalog.encode_texts([self.scorer.words(words)])
        scores = snapshot.bank.text_scores(torch.nn.functional.normalize(text_vec, dim=1))[0]
        scores += torch.from_numpy(_title_bonus(snapshot, words))
        scores = shown(scores, snapshot, rules, item_filter, [])
        (rows,) = best_rows(scores[None], max(_POOL * k, _MIN_POOL) if history else k)
        ranked = np.array([float(scores[row]) for row in rows])
        if history and rows:
            personal = self.scorer.scores_of_rows(snapshot, [history], rows)[0]
            ranked += _PERSONAL_WEIGHT * (personal - personal.mean()) / max(float(personal.std()), 1e-9)
        order = np.argsort(-ranked, kind="stable")[:k]
        return tuple(self.items(snapshot, [rows[at] for at in order], [float(ranked[at]) for at in order]))

    def items(
        self,
        snapshot: Snapshot,
        rows: Sequence[int],
        scores: Sequence[float],
        rule_ids: Sequence[str] = (),
        rules: SegmentRules | None = None,
    ) -> list[LiveItem]:
        pinned = {} if rules is None else {pin.row: pin.rule_id for pin in rules.pins}
        adjusting = None if rules is None else rules.rule_idx

        def rule_of(row: int) -> str | None:
            if row in pinned or adjusting is None or adjusting[row] < 0:
                return pinned.get(row)
            return rule_ids[int(adjusting[row])]

        return [
            LiveItem(snapshot.ids[row], snapshot.titles[row], score, fields, rule_of(row))
            for row, score, fields in zip(rows, scores, snapshot.fields(rows), strict=True)
        ]

    def _scores(self, snapshot: Snapshot, known: Sequence[list[int]], texts: Sequence[str | None]) -> Tensor:
        """(B, n_rows) the model's scores; rows of those of whom nothing is known are left to be filled."""
        asked = [at for at in range(len(known)) if known[at] or texts[at] is not None]
        if not asked:
            return torch.empty(len(known), snapshot.n_rows)
        histories = [known[at] for at in asked]
        users = self.scorer.query(snapshot, histories, [texts[at] for at in asked])
        found = self.scorer.scores(snapshot, users, histories)
        if len(asked) == len(known):
            return found
        scores = found.new_empty(len(known), snapshot.n_rows)
        scores[asked] = found
        return scores

    def _choose(
        self, snapshot: Snapshot, scores: Tensor, best: list[int], query: LiveQuery, rules: SegmentRules
    ) -> list[int]:
        """The rows to show, in order: of the best those asked for, made various, with pins at their places."""
        rows = best[: query.k]
        if query.diversity > 0:
            pool = best[: _pool(query)]
            vectors = snapshot.bank.take(np.array(pool, np.int64)).item_vec.numpy()
            rows = [pool[place] for place in diversify(scores[pool].numpy(), vectors, query.k, query.diversity)]
        pins = [pin for pin in rules.pins if float(scores[pin.row]) > -math.inf]
        return place_pins(rows, pins, query.k) if pins else rows


def shown(
    scores: Tensor, snapshot: Snapshot, rules: SegmentRules, item_filter: Filter | None, excluded: Collection[int]
) -> Tensor:
    """(n_rows,) with -inf for all that may not be shown; the scores given are written over."""
    if item_filter is None and rules.few_hidden is not None:
        scores.index_fill_(0, torch.from_numpy(rules.few_hidden), -math.inf)
    else:
        hidden = rules.hidden if item_filter is None else rules.hidden | ~snapshot.mask(item_filter)
        scores.masked_fill_(torch.from_numpy(hidden), -math.inf)
    if excluded:
        scores[list(excluded)] = -math.inf
    return scores


def best_rows(scores: Tensor, k: int) -> list[list[int]]:
    """(B, N) -> at most k places a row with the highest scores over -inf, best first, equal scores by place.

    What a row gets does not depend on the other rows.
    """
    width = min(k, scores.shape[1])
    # One more than asked for tells whether the last place is tied: of equal scores topk takes any.
    top = torch.topk(scores, min(width + 1, scores.shape[1]))
    values, places = top.values.numpy(), top.indices.numpy()
    order = np.lexsort((places, -values))
    best = np.take_along_axis(places, order, axis=1)[:, :width]
    n_real = np.isfinite(values[:, :width]).sum(axis=1)
    rows = [row[:n].tolist() for row, n in zip(best, n_real, strict=True)]
    if values.shape[1] > width > 0:
        for tied in np.flatnonzero((values[:, width] == values[:, width - 1]) & np.isfinite(values[:, width])):
            own = scores[int(tied)].numpy()
            candidates = np.flatnonzero(own >= values[tied, width])
            rows[int(tied)] = candidates[np.argsort(-own[candidates], kind="stable")][:width].tolist()
    return rows


def read_text(text: str) -> str:
    """Raises InputError for words that are blank, too long or no Unicode."""
    if not text.strip():
        raise InputError("the text is blank. Give a few words, such as 'a heist film with a twist', or leave it out")
    return checked_text(text, "the question", MAX_TEXT)


def title_mask(snapshot: Snapshot, words: str) -> BoolArray:
    """(n_rows,) the items with this id or with these words in the title, whatever their case; all for no words."""
    if not words.strip():
        return np.ones(snapshot.n_rows, np.bool_)
    mask: BoolArray = snapshot.lowered_titles.str.contains(words.strip().lower(), literal=True).to_numpy().copy()
    row = snapshot.row_of(words.strip())
    if row is not None:
        mask[row] = True
    return mask


def _title_bonus(snapshot: Snapshot, words: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    titles = snapshot.lowered_titles
    parts = list(dict.fromkeys(words.lower().split()))[:_MAX_WORDS]
    bonus = titles.str.contains(words.strip().lower(), literal=True).to_numpy() * np.float32(_PHRASE_BONUS)
    for part in parts:
        bonus += titles.str.contains(part, literal=True).to_numpy() * np.float32(_WORDS_BONUS / len(parts))
    return bonus


def _popularity(snapshot: Snapshot, rules: SegmentRules) -> Tensor:
    popularity = torch.from_numpy(snapshot.popularity.copy())
    return popularity if rules.adjustment is None else popularity * torch.from_numpy(rules.adjustment).exp()


def _pool(query: LiveQuery) -> int:
    """How many of the best a list is made of."""
    return max(_POOL * query.k, _MIN_POOL) if query.diversity > 0 else query.k


def _basis(history: Sequence[int], text: str | None) -> Basis:
    if text is None:
        return "history" if history else "popular"
    return "history+text" if history else "text"


def _check(query: LiveQuery) -> None:
    _check_k(query.k)
    if not 0.0 <= query.diversity <= 1.0:
        raise InputError(f"diversity is {query.diversity}; give a number from 0, the plain order, to 1")


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1")
