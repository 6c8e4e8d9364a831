"""Recommendations from a run folder, for known users, for histories never seen, and for words."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import polars as pl
import torch
from torch import Tensor

from lmrec.artifacts.checkpoint import Checkpoint, ItemVectors, load_vectors, read_checkpoint
from lmrec.artifacts.ensemble import EnsembleKind, read_ensemble
from lmrec.artifacts.list_stack import ListStack, load_list_stack
from lmrec.artifacts.run import RunFolder, open_run
from lmrec.data.catalog import Catalog
from lmrec.data.history import HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.data.users import UserTable
from lmrec.errors import DataError, InputError, RunFolderError
from lmrec.fields import (
    ITEM_ID,
    RANK,
    SCORE,
    USER_ID,
    BoolArray,
    FloatArray,
    IntArray,
    ItemId,
    Profile,
    Ragged,
    UserId,
    text_array,
)
from lmrec.models.fusion import Fusion
from lmrec.models.live_stack import RunningCounts
from lmrec.models.two_tower import TwoTower
from lmrec.retrieval.bank import GrowingBank
from lmrec.retrieval.candidates import find_candidates
from lmrec.retrieval.ensemble import AnyScorer, EnsembleScorer, RankedEnsemble, answering
from lmrec.retrieval.index import ItemIndex, RowMask
from lmrec.retrieval.nearest import merged, nearest_rows
from lmrec.retrieval.reranker import Reranker
from lmrec.retrieval.scorer import Scorer, build_bank
from lmrec.retrieval.words import WordEncoder
from lmrec.text.users import UserTemplate
from lmrec.topk import exclude_items, top_k

ItemFilter: TypeAlias = pl.Expr | Collection[ItemId]
_BLOCK = 256  # users scored at once
_NO_WORDS = UserTemplate()
UNREAD = "nothing that counts in this run reads words: neither trained towers nor fusion.content"
READING = "fit with training or with fusion.content=true"


@dataclass(frozen=True)
class ScoredItem:
    item_id: ItemId
    title: str
    score: float


@dataclass(frozen=True)
class ScoredUser:
    """`liked`: titles of the user's newest items, to make the id mean something to a person."""

    user_id: UserId
    score: float
    liked: tuple[str, ...]


@dataclass(frozen=True)
class Recommendation:
    """One answer. `basis` says what it rests on: "history" (n_history items of it), "text", "profile" (no history,
    but attributes that were learnt), or "nothing": a user of whom nothing is known gets what the model shows a newcomer, and
    so does who asks with words a run that reads none."""

    user_id: UserId | None
    basis: str
    n_history: int
    items: tuple[ScoredItem, ...]


@dataclass(frozen=True)
class RankedCandidates:
    """Candidates in order, the best first. `basis` and `n_history` as in a Recommendation; `unknown`: ids of candidates that
    the catalog lacks, which are left out."""

    user_id: UserId | None
    basis: str
    n_history: int
    items: tuple[ScoredItem, ...]
    unknown: tuple[ItemId, ...]


