"""The language model that something saved without it was learnt on: its name, where it was, a fingerprint of its weights.

Whoever reads what was learnt brings the base, and one with other weights is refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lmrec.artifacts.pretrained import locate_pretrained
from lmrec.errors import RunFolderError


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

    def find(self) -> Path | str:
        """Where the name leads now, else where it led before."""
        found = locate_pretrained(self.name)
        return found if isinstance(found, Path) or not Path(self.location).is_dir() else Path(self.location)

    def check(self, fingerprint: str, learnt: str, again: str) -> None:
        """Raises RunFolderError where the weights that were found are others. learnt: what needs the base, and where it lies;
        again: what makes it anew."""
        if fingerprint != self.fingerprint:
            raise RunFolderError(
                f"{learnt} was learnt on a language model with the fingerprint {self.fingerprint}, and '{self.name}' now has "
                f"{fingerprint}. Put the model back that it was fitted with ({self.location}), or {again}"
            )
