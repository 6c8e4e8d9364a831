"""Scores of histories, of words, and of both over the rows of a snapshot."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lmrec.data.users import ProfileVocabulary
from lmrec.errors import InputError
from lmrec.fields import ITEM_ID, IntArray, Profile, Ragged, text_array
from lmrec.retrieval.ensemble import EnsembleScorer
from lmrec.retrieval.live_catalog import LiveCatalog
from lmrec.retrieval.ranked import Ranking, sums_of_ranks
from lmrec.retrieval.scorer import ItemBank, Scorer
from lmrec.retrieval.snapshot import Snapshot
from lmrec.retrieval.standing import Standing
from lmrec.text.template import Template
from lmrec.text.users import UserTemplate


@dataclass(frozen=True, eq=False)
class LiveScorer:
    """A generation's model, asked about rows of a snapshot instead of the bank that it came with. rankings: of a model by
    ranks those that are summed; empty where the product is the score."""

    scorer: Scorer | EnsembleScorer
    template: Template
    catalog: LiveCatalog
    text_column: str  # where typed words go: the template's first column of text
    profile: ProfileVocabulary
    of_users: UserTemplate
    check_whole: Callable[[list[str]], None] | None  # of what is said of users, where the model reads it
    rankings: tuple[Ranking, ...] = ()

    @torch.no_grad()
    def query(
        self,
        snapshot: Snapshot,
        histories: Sequence[Sequence[int]],
        texts: Sequence[str | None],
        profiles: Sequence[Mapping[str, Any]] | None = None,
    ) -> Tensor:
        """(B, Q) of histories as rows of the snapshot, oldest first; a text beside a history is its newest item. profiles: what
        else is known of each.

        Only the rows that histories name are looked at, however large the bank is.
        """
        recent = [list(history)[-self.scorer.reach :] for history in histories]
        rows = np.unique(np.array([row for history in recent for row in history], np.int64))
        place_of = {int(row): place for place, row in enumerate(rows)}
        words = list(dict.fromkeys(text for text in texts if text is not None))
        word_place = {text: len(rows) + place for place, text in enumerate(words)}
        bank = snapshot.bank.take(rows)
        if not len(rows) and not words:
            bank = _first(
                self.scorer.bank
            )  # someone without a history is asked about too; padding must point somewhere
        elif words:
            said = self.catalog.encode_texts([self.words(text) for text in words])
            bank = _joined(bank, self.scorer.bank_rows(said, is_ranked=False))
        asked = Ragged.from_rows(
            [
                [place_of[row] for row in history] + ([word_place[text]] if text is not None else [])
                for history, text in zip(recent, texts, strict=True)
            ]
        ).of(None if profiles is None else self._profile_of(profiles))

        def encode_histories(places: list[IntArray], users: Sequence[str]) -> Tensor:
            read = [*texts_of(self.template, snapshot, rows), *(self.words(text) for text in words)]
            return self.catalog.encode_texts(self.template.render_histories(read, places, users))

        return self.scorer.asked_over(bank, encode_histories).query(asked)

    def knows(self, profile: Mapping[str, Any]) -> bool:
        """Whether something of it was learnt or is read."""
        return bool(self.profile.ids_of(profile) or self.of_users.render(profile))

    def profile_with(self, attributes: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the user table says of somebody, and before it what a question does. Raises InputError for a column of the
        question that was neither learnt nor is read, and for words that are too long."""
        profile = {**attributes, **self.profile.checked(given, self.of_users.columns)}
        if given and self.check_whole is not None:
            self.check_whole([self.of_users.render(profile)])
        return profile

    def _profile_of(self, profiles: Sequence[Mapping[str, Any]]) -> Profile:
        words = [self.of_users.render(profile) for profile in profiles] if self.of_users.pattern else None
        ids = Ragged.from_rows([self.profile.ids_of(profile) for profile in profiles])
        return Profile(ids, None if words is None else text_array(words))

    @torch.no_grad()
    def standings(self, snapshot: Snapshot, query: Tensor, histories: Sequence[Sequence[int]]) -> list[Standing]:
        """(B,) how queries that came from these histories rank all rows."""
        if self.rankings:
            return [self._ranked(snapshot, own, history) for own, history in zip(query, histories, strict=True)]
        rough = snapshot.bank.rough_scores(query)
        return [
            self._standing(snapshot, own, history, scores, float(off))
            for own, history, scores, off in zip(query, histories, rough.scores, rough.off, strict=True)
        ]

    def _standing(
        self,
        snapshot: Snapshot,
        query: Tensor,
        history: Sequence[int],
        rough: npt.NDArray[np.float32],
        off: float,
    ) -> Standing:
        added = self.followers(snapshot, history)
        if added is not None:
            np.add.at(rough, *added)

        return Standing(rough, off, lambda rows: _exact(snapshot, query, added, rows))

    @torch.no_grad()
    def scores_at(
        self, snapshot: Snapshot, query: Tensor, history: Sequence[int], rows: IntArray
    ) -> npt.NDArray[np.float32]:
        """(M,) what a query (Q,), which came from this history, gives to some rows (M,)."""
        if self.rankings:
            return self._ranked(snapshot, query, history).exact(rows)
        return _exact(snapshot, query, self.followers(snapshot, history), rows)

    @torch.no_grad()
    def towers_at(self, snapshot: Snapshot, query: Tensor, rows: IntArray) -> npt.NDArray[np.float32]:
        """(M,) what the towers by themselves give to some rows (M,); of a model that has them, and is no ensemble."""
        assert isinstance(self.scorer, Scorer)
        width = self.scorer.bank.item_vec.shape[1]
        scores: npt.NDArray[np.float32] = (snapshot.bank.matrix_rows(rows)[:, :width] @ query[:width]).numpy()
        return scores / np.float32(self.scorer.fusion.weights.towers)

    def _ranked(self, snapshot: Snapshot, query: Tensor, history: Sequence[int]) -> Standing:
        """Every living row is scored and sorted once a ranking, whatever may be shown: hidden rows have ranks too."""
        scores = snapshot.bank.scores(torch.stack([ranking.query(query) for ranking in self.rankings])).numpy()
        for own, ranking in zip(scores, self.rankings, strict=True):
            added = self.followers(snapshot, history, ranking)
            if added is not None:
                np.add.at(own, *added)
        return Standing.of(sums_of_ranks(self.rankings, scores, np.flatnonzero(snapshot.alive)), by_ranks=True)

    def followers(
        self, snapshot: Snapshot, history: Sequence[int], ranking: Ranking | None = None
    ) -> tuple[IntArray, npt.NDArray[np.float32]] | None:
        """Living rows, each as often as something is added to its product, and what each time; None where nothing is.
        ranking: of what is added to its scores alone."""
        by, asked = ranking or self.scorer, snapshot.origins(np.asarray(history, np.int64))
        found = by.followers(asked)
        if found is None:
            return None
        items, worth = found
        # Items of the history that came later are numbered past the generation's: Snapshot.origins.
        n_origin = len(snapshot.row_of_origin)
        rows = np.where(items < n_origin, snapshot.row_of_origin[np.minimum(items, n_origin - 1)], items - n_origin)
        living = rows >= 0
        if snapshot.borrowers is None:
            return rows[living], worth[living]
        lent = by.borrowed(asked, snapshot.borrowers.loans)
        some = np.flatnonzero((lent > 0) & snapshot.alive[snapshot.borrowers.rows])
        return (
            np.concatenate([rows[living], snapshot.borrowers.rows[some]]),
            np.concatenate([worth[living], lent[some]]),
        )

    def scores_of_rows(
        self,
        snapshot: Snapshot,
        histories: Sequence[Sequence[int]],
        rows: Sequence[int],
        texts: Sequence[str | None] | None = None,
        profile: Mapping[str, Any] | None = None,
    ) -> npt.NDArray[np.float64]:
        """(B, M) the scores that the histories, with the texts beside them, give to some rows; all are of one profile."""
        query = self.query(snapshot, histories, texts or [None] * len(histories), [profile or {}] * len(histories))
        chosen = np.asarray(rows, np.int64)
        if self.rankings:
            return np.stack([one.exact(chosen) for one in self.standings(snapshot, query, histories)]).astype(float)
        scores: npt.NDArray[np.float64] = (query @ snapshot.bank.take(chosen).matrix.T).double().numpy()
        for at, history in enumerate(histories):
            added = self.followers(snapshot, history)
            if added is not None:
                scores[at] += _sums_at(chosen, *added)
        return scores

    @torch.no_grad()
    def scores_of_words(
        self,
        snapshot: Snapshot,
        history: Sequence[int],
        text: str | None,
        text_vec: Tensor,
        learnt: Tensor,
        origin: int,
        profile: Mapping[str, Any] | None = None,
    ) -> npt.NDArray[np.float64]:
        """(n,) the product of the history, with the text beside it, and items of these text vectors (n, Dt), to whose item
        vectors `learnt` (1, D) is added: the rows of an item of this origin if its words were others."""
        query = self.query(snapshot, [history], [text], [profile or {}])
        item_vec = self.scorer.project(text_vec) + learnt
        bank = self.scorer.bank_rows(text_vec, item_vec, np.full(len(text_vec), origin))
        scores: npt.NDArray[np.float64] = (bank.matrix @ query[0]).double().numpy()
        return scores

    def check_explains(self) -> None:
        """Raises InputError where no item of a history can be credited with what it gave."""
        if self.rankings:
            raise InputError(
                "explanations are not for ranks: what is left out of a history moves all items, and so the rank of each. Ask "
                "without one, or serve a run that is put together by scores"
            )

    def words(self, text: str) -> str:
        """Typed words as the words of an item."""
        return self.template.render_typed(text, self.text_column)


