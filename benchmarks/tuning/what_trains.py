"""Rows of the table of techniques: what of the language model learns, and what that costs and brings."""

from benchmarks.tuning.rows import Row
from benchmarks.tuning.steps import STILL
from lmrec.artifacts.run import RunFolder

_ALL = "encoder.train=all"


def _adapter(kind: str, about: str, *more: str, rate: str = "5e-4") -> Row:
    """Adapters begin at nothing, so they learn at a higher rate than weights that are good already."""
    choices = (_ALL, f"encoder.adapter.kind={kind}", f"training.encoder_learning_rate={rate}", *more)
    return Row(kind, choices, about)


HEAD_ONLY = Row("head only", ("encoder.train=none",), "the language model is fixed; towers alone learn")
FREEZING = (
    HEAD_ONLY,
    Row("all", (_ALL,), "every weight of the language model learns"),
    Row(
        "all, checkpointing",
        (_ALL, "encoder.checkpointing=true"),
        "the same, layers run again for their gradient (Chen et al. 2016)",
        beside="all",
    ),
    Row("all but embeddings", ("encoder.train=all_but_embeddings",), "words and places stay as they were"),
    Row("all but first 3", ("encoder.train=all_but_first", "encoder.n_layers=3"), "the three lowest layers are fixed"),
    Row("last 1", ("encoder.train=last_layers", "encoder.n_layers=1"), "the top layer alone"),
    Row("last 2", ("encoder.train=last_layers", "encoder.n_layers=2"), "the two top layers: the default"),
    Row(
        "norms and biases",
        ("encoder.train=norms_and_biases", "training.encoder_learning_rate=5e-4"),
        "BitFit (Ben Zaken et al. 2021) with the norms",
    ),
)

RATES = (
    Row("layer decay 0.8", (_ALL, "training.layer_decay=0.8"), "lower layers learn slower (Howard and Ruder 2018)"),
)

ADAPTERS = (
    _adapter("lora", "a low-rank update of queries and values (Hu et al. 2021)"),
    Row(
        "lora, last 2",
        (
            "encoder.train=last_layers",
            "encoder.n_layers=2",
            "encoder.adapter.kind=lora",
            "training.encoder_learning_rate=5e-4",
        ),
        "LoRA in the two top layers alone: those below are read once",
    ),
    _adapter(
        "adalora",
        "LoRA whose ranks go where they matter (Zhang et al. 2023); it needs steps to decide in",
        "training.encoder_interval=2",
    ),
    _adapter("ia3", "a factor for keys, values and feed-forward units (Liu et al. 2022)", rate="2e-3"),
    _adapter("prefix", "learnt keys and values in every layer (Li and Liang 2021)", rate="2e-3"),
    _adapter("houlsby", "two bottlenecks a layer (Houlsby et al. 2019)"),
    _adapter("pfeiffer", "one bottleneck a layer (Pfeiffer et al. 2020)"),
)

# The common second stage has eight steps of the language model in all, which can hardly differ from none. Here 120 to 200, one
# a step of the towers, from the plain first stage: each row beside a control whose towers take the same steps on the same
# batches at the same rates. Its language model stands still: a rate that fp32 cannot add, and one pass an epoch instead of one
# a step. `training.patience` may end a row's second stage sooner.
_STANDS = "longer, head only"
_LONGER = ("training.tuned_batch_events=2000", "training.tuned_epochs=5")
_EACH_STEP = (*_LONGER, "training.encoder_interval=1")
LAST_TWO_LONGER = Row(
    "longer, last 2 layers",
    (*_EACH_STEP, "encoder.train=last_layers", "encoder.n_layers=2"),
    "the language model steps each time the towers do, about 40 times an epoch",
    beside=_STANDS,
)
LONGER = (
    Row(
        _STANDS,
        (*_LONGER, "training.encoder_interval=1000000", f"training.encoder_learning_rate={STILL:g}"),
        "the control of these rows: five epochs of the second stage whose language model stands still",
    ),
    LAST_TWO_LONGER,
    Row("longer, all", (*_EACH_STEP, _ALL), "the same, every weight", beside=_STANDS),
    Row(
        "longer, lora",
        (*_EACH_STEP, _ALL, "encoder.adapter.kind=lora", "training.encoder_learning_rate=5e-4"),
        "the same, LoRA in every layer",
        beside=_STANDS,
    ),
    Row(
        "longer, norms and biases",
        (*_EACH_STEP, "encoder.train=norms_and_biases", "training.encoder_learning_rate=5e-4"),
        "the same, BitFit with the norms",
        beside=_STANDS,
    ),
)

_SMOLLM2 = ("encoder.name=SmolLM2-135M-Instruct",)
_SMOLLM2_LORA = (
    _ALL,
    "encoder.adapter.kind=lora",
    "training.encoder_learning_rate=5e-4",
    "training.tuned_epochs=1",
    "training.max_encoded_items=64",
)

_SHORT = "plain, 5 + 1 epochs"
_SHORT_FIT = ("training.frozen_epochs=5", "training.tuned_epochs=1", "training.validation_cases=300")

# Bounded, for one pass of these models costs many times what a row's does: fewer epochs, cases and items than plain has.
MODELS = (
    Row(_SHORT, _SHORT_FIT, "the control of the next row: item vectors, as many epochs and cases as it has"),
    Row(
        "history as text",
        (
            "user_model.kind=text",
            *_SHORT_FIT,
        ),
        "one pass of the language model over the newest items' words; 5 + 1 epochs",
        beside=_SHORT,
    ),
    Row(
        "SmolLM2-135M, lora",
        (*_SMOLLM2, *_SMOLLM2_LORA),
        "a GPT-type encoder, mean of its tokens; 10 + 1 epochs, 64 items a step of the language model",
        beside="SmolLM2-135M, head only",
    ),
    Row("SmolLM2-135M, head only", (*_SMOLLM2, "encoder.train=none"), "its first stage: the language model is fixed"),
    Row(
        "SmolLM2-135M, last token, head only",
        (*_SMOLLM2, "encoder.train=none", "encoder.pooling=last"),
        "the last token in place of the mean",
        beside="SmolLM2-135M, head only",
    ),
    Row(
        "SmolLM2-135M, last token, lora",
        (*_SMOLLM2, *_SMOLLM2_LORA, "encoder.pooling=last"),
        "the last token in place of the mean; 10 + 1 epochs",
        beside="SmolLM2-135M, last token, head only",
    ),
)

ROWS = (*FREEZING, *RATES, *ADAPTERS)


def cost_cells(run: RunFolder, stage: str = "tuned") -> dict[str, float | None]:
    """What a stage of a run cost (the first one, where there is no second), for the table's columns."""
    costs = run.read_record()["training"]["costs"]
    cost = costs.get(stage, costs.get("frozen", {}))
    return {
        "trainable parameters of the language model": cost.get("encoder_parameters"),
        "seconds an epoch": cost.get("seconds"),
        "peak memory, MB": cost.get("peak_mb"),
        "memory on top, MB": cost.get("growth_mb"),
    }
