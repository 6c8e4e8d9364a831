"""A row of the table of techniques: what a fit changes in the common recipe, and why it is worth a row."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One technique, measured on its own against the plain fine-tuning of the same recipe.

    name: what the table calls it, unique in its list. overrides: recipe settings as on the command line
    ("training.optimizer=sgd"). about: one plain line, with the paper where there is one. pretrain: settings of `lmrec
    pretrain`, which makes the language model that the fit begins with; none: the published one. mix: how several fits
    become one model: snapshots of this one, or `members`, whose overrides may say SEED, OTHER and THIRD. beside: the row
    that differs from this one in the technique alone, where that is not the plain one. distil: of a reranker's row, how the
    retriever is taught by it.
    """

    name: str
    overrides: tuple[str, ...]
    about: str
    pretrain: tuple[str, ...] = ()
    mix: Literal["", "snapshots", "ensemble", "ranks", "uniform", "greedy"] = ""
    members: tuple["Row", ...] = ()
    beside: str = ""
    distil: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[str, ...]:
        """All that makes its results what they are, as a list of settings."""
        mixed = tuple(f"{member.name}: {override}" for member in self.members for override in member.overrides or ("",))
        return (*self.overrides, *self.pretrain, *self.distil, *((f"mix={self.mix}",) if self.mix else ()), *mixed)

    def member_at(self, place: int, seed: int) -> "Row":
        """A member of a fit's seed. The other seeds are far from those that rows are fitted with."""
        member = self.members[place]
        numbers = {"SEED": seed, "OTHER": 100 + seed, "THIRD": 200 + seed}
        overrides = member.overrides
        for word, number in numbers.items():
            overrides = tuple(override.replace(word, str(number)) for override in overrides)
        return replace(member, overrides=overrides)


def slug(name: str) -> str:
    """A row's name as a file's.

    >>> slug("head, 48 words")
    'head-48-words'
    """
    return name.replace(" ", "-").replace(",", "")
