"""A recommender whose catalog, rules and popularity change while it answers.

Readers take one immutable state and never wait; writers take turns, make the next state and swap it in by one
assignment. So an answer that began after a change returned has seen it, and one under way ends with what it began with.
"""

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from lmrec.data.prices import PriceBands
from lmrec.errors import InputError, UnknownIdError
from lmrec.fields import ItemId
from lmrec.models.live_stack import RunningCounts
from lmrec.retrieval.answers import EncodedItem, ItemChange, LiveAnswer, LiveItem, LiveQuery
from lmrec.retrieval.casting import cast_items, fitting_fields
from lmrec.retrieval.filters import Filter, parse_filter
from lmrec.retrieval.live_catalog import LiveCatalog
from lmrec.retrieval.live_lists import ListMaker, LiveOrder, PairReader, read_text, title_mask
from lmrec.retrieval.live_scorer import LiveScorer
from lmrec.retrieval.ranked import rankings_of
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.rules import CompiledRules, Review, Rule, compile_rules
from lmrec.retrieval.snapshot import Snapshot
from lmrec.retrieval.wishes import Wish

__all__ = [
    "EncodedItem", "ItemChange", "LiveAnswer", "LiveCatalog", "LiveItem", "LiveQuery", "LiveRecommender", "LiveState",
]  # fmt: skip

_MAX_FILTERS = 1_000  # kept as they were read
_MAX_KEY = 2_000  # characters of a filter that is kept


@dataclass(frozen=True, eq=False)
class LiveState:
    """All that one answer reads; the rules are compiled against this very snapshot."""

    snapshot: Snapshot
    rules: CompiledRules


