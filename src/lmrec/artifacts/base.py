"""The language model that something saved without it was learnt on: its name, where it was, a fingerprint of its weights.

Whoever reads what was learnt brings the base, and one with other weights is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from lmrec.artifacts.pretrained import locate_pretrained
from lmrec.errors import RecipeError, RunFolderError

Model = TypeVar("Model")


@dataclass(frozen=True)
class Base:
    """name: as a recipe calls it. location: the folder or hub name that it led to."""

    name: str
    location: str
    fingerprint: str

    @classmethod
    def of(cls, name: str, fingerprint: str) -> Self:
        found = locate_pretrained(name)
        return cls(name, str(found.resolve()) if isinstance(found, Path) else found, fingerprint)

    @classmethod
    def read(cls, values: Any) -> Self:
        """Raises KeyError or TypeError where this is no base."""
        return cls(*(str(values[name]) for name in ("name", "location", "fingerprint")))

    def load(
        self, read: Callable[[Path | str], Model], fingerprint_of: Callable[[Model], str], needed: str, again: str
    ) -> Model:
        """The base: where the name leads now, else where it led before.

        needed: what needs it, and where that lies; again: what makes that anew. Raises RunFolderError where there is none, or
        its weights are others.
        """
        found = locate_pretrained(self.name)
        where = found if isinstance(found, Path) or not Path(self.location).is_dir() else Path(self.location)
        try:
            model = read(where)
        except RecipeError as error:
            raise RunFolderError(
                f"{needed} needs its base, and {error}. It was fitted with the one in {self.location}"
            ) from error
        has = fingerprint_of(model)
        if has != self.fingerprint:
            raise RunFolderError(
                f"{needed} was learnt on a language model with the fingerprint {self.fingerprint}, and '{self.name}' now has "
                f"{has}. Put the model back that it was fitted with ({self.location}), or {again}"
            )
        return model
