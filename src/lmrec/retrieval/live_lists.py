"""From scores over a snapshot to lists: what may be shown, the best of it, variety, pins, and the words to show."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from lmrec.artifacts.reranker import RerankerDescription
from lmrec.errors import InputError
from lmrec.fields import ITEM_ID, BoolArray, IntArray
from lmrec.models.live_stack import LiveStack, RunningCounts
from lmrec.retrieval.answers import Basis, LiveAnswer, LiveItem, LiveQuery
from lmrec.retrieval.candidates import Candidates, find_candidates
from lmrec.retrieval.casting import Fields, checked_text
from lmrec.retrieval.diversity import diversify
from lmrec.retrieval.filters import Filter, leaving_out, words_filter
from lmrec.retrieval.live_scorer import LiveScorer, texts_of
from lmrec.retrieval.reranker import Reranker
from lmrec.retrieval.rules import CompiledRules, SegmentRules, place_pins
from lmrec.retrieval.searched import Ask, Searched, can_search, search_index
from lmrec.retrieval.snapshot import Snapshot
from lmrec.retrieval.standing import Standing
from lmrec.retrieval.wishes import Wish, read_wish, spellings

MAX_TEXT = 4_000  # characters of a question in words
_POOL = 5  # candidates for each place where a list is not just the first k
_MIN_POOL = 50
_PHRASE_BONUS = 0.3
_WORDS_BONUS = 0.2
_MAX_WORDS = 8
_PERSONAL_WEIGHT = 0.1


@dataclass(frozen=True, eq=False)
class LiveOrder:
    """How candidates are ordered by what is live: the stack that was learnt, and how items fared so far."""

    stack: LiveStack
    counts: RunningCounts


@dataclass(frozen=True, eq=False)
class PairReader:
    """What reads lists, and the column of its template where typed words go."""

    reranker: Reranker
    text_column: str

    @property
    def description(self) -> RerankerDescription:
        return self.reranker.description

    def texts_of(self, snapshot: Snapshot, rows: IntArray) -> list[str]:
        return texts_of(self.reranker.template, snapshot, rows)

    def words(self, text: str) -> str:
        return self.reranker.template.render_typed(text, self.text_column)

    def reorder(
        self, snapshot: Snapshot, beside: "_Read", pool: list[int], score_of: dict[int, float]
    ) -> tuple[list[int], dict[int, float]]:
        """The pool with its best in the order of reading; a row takes the score of the place that it moves to."""
        n = self.description.top_k
        best = pool[:n]
        scores = [score_of[row] for row in best]
        texts = self.texts_of(snapshot, np.array(best, np.int64))
        order = self.reranker.reorder(beside.history, texts, scores, beside.user, beside.asked)
        moved = [best[int(place)] for place in order]
        return [*moved, *pool[n:]], {**score_of, **dict(zip(moved, scores, strict=True))}


@dataclass(frozen=True, eq=False)
class ListMaker:
    """Answers over the snapshot and rules that it is given; keeps nothing."""

    scorer: LiveScorer
    reader: PairReader | None = None
    live_order: "LiveOrder | None" = None

    def recommend(self, snapshot: Snapshot, rules: CompiledRules, queries: Sequence[LiveQuery]) -> list[LiveAnswer]:
        for query in queries:
            _check(query)
        asked = [self._asked(snapshot, rules, query) for query in queries]
        answers = []
        for own, standing in zip(asked, self._standings(snapshot, asked), strict=True):
            read = self._read_of(snapshot, own.history, own.text, own.query)
            rows, scores = self._choose(snapshot, standing, own.query, own.rules, read)
            items = self.items(snapshot, rows, scores, rules.rule_ids, own.rules, columns=own.query.columns)
            basis = _basis(own.history, own.text, self.scorer.knows(own.query.profile))
            is_read = own.text is not None or not own.wish.wanted
            answer = LiveAnswer(tuple(items), basis, len(own.history), own.wish.unwanted, is_read)
            if own.candidates is not None:
                hidden = [row for row in own.candidates.rows if not standing.is_shown(row)]
                left_out = tuple(snapshot.ids[row] for row in hidden)
                answer = replace(answer, unknown=own.candidates.unknown, left_out=left_out)
            answers.append(answer)
        return answers

    def _asked(self, snapshot: Snapshot, rules: CompiledRules, query: LiveQuery) -> "_Asked":
        wish = wish_of(snapshot, query.text)
        history = snapshot.known_rows(query.history)
        return _Asked(
            query=without_unwanted(snapshot, query, wish),
            wish=wish,
            text=self.read_of(wish),
            history=history,
            rules=rules.of(query.segment),
            excluded=[*snapshot.known_rows(list(query.exclude)), *(history if query.exclude_seen else ())],
            candidates=None if query.candidates is None else find_candidates(query.candidates, snapshot.row_of),
        )

    @property
    def reads_words(self) -> bool:
        """Whether anything that makes lists reads words: the model, or a reranker."""
        return self.scorer.scorer.reads_words or self.reader is not None

    def read_of(self, wish: Wish) -> str | None:
        """What of a wish stands in the history; None where it wants nothing, or nothing reads it."""
        return (wish.wanted or None) if self.reads_words else None

    def similar(
        self, snapshot: Snapshot, rules: SegmentRules, row: int | None, text: str, k: int, item_filter: Filter | None
    ) -> tuple[LiveItem, ...]:
        _check_k(k)
        if row is None:
            said = self.scorer.catalog.encode_texts([self.scorer.words(text)])
            asked = self.scorer.scorer.bank_rows(said, is_ranked=False)
        else:
            asked = snapshot.bank.take(np.array([row]))
        if self.scorer.scorer.trained:
            cosine = snapshot.bank.item_scores(torch.nn.functional.normalize(asked.item_vec, dim=1))[0]
            cosine /= torch.from_numpy(snapshot.length).clamp(min=1e-12)
        else:
            cosine = snapshot.bank.text_scores(torch.nn.functional.normalize(asked.text_vec, dim=1))[0]
        standing = Standing.of(cosine.numpy())
        standing.hide(snapshot, rules, item_filter, [] if row is None else [row])
        rows, score_of = standing.best(k)
        return tuple(self.items(snapshot, rows, [score_of[at] for at in rows]))

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
        standing = Standing.of(scores.numpy())
        standing.hide(snapshot, rules, item_filter, [])
        rows, score_of = standing.best(max(_POOL * k, _MIN_POOL) if history else k)
        ranked = np.array([score_of[row] for row in rows])
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
        columns: bool = True,
    ) -> list[LiveItem]:
        pinned = {} if rules is None else {pin.row: pin.rule_id for pin in rules.pins}
        adjusting = None if rules is None else rules.rule_idx

        def rule_of(row: int) -> str | None:
            if row in pinned or adjusting is None or adjusting[row] < 0:
                return pinned.get(row)
            return rule_ids[int(adjusting[row])]

        fields_of: Sequence[Fields] = snapshot.fields(rows) if columns else [{}] * len(rows)
        return [
            LiveItem(snapshot.ids[row], snapshot.titles[row], score, fields, rule_of(row))
            for row, score, fields in zip(rows, scores, fields_of, strict=True)
        ]

    def _standings(self, snapshot: Snapshot, asked: Sequence["_Asked"]) -> list[Standing | Searched]:
        """(B,) by the model, with boosts; of those of whom nothing is known, by popularity. What may not be shown is
        hidden, and what is not among the candidates where there are any."""
        known = [at for at, own in enumerate(asked) if self._is_scored(own)]
        standings: dict[int, Standing | Searched] = {}
        if known:
            users = self._query(snapshot, [asked[at] for at in known])
            asks = {at: self._ask(asked[at]) for at in known}
            named = [place for place, at in enumerate(known) if asked[at].candidates is not None]
            others = [place for place, at in enumerate(known) if asked[at].candidates is None]
            searched = [place for place in others if can_search(snapshot, asks[known[place]])]
            whole = [place for place in others if not can_search(snapshot, asks[known[place]])]
            if searched:
                found = search_index(self.scorer, snapshot, users[searched], [asks[known[place]] for place in searched])
                standings.update((known[place], one) for place, one in zip(searched, found, strict=True))
            if whole:
                histories = [asked[known[place]].history for place in whole]
                scored = self.scorer.standings(snapshot, users[whole], histories)
                for place, one in zip(whole, scored, strict=True):
                    standings[known[place]] = asked[known[place]].behind_rules(snapshot, one)
            for place in named:
                own = asked[known[place]]
                standings[known[place]] = own.behind_rules(snapshot, self._among(snapshot, users[place], own))
        for at, own in enumerate(asked):
            if at not in standings:
                standings[at] = own.hidden(snapshot, own.popular(snapshot))
        return [standings[at] for at in range(len(asked))]

    def _among(self, snapshot: Snapshot, user: Tensor, asked: "_Asked") -> Standing:
        """The candidates by the model, and by how they fared so far where that counts."""
        rows, order = asked.candidate_rows, self.live_order
        hears_towers = order is not None and order.stack.hears_towers
        scores = (
            self.scorer.towers_at(snapshot, user, rows)
            if hears_towers
            else self.scorer.scores_at(snapshot, user, asked.history, rows)
        )
        if order is None:
            return Standing.among(snapshot.n_rows, rows, scores, bool(self.scorer.rankings))
        at_ts = time.time() if asked.query.at_ts is None else asked.query.at_ts
        fared = order.counts.before([snapshot.ids[row] for row in rows], at_ts)
        return Standing.among(snapshot.n_rows, rows, order.stack.score(scores, fared).astype(np.float32))

    def _is_scored(self, asked: "_Asked") -> bool:
        """Whether the model is asked: of whom nothing is known it is where what is live counts beside it."""
        is_known = asked.history or asked.text is not None or self.scorer.knows(asked.query.profile)
        return bool(is_known) or (asked.candidates is not None and self.live_order is not None)

    def _query(self, snapshot: Snapshot, asked: Sequence["_Asked"]) -> Tensor:
        return self.scorer.query(
            snapshot,
            [own.history for own in asked],
            [own.text for own in asked],
            [own.query.profile for own in asked],
        )

    def _ask(self, asked: "_Asked") -> Ask:
        return Ask(asked.history, asked.rules, asked.query.filter, asked.excluded, self._pool(asked.query))

    def _choose(
        self,
        snapshot: Snapshot,
        standing: Standing | Searched,
        query: LiveQuery,
        rules: SegmentRules,
        beside: "_Read",
    ) -> tuple[list[int], list[float]]:
        """The rows to show, in order, and their scores: of the best those asked for, read beside what is known where there is
        anything, made various, with pins at their places."""
        pins = [pin for pin in rules.pins if standing.is_shown(pin.row)]
        pool, score_of = standing.best(self._pool(query), [pin.row for pin in pins])
        is_live = query.candidates is not None and self.live_order is not None
        if (beside.history or beside.user) and self.reader is not None and not is_live:
            pool, score_of = self.reader.reorder(snapshot, beside, pool, score_of)
        rows = pool[: query.k]
        if query.diversity > 0:
            vectors = snapshot.bank.take(np.array(pool, np.int64)).item_vec.numpy()
            scores = np.array([score_of[row] for row in pool], np.float32)
            rows = [pool[place] for place in diversify(scores, vectors, query.k, query.diversity)]
        rows = place_pins(rows, pins, query.k) if pins else rows
        return rows, [score_of[row] for row in rows]

    def _read_of(self, snapshot: Snapshot, history: Sequence[int], text: str | None, query: LiveQuery) -> "_Read":
        """What a reranker reads of somebody; nothing where nothing reads."""
        if self.reader is None:
            return _Read((), "", False)
        newest = np.array(history[-self.reader.description.max_tokens :], np.int64)
        asked = [self.reader.words(text)] if text is not None else []
        texts = (*self.reader.texts_of(snapshot, newest), *asked)
        return _Read(texts, self.scorer.of_users.render(query.profile), query.asked_words)

    def _pool(self, query: LiveQuery) -> int:
        """How many of the best a list is made of."""
        wanted = max(_POOL * query.k, _MIN_POOL) if query.diversity > 0 else query.k
        return wanted if self.reader is None else max(wanted, self.reader.description.top_k)


@dataclass(frozen=True, eq=False)
class _Asked:
    """A question as one snapshot sees it. text: what is read of it. history, excluded: rows; history is oldest first."""

    query: LiveQuery
    wish: Wish
    text: str | None
    history: list[int]
    rules: SegmentRules
    excluded: list[int]
    candidates: Candidates | None

    @property
    def candidate_rows(self) -> npt.NDArray[np.int64]:
        """(M,) those that the catalog knows."""
        return np.array(() if self.candidates is None else self.candidates.rows, np.int64)

    def behind_rules(self, snapshot: Snapshot, standing: Standing) -> Standing:
        """The model's own standing, with boosts and without what may not be shown."""
        return self.hidden(snapshot, standing.lifted(self.rules.adjustment))

    def hidden(self, snapshot: Snapshot, standing: Standing) -> Standing:
        standing.hide(snapshot, self.rules, self.query.filter, self.excluded)
        return standing

    def popular(self, snapshot: Snapshot) -> Standing:
        """By what is popular now, with boosts."""
        scores = popularity_now(snapshot, self.rules, self.query.popular)
        if self.candidates is None:
            return Standing.of(scores)
        return Standing.among(snapshot.n_rows, self.candidate_rows, scores[self.candidate_rows])


