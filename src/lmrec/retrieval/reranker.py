"""Putting the retriever's best in order by reading each of them together with the history."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax

from lmrec.artifacts.reranker import RerankerDescription, load_reranker_model, read_reranker
from lmrec.errors import NoRoomError, RunFolderError
from lmrec.fields import FloatArray, IntArray, Ragged
from lmrec.models.blending import blend_standardized
from lmrec.models.causal_lm import score_continuations
from lmrec.models.cross_encoder import PairModel, score_pairs
from lmrec.models.precision import autocast, has_fast_bf16
from lmrec.progress import Progress
from lmrec.text.pairs import join_pairs, join_prefix, tokenize_parts
from lmrec.text.template import Template
from lmrec.topk import exclude_items, top_k

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH_TOKENS: Final = 4096
_CONTINUATION_TOKENS: Final = 512  # beside each row of which the history's keys and values are repeated
_MAX_KNOWN: Final = 200_000  # texts whose tokens are kept


class ListReader(Protocol):
    """What can score candidates by reading them beside a history: texts in, a number each out, higher is better."""

    def score(
        self,
        histories: Sequence[Sequence[str]],
        candidates: Sequence[Sequence[str]],
        users: Sequence[str] | None = None,
    ) -> list[FloatArray]: ...


@dataclass(frozen=True, eq=False)
class Reranker:
    """A reranker, ready to read; `load` is called when it first must. template: renders items as it was taught them.

    Scores are log-odds, expected ratings, ratings or likelihoods, as the task and the form were; in a list only their order and
    relative size count.
    """

    description: RerankerDescription
    template: Template
    load: "Callable[[], tuple[PairModel, PreTrainedTokenizerBase]]"
    bf16: bool = field(default_factory=has_fast_bf16)
    _known: dict[str, IntArray] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, template: Template) -> "Reranker":
        """template: of the run. Raises RunFolderError where the reranker was taught texts that it does not lead to."""
        description = read_reranker(folder)
        own = template.of_pairs(description.item, description.max_words)
        if description.template != own.fingerprint:
            raise RunFolderError(
                f"{folder} was taught texts of another template ({description.template}, here {own.fingerprint}). Type "
                "`lmrec fit-reranker` again"
            )
        return cls(description, own, partial(load_reranker_model, folder, description))

    def score(
        self,
        histories: Sequence[Sequence[str]],
        candidates: Sequence[Sequence[str]],
        users: Sequence[str] | None = None,
    ) -> list[FloatArray]:
        """For each history (texts, oldest first) the scores of its candidates' texts; users: words of whom each is of."""
        outputs = self._read(histories, candidates, users)
        described = self.description
        if described.form == "likelihood":
            # Not the log-odds: these are fitted over histories of all levels, and may say nothing where each list is in order.
            flat = outputs[:, 0].astype(np.float64)
        elif described.task == "classes":
            chance = softmax(outputs.astype(np.float64) / described.temperature, axis=1)
            flat = chance @ np.array(described.values)
        elif described.task == "regression":
            flat = described.center + described.spread * outputs[:, 0].astype(np.float64)
        else:
            flat = outputs[:, 0].astype(np.float64) / described.temperature
        edges = np.cumsum([len(one) for one in candidates])[:-1]
        return list(np.split(flat, edges))

    def outputs(
        self,
        histories: Sequence[Sequence[str]],
        candidates: Sequence[Sequence[str]],
        users: Sequence[str] | None = None,
        progress: Progress | None = None,
    ) -> FloatArray:
        """(P, C) the model's own outputs, pair by pair; of a likelihood the log-odds that validation gave it.

        progress: called with (histories done, histories in all) where they are read one by one, as by a likelihood.
        """
        found, described = self._read(histories, candidates, users, progress), self.description
        return described.center + described.spread * found if described.form == "likelihood" else found

    def _read(
        self,
        histories: Sequence[Sequence[str]],
        candidates: Sequence[Sequence[str]],
        users: Sequence[str] | None,
        progress: Progress | None = None,
    ) -> FloatArray:
        described, model = self.description, self.loaded[0]
        recent = [list(history)[-described.max_tokens :] for history in histories]
        said = [[text] if text else [] for text in (users or [""] * len(recent))]
        texts = list(dict.fromkeys(text for row in (*recent, *candidates, *said) for text in row))
        place = {text: at for at, text in enumerate(texts)}
        parts = self._tokens_of(texts)
        known, asked = (
            Ragged.from_rows([[place[text] for text in row] for row in rows]) for rows in (recent, candidates)
        )
        people = Ragged.from_rows([parts[place[row[0]]] if row else [] for row in said])
        with autocast(torch.device("cpu"), self.bf16):
            if described.form == "likelihood":
                found = []
                for at in range(len(known)):
                    found.append(self._likelihoods(parts, known[at], asked[at], people[at]))
                    if progress is not None:
                        progress(at + 1, len(known))
                return np.concatenate(found)[:, None]
            pairs = join_pairs(described.layout, parts, known, asked, described.max_tokens, people)
            return score_pairs(model, pairs.ids, pairs.item_start, _BATCH_TOKENS)

    def _likelihoods(self, parts: Ragged, history: IntArray, candidates: IntArray, user: IntArray) -> FloatArray:
        """(K,) mean log p a token of the candidates' words after one history, which is read once."""
        described, (model, tokenizer) = self.description, self.loaded
        prefix, own = join_prefix(described.layout, parts, history, candidates, described.max_tokens, user)
        return score_continuations(model.backbone, prefix, own, int(tokenizer.pad_token_id or 0), _CONTINUATION_TOKENS)

    def reorder(
        self,
        history: Sequence[str],
        candidates: Sequence[str],
        scores: Sequence[float] | FloatArray,
        user: str = "",
        asked: bool = True,
    ) -> IntArray:
        """(K,) the places of the candidates in their new order; `scores` (K,) are the retriever's, best first. Nothing is read
        where there are neither a history nor words of the user.

        asked: the question itself gave `user`. Raises NoRoomError where those words leave no room beside a candidate; where
        nobody who asks can mend it (words that were known, an item too long by itself) the retriever's order stays.
        """
        if not (history or user) or len(candidates) < 2 or not self.description.weight:
            return np.arange(len(candidates))
        try:
            (own,) = self.score([history], [candidates], [user])
        except NoRoomError:
            if asked and user:
                raise
            return np.arange(len(candidates))
        return reading_order(np.asarray(scores), own, self.description.weight)

    def _tokens_of(self, texts: list[str]) -> Ragged:
        unknown = [text for text in texts if text not in self._known]
        if len(self._known) + len(unknown) > _MAX_KNOWN:
            self._known.clear()
            unknown = texts
        if unknown:
            parts = tokenize_parts(self.loaded[1], unknown)
            self._known.update((text, parts[at]) for at, text in enumerate(unknown))
        return Ragged.from_rows([self._known[text] for text in texts])

    @cached_property
    def loaded(self) -> "tuple[PairModel, PreTrainedTokenizerBase]":
        """The model, in eval, and its tokenizer."""
        return self.load()


