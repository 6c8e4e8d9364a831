"""One first stage for all rows that differ in the second alone.

In the first stage the language model is fixed and the towers learn on its vectors; which of its weights will learn later,
at which rate and by which adapter, has no part in it. So such rows begin from the state that the plain fit of the same seed
stood in when its first stage ended, by the product's own resume: the weights in the end are those of a whole fit, bit for bit
(tests/flow/test_bench_tuning.py fits both ways and compares). A prefix changes the vectors before anything is learnt, so
its row has a first stage of its own.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.fitting import code_fingerprint
from lmrec.artifacts.files import read_json, replaced_folder, write_json
from lmrec.artifacts.run import RunFolder, create_run
from lmrec.artifacts.training_state import load_training_state, save_training_state
from lmrec.recipe import Recipe
from lmrec.text.template import build_template
from lmrec.workflows.encode import begin_tuning, read_texts
from lmrec.workflows.prepare import Prepared
from lmrec.workflows.train import training_fingerprint

_BESIDE = "made-of.json"  # the code that the state was learnt by, and what was told of its epochs
_SECOND_STAGE_ALONE = (
    *("encoder.train", "encoder.n_layers", "encoder.adapter.", "encoder.dropout", "encoder.checkpointing"),
    "regularisers.l2_sp",
    *("training.layer_decay", "training.encoder_learning_rate", "training.tuned_learning_rate"),
    *(
        "training.encoder_interval",
        "training.max_encoded_items",
        "training.tuned_batch_events",
        "training.tuned_epochs",
    ),
)


def is_shared(overrides: Sequence[str]) -> bool:
    """Whether a row with these overrides has the plain row's first stage.

    >>> is_shared(["encoder.train=all", "training.layer_decay=0.8"]), is_shared(["encoder.adapter.kind=prefix"])
    (True, False)
    """
    plain = all(override.startswith(_SECOND_STAGE_ALONE) for override in overrides)
    return plain and "encoder.adapter.kind=prefix" not in overrides


class KeepFirstStage:
    """Told each epoch's row of a fit (`fit_run`'s watch), it keeps the state that the first stage ended in."""

    def __init__(self, run: Path, place: Path) -> None:
        self.run, self.place = RunFolder(run), place

    def __call__(self, row: dict[str, Any]) -> None:
        # Until the epoch that this row tells of is saved, the state on disk is that of the last one's end.
        if (row["stage"], row["epoch"]) != ("tuned", 1) or read_json(self.run.training_state / "state.json")["stage"]:
            return
        with replaced_folder(self.place) as fresh:
            shutil.copytree(self.run.training_state, fresh, dirs_exist_ok=True)
            epochs = [one for one in self.run.curves.read() if one["stage"] == "frozen"]
            write_json(fresh / _BESIDE, {"code": code_fingerprint(), "epochs": epochs})


def is_kept(place: Path, plain: Recipe, prepared: Prepared) -> bool:
    """Whether `place` holds the end of the first stage of exactly this recipe on exactly these data, by today's code."""
    if not (place / _BESIDE).exists() or read_json(place / _BESIDE)["code"] != code_fingerprint():
        return False
    return bool(read_json(place / "state.json")["fingerprint"] == training_fingerprint(plain, prepared))


def begin_from(place: Path, run: Path, recipe: Recipe, prepared: Prepared) -> None:
    """Make `run` a folder whose fit by `recipe` was stopped where the first stage kept in `place` ended."""
    state = load_training_state(place, read_json(place / "state.json")["fingerprint"])
    catalog = prepared.dataset.catalog
    texts = read_texts(catalog, build_template(recipe.template, catalog), recipe.encoder)
    encoder, _ = begin_tuning(texts, recipe.training.seed, False)
    fixed = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    own = {f"encoder.{name}": value for name, value in encoder.state_dict().items() if name not in fixed}

    def with_own(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """With this recipe's language model, as it comes, in the plain one's place: it has learnt nothing yet."""
        return {**{name: value for name, value in weights.items() if not name.startswith("encoder.")}, **own}

    fingerprint = training_fingerprint(recipe, prepared)
    begun = replace(state, fingerprint=fingerprint, weights=with_own(state.weights), best=with_own(state.best))
    folder = create_run(run, resume=False)
    for row in read_json(place / _BESIDE)["epochs"]:
        folder.curves.append(row)
    save_training_state(folder.training_state, begun)
    folder.update_record(status="training")
