"""Rows of the table of techniques: what is done with the words of a catalog, before and while a model learns from them.

Rows that only change a recipe are in ROWS; those in PRETRAINED begin from a language model that read on first.
"""

from pathlib import Path

from benchmarks.fitting import keep_if_made_of
from benchmarks.tuning.bench import Bench
from benchmarks.tuning.rows import Row, slug
from lmrec.artifacts.encoder_files import fingerprint_encoder
from lmrec.artifacts.files import read_json
from lmrec.artifacts.pretrained import locate_pretrained
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
# Where the common recipe reads less (benchmarks.tuning.bench), so many words would be cut again.
_READ = ("encoder.max_tokens=64",)
LONG_TEXTS = (
    Row("head, 48 words", (*_READ, "template.max_words=48"), "the longest column cut after its first words"),
    Row(
        "sentences, 48 words",
        (*_READ, "template.max_words=48", "template.shorten=sentences"),
        "its most central sentences (TextRank, Mihalcea and Tarau 2004)",
        beside="head, 48 words",
    ),
    Row(
        "keywords, 48 words",
        (*_READ, "template.max_words=48", "template.shorten=keywords"),
        "its most central words (TextRank, Mihalcea and Tarau 2004)",
        beside="head, 48 words",
    ),
)

ROWS = (*AUGMENTATION, *LONG_TEXTS)


# Each begins from what `lmrec pretrain` makes by these choices.
PRETRAINED = (
    Row("DAPT mlm", (), "hidden words of the catalog (Gururangan et al. 2020)", ("pretrain.objective=mlm",)),
    Row(
        "DAPT simcse",
        (),
        "the same text under another dropout (Gao et al. 2021)",
        ("pretrain.objective=simcse",),
    ),
    Row(
        "DAPT pairs",
        (),
        "items near each other in training histories (InfoNCE)",
        ("pretrain.objective=pairs", "pretrain.max_pairs=10000"),
    ),
    Row(
        "domain words",
        (),
        "200 words of the catalog as tokens, then simcse",
        ("pretrain.objective=simcse", "pretrain.new_words=200"),
    ),
    Row(
        "SmolLM2-135M, DAPT clm, head only",
        ("encoder.train=none",),
        "next words of the catalog, every weight, two epochs; then the language model is fixed (Gururangan et al. 2020)",
        ("encoder.name=SmolLM2-135M-Instruct", "pretrain.objective=clm", "pretrain.epochs=2"),
        beside="SmolLM2-135M, head only",
    ),
)
BACK_TRANSLATION = Row(
    "back-translation",
    ("augment.words.back_translate=TRANSLATORS",),
    "into another language and back, words drawn (Sennrich et al. 2016, Edunov et al. 2018)",
)
NOT_MEASURED = (
    "Back-translation (`augment.words.back_translate`): two sequence-to-sequence translation models are needed, and none can "
    "be had where this table is made. With two: `LMREC_TRANSLATORS=THERE,BACK make bench-tuning ROW=back-translation`.",
)


def encoder_folder(bench: Bench, row: Row) -> Path:
    """The language model that the row begins with, made where it is missing, once for all seeds of the fit. Only the training
    part of the log is read, and only by "pairs"."""
    folder = bench.runs / "encoders" / slug(row.name)
    chosen = bench.recipe(0, (*row.pretrain, *(("pretrain.epochs=1",) if bench.small else ())))
    base = fingerprint_encoder(locate_pretrained(chosen.encoder.name), chosen.encoder.pooling)
    keep_if_made_of(folder, chosen.model_dump_json(), base, bench.prepared.dataset.fingerprint)
    if (folder / RECORD).exists() and read_json(folder / RECORD)["finished"]:
        return folder
    pretrain_encoder(bench.prepared.dataset.catalog, chosen, folder, bench.prepared.split.train, show=False)
    return folder
