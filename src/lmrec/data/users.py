"""User attributes: an optional table, and the values in it as numbers that a user model can learn vectors of."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import polars as pl

from lmrec.data.fingerprint import fingerprint_of
from lmrec.errors import DataError, InputError, RecipeError, nearest
from lmrec.fields import USER_ID, Profile, Ragged, TextArray, UserId

TAG_SEPARATOR: Final = "|"  # between several values in one cell, such as interests
_BANDS: Final = 8  # that a column of numbers is cut into, about equally many users in each
_MIN_USERS: Final = 2  # with a value, for it to be learnt: a value of one user is that user
_MOSTLY: Final = 0.95  # of the cells that hold something: so many numbers make bands, and the others say nothing
_WHOLE: Final = re.compile(r"\s*[-+]?\d+\.0+\s*")  # a whole number, with a point
_FEW: Final = 0.5  # of those whose cell holds something: reaching less is said


@dataclass(frozen=True, eq=False)
class UserTable:
    """`frame` holds `user_id` (text, unique) and any attributes. Users need not have events, nor the reverse."""

    frame: pl.DataFrame

    def __post_init__(self) -> None:
        if self.frame.schema.get(USER_ID) != pl.String:
            raise DataError(f"a user table needs a text column '{USER_ID}'; found {dict(self.frame.schema)}")

    @property
    def n_users(self) -> int:
        return self.frame.height

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_of(self.frame.get_columns())

    @cached_property
    def rows(self) -> Mapping[UserId, int]:
        return {user_id: row for row, user_id in enumerate(self.frame[USER_ID].to_list())}

    def attributes(self, user_id: UserId) -> dict[str, Any]:
        """The user's row without the id; nothing for a user that the table lacks."""
        row = self.rows.get(user_id)
        if row is None:
            return {}
        return {name: value for name, value in self.frame.row(row, named=True).items() if name != USER_ID}

    def save_parquet(self, path: Path | str) -> None:
        self.frame.write_parquet(path)

    @classmethod
    def from_parquet(cls, path: Path | str) -> Self:
        return cls(pl.read_parquet(path))


@dataclass(frozen=True)
class Profiles:
    """known: what is known of each user of a log beside the history, its numbers by a vocabulary, which may be empty."""

    known: Profile
    vocabulary: "ProfileVocabulary"

    @property
    def n_values(self) -> int:
        return self.vocabulary.n_values


