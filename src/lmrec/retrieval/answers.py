"""What is asked of a live recommender and what it answers: plain values, no tensors."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from lmrec.fields import ItemId
from lmrec.retrieval.casting import Fields
from lmrec.retrieval.filters import Filter

Basis: TypeAlias = Literal["history", "text", "history+text", "profile", "popular"]


@dataclass(frozen=True)
class LiveQuery:
    """One question. `history` is oldest first, ids that the catalog lacks are ignored; `text` joins it as the newest item,
    less what it says is not wanted.

    `exclude` is never shown; `exclude_seen` leaves out the history too; unset: as the run was judged. `diversity` 0 keeps the
    plain order of scores, 1 thinks of nothing but variety. With `popular`, someone of whom nothing is known gets what is
    popular now, else an empty list. `segment` chooses the rules that were written for one group of users. `columns`: whether
    items bring the catalog's columns along. `profile`: what else is known of them, columns of user_model.profile; what was
    not learnt adds nothing. `asked_words`: whether the question itself gave what the profile says in words; then too many are
    refused, else they keep a reranker from reading. `candidates`: the items to be put in order, in place of the whole
    catalog; those that it lacks are named in the answer. `at_ts`: when, UTC seconds, where what is live counts; unset: now.
    """

    history: tuple[ItemId, ...] = ()
    text: str | None = None
    k: int = 10
    filter: Filter | None = None
    exclude: Collection[ItemId] = ()
    exclude_seen: bool | None = None
    diversity: float = 0.0
    popular: bool = True
    segment: str | None = None
    columns: bool = True
    profile: Mapping[str, Any] = field(default_factory=dict)
    asked_words: bool = True
    candidates: tuple[ItemId, ...] | None = None
    at_ts: float | None = None


@dataclass(frozen=True)
class LiveItem:
    """`score` is the model's, with boosts; `rule` is the id of the rule that pinned, boosted or demoted the item."""

    item_id: ItemId
    title: str
    score: float
    fields: Fields = field(default_factory=dict)
    rule: str | None = None


@dataclass(frozen=True)
class LiveAnswer:
    """`basis` says what the list rests on; `n_history` counts the items of the history that the catalog knows; `unwanted`:
    what the text said is not wanted, so that items which name it were left out; `text_read`: whether the list is of what else
    it said, where nothing that counts reads words it is not. `unknown`: candidates that the catalog lacks; `left_out`: those
    that rules, reviews or the filter keep from being shown."""

    items: tuple[LiveItem, ...]
    basis: Basis
    n_history: int
    unwanted: tuple[str, ...] = ()
    text_read: bool = True
    unknown: tuple[ItemId, ...] = ()
    left_out: tuple[ItemId, ...] = ()


@dataclass(frozen=True, eq=False)
class EncodedItem:
    """An item as it stands in the catalog now: fields cast to the catalog's types, text_vec (Dt,) float32."""

    item_id: ItemId
    fields: Fields
    text_vec: npt.NDArray[np.float32]


class ItemChange(Protocol):
    """The latest state of an item in a store. `fields` None: deleted. `text_vec`: float32 LE made by `fingerprint`."""

    @property
    def version(self) -> int: ...
    @property
    def item_id(self) -> str: ...
    @property
    def fields(self) -> Mapping[str, Any] | None: ...
    @property
    def text_vec(self) -> bytes | None: ...
    @property
    def fingerprint(self) -> str | None: ...
