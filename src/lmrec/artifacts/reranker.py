"""A reranker on disk, beside the run whose lists it puts in order: RUN/reranker/, safetensors and json.

model/           the classifier and its tokenizer, as transformers saves them; where LoRA learnt on a language model that
                 has a name, or nothing learnt: learnt.safetensors (updates and head, a few megabytes), the base's shape, the
                 tokenizer
reranker.json    what it was taught, how its input looks, calibration, weight beside the retriever, fingerprints
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lmrec.artifacts.base import Base
from lmrec.artifacts.files import fingerprint_files, read_json, replaced_folder, share_file, write_json
from lmrec.errors import RunFolderError
from lmrec.models.adaptation import merge_adapter
from lmrec.models.causal_lm import YesNoReader, load_causal_lm
from lmrec.models.cross_encoder import PairModel, PairTask, ReaderForm, load_cross_encoder
from lmrec.models.encoder import check_places
from lmrec.models.layers import set_dropout
from lmrec.models.pair_adapter import attach_pair_lora, fingerprint_base, put_learnt_weights
from lmrec.text.pairs import PairLayout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DESCRIPTION, _LEARNT = "reranker.json", "learnt.safetensors"


@dataclass(frozen=True)
class RerankerDescription:
    """weight: the reranker's share in the order of the retriever's best top_k, 0 (none) to 1 (alone), from validation.

    answers: the tokens of yes and no, where the form is yes_no. values: the ratings that classes stand for. center, spread: a
    rating is center + spread x a regression's output; so are the log-odds of a likelihood.
    template: fingerprint of the item texts that it was taught; item, max_words: how they differ from those of its run, as in a
    recipe. user: pattern of the words before a history, empty for none.
    base: the language model that is kept elsewhere; None: all of it is here. rank: of LoRA's updates on the base, 0 for none.
    fingerprint: of the weights that are here; empty until saved.
    """

    task: PairTask
    form: ReaderForm
    layout: PairLayout
    max_tokens: int
    top_k: int
    weight: float
    temperature: float = 1.0
    threshold: float = 0.5
    answers: tuple[int, int] = (0, 0)
    values: tuple[float, ...] = ()
    center: float = 0.0
    spread: float = 1.0
    template: str = ""
    item: str = ""
    max_words: int = 0
    user: str = ""
    base: Base | None = None
    rank: int = 0
    fingerprint: str = ""

    @property
    def n_outputs(self) -> int:
        """Of the model, for each pair."""
        return len(self.values) if self.task == "classes" else 1


def save_reranker(
    folder: Path,
    model: PairModel,
    tokenizer: "PreTrainedTokenizerBase",
    description: RerankerDescription,
    learnt: Mapping[str, Tensor] | None = None,
) -> RerankerDescription:
    """Write the folder whole, or not at all; returns the description as it was saved.

    learnt: what is not the base, where one is described.
    """
    with replaced_folder(folder) as fresh:
        if description.base is None:
            model.backbone.save_pretrained(fresh / "model")  # type: ignore[operator]
        else:
            model.backbone.config.save_pretrained(fresh / "model")  # type: ignore[union-attr, operator]
            if learnt:
                save_file({name: value.contiguous() for name, value in learnt.items()}, fresh / "model" / _LEARNT)
        tokenizer.save_pretrained(fresh / "model")
        fingerprint = fingerprint_files(*sorted((fresh / "model").glob("*.safetensors")))
        write_json(fresh / _DESCRIPTION, {**asdict(description), "fingerprint": fingerprint})
    return read_reranker(folder)


def share_reranker(source: Path, target: Path) -> None:
    """The same reranker beside another run of the same item texts, in place of one that is there; files are shared where the
    disk can, for nothing here is ever written in place."""
    with replaced_folder(target) as fresh:
        shutil.copytree(source, fresh, copy_function=share_file, dirs_exist_ok=True)


def read_reranker(folder: Path) -> RerankerDescription:
    """Raises RunFolderError where the description is missing or damaged."""
    values: dict[str, Any] = read_json(folder / _DESCRIPTION)
    try:
        layout = PairLayout(**{name: tuple(ids) for name, ids in values["layout"].items()})
        base = Base.read(values["base"]) if values["base"] is not None else None
        lists = {name: tuple(values[name]) for name in ("values", "answers")}
        return RerankerDescription(**{**values, "layout": layout, "base": base, **lists})
    except (KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{folder / _DESCRIPTION} is not what lmrec writes ({error}). Type `lmrec fit-reranker` again"
        ) from error


def load_reranker_model(folder: Path, description: RerankerDescription) -> "tuple[PairModel, PreTrainedTokenizerBase]":
    """Raises RunFolderError where the weights are not those that the description tells of."""
    from lmrec.text.tokens import load_tokenizer

    try:
        found = fingerprint_files(*sorted((folder / "model").glob("*.safetensors")))
    except OSError as error:
        raise RunFolderError(f"{folder / 'model'} cannot be read ({error}). Type `lmrec fit-reranker` again") from error
    if found != description.fingerprint:
        raise RunFolderError(
            f"{folder / 'model'} holds other weights ({found}) than its description ({description.fingerprint}). Type "
            "`lmrec fit-reranker` again"
        )
    tokenizer = load_tokenizer(folder / "model")
    pad_id = int(tokenizer.pad_token_id or 0)
    if description.base is None:
        return build_reader(folder / "model", description, pad_id).eval(), tokenizer
    return _on_base(folder, description, description.base, pad_id).eval(), tokenizer


def _on_base(folder: Path, description: RerankerDescription, base: Base, pad_id: int) -> PairModel:
    """The base, and what was learnt on it, merged."""
    model = base.load(
        lambda where: build_reader(where, description, pad_id, base.name),
        fingerprint_base,
        f"the reranker in {folder}",
        "type `lmrec fit-reranker` again",
    )
    if not description.rank:
        return model
    adapted = attach_pair_lora(model, description.rank, base.name)
    file = folder / "model" / _LEARNT
    try:
        put_learnt_weights(model, load_file(file))
    except (OSError, SafetensorError, ValueError) as error:
        raise RunFolderError(
            f"{file} does not fit {_DESCRIPTION} beside it ({error}). Type `lmrec fit-reranker` again"
        ) from error
    merge_adapter(adapted)
    return model


def build_reader(
    location: Path | str, description: RerankerDescription, pad_id: int, name: str = "", dropout: float | None = None
) -> PairModel:
    """The model of the form that is described, with the weights that lie there.

    dropout: inside it while it learns; None: whatever it came with. Raises RecipeError where it cannot be.
    """
    model: PairModel
    if description.form == "classifier":
        model = load_cross_encoder(location, description.n_outputs, pad_id, name)
    else:
        model = YesNoReader(load_causal_lm(location, name), pad_id, description.answers)
    check_places(model.backbone, description.max_tokens, "reranker.max_tokens", name or str(location))
    if dropout is not None:
        set_dropout(model, dropout, "reranker.dropout", name or str(location))
    return model
