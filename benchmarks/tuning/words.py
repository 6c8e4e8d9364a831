"""Rows of the table of techniques: what is done with the words of a catalog, before and while a model learns from them.

Rows that only change a recipe are in ROWS. Pretraining needs a folder first: `build_encoders` makes those that are missing,
and `pretrained_rows` are the rows that begin from them.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.tuning.rows import Row
from lmrec.recipe import Recipe, with_choices
from lmrec.workflows.prepare import Prepared
from lmrec.workflows.pretrain import RECORD, pretrain_encoder

AUGMENTATION = (
    Row("synonyms", ("augment.words.synonyms=0.1",), "a tenth of the words by a WordNet synonym (Wei and Zou 2019)"),
    Row(
        "swap and delete",
        ("augment.words.swap=0.1", "augment.words.delete=0.1"),
        "words change places or are left out (Wei and Zou 2019)",
    ),
    Row("history crop", ('augment.history.kinds=["crop"]',), "half of the histories lose their ends (Xie et al. 2022)"),
    Row("history mask", ('augment.history.kinds=["mask"]',), "half of the histories hide some items (Xie et al. 2022)"),
    Row(
        "history reorder",
        ('augment.history.kinds=["reorder"]',),
        "a stretch of half of them in no order (Xie et al. 2022)",
    ),
)

# At 64 tokens, so that what is kept matters; "head, 48 words" is what the other two are to be compared with.
LONG_TEXTS = (
    Row("head, 48 words", ("template.max_words=48",), "the longest column cut after its first words"),
    Row(
        "sentences, 48 words",
        ("template.max_words=48", "template.shorten=sentences"),
        "its most central sentences (TextRank, Mihalcea and Tarau 2004)",
    ),
    Row(
        "keywords, 48 words",
        ("template.max_words=48", "template.shorten=keywords"),
        "its most central words (TextRank, Mihalcea and Tarau 2004)",
    ),
)

ROWS = (*AUGMENTATION, *LONG_TEXTS)


@dataclass(frozen=True)
class PretrainedRow:
    """A row that begins from what `lmrec pretrain` makes by these choices."""

    name: str
    choices: dict[str, object]
    about: str


PRETRAINED = (
    PretrainedRow("DAPT mlm", {"pretrain.objective": "mlm"}, "hidden words of the catalog (Gururangan et al. 2020)"),
    PretrainedRow(
        "DAPT simcse", {"pretrain.objective": "simcse"}, "the same text under another dropout (Gao et al. 2021)"
    ),
    PretrainedRow(
        "DAPT pairs",
        {"pretrain.objective": "pairs", "pretrain.max_pairs": 10_000},
        "items near each other in training histories (InfoNCE)",
    ),
    PretrainedRow(
        "domain words",
        {"pretrain.objective": "simcse", "pretrain.new_words": 200},
        "200 words of the catalog as tokens, then simcse",
    ),
)


def build_encoders(prepared: Prepared, recipe: Recipe, folder: Path, epochs: int = 3) -> None:
    """Make the folders that are missing. Only the training part of the log is read, and only by "pairs"."""
    for row in PRETRAINED:
        if not (_place(folder, row) / RECORD).exists():
            chosen = with_choices(recipe, {**row.choices, "pretrain.epochs": epochs})
            pretrain_encoder(prepared.dataset.catalog, chosen, _place(folder, row), prepared.split.train, show=False)


def pretrained_rows(folder: Path) -> tuple[Row, ...]:
    """The rows of the folders that `build_encoders` made."""
    return tuple(Row(row.name, (f"encoder.name={_place(folder, row)}",), row.about) for row in PRETRAINED)


def _place(folder: Path, row: PretrainedRow) -> Path:
    return folder / row.name.replace(" ", "-")
