"""A row of the table of techniques: what a fit changes in the common recipe, and why it is worth a row."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One technique, measured on its own against the plain fine-tuning of the same recipe.

    name: what the table calls it, unique in its list. overrides: recipe settings as on the command line
    ("training.optimizer=sgd"). about: one plain line, with the paper where there is one. pretrain: settings of `lmrec
    pretrain`, which makes the language model that the fit begins with; none: the published one.
    """

    name: str
    overrides: tuple[str, ...]
    about: str
    pretrain: tuple[str, ...] = ()


def slug(name: str) -> str:
    """A row's name as a file's.

    >>> slug("head, 48 words")
    'head-48-words'
    """
    return name.replace(" ", "-").replace(",", "")