@dataclass(frozen=True)
class ProfileVocabulary:
    """The values of a user table's columns as numbers from 1; unknown values have none. values: column -> its texts or tags.
    edges: column of numbers -> where its bands begin, the first one excepted.

    >>> known = ProfileVocabulary({"likes": ("jazz", "tea")}, {"age": (20.0, 40.0)})
    >>> known.ids_of({"likes": "tea|golf", "age": 57}), known.ids_of({"age": ""}), known.n_values
    ([2, 5], [], 5)
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.values, *self.edges)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Column -> how many values or bands it has."""
        values = {name: len(found) for name, found in self.values.items()}
        return values | {name: len(found) + 1 for name, found in self.edges.items()}

    @cached_property
    def _first(self) -> dict[str, int]:
        """Column -> the number of its first value."""
        return dict(zip(self.columns, np.cumsum([1, *self.sizes.values()]).tolist(), strict=False))

    @cached_property
    def _places(self) -> dict[str, dict[str, int]]:
        return {name: {value: at for at, value in enumerate(values)} for name, values in self.values.items()}

    @property
    def n_values(self) -> int:
        return sum(self.sizes.values())

    def ids_of(self, profile: Mapping[str, object]) -> list[int]:
        """Of what is known: other columns, blanks and values that nobody had are passed over."""
        ids = []
        for name, places in self._places.items():
            ids += [self._first[name] + places[tag] for tag in tags_of(profile.get(name)) if tag in places]
        for name, edges in self.edges.items():
            number = _number(profile.get(name))
            if number is not None:
                ids.append(self._first[name] + int(np.searchsorted(edges, number, side="right")))
        return ids

    def profile_of(
        self, table: UserTable | None, user_ids: Sequence[UserId], words: TextArray | None
    ) -> Profile | None:
        """Of these users, nothing of those that the table lacks; None where the vocabulary is empty and there are no words
        (B,) of them."""
        if not self.n_values:
            return None if words is None else Profile(Ragged.from_rows([[]] * len(user_ids)), words)
        rows = [self.ids_of(table.attributes(user)) if table else [] for user in user_ids]
        return Profile(Ragged.from_rows(rows), words)

    def profiles(
        self, table: UserTable | None, user_ids: Sequence[UserId], words: TextArray | None = None
    ) -> Profiles | None:
        """`profile_of` the users of a log."""
        known = self.profile_of(table, user_ids, words)
        return None if known is None else Profiles(known, self)

    def checked(self, profile: Mapping[str, object], read: Sequence[str] = ()) -> Mapping[str, object]:
        """read: columns that are read in words. Raises InputError for a column that was neither learnt nor is read."""
        columns = dict.fromkeys((*self.columns, *read))
        for name in profile:
            if name in columns:
                continue
            if not columns:
                raise InputError(
                    f"profile: nothing was learnt of '{name}', for this run was fitted without user_model.profile. Leave the "
                    f"profile out, or fit with --users TABLE --set 'user_model.profile=[\"{name}\"]'"
                )
            close = nearest(name, columns) if name else ""
            meant = f"{close} " if close.startswith("Did") else ""
            raise InputError(
                f"profile: nothing was learnt of '{name}'. {meant}What was: {', '.join(map(repr, columns))}"
            )
        return profile

    def reach_notes(self, table: UserTable, user_ids: Sequence[UserId]) -> tuple[str, ...]:
        """How many of these users each column reaches, and what to do where it is few, in words.

        >>> likes = UserTable(pl.DataFrame({"user_id": ["a", "b", "c"], "likes": ["tea|jazz", "tea, jazz", "tea"]}))
        >>> ProfileVocabulary({"likes": ("tea",)}).reach_notes(likes, ["a", "b", "c", "d"])
        ("user_model.profile: values of 'likes' that are learnt: 1; users who have one: 2 of 4",)
        """
        known = table.frame.join(pl.DataFrame({USER_ID: user_ids}), on=USER_ID, how="semi")
        notes = []
        for name, n_values in self.sizes.items():
            cells = [cell for cell in known[name].to_list() if tags_of(cell)]
            n_reached = sum(bool(self.ids_of({name: cell})) for cell in cells)
            kind = "bands" if name in self.edges else "values"
            note = (
                f"user_model.profile: {kind} of '{name}' that are learnt: {n_values:,}; users who have one: {n_reached:,} of "
                f"{len(user_ids):,}"
            )
            if n_reached < _FEW * len(cells):
                note += (
                    f", though {len(cells):,} have something there. A value is learnt where {_MIN_USERS} users have it: where "
                    f"a cell holds several, write '{TAG_SEPARATOR}' between them"
                )
            notes.append(note)
        return tuple(notes)

    def as_dict(self) -> dict[str, Any]:
        return {
            "values": {k: list(v) for k, v in self.values.items()},
            "edges": {k: list(v) for k, v in self.edges.items()},
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        return cls({k: tuple(v) for k, v in saved["values"].items()}, {k: tuple(v) for k, v in saved["edges"].items()})


def learn_vocabulary(table: UserTable | None, names: Sequence[str]) -> ProfileVocabulary:
    """Of these columns: numbers in bands of about equally many users (also where a few cells are none), texts and tags
    (`TAG_SEPARATOR`) that at least two have.

    Raises RecipeError where there is no table or no such column.
    """
    if not names:
        return ProfileVocabulary()
    if table is None:
        raise RecipeError(
            f"user_model.profile names {', '.join(names)}, and there is no user table. Give one with --users, or leave it out"
        )
    values: dict[str, tuple[str, ...]] = {}
    edges: dict[str, tuple[float, ...]] = {}
    for name in names:
        if name not in table.frame.columns or name == USER_ID:
            columns = [column for column in table.frame.columns if column != USER_ID]
            raise RecipeError(f"user_model.profile names '{name}', which users lack. {nearest(name, columns)}")
        cells = table.frame[name].to_list()
        said = [tags for cell in cells if (tags := tags_of(cell))]
        known = [number for tags in said if (number := _number(tags[0])) is not None]
        is_single = all(len(tags) == 1 for tags in said)
        if is_single and len(known) >= _MOSTLY * len(said) and len(set(known)) > _BANDS:
            cuts = np.quantile(known, np.arange(1, _BANDS) / _BANDS)
            edges[name] = tuple(float(cut) for cut in np.unique(cuts))
            continue
        counts = Counter(tag for tags in said for tag in tags)
        values[name] = tuple(sorted(tag for tag, count in counts.items() if count >= _MIN_USERS))
    return ProfileVocabulary(values, edges)


def tags_of(cell: object) -> list[str]:
    """The values of a cell: a list's, or a text's between separators, or what else it is, as text.

    >>> tags_of("jazz|tea"), tags_of(True), tags_of(2.0), tags_of("007|1.50|2.0|v1.0"), tags_of(None)
    (['jazz', 'tea'], ['true'], ['2'], ['007', '1.50', '2', 'v1.0'], [])
    """
    if cell is None:
        return []
    found = cell if isinstance(cell, list | tuple) else _text(cell).split(TAG_SEPARATOR)
    return list(dict.fromkeys(text for one in found if one is not None and (text := _text(one).strip())))


def _text(value: object) -> str:
    """Truth as tables write it, whole numbers without a point whatever their column's type, NaN blank: what is typed finds what
    was learnt."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if value != value else f"{value:.0f}" if value.is_integer() else str(value)
    text = str(value)
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text


def _number(cell: object) -> float | None:
    if cell is None or isinstance(cell, bool | list | tuple):
        return None
    try:
        number = float(str(cell))
    except ValueError:
        return None
    return number if np.isfinite(number) else None
