"""Candidates: items that somebody hands in to have them put in order, such as those of a page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from lmrec.errors import InputError, UnknownIdError
from lmrec.fields import ItemId

MAX_CANDIDATES: Final = 1_000


@dataclass(frozen=True)
class Candidates:
    """rows: those that the catalog knows, each once, in the order given. unknown: ids that it lacks, each once."""

    rows: tuple[int, ...]
    unknown: tuple[ItemId, ...]


def find_candidates(item_ids: Sequence[ItemId], row_of: Callable[[ItemId], int | None]) -> Candidates:
    """
    >>> find_candidates(["b", "x", "a", "b"], {"a": 0, "b": 1}.get)
    Candidates(rows=(1, 0), unknown=('x',))

    Raises InputError for none, for more than MAX_CANDIDATES and for a text in place of a list; UnknownIdError where the catalog
    knows none of them.
    """
    if isinstance(item_ids, str):
        raise InputError(f"candidates are a list of item ids, such as ['50', '181']; got the text '{item_ids:.100}'")
    if not 1 <= len(item_ids) <= MAX_CANDIDATES:
        raise InputError(
            f"there are {len(item_ids):,} candidates; give 1 to {MAX_CANDIDATES:,}. To choose from the whole catalog, ask for "
            "recommendations"
        )
    found = {str(item_id): row_of(str(item_id)) for item_id in item_ids}
    rows = tuple(row for row in found.values() if row is not None)
    unknown = tuple(item_id for item_id, row in found.items() if row is None)
    if not rows:
        named = ", ".join(f"'{item_id:.100}'" for item_id in unknown[:3]) + (" ..." if len(unknown) > 3 else "")
        raise UnknownIdError(f"the catalog has none of the {len(unknown):,} candidates ({named}). Check the ids")
    return Candidates(rows, unknown)