class LiveRecommender:
    """Answers and changes from any thread. `counts`: how items fared so far, where that orders candidates; one thread may add
    to them what is shown and clicked."""

    def __init__(self, recommender: Recommender, rules: Mapping[str, Rule] | None = None) -> None:
        self.recommender = recommender
        self._catalog = LiveCatalog(recommender)
        self._price_bands = PriceBands.of(recommender.catalog.frame)
        template, schema = recommender.checkpoint.template, recommender.catalog.frame.schema
        self.scorer = LiveScorer(
            recommender.parts_scorer,
            template,
            self._catalog,
            template.text_column(schema),
            recommender.checkpoint.configs.profile,
            recommender.user_template,
            recommender.words.check_whole if template.user else None,
            rankings_of(recommender.parts_scorer) if recommender.by_ranks else (),
        )
        stack = recommender.list_stack
        self.counts: RunningCounts | None = None if stack is None else stack.counts()
        live_order = None if stack is None or self.counts is None else LiveOrder(stack.stack, self.counts)
        reading = recommender.heard_reranker
        pairs = None if reading is None else PairReader(reading, reading.template.text_column(schema))
        self._lists = ListMaker(self.scorer, pairs, live_order)
        self.excludes_seen = recommender.excludes_seen  # read here: an answer opens no file
        self._rules: Mapping[str, Rule] = dict(rules or {})
        self._review = Review()
        self._versions: dict[ItemId, int] = {}
        self._filters: dict[str, Filter] = {}
        self._version = 0
        self._writing = threading.Lock()
        self._compacting = threading.Lock()
        self._compaction: threading.Thread | None = None
        self.state = LiveState(self._catalog.snapshot, compile_rules(self._rules, self._catalog.snapshot, self._review))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """From a generation's folder. Raises RunFolderError where that is missing or damaged."""
        return cls(Recommender.load(path))

    @property
    def n_items(self) -> int:
        return self.state.snapshot.n_items

    @property
    def version(self) -> int:
        """The highest `ItemChange.version` applied, 0 at first: where to read on in a store, by one reader at a time."""
        return self._version

    @property
    def fingerprint(self) -> str:
        """Of the checkpoint: what a store keeps beside a text vector."""
        return self.recommender.checkpoint.fingerprint

    @property
    def schema(self) -> Mapping[str, pl.DataType]:
        """The catalog's columns and their types: `parse_filter(spec, live.schema)`."""
        return self.state.snapshot.schema

    def read_filter(self, spec: Mapping[str, Any]) -> Filter:
        """`parse_filter` for this catalog, whose columns never change; filters that came lately are not read again.

        Raises InputError as that does."""
        key = json.dumps(spec, sort_keys=True, default=dict)
        known = self._filters.get(key)
        if known is None:
            known = parse_filter(spec, self.schema)
            if len(key) <= _MAX_KEY:
                if len(self._filters) >= _MAX_FILTERS:
                    self._filters.clear()
                self._filters[key] = known
        return known

    def warm_up(self) -> None:
        """What a first answer need not wait for: codes, which make all that follow quicker, and what questions in words
        take."""
        found = self._catalog.find_codes()
        if found is not None:
            with self._writing:
                self._publish(self._catalog.put_codes(*found))
        if self.recommender.checkpoint.configs.item.source != "id":
            self._catalog.encode_texts(["words"])
        reranker = self.recommender.heard_reranker
        if reranker is not None:
            reranker.score([["words"]], [["words"]])

    @property
    def reads(self) -> bool:
        """Whether a language model reads each history or the best of each list: then no answer is quick."""
        return self.recommender.towers.user_model is None or self.recommender.heard_reranker is not None

    def read_of(self, wish: Wish) -> str | None:
        """What of a wish lists are of; None where it wants nothing, or nothing that counts reads words."""
        return self._lists.read_of(wish)

    def get_item(self, item_id: ItemId) -> LiveItem | None:
        """An item of the catalog, shown or not; its score is 0."""
        snapshot = self.state.snapshot
        row = snapshot.row_of(item_id)
        return None if row is None else self._lists.items(snapshot, [row], [0.0])[0]

    def browse(self, query: str = "", offset: int = 0, limit: int = 50) -> tuple[list[LiveItem], int]:
        """A page of the items with this id or these words in the title, in catalog order, and how many there are."""
        snapshot = self.state.snapshot
        found = np.flatnonzero(title_mask(snapshot, query) & snapshot.alive)
        rows = [int(row) for row in found[offset : offset + limit]]
        return self._lists.items(snapshot, rows, [0.0] * len(rows)), len(found)

    def encode_items(self, items: Sequence[Mapping[str, Any]]) -> list[EncodedItem]:
        """Check, cast and encode items without changing anything: to be stored and then given to `apply_changes`.

        A price without a `price_band` gets one among those of the catalog that was fitted. Raises InputError for unknown
        fields, values of the wrong type, and words where the run knows none.
        """
        cast = cast_items(items, self.schema)
        fields = self._price_bands.added_to([own for _, own in cast])
        return self._catalog.encode([(item_id, own) for (item_id, _), own in zip(cast, fields, strict=True)])

    def upsert(self, items: Sequence[Mapping[str, Any]]) -> list[EncodedItem]:
        """Put new items or put others in the place of known ones; they can be recommended when this returns."""
        encoded = self.encode_items(items)
        with self._writing:
            self._publish(self._catalog.change(encoded))
        self._compact_behind()
        return encoded

    def delete(self, item_ids: Iterable[ItemId]) -> int:
        """How many of the items were there. No answer that begins after this returned shows one of them."""
        with self._writing:
            before = self.n_items
            self._publish(self._catalog.change((), set(item_ids)))
            n_gone = before - self.n_items
        self._compact_behind()
        return n_gone

    def apply_changes(self, changes: Sequence[ItemChange]) -> int:
        """Bring the catalog to what a store says; returns how many changes were news.

        A change that is older than what was applied to its item is passed over, so that calls may overlap. Fields that
        this generation's catalog lacks, or that do not fit it, are left out: a stored item never stops a start.
        """
        newest = {change.item_id: change for change in sorted(changes, key=lambda change: change.version)}
        news = [change for change in newest.values() if change.version > self._versions.get(change.item_id, 0)]
        put = [
            (change.item_id, fitting_fields(change.fields, self.schema)) for change in news if change.fields is not None
        ]
        known_vec = {
            change.item_id: change.text_vec
            for change in news
            if change.text_vec is not None and change.fingerprint == self.fingerprint
        }
        encoded = {item.item_id: item for item in self._catalog.encode(put, known_vec)}
        with self._writing:
            # Another call may have been quicker while this one was encoding.
            news = [change for change in news if change.version > self._versions.get(change.item_id, 0)]
            puts = [encoded[change.item_id] for change in news if change.fields is not None]
            self._publish(self._catalog.change(puts, [change.item_id for change in news if change.fields is None]))
            self._versions.update((change.item_id, change.version) for change in news)
            self._version = max([self._version, *(change.version for change in changes)])
        self._compact_behind()
        return len(news)

    def compact(self) -> None:
        """Free the rows of items that were replaced or deleted and index those that came; where they are many a thread
        does it without being asked, while changes and answers go on."""
        with self._compacting:
            made = self._catalog.start_compaction()
            with self._writing:
                self._publish(self._catalog.finish_compaction(made))

    def set_rules(self, rules: Mapping[str, Rule]) -> None:
        """These rules, by id, in place of all others. Raises InputError naming one that cannot work; then nothing changes."""
        with self._writing:
            compiled = compile_rules(rules, self.state.snapshot, self._review)
            self._rules = dict(rules)
            self.state = LiveState(self.state.snapshot, compiled)

    def set_review(self, review: Review) -> None:
        """Whom people must look at first, and whom `block_words` rules with review=True no longer hold back. What is in force
        already costs nothing: it is asked for with every change of an item."""
        with self._writing:
            if review != self._review:
                self._review = review
                self._publish(self.state.snapshot)

    def rewords(self, item: EncodedItem) -> bool:
        """Whether these words are others than those known here; of an unknown item they are, whoever approved it unseen."""
        known = self.get_item(item.item_id)
        columns = self.state.snapshot.text_columns
        return known is None or any(known.fields.get(name) != item.fields.get(name) for name in columns)

    def held_items(self) -> dict[ItemId, str]:
        """Items held back by a `block_words` rule with review=True, and the rule's id: what belongs in the review queue."""
        state = self.state
        return {state.snapshot.ids[row]: rule_id for row, rule_id in state.rules.held.items()}

    def set_popularity(self, weights: Mapping[ItemId, float]) -> None:
        """Live counts, in events of now, added to the recency-weighted counts of the generation's log."""
        with self._writing:
            self._publish(self._catalog.set_popularity(weights))

    def recommend(self, queries: Sequence[LiveQuery]) -> list[LiveAnswer]:
        """One answer a query, computed together. Raises InputError for a k below 1 and for texts that cannot be read."""
        state = self.state
        return self._lists.recommend(state.snapshot, state.rules, [self.settled(query) for query in queries])

    def settled(self, query: LiveQuery) -> LiveQuery:
        """What the query leaves to the run, said."""
        return query if query.exclude_seen is not None else replace(query, exclude_seen=self.excludes_seen)

    def similar(
        self,
        item_id: ItemId | None = None,
        text: str | None = None,
        k: int = 10,
        filter: Filter | None = None,
        segment: str | None = None,
    ) -> tuple[LiveItem, ...]:
        """The k items nearest to an item or to words, by the cosine of item vectors; the item itself left out."""
        if (item_id is None) == (text is None):
            raise InputError("give either item_id or text, one of them")
        state = self.state
        row = None if item_id is None else self.known_row(state.snapshot, item_id)
        words = "" if text is None else read_text(text)
        return self._lists.similar(state.snapshot, state.rules.of(segment), row, words, k, filter)

    def search(
        self,
        words: str,
        k: int = 10,
        history: Sequence[ItemId] = (),
        filter: Filter | None = None,
        segment: str | None = None,
    ) -> tuple[LiveItem, ...]:
        """The k items that the words mean or name; with a history, those that suit it are put first among them."""
        state = self.state
        rows = state.snapshot.known_rows(history)
        return self._lists.search(state.snapshot, state.rules.of(segment), read_text(words), k, rows, filter)

    def known_row(self, snapshot: Snapshot, item_id: ItemId) -> int:
        """Raises UnknownIdError where there is no such item."""
        row = snapshot.row_of(item_id)
        if row is None:
            raise UnknownIdError(
                f"there is no item '{item_id:.100}' among the {snapshot.n_items:,} of the catalog. Check the id, or put it"
            )
        return row

    def wait_for_compaction(self) -> None:
        """Until the thread that compacts, if there is one, is done."""
        compaction = self._compaction
        if compaction is not None:
            compaction.join()

    def _compact_behind(self) -> None:
        running = self._compaction
        if self._catalog.wants_compaction and (running is None or not running.is_alive()):
            self._compaction = threading.Thread(target=self._compact_while_wanted, name="compaction", daemon=True)
            self._compaction.start()

    def _compact_while_wanted(self) -> None:
        while self._catalog.wants_compaction:
            self.compact()

    def _publish(self, snapshot: Snapshot) -> None:
        self.state = LiveState(snapshot, compile_rules(self._rules, snapshot, self._review))