@dataclass(frozen=True)
class _Read:
    """history: texts, oldest first, a question in words last. user: words of whom it is of, and whether the question gave
    them."""

    history: tuple[str, ...]
    user: str
    asked: bool


def read_text(text: str) -> str:
    """Raises InputError for words that are blank, too long or no Unicode."""
    if not text.strip():
        raise InputError("the text is blank. Give a few words, such as 'a heist film with a twist', or leave it out")
    return checked_text(text, "the question", MAX_TEXT)


def wish_of(snapshot: Snapshot, text: str | None) -> Wish:
    """What a text wants and does not want, an empty wish without one; the beginning of an item's title is wanted as it is,
    be it "No Country for Old Men". Raises InputError as `read_text`."""
    if text is None:
        return Wish("")
    wish = read_wish(read_text(text))
    if wish.unwanted and bool(snapshot.lowered_titles.str.starts_with(text.strip().lower()).any()):
        return Wish(text)
    return wish


def title_mask(snapshot: Snapshot, words: str) -> BoolArray:
    """(n_rows,) the items with this id or with these words in the title, whatever their case; all for no words."""
    if not words.strip():
        return np.ones(snapshot.n_rows, np.bool_)
    mask: BoolArray = snapshot.lowered_titles.str.contains(words.strip().lower(), literal=True).to_numpy().copy()
    row = snapshot.row_of(words.strip())
    if row is not None:
        mask[row] = True
    return mask


