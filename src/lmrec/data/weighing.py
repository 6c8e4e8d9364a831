"""What an event counts, by the recipe of its log: the rules, in words that every room may read (no polars).

`lmrec.data.weights` applies them, for whoever takes events in: the reader of tables, the merge of what a store has heard, the
live service. So an event counts the same, however it came.
"""

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

WeightSource: TypeAlias = Literal["weight", "rating", "none"]
WeightScale: TypeAlias = Literal["linear", "log"]


def plain_kind(kind: str) -> str:
    """Kinds compare without case and without blanks around them.

    >>> plain_kind(" Purchase")
    'purchase'
    """
    return kind.strip().lower()


_Kind = Annotated[str, AfterValidator(plain_kind)]


class Weighing(BaseModel):
    """What the events of a log count, by the recipe that it was read with (`data.*`), and what that found in the log.

    | weight_from | base, times the weight of the kind                                             |
    |-------------|--------------------------------------------------------------------------------|
    | weight      | how often or how much; scale "log": log2(1 + that), so 1 stays 1               |
    | rating      | (rating - lowest + 1) / (highest - lowest + 1) of the log's ratings: 1 to 5    |
    |             | stars count 0.2 to 1; an event without a rating counts as the mean of the others |
    | none        | 1                                                                              |
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind_weights: dict[_Kind, float] = Field(default={}, description="What a kind counts; 0: its events are left out.")
    return_kinds: dict[_Kind, _Kind] = Field(default={}, description="Kind of a return -> the kind that it takes back.")
    weight_from: WeightSource = "weight"
    weight_scale: WeightScale = "linear"
    min_rating: float | None = Field(default=None, description="Events rated lower, or not at all, are left out.")
    no_kind: str = Field(default="", description="The kind of events that came without one.")
    kinds: tuple[str, ...] = Field(default=(), description="All that the log had, also those that were left out.")
    lowest: float | None = Field(default=None, description="Of the ratings in the log, where events weigh by them.")
    highest: float | None = None
    unrated: float = Field(default=1.0, description="The base of an event without a rating.")

    @property
    def known_kinds(self) -> frozenset[str]:
        """Those of the log, and those that the recipe names."""
        named = (*self.kind_weights, *self.return_kinds, *self.return_kinds.values())
        return frozenset((*self.kinds, *named)) - {""}

    @property
    def zero_kinds(self) -> frozenset[str]:
        """Kinds whose events are left out. A return is never one: it takes back, and leaves by itself."""
        zero = (kind for kind, weight in self.kind_weights.items() if weight == 0)
        return frozenset(kind for kind in zero if kind not in self.return_kinds)

    @property
    def bought_kinds(self) -> frozenset[str]:
        """Kinds whose events a return takes back."""
        return frozenset(self.return_kinds.values()) - self.zero_kinds


PLAIN: Final = Weighing()
"""Every event counts what its weight says, else 1."""
