"""A generation's catalog and what happened to it since: items put, changed, deleted.

Rows are only ever appended. A changed item gets a new row and its old one is marked dead, so that whoever reads an older
snapshot still reads whole rows. One writer at a time; every change returns the next `Snapshot`.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor

from lmrec.fields import ITEM_ID, ItemId
from lmrec.retrieval.ann import rebuilt
from lmrec.retrieval.answers import EncodedItem
from lmrec.retrieval.bank import GrowingBank
from lmrec.retrieval.casting import Fields, column_of
from lmrec.retrieval.codes import Codes, quickest_codes
from lmrec.retrieval.index import ItemIndex
from lmrec.retrieval.popularity import recent_popularity
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.scorer import ItemBank
from lmrec.retrieval.snapshot import Borrowers, RowCache, RowsById, Snapshot
from lmrec.retrieval.threads import bound_faiss

MAX_DEAD_SHARE = 0.2
MIN_DEAD = 64
MAX_LATER_SHARE = 0.05
MIN_LATER = 1024
_MAX_CHUNKS = 64
_ENCODE_AT_ONCE = 16  # texts a turn, so that a question in words need not wait for a bulk of items


@dataclass(frozen=True, eq=False)
class Compaction:
    """The living rows of `source` (their numbers in it: `living`) as they will be numbered, and the index or codes of them."""

    source: Snapshot
    living: npt.NDArray[np.int64]
    bank: ItemBank
    frame: pl.DataFrame
    ids: list[ItemId]
    titles: list[str]
    rows: dict[ItemId, int]
    index: ItemIndex | None
    codes: Codes | None


class LiveCatalog:
    def __init__(self, recommender: Recommender) -> None:
        catalog, scorer = recommender.catalog, recommender.parts_scorer
        self._recommender = recommender
        self._scorer = scorer
        self._template = recommender.checkpoint.template
        self._id_only = recommender.checkpoint.configs.item.source == "id"
        self._log_popularity = recent_popularity(recommender.interactions, catalog.n_items)
        self._live_popularity: dict[ItemId, float] = {}
        self._encoding = threading.Lock()  # a tokenizer can be used by one thread at a time
        self._bank = GrowingBank(scorer.bank)
        self._ids = list(catalog.ids)
        self._titles = list(catalog.titles)
        self.snapshot = Snapshot(
            bank=self._bank.view(),
            frame=catalog.frame.rechunk(),
            text_columns=catalog.text_columns,
            alive=np.ones(catalog.n_items, np.bool_),
            rows=RowsById(catalog.indices),
            ids=self._ids,
            titles=self._titles,
            origin=np.arange(catalog.n_items),
            n_origin=catalog.n_items,
            popularity=self._log_popularity,
            length=scorer.bank.item_vec.norm(dim=1).numpy(),
            cache=RowCache(),
            index=recommender.index,
        )

    def encode(
        self, items: Sequence[tuple[ItemId, Fields]], known_vec: Mapping[ItemId, bytes] | None = None
    ) -> list[EncodedItem]:
        """Text vectors of items, from what is known where their words have not changed, else by the language model.

        known_vec: vectors kept by a store, float32 LE, trusted where they have the right width. Changes nothing.
        """
        snapshot = self.snapshot
        vectors: list[npt.NDArray[np.float32] | None] = []
        texts: list[str] = []
        for item_id, fields in items:
            text = self._template.render_item({**fields, ITEM_ID: item_id})
            vector = self._same_words(snapshot, item_id, text)
            if vector is None and known_vec is not None:
                vector = _vector_of(known_vec.get(item_id), snapshot.bank.base.text_vec.shape[1])
            vectors.append(vector)
            if vector is None:
                texts.append(text)
        fresh = iter(self.encode_texts(texts).numpy() if texts else ())
        return [
            EncodedItem(item_id, fields, next(fresh) if vector is None else vector)
            for (item_id, fields), vector in zip(items, vectors, strict=True)
        ]

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, Dt), by the language model."""
        parts = []
        for start in range(0, len(texts), _ENCODE_AT_ONCE):
            with self._encoding:
                parts.append(self._recommender.encode_texts(list(texts[start : start + _ENCODE_AT_ONCE])))
        return torch.cat(parts)

    def change(self, puts: Sequence[EncodedItem], deletes: Iterable[ItemId] = ()) -> Snapshot:
        """Items put (each id once) and items deleted, all seen at once. Items that stay as they are get no new row."""
        old = self.snapshot
        puts = [item for item in puts if not _is_unchanged(old, item)]
        gone = [row for item_id in deletes if (row := old.rows.get(item_id)) is not None]
        if not puts and not gone:
            return old
        changed: dict[ItemId, int | None] = {old.ids[row]: None for row in gone}
        replaced = [row for item in puts if (row := old.rows.get(item.item_id)) is not None]
        alive = np.concatenate([old.alive, np.ones(len(puts), np.bool_)])
        alive[[*gone, *replaced]] = False
        changed.update((item.item_id, old.n_rows + place) for place, item in enumerate(puts))
        self.snapshot = replace(self._appended(old, puts), alive=alive, rows=old.rows.with_changes(changed))
        return self.snapshot

    @property
    def wants_compaction(self) -> bool:
        """Whether dead rows, or rows after those that the index holds, have become many."""
        now = self.snapshot
        n_dead = now.n_rows - now.n_items
        n_later = 0 if now.index is None else now.n_rows - now.index.n_rows
        return n_dead > max(MIN_DEAD, MAX_DEAD_SHARE * now.n_rows) or n_later > max(
            MIN_LATER, MAX_LATER_SHARE * now.n_rows
        )

    def find_codes(self) -> "tuple[ItemBank, Codes] | None":
        """Codes of the rows that were loaded, and these rows; None where an index or plain products are quicker. Takes long
        and changes nothing: answers and changes may go on meanwhile."""
        base = self.snapshot.bank.base
        codes = self._codes_of(base) if self.snapshot.index is None else None
        return None if codes is None else (base, codes)

    def _codes_of(self, bank: ItemBank) -> Codes | None:
        """None where ranks are summed, too: they are of all rows' exact scores."""
        return None if self._recommender.by_ranks else quickest_codes(bank.matrix)

    def put_codes(self, base: ItemBank, codes: Codes) -> Snapshot:
        """Answer by these codes from now on, unless other rows have come in the place of those that they are of."""
        if self.snapshot.bank.base is base:
            self._bank.codes = codes
            self.snapshot = replace(self.snapshot, bank=self._bank.view())
        return self.snapshot

    def start_compaction(self) -> "Compaction":
        """The living rows alone, in their order, under new numbers, all of them in the index. Takes long and changes
        nothing: changes may go on meanwhile."""
        old = self.snapshot
        living = np.flatnonzero(old.alive)
        bank = old.bank.take(living)
        if old.index is not None:
            bound_faiss()
        index = old.index and rebuilt(old.index, old.alive[: old.index.n_rows], bank.matrix.numpy())
        ids = [old.ids[int(row)] for row in living]
        return Compaction(
            source=old,
            living=living,
            bank=bank,
            frame=old.frame.filter(pl.Series(old.alive)).rechunk(),
            ids=ids,
            titles=[old.titles[int(row)] for row in living],
            rows={item_id: row for row, item_id in enumerate(ids)},
            index=index,
            codes=self._codes_of(bank) if index is None else None,
        )

    def finish_compaction(self, made: "Compaction") -> Snapshot:
        """Put it in the place of the rows that it was made of; what changed since then is carried over. Readers of older
        snapshots notice nothing."""
        now, n_source = self.snapshot, made.source.n_rows
        if now.cache is not made.source.cache:  # another compaction was quicker
            return now
        later = np.arange(n_source, now.n_rows)
        kept = np.concatenate([made.living, later])
        self._bank = GrowingBank(made.bank, made.codes)
        self._bank.append(now.bank.take(later))
        self._ids = made.ids + list(now.ids[n_source : now.n_rows])
        self._titles = made.titles + list(now.titles[n_source : now.n_rows])
        alive = now.alive[kept]
        rows = made.rows
        for row in np.flatnonzero(~alive[: len(made.living)]):
            del rows[self._ids[int(row)]]
        rows.update((self._ids[int(row)], int(row)) for row in np.flatnonzero(alive) if row >= len(made.living))
        self.snapshot = replace(
            now,
            bank=self._bank.view(),
            frame=made.frame.vstack(now.frame.slice(n_source)),
            alive=alive,
            rows=RowsById(rows),
            ids=self._ids,
            titles=self._titles,
            origin=now.origin[kept],
            popularity=now.popularity[kept],
            length=now.length[kept],
            cache=RowCache(),
            index=made.index,
            borrowers=now.borrowers and now.borrowers.renumbered(kept, now.n_rows),
        )
        return self.snapshot

    def set_popularity(self, weights: Mapping[ItemId, float]) -> Snapshot:
        """Live counts, in events of now, in place of those given before; they are added to the log's."""
        self._live_popularity = dict(weights)
        old = self.snapshot
        popularity = self._logged_popularity(old.origin)
        living = [(row, weight) for item_id, weight in weights.items() if (row := old.rows.get(item_id)) is not None]
        if living:
            rows, added = zip(*living, strict=True)
            popularity[list(rows)] += np.array(added, np.float32)
        self.snapshot = replace(old, popularity=popularity)
        return self.snapshot

    def _appended(self, old: Snapshot, puts: Sequence[EncodedItem]) -> Snapshot:
        if not puts:
            return old
        ids = [item.item_id for item in puts]
        origin = np.array([self._recommender.catalog.indices.get(item_id, -1) for item_id in ids], np.int64)
        # All that could fail comes first: a change is made as a whole or not at all.
        text_vec = torch.from_numpy(np.stack([item.text_vec for item in puts]))
        bank = self._bank_rows(text_vec, origin)
        given = [{ITEM_ID: item.item_id, **item.fields} for item in puts]
        fresh = pl.DataFrame(
            [column_of(name, [one[name] for one in given], dtype) for name, dtype in old.frame.schema.items()]
        )
        frame = old.frame.vstack(fresh)
        grown = replace(
            old,
            frame=frame.rechunk() if frame.n_chunks() > _MAX_CHUNKS else frame,
            origin=np.concatenate([old.origin, origin]),
            popularity=np.concatenate([old.popularity, self._popularity(ids, origin)]),
            length=np.concatenate([old.length, bank.item_vec.norm(dim=1).numpy()]),
            borrowers=self._borrowers(old, text_vec, origin),
        )
        self._bank.append(bank)
        self._ids += ids
        self._titles += [_title(item, old.text_columns) for item in puts]
        return replace(grown, bank=self._bank.view())

    def _borrowers(self, old: Snapshot, text_vec: Tensor, origin: npt.NDArray[np.int64]) -> Borrowers | None:
        """Those of before and, of the rows that are appended, those of which the log knows nothing."""
        new = np.flatnonzero(origin < 0)
        if not len(new) or not self._scorer.borrows:
            return old.borrowers
        rows, loans = old.n_rows + new, self._scorer.loans_of(text_vec[torch.from_numpy(new)])
        return Borrowers(rows, loans) if old.borrowers is None else old.borrowers.with_more(rows, loans)

    @torch.no_grad()
    def _bank_rows(self, text_vec: Tensor, origin: npt.NDArray[np.int64]) -> ItemBank:
        """Rows of the bank. What training learnt of an item beyond its words stays as far as its words stay: it is
        weighted by the cosine of the new and the trained text vector, so that an id put to other use starts afresh."""
        item_vec = self._scorer.project(text_vec)
        trained = np.flatnonzero(origin >= 0)
        if len(trained):
            known, places = torch.from_numpy(origin[trained]), torch.from_numpy(trained)
            own = self._scorer.bank
            learnt = own.item_vec[known] - self._scorer.project(own.text_vec[known])
            if not self._id_only:
                alike = torch.nn.functional.cosine_similarity(text_vec[places], own.text_vec[known], dim=1)
                learnt = learnt * alike.clamp(min=0.0).unsqueeze(1)
            item_vec = item_vec.index_add(0, places, learnt)
        return self._scorer.bank_rows(text_vec, item_vec, origin)

    def _popularity(self, ids: Sequence[ItemId], origin: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        live = np.fromiter((self._live_popularity.get(item_id, 0.0) for item_id in ids), np.float32, len(ids))
        return self._logged_popularity(origin) + live

    def _logged_popularity(self, origin: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        logged = np.append(self._log_popularity, np.float32(0.0))  # -1, an item without a log, takes the last
        return np.asarray(logged[origin], np.float32)

    def _same_words(self, snapshot: Snapshot, item_id: ItemId, text: str) -> npt.NDArray[np.float32] | None:
        """The text vector of the item's living row, or else of its row in the generation, where the words are the same."""
        row = snapshot.rows.get(item_id)
        if row is not None:
            (fields,) = snapshot.fields([row])
            if self._id_only or self._template.render_item({**fields, ITEM_ID: item_id}) == text:
                return np.asarray(snapshot.bank.take(np.array([row])).text_vec[0].numpy())
        own = self._recommender.catalog
        trained = own.indices.get(item_id)
        if trained is not None and (
            self._id_only or self._template.render_item(own.frame.row(trained, named=True)) == text
        ):
            return self._scorer.bank.text_vec[trained].numpy()
        return None


def _is_unchanged(snapshot: Snapshot, item: EncodedItem) -> bool:
    row = snapshot.rows.get(item.item_id)
    return row is not None and snapshot.fields([row]) == [item.fields]


def _vector_of(stored: bytes | None, width: int) -> npt.NDArray[np.float32] | None:
    """A stored vector, None where there is none or it is damaged."""
    if stored is None or len(stored) != 4 * width:
        return None
    vector = np.frombuffer(stored, "<f4").astype(np.float32)
    return vector if np.isfinite(vector).all() else None


def _title(item: EncodedItem, text_columns: Sequence[str]) -> str:
    text: Any = item.fields[text_columns[0]] if text_columns else None
    return str(text).strip() or item.item_id if text is not None else item.item_id