def without_unwanted(snapshot: Snapshot, query: LiveQuery, wish: Wish) -> LiveQuery:
    """The query, whose filter also leaves out items that name in a column of text what is not wanted."""
    columns = tuple(name for name, dtype in snapshot.schema.items() if dtype == pl.String and name != ITEM_ID)
    if not wish.unwanted or not columns:
        return query
    named = words_filter(tuple(form for phrase in wish.unwanted for form in spellings(phrase)), columns)
    return replace(query, filter=leaving_out(named, query.filter))


def _title_bonus(snapshot: Snapshot, words: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    titles = snapshot.lowered_titles
    parts = list(dict.fromkeys(words.lower().split()))[:_MAX_WORDS]
    bonus = titles.str.contains(words.strip().lower(), literal=True).to_numpy() * np.float32(_PHRASE_BONUS)
    for part in parts:
        bonus += titles.str.contains(part, literal=True).to_numpy() * np.float32(_WORDS_BONUS / len(parts))
    return bonus


def popularity_now(snapshot: Snapshot, rules: SegmentRules, popular: bool) -> npt.NDArray[np.float32]:
    """(n_rows,) what is popular now, with boosts; -inf of everything for who does not want that."""
    if not popular:
        return np.full(snapshot.n_rows, -np.inf, np.float32)
    return snapshot.popularity if rules.adjustment is None else snapshot.popularity * np.exp(rules.adjustment)


def _basis(history: Sequence[int], text: str | None, has_profile: bool) -> Basis:
    if text is None:
        return "history" if history else "profile" if has_profile else "popular"
    return "history+text" if history else "text"


def _check(query: LiveQuery) -> None:
    _check_k(query.k)
    if not 0.0 <= query.diversity <= 1.0:
        raise InputError(f"diversity is {query.diversity}; give a number from 0, the plain order, to 1")


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1")