def texts_of(template: Template, snapshot: Snapshot, rows: IntArray) -> list[str]:
    """The words of rows of a snapshot."""
    fields = snapshot.fields([int(row) for row in rows])
    return [template.render_item({**row, ITEM_ID: snapshot.ids[at]}) for at, row in zip(rows, fields, strict=True)]


def _exact(
    snapshot: Snapshot, query: Tensor, added: tuple[IntArray, npt.NDArray[np.float32]] | None, rows: IntArray
) -> npt.NDArray[np.float32]:
    """(M,) the product with these rows, and what is added to it."""
    scores: npt.NDArray[np.float32] = (snapshot.bank.matrix_rows(rows) @ query).numpy()
    return scores if added is None else scores + _sums_at(rows, *added)


def _sums_at(rows: IntArray, places: IntArray, worth: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(M,) rows -> (M,) the sums of what is worth something at each of them.

    >>> _sums_at(np.array([7, 2, 4]), np.array([2, 9, 7, 2]), np.array([1.0, 5.0, 0.5, 2.0], np.float32)).tolist()
    [0.5, 3.0, 0.0]
    """
    order = np.argsort(rows)
    ordered = rows[order]
    at = np.searchsorted(ordered, places)
    named = at < len(rows)
    named[named] = ordered[at[named]] == places[named]
    sums = np.zeros(len(rows), np.float32)
    np.add.at(sums, order[at[named]], worth[named])
    return sums


def _first(bank: ItemBank) -> ItemBank:
    return ItemBank(bank.text_vec[:1], bank.item_vec[:1], bank.matrix[:1])


def _joined(first: ItemBank, second: ItemBank) -> ItemBank:
    return ItemBank(
        torch.cat([first.text_vec, second.text_vec]),
        torch.cat([first.item_vec, second.item_vec]),
        torch.cat([first.matrix, second.matrix]),
    )