def reading_order(retrieved: FloatArray, read: FloatArray, weight: float) -> IntArray:
    """(K,) places by (1 - weight) * retrieved + weight * read, both at unit spread in this list; ties keep their order."""
    order: IntArray = np.argsort(-blend_standardized(retrieved, read, weight), kind="stable")
    return order


class BaseScorer(Protocol):
    def score(self, history: Ragged) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True, eq=False)
class RerankedScorer:
    """For the judge: the whole catalog by `base`, its best top_k put in order by reading. An item takes the score of the
    place that it moves to, so that what stands behind the top_k stays there.

    texts: (N,) of the catalog. exclude_seen: items of the history take no place among the top_k. memo: what was read, so
    that another weight reads nothing again.
    """

    name: str
    base: BaseScorer
    reader: ListReader
    texts: Sequence[str]
    weight: float
    top_k: int
    exclude_seen: bool
    memo: dict[bytes, FloatArray] = field(default_factory=dict)

    def weighted(self, weight: float) -> "RerankedScorer":
        """The same at another weight."""
        return replace(self, weight=weight)

    def score(self, history: Ragged) -> npt.NDArray[np.float32]:
        """(B, N)."""
        scores = self.base.score(history)
        shown = exclude_items(scores, history) if self.exclude_seen else scores
        best = top_k(shown, self.top_k)
        lists = [row[row >= 0] for row in best]
        words = history.words
        known = [at for at in range(len(history)) if (len(history[at]) or words[at]) and len(lists[at]) > 1]
        asked = known if self.weight else []
        read = self._read([history[at] for at in asked], [lists[at] for at in asked], [words[at] for at in asked])
        for at, own in zip(asked, read, strict=True):
            rows = lists[at]
            scores[at, rows[reading_order(scores[at, rows], own, self.weight)]] = scores[at, rows]
        return scores

    def _read(self, histories: list[IntArray], lists: list[IntArray], words: list[str]) -> list[FloatArray]:
        keys = [
            b"|".join((history.tobytes(), rows.tobytes(), said.encode()))
            for history, rows, said in zip(histories, lists, words, strict=True)
        ]
        new = [at for at, key in enumerate(keys) if key not in self.memo]
        if new:
            found = self.reader.score(
                [[self.texts[int(item)] for item in histories[at]] for at in new],
                [[self.texts[int(item)] for item in lists[at]] for at in new],
                [words[at] for at in new],
            )
            self.memo.update((keys[at], own) for at, own in zip(new, found, strict=True))
        return [self.memo[key] for key in keys]
