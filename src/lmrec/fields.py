"""The field's words, once: column names, event words and the array shapes everybody shares.

`ItemId` and `UserId` are what the outside world calls things (always text inside lmrec); `ItemIdx` and `UserIdx` are
row numbers, valid only next to the catalog or log they came from. Axis letters used in comments: B users or cases,
H history, L tokens, D width, N items, K candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

ItemId: TypeAlias = str
UserId: TypeAlias = str
ItemIdx: TypeAlias = int
UserIdx: TypeAlias = int

FloatArray: TypeAlias = npt.NDArray[np.floating]
IntArray: TypeAlias = npt.NDArray[np.integer]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
TextArray: TypeAlias = npt.NDArray[np.object_]  # of texts

USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
TIMESTAMP: Final = "timestamp"
POSITION: Final = "position"
KIND: Final = "kind"
RATING: Final = "rating"
WEIGHT: Final = "weight"
AMOUNT: Final = "amount"
ADDED_AT: Final = "added_at"
RANK: Final = "rank"
SCORE: Final = "score"

TimeKind: TypeAlias = Literal["timestamp", "position"]


def ranges(starts: IntArray, stops: IntArray) -> "Ragged":
    """Rows of whole numbers from `starts[i]` up to `stops[i]`, without a loop.

    >>> ranges(np.array([2, 0]), np.array([4, 1])).values.tolist()
    [2, 3, 0]
    """
    lengths = np.asarray(stops, np.int64) - np.asarray(starts, np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    shift = np.repeat(np.asarray(starts, np.int64) - offsets[:-1], lengths)
    return Ragged(np.arange(offsets[-1]) + shift, offsets)


def gather_ranges(values: IntArray, starts: IntArray, stops: IntArray) -> "Ragged":
    """Rows `values[starts[i]:stops[i]]` laid end to end, without a loop.

    >>> gather_ranges(np.array([5, 6, 7, 8]), np.array([2, 0]), np.array([4, 1])).values.tolist()
    [7, 8, 5]
    """
    places = ranges(starts, stops)
    return Ragged(values[places.values], places.offsets)


def places_before(values: FloatArray, starts: IntArray, stops: IntArray, bounds: FloatArray) -> npt.NDArray[np.int64]:
    """(B,) for each part `values[starts[i]:stops[i]]`, ascending, the first place whose value is not below `bounds[i]`.

    A binary search that all parts take together: log2(longest part) steps.

    >>> places_before(np.array([1.0, 5.0, 2.0, 3.0]), np.array([0, 2]), np.array([2, 4]), np.array([5.0, 9.0])).tolist()
    [1, 4]
    """
    low, high = np.asarray(starts, np.int64).copy(), np.asarray(stops, np.int64).copy()
    while (open_parts := low < high).any():
        middle = (low + high) // 2
        # A closed part may point past the end; its answer is masked out below.
        below = values[np.minimum(middle, len(values) - 1)] < bounds
        low = np.where(open_parts & below, middle + 1, low)
        high = np.where(open_parts & ~below, middle, high)
    return low


def stable_order(keys: IntArray) -> npt.NDArray[np.int64]:
    """(E,) as argsort with kind="stable", of whole numbers from 0 to 2^48: by digits of 16 bits, some ten times as fast.

    >>> stable_order(np.array([70_000, 2, 70_000, 0])).tolist()
    [3, 1, 0, 2]
    """
    order: npt.NDArray[np.int64] = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")
    digits = keys >> 16
    while len(keys) and digits.max() > 0:
        order = order[np.argsort((digits[order] & 0xFFFF).astype(np.uint16), kind="stable")]
        digits = digits >> 16
    return order


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length in two flat arrays: row `i` is `values[offsets[i]:offsets[i + 1]]`.

    >>> rows = Ragged.from_rows([[3, 1], [], [2]])
    >>> len(rows), rows[0].tolist(), rows[1].tolist(), rows.lengths.tolist()
    (3, [3, 1], [], [2, 0, 1])
    """

    values: IntArray
    offsets: IntArray
    profile: "Profile | None" = None
    """Of histories, what else is known of whom each row is of."""

    @classmethod
    def from_rows(cls, rows: "Sequence[Sequence[int] | IntArray]") -> Self:
        lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        parts = [np.asarray(row, dtype=np.int64) for row in rows if len(row)]
        return cls(np.concatenate(parts) if parts else np.zeros(0, np.int64), offsets)

    @property
    def lengths(self) -> IntArray:
        """(B,) the length of each row."""
        return np.diff(self.offsets)

    @property
    def row_of_value(self) -> IntArray:
        """(len(values),) the row that each value belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def ages(self) -> IntArray:
        """(len(values),) how many values stand after each one in its row: 0 for the last.

        >>> Ragged.from_rows([[3, 1], [], [2]]).ages.tolist()
        [1, 0, 0]
        """
        return np.repeat(self.offsets[1:], self.lengths) - 1 - np.arange(len(self.values))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> IntArray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def slice(self, start: int, stop: int) -> "Ragged":
        """Rows `start` to `stop`, sharing memory with this one's values."""
        offsets = self.offsets[start : stop + 1]
        profile = None if self.profile is None else self.profile.slice(start, stop)
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0], profile)

    def take(self, rows: IntArray) -> "Ragged":
        """The named rows, in the order given."""
        chosen = np.asarray(rows, np.int64)
        found = gather_ranges(self.values, self.offsets[chosen], self.offsets[chosen + 1])
        return found if self.profile is None else found.of(self.profile.take(chosen))

    def last(self, n: int) -> "Ragged":
        """At most the last `n` values of each row."""
        found = gather_ranges(self.values, np.maximum(self.offsets[:-1], self.offsets[1:] - n), self.offsets[1:])
        return found.of(self.profile)

    def of(self, profile: "Profile | None") -> "Ragged":
        """The same rows of people with this profile."""
        return Ragged(self.values, self.offsets, profile)

    @property
    def words(self) -> list[str]:
        """(B,) of histories, what is read in words of whom each row is of; blank where nothing is."""
        if self.profile is None or self.profile.words is None:
            return [""] * len(self)
        return list(self.profile.words)

    def padded(self) -> npt.NDArray[np.int64]:
        """(B, W) the rows, at least one wide, with 0 after their ends.

        >>> Ragged.from_rows([[3, 1], []]).padded().tolist()
        [[3, 1], [0, 0]]
        """
        lengths = self.lengths
        found = np.zeros((len(self), max(1, int(lengths.max(initial=0)))), np.int64)
        found[np.arange(found.shape[1]) < lengths[:, None]] = self.values
        return found


@dataclass(frozen=True)
class Profile:
    """What is known of B people beside their histories: the numbers of values that were learnt (lmrec.data.users), and the
    words that are read before their histories, None where no model reads such (lmrec.text.users)."""

    ids: Ragged
    words: TextArray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def slice(self, start: int, stop: int) -> "Profile":
        """People `start` to `stop`."""
        return Profile(self.ids.slice(start, stop), None if self.words is None else self.words[start:stop])

    def take(self, rows: IntArray) -> "Profile":
        """The named people, in the order given."""
        return Profile(self.ids.take(rows), None if self.words is None else self.words[rows])

    @property
    def is_known(self) -> BoolArray:
        """(B,) of whom there is something."""
        said = np.zeros(len(self), np.bool_) if self.words is None else self.words != ""
        return np.asarray((self.ids.lengths > 0) | said)


def text_array(texts: Sequence[str]) -> TextArray:
    """(n,) of texts, to take rows of."""
    found: TextArray = np.empty(len(texts), np.object_)
    found[:] = list(texts)
    return found