def to_frame(recommendations: Iterable[Recommendation]) -> pl.DataFrame:
    """Columns user_id, item_id, rank (from 1), score; one row for each recommended item."""
    rows = [
        (answer.user_id, item.item_id, place, item.score)
        for answer in recommendations
        for place, item in enumerate(answer.items, start=1)
    ]
    schema = {USER_ID: pl.String, ITEM_ID: pl.String, RANK: pl.Int32, SCORE: pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The runs that answer as one, and how: see `lmrec.retrieval.ensemble`."""

    members: "tuple[Recommender, ...]"
    weights: tuple[float, ...]
    by: EnsembleKind

    def scorer(self, members: Sequence[AnyScorer]) -> EnsembleScorer | RankedEnsemble:
        """These members' scorers as one, whichever part of the log they know."""
        kind = RankedEnsemble if self.by == "ranks" else EnsembleScorer
        return kind("ensemble", self.single(members), self.weights)

    def single(self, members: Sequence[AnyScorer]) -> tuple[Scorer, ...]:
        """They are no ensembles, as `lmrec ensemble` sees to."""
        single = tuple(member for member in members if isinstance(member, Scorer))
        assert len(single) == len(self.weights), "an ensemble has no ensembles as members"
        return single


@dataclass(frozen=True, eq=False)
class Recommender:
    """A trained run, ready to answer, whatever it is made of: what all kinds are behind (docs/decisions/004). A known item
    costs no pass of the language model; only new words do."""

    run: RunFolder
    catalog: Catalog
    interactions: Interactions
    checkpoint: Checkpoint
    towers: TwoTower
    vectors: ItemVectors
    fusion: Fusion
    words: WordEncoder
    ensemble: "Ensemble | None" = None
    reranker: Reranker | None = None
    users: UserTable | None = None
    user_template: UserTemplate = _NO_WORDS  # of what is read before histories, by the model or by its reranker
    list_stack: ListStack | None = None  # what orders candidates beside the model, where lists that were shown told

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Needs nothing but the run folder. Raises RunFolderError where that is missing, unfinished or damaged."""
        run = open_run(path)
        try:
            catalog = Catalog.from_parquet(run.data / "catalog.parquet")
            interactions = Interactions.from_parquet(run.data / "interactions.parquet")
        except (OSError, pl.exceptions.PolarsError, DataError) as error:
            reason = str(error).splitlines()[0]
            raise RunFolderError(
                f"the data in {run.data} is missing or damaged ({reason}). Fit the run again"
            ) from error
        if run.ensemble_file.exists():
            return cls._load_ensemble(run, catalog, interactions)
        checkpoint = read_checkpoint(run.checkpoint)
        reranker = _open_reranker(run, checkpoint)
        loaded = cls(
            run=run,
            catalog=catalog,
            interactions=interactions,
            checkpoint=checkpoint,
            towers=checkpoint.load_towers(),
            vectors=load_vectors(run.vectors_file, checkpoint, catalog.fingerprint),
            fusion=checkpoint.load_fusion(),
            words=WordEncoder(checkpoint, catalog),
            reranker=reranker,
            list_stack=_list_stack(run, catalog),
        )
        return loaded.reading(_user_template(checkpoint, reranker))

    @classmethod
    def _load_ensemble(cls, run: RunFolder, catalog: Catalog, interactions: Interactions) -> Self:
        description = read_ensemble(run)
        members = tuple(cls.load(path) for path in run.member_paths)
        if any(member.catalog.fingerprint != catalog.fingerprint for member in members):
            raise RunFolderError(f"a member of the ensemble '{run.path}' has another catalog. Make the ensemble again")
        first, reranker = members[0], _open_reranker(run, members[0].checkpoint)
        text_vec, item_vec = (
            torch.cat([getattr(member.vectors, name) for member in members], dim=1) for name in ("text_vec", "item_vec")
        )
        loaded = cls(
            run=run,
            catalog=catalog,
            interactions=interactions,
            checkpoint=replace(first.checkpoint, fingerprint=description.fingerprint),
            towers=first.towers,
            vectors=ItemVectors(text_vec, item_vec),
            fusion=Fusion(),
            words=first.words,
            ensemble=Ensemble(members, description.weights, description.by),
            reranker=reranker,
            list_stack=_list_stack(run, catalog),
        )
        return loaded.reading(_user_template(first.checkpoint, reranker))

    def reading(self, template: UserTemplate) -> Self:
        """This recommender with what is known of users beside their histories, in these words."""
        vocabulary, ids = self.checkpoint.configs.profile, self.interactions.user_ids
        users = read_users(self.run) if vocabulary.n_values or template.pattern else None
        profiles = vocabulary.profiles(users, ids, template.words_of(users, ids))
        log = replace(self.interactions, profiles=profiles)
        return replace(self, interactions=log, users=users, user_template=template)

    def recommend(
        self,
        users: UserId | Iterable[UserId] | None = None,
        histories: Sequence[Sequence[ItemId]] | None = None,
        profiles: Sequence[Mapping[str, object]] | None = None,
        k: int = 10,
        exclude_seen: bool | None = None,
        filter: ItemFilter | None = None,
        rerank: bool = True,
    ) -> list[Recommendation]:
        """The k best items for each user, or for each history (item ids, oldest first) of users never seen.

        profiles: beside each history what else is known, such as {"age": 30, "likes": "jazz|tea"}: columns of
        user_model.profile, of whose values others than those learnt add nothing, and of template.user or reranker.user. Users
        of the user table have theirs.
        exclude_seen: leave items of the history out; unset: as the run was judged, `excludes_seen`.
        rerank: let the run's reranker, where it has one, put the best in order.
        filter: a polars expression over the catalog's columns, such as `pl.col("year") > "1990"`, or the allowed item
        ids. A user id that the run does not know gets a newcomer's list (`basis` is "nothing").
        Raises InputError for k below 1 and where both or neither of users and histories are given, UnknownIdError for
        an item of a history that the catalog lacks.
        """
        names, asked = self._asked(users, histories, profiles)
        hidden = self.excludes_seen if exclude_seen is None else exclude_seen
        return self._answer(names, asked, k, hidden, filter, rerank)

    def rank(
        self,
        candidates: Sequence[ItemId],
        user: UserId | None = None,
        history: Sequence[ItemId] | None = None,
        profile: Mapping[str, object] | None = None,
        rerank: bool = True,
        counts: RunningCounts | None = None,
        at_ts: float | None = None,
    ) -> RankedCandidates:
        """These candidates in order for one user, or for one history (item ids, oldest first) of a user never seen, whether
        they have been seen or not. Equal scores keep the order given; an item that is named twice stands there once.

        A run that was fitted with lists that were shown orders by its model's score and by how each item fared so far
        (`lmrec.models.live_stack`), and its reranker, if it has one, reads nothing: counts, which are those of the run unless
        given, as of at_ts, UTC seconds, which is now unless given.
        profile, rerank, and users that the run does not know: as in `recommend`.
        Raises InputError for no candidates and more than MAX_CANDIDATES, and where both or neither of user and history are
        given; UnknownIdError where the catalog has none of the candidates, and for an item of a history that it lacks.
        """
        if (user is None) == (history is None):
            raise InputError("give either a user or a history, one of them")
        found = find_candidates(candidates, self.catalog.indices.get)
        (name,), asked = self._asked(
            None if user is None else [user],
            None if history is None else [history],
            None if profile is None else [profile],
        )
        rows = np.array(found.rows, np.int64)
        stack = self.list_stack
        scorer = self.list_scorer if stack is None or not stack.stack.hears_towers else self.towers_scorer
        scores: FloatArray = scorer.score(asked)[0, rows]
        if stack is not None:
            counts = stack.counts() if counts is None else counts
            fared = counts.before([self.catalog.ids[row] for row in rows], time.time() if at_ts is None else at_ts)
            scores = stack.stack.score(scores, fared)
        items = tuple(
            ScoredItem(self.catalog.ids[rows[at]], self.catalog.titles[rows[at]], float(scores[at]))
            for at in np.argsort(-scores, kind="stable")
        )
        reranker = self.reranker if rerank and self.list_stack is None else None
        if reranker is not None:
            items = self._reordered(reranker, asked[0], asked.words[0], items, asked=name is None)
        (basis,) = self._bases(asked, reranker)
        return RankedCandidates(name, basis, int(asked.lengths[0]), items, found.unknown)

    def recommend_for_text(self, text: str, k: int = 10, filter: ItemFilter | None = None) -> Recommendation:
        """Items for someone of whom only words are known, such as "light comedies for a rainy day".

        The words stand in the history as an item would that exists only as text. Where nothing that counts in this run reads
        words, as where ALS and EASE answer alone, this is a newcomer's list, and `basis` says "nothing".
        """
        if not self.reads_words:
            _checked_text(text)
            (newcomers,) = self._answer([None], Ragged.from_rows([[]]), k, True, filter, rerank=False)
            return newcomers
        with_text = self._with_text(text)
        allowed = _allowed(self.catalog, filter)
        row = with_text.catalog.n_items - 1
        history = Ragged.from_rows([[row]])
        scores = with_text.list_scorer.score(history)[:, :row]
        (items,) = self._lists(scores, None, k, allowed)
        return Recommendation(None, "text", 0, items)

    @property
    def heard_reranker(self) -> Reranker | None:
        """The reranker where it has a weight; one without reads no list, and its language model is not needed."""
        return self.reranker if self.reranker is not None and self.reranker.description.weight else None

    @property
    def reads_words(self) -> bool:
        """Whether a list for words is of these words."""
        return self.parts_scorer.reads_words

    def _with_text(self, text: str) -> "Recommender":
        """This recommender and, as the last item of its catalog, one that exists only as these words."""
        return self.add_items(pl.DataFrame({ITEM_ID: ["\x00text"], self._text_column: [_checked_text(text)]}))

    def similar(self, item: ItemId | None = None, text: str | None = None, k: int = 10) -> list[ScoredItem]:
        """The k items nearest to an item or to words, by the cosine of item vectors, or of text vectors where nothing was
        trained; the item itself left out."""
        if (item is None) == (text is None):
            raise InputError("give either an item or a text, one of them")
        trained = bool(self.checkpoint.fusion.towers)
        vectors = torch.nn.functional.normalize(self.vectors.item_vec if trained else self.vectors.text_vec, dim=-1)
        if item is not None:
            row = self.catalog.index_of(str(item))
            query, hidden = vectors[row : row + 1], Ragged.from_rows([[row]])
        else:
            asked = self._item_vec_of_text(text or "") if trained else self._text_vec_of(text or "")
            query, hidden = torch.nn.functional.normalize(asked, dim=-1), None
        scores = (query @ vectors.T).numpy()
        (items,) = self._lists(scores, hidden, k, None)
        return list(items)

    def audience(self, text: str | None = None, item: ItemId | None = None, k: int = 10) -> list[ScoredUser]:
        """Who would want this? The k known users who score an item, or an item that exists only as text, highest.

        Raises InputError for a text where nothing that counts in this run reads words, nor lends to an item that is new.
        """
        if (item is None) == (text is None):
            raise InputError("give either an item or a text, one of them")
        _check_k(k)
        self._check_scores("an audience compares users by")
        if item is not None:
            scores = self.scorer.scores_of(self._all_histories, self._all_queries, self.catalog.index_of(str(item)))
        else:
            scorer = self._with_text(text or "").scorer
            if not (scorer.reads_words or scorer.borrows):
                raise InputError(f"{UNREAD}, so no words tell its users apart. Give an item, or {READING}")
            scores = scorer.scores_of(self._all_histories, self._all_queries, self.catalog.n_items)
        best = top_k(scores[None, :], k)[0]
        return [
            ScoredUser(self.interactions.user_ids[user], float(scores[user]), self._newest_titles(int(user)))
            for user in best
            if user >= 0
        ]

    def add_items(self, items: pl.DataFrame) -> "Recommender":
        """This recommender with items that came after training: they are encoded from their words alone.

        items: `item_id` and any of the catalog's columns. The run folder stays as it is.
        """
        catalog = self.catalog.with_items(items)
        fresh = catalog.frame.tail(len(items))
        text_vec = self.encode_texts(self.checkpoint.template.render_items(fresh))
        item_vec = self.parts_scorer.project(text_vec)
        vectors = ItemVectors(
            torch.cat([self.vectors.text_vec, text_vec]), torch.cat([self.vectors.item_vec, item_vec])
        )
        if self.ensemble is None:
            return replace(self, catalog=catalog, vectors=vectors)
        members = tuple(member.add_items(items) for member in self.ensemble.members)
        return replace(self, catalog=catalog, vectors=vectors, ensemble=replace(self.ensemble, members=members))

    @property
    def by_ranks(self) -> bool:
        """Whether lists are made of sums of reciprocal ranks, by parts of a fusion or by members of an ensemble."""
        return self.fusion.weights.ranks if self.ensemble is None else self.ensemble.by == "ranks"

    @cached_property
    def scorer(self) -> Scorer | EnsembleScorer:
        """What scores an item for a user, whatever else the catalog holds. Raises InputError where ranks are put together."""
        self._check_scores("this needs")
        return self.parts_scorer

    @cached_property
    def parts_scorer(self) -> Scorer | EnsembleScorer:
        """All that the run knows, side by side in one row an item and one query a user. Their product is the score, but of a
        run by ranks: there each part ranks by its own columns (`lmrec.retrieval.ranked`)."""
        if self.ensemble is None:
            return self._fused_scorer
        return EnsembleScorer(
            "ensemble", self.ensemble.single([member.scorer for member in self.ensemble.members]), self.ensemble.weights
        )

    def _check_scores(self, wanted: str) -> None:
        if self.by_ranks:
            made = "Make an ensemble by scores" if self.ensemble else "Fit with another fusion.method, such as 'learnt'"
            raise InputError(
                f"not for ranks: '{self.run.path}' recommends by sums of ranks among the whole catalog, and {wanted} a "
                f"score of one item alone. {made}"
            )

    @cached_property
    def excludes_seen(self) -> bool:
        """Whether lists leave items of the history out where nobody says: as they were judged (`evaluation.exclude_seen`)."""
        return self.run.read_excludes_seen()

    @cached_property
    def list_scorer(self) -> AnyScorer:
        """What makes lists for histories; every run has it."""
        if self.ensemble is None:
            return answering(self._fused_scorer)
        return self.ensemble.scorer([member.scorer for member in self.ensemble.members])

    @cached_property
    def _fused_scorer(self) -> Scorer:
        return self.towers_scorer.fused(self.fusion)

    @cached_property
    def towers_scorer(self) -> Scorer:
        """The towers alone, without what is fused with them."""
        return Scorer(
            "lmrec",
            self.towers,
            build_bank(self.towers, self.vectors.text_vec, self.vectors.item_vec),
            self.checkpoint.configs.user_model.max_history,
            self._encode_histories,
        )

    @cached_property
    def index(self) -> ItemIndex | None:
        """Of the run's items, as it was saved; None where the run has none, being small. Items that were added stand after
        the rows that it holds."""
        if not self.run.index.exists():
            return None
        return ItemIndex.open(self.run.index, self.checkpoint.fingerprint, self.scorer.bank.matrix.shape[1])

    @cached_property
    def _histories(self) -> HistoryIndex:
        return HistoryIndex.from_interactions(self.interactions)

    @cached_property
    def _user_rows(self) -> dict[UserId, int]:
        return {user: row for row, user in enumerate(self.interactions.user_ids)}

    @cached_property
    def _all_histories(self) -> Ragged:
        return self._histories.all(np.arange(self.interactions.n_users))

    @cached_property
    def _all_queries(self) -> Tensor:
        return self.scorer.query(self._all_histories)

    @cached_property
    def texts(self) -> list[str]:
        """The words of each item, in catalog order."""
        return self.checkpoint.template.render_items(self.catalog.frame)

    @cached_property
    def pair_texts(self) -> list[str]:
        """The same, as its reranker reads them."""
        template = self.checkpoint.template if self.reranker is None else self.reranker.template
        return self.texts if template == self.checkpoint.template else template.render_items(self.catalog.frame)

    @property
    def _text_column(self) -> str:
        return self.checkpoint.template.text_column(self.catalog.frame.schema)

    def _histories_of(self, ids: Sequence[UserId]) -> Ragged:
        empty, words = np.zeros(0, np.int64), self.user_template.words_of(self.users, ids)
        profile = self.checkpoint.configs.profile.profile_of(self.users, ids, words)
        rows = [self._user_rows.get(user) for user in ids]
        return Ragged.from_rows([empty if row is None else self._histories.all(np.array([row]))[0] for row in rows]).of(
            profile
        )

    def _profile_of(self, profiles: Sequence[Mapping[str, object]] | None, n: int) -> Profile | None:
        if profiles is None:
            return None
        if len(profiles) != n:
            raise InputError(
                f"there are {len(profiles)} profiles for {n} histories; give one beside each, {{}} for nothing"
            )
        vocabulary, template = self.checkpoint.configs.profile, self.user_template
        checked = [vocabulary.checked(profile, template.columns) for profile in profiles]
        words = text_array([template.render(profile) for profile in checked]) if template.pattern else None
        if words is not None and self.towers.user_model is None:
            self.words.check_whole(words.tolist())
        return Profile(Ragged.from_rows([vocabulary.ids_of(profile) for profile in checked]), words)

    def _asked(
        self,
        users: UserId | Iterable[UserId] | None,
        histories: Sequence[Sequence[ItemId]] | None,
        profiles: Sequence[Mapping[str, object]] | None,
    ) -> tuple[list[UserId | None], Ragged]:
        """(B,) user ids, None beside histories of users never seen, and what is known of each."""
        if (users is None) == (histories is None):
            raise InputError("give either users or histories, one of them")
        if histories is not None:
            if isinstance(histories, str) or any(isinstance(history, str) for history in histories):
                raise InputError(
                    "histories is a list of lists of item ids, such as [['50', '181']]; got plain text in it"
                )
            known = [[self.catalog.index_of(str(item)) for item in history] for history in histories]
            names: list[UserId | None] = [None] * len(known)
            asked = Ragged.from_rows(known).of(self._profile_of(profiles, len(known)))
            return names, asked
        if profiles is not None:
            raise InputError("profiles stand beside histories; users have theirs in the user table")
        ids = [str(user) for user in ([users] if users is None or isinstance(users, str | int) else users)]
        return list(ids), self._histories_of(ids)

    def _answer(
        self,
        names: Sequence[UserId | None],
        histories: Ragged,
        k: int,
        exclude_seen: bool,
        item_filter: ItemFilter | None,
        rerank: bool,
    ) -> list[Recommendation]:
        _check_k(k)
        allowed = _allowed(self.catalog, item_filter)
        reranker = self.reranker if rerank else None
        fetched = k if reranker is None else max(k, reranker.description.top_k)
        answers: list[Recommendation] = []
        for start in range(0, len(histories), _BLOCK):
            block = histories.slice(start, min(start + _BLOCK, len(histories)))
            if self.index is None:
                lists = self._lists(self.list_scorer.score(block), block if exclude_seen else None, fetched, allowed)
            else:
                lists = self._searched(self.index, block, exclude_seen, fetched, allowed)
            if reranker is not None:
                lists = [
                    self._reordered(reranker, block[at], user, found, asked=names[start + at] is None)[:k]
                    for at, (user, found) in enumerate(zip(block.words, lists, strict=True))
                ]
            answers += [
                Recommendation(name, basis, int(n), items)
                for name, n, basis, items in zip(
                    names[start : start + _BLOCK], block.lengths, self._bases(block, reranker), lists, strict=True
                )
            ]
        return answers

    def _bases(self, histories: Ragged, reranker: Reranker | None) -> list[str]:
        """(B,) what lists for these rest on; reranker: what reads them, if anything does."""
        known = _has_profile(histories, reranker is not None or bool(self.checkpoint.template.user))
        return [
            "history" if n else "profile" if has_profile else "nothing"
            for n, has_profile in zip(histories.lengths, known, strict=True)
        ]

    def _reordered(
        self, reranker: Reranker, history: IntArray, user: str, items: tuple[ScoredItem, ...], asked: bool
    ) -> tuple[ScoredItem, ...]:
        """The best of a list in the reranker's order; an item takes the score of the place that it moves to."""
        best, rest = items[: reranker.description.top_k], items[reranker.description.top_k :]
        texts = self.pair_texts
        words = [texts[self.catalog.index_of(item.item_id)] for item in best]
        scores = [item.score for item in best]
        order = reranker.reorder([texts[int(item)] for item in history], words, scores, user, asked)
        moved = (replace(best[int(place)], score=score) for place, score in zip(order, scores, strict=True))
        return (*moved, *rest)

    def _searched(
        self, index: ItemIndex, histories: Ragged, exclude_seen: bool, k: int, allowed: BoolArray | None
    ) -> list[tuple[ScoredItem, ...]]:
        """The lists that `_lists` makes of all scores, by the index: among the best by the product and the items to
        which the sparse part adds something (less than nothing only to items of the history) are the best of all."""
        _check_k(k)
        query, bank = self.scorer.query(histories), GrowingBank(self.scorer.bank).view()
        hidden = exclude_seen or self.scorer.lowers
        fetched = min(k + (int(histories.lengths.max(initial=0)) if hidden else 0), bank.n_rows)
        rows, scores = nearest_rows(index, bank, query, fetched, None if allowed is None else RowMask.of(allowed))
        added = self.scorer.sparse(histories, bank.n_rows)
        lists = []
        for at in range(len(histories)):
            named = np.zeros(0, np.int64) if added is None else added.indices[added.indptr[at] : added.indptr[at + 1]]
            amounts = np.zeros(0) if added is None else added.data[added.indptr[at] : added.indptr[at + 1]]
            if allowed is not None:
                named, amounts = named[allowed[named]], amounts[allowed[named]]
            own = (bank.matrix_rows(named) @ query[at]).numpy() + amounts
            seen = set(histories[at].tolist()) if exclude_seen else ()
            items, worth = merged(rows[at], scores[at], named, own, seen, k)
            lists.append(
                tuple(
                    ScoredItem(self.catalog.ids[item], self.catalog.titles[item], score)
                    for item, score in zip(items, worth, strict=True)
                )
            )
        return lists

    def _lists(
        self, scores: FloatArray, hidden: Ragged | None, k: int, allowed: BoolArray | None
    ) -> list[tuple[ScoredItem, ...]]:
        _check_k(k)
        if hidden is not None:
            scores = exclude_items(scores, hidden)
        if allowed is not None:
            scores = np.where(allowed, scores, -np.inf)
        top: IntArray = top_k(scores, k)
        ids, titles = self.catalog.ids, self.catalog.titles
        return [
            tuple(ScoredItem(ids[i], titles[i], float(scores[row, i])) for i in items if i >= 0)
            for row, items in enumerate(top)
        ]

    def _newest_titles(self, user: int, n: int = 3) -> tuple[str, ...]:
        return tuple(self.catalog.titles[item] for item in self._histories.all(np.array([user]))[0][::-1][:n])

    def encode_texts(self, texts: list[str]) -> Tensor:
        """(n, Dt) vectors of rendered texts by the run's language model, or by each member's side by side."""
        if self.ensemble is not None:
            return torch.cat([member.encode_texts(texts) for member in self.ensemble.members], dim=1)
        if self.checkpoint.configs.item.source == "id":
            raise InputError(
                "this run was fitted with item.source 'id' and knows no words. Fit with 'text+id' to answer words or to "
                "add items"
            )
        return self.words.encode(texts)

    def _item_vec_of_text(self, text: str) -> Tensor:
        return self.parts_scorer.project(self._text_vec_of(text))

    def _text_vec_of(self, text: str) -> Tensor:
        """(1, Dt) of typed words, as the words of an item."""
        return self.encode_texts([self.checkpoint.template.render_typed(_checked_text(text), self._text_column)])

    def _encode_histories(self, histories: list[IntArray], words: Sequence[str]) -> Tensor:
        return self.encode_texts(self.checkpoint.template.render_histories(self.texts, histories, words))


def read_users(run: RunFolder) -> UserTable | None:
    """The users' attributes, None where the run has none. Raises RunFolderError where they are damaged."""
    file = run.data / "users.parquet"
    try:
        return UserTable.from_parquet(file) if file.exists() else None
    except (pl.exceptions.PolarsError, DataError) as error:
        raise RunFolderError(f"{file} is damaged ({error}). Fit the run again") from error


def _has_profile(histories: Ragged, reads: bool) -> BoolArray:
    """(B,) of whom something is known beside the history; reads: words of them, too."""
    if histories.profile is None:
        return np.zeros(len(histories), np.bool_)
    if not reads:
        return np.asarray(histories.profile.ids.lengths > 0)
    return histories.profile.is_known


def _list_stack(run: RunFolder, catalog: Catalog) -> ListStack | None:
    """What the run keeps of how candidates are ordered, None where it keeps nothing."""
    return load_list_stack(run.list_stack, catalog.ids) if run.list_stack.exists() else None


def _user_template(checkpoint: Checkpoint, reranker: Reranker | None) -> UserTemplate:
    """What the model says of users before histories, or its reranker where the model reads no words."""
    own = checkpoint.template.of_users
    return own if own.pattern or reranker is None else replace(own, pattern=reranker.description.user)


def _open_reranker(run: RunFolder, checkpoint: Checkpoint) -> Reranker | None:
    return Reranker.open(run.reranker, checkpoint.template) if run.reranker.exists() else None


def _allowed(catalog: Catalog, item_filter: ItemFilter | None) -> BoolArray | None:
    """(N,) which items may be shown; None where all may."""
    if item_filter is None:
        return None
    if isinstance(item_filter, pl.Expr):
        try:
            chosen = catalog.frame.select(item_filter.cast(pl.Boolean).fill_null(False)).to_series()
        except pl.exceptions.PolarsError as error:
            raise InputError(
                f"the filter cannot be computed on the catalog ({error}). Columns: {catalog.frame.columns}"
            ) from error
        mask: BoolArray = chosen.to_numpy()
        return mask
    if isinstance(item_filter, str) or not isinstance(item_filter, Collection):
        raise InputError(
            f"filter is a {type(item_filter).__name__}; give a polars expression, such as pl.col('year') > '1990', or a "
            "collection of the item ids that may be shown"
        )
    mask = np.zeros(catalog.n_items, np.bool_)
    mask[[catalog.index_of(str(item)) for item in item_filter]] = True
    return mask


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1")


def _checked_text(text: str) -> str:
    if not text.strip():
        raise InputError("the text is blank. Give a few words, such as 'a heist film with a twist'")
    return text


def describe(answer: Recommendation | RankedCandidates) -> dict[str, Any]:
    """For --json."""
    return {
        "user_id": answer.user_id,
        "basis": answer.basis,
        "n_history": answer.n_history,
        "items": [vars(item) for item in answer.items],
        **({"unknown": list(answer.unknown)} if isinstance(answer, RankedCandidates) else {}),
    }
