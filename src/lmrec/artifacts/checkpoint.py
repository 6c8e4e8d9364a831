"""A checkpoint: the language model, the towers and all that is needed to use them; safetensors and json.

encoder/                 the language model and its tokenizer, as transformers saves them; where an adapter has learnt,
                         that alone in place of the model, see adapter.py; a pruned one see lmrec.models.pruning
towers.safetensors       item tower, user model, head
frozen_stage.safetensors the towers as the first stage left them (for the judge), where there was a second one
tuned_stage.safetensors  towers and text vectors of the second stage (for the judge), where the first one is served
transitions.safetensors  item transitions of the whole log, where the model fuses them; so ease, bm25_knn, als
checkpoint.json          configs, template, shapes, fingerprint of the weights
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lmrec.artifacts.adapter import Purpose, load_adapted, save_adapter
from lmrec.artifacts.files import fingerprint_files, read_json, replaced_folder, share_file, write_json
from lmrec.data.users import ProfileVocabulary
from lmrec.errors import RunFolderError
from lmrec.models.encoder import EncoderConfig, TextEncoder, load_encoder, save_encoder
from lmrec.models.factors import ItemFactors
from lmrec.models.fusion import (
    NEIGHBOUR_KINDS,
    Fusion,
    FusionWeights,
    NeighbourKind,
    factors_as,
    neighbours_as,
)
from lmrec.models.heads import HeadConfig
from lmrec.models.neighbours import ItemNeighbours
from lmrec.models.two_tower import ItemTowerConfig, TwoTower
from lmrec.models.user_model import UserModelConfig
from lmrec.text.template import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FACTORS = "als.safetensors"
_POPULARITY = "popularity.safetensors"
_LOANS = "loans.safetensors"


@dataclass(frozen=True)
class ModelConfigs:
    encoder: EncoderConfig
    item: ItemTowerConfig
    user_model: UserModelConfig
    head: HeadConfig
    profile: ProfileVocabulary = field(default_factory=ProfileVocabulary)


@dataclass(frozen=True)
class Checkpoint:
    """What a folder says without loading weights."""

    folder: Path
    configs: ModelConfigs
    template: Template
    n_items: int
    text_width: int
    fingerprint: str
    fusion: FusionWeights

    def load_fusion(self) -> Fusion:
        """What is scored beside the towers."""
        weights, factors, popularity, loans = self.fusion, None, None, None
        neighbours = {kind: self._load_neighbours(kind) for kind in NEIGHBOUR_KINDS if weights.amount(kind)}
        if weights.als:
            factors = self._load_factors()
        if weights.popularity:
            popularity = _load_arrays(self.folder / _POPULARITY, ("popularity",))["popularity"]
        if (self.folder / _LOANS).exists():
            loans = _load_matrix(self.folder / _LOANS, self.n_items)
        return Fusion(weights, neighbours, factors, popularity, loans)

    def _load_neighbours(self, kind: NeighbourKind) -> ItemNeighbours:
        file = self.folder / f"{kind}.safetensors"
        matrix = _load_matrix(file)
        if matrix.shape[0] != self.n_items or (matrix.nnz and not matrix.data.min() >= 0):
            raise _damaged(file, f"{matrix.shape[0]:,} items with weights from {matrix.data.min(initial=0):g}")
        return neighbours_as(self.fusion.fit_of(kind), matrix)

    def _load_factors(self) -> ItemFactors:
        file = self.folder / _FACTORS
        vectors = _load_arrays(file, ("vectors",))["vectors"]
        expected = (self.n_items, self.fusion.als_fit.n_factors)
        if vectors.shape != expected or not np.isfinite(vectors).all():
            raise _damaged(file, f"vectors of shape {vectors.shape}, expected {expected} finite numbers")
        return factors_as(self.fusion.als_fit, vectors)

    def load_towers(self, *, frozen_stage: bool = False) -> TwoTower:
        """The towers, strictly: every weight must be there and fit."""
        file = self.folder / ("frozen_stage.safetensors" if frozen_stage else "towers.safetensors")
        if not file.exists():
            raise RunFolderError(f"{file} is missing. Fit the run again")
        return self._towers_from(file)[0]

    def load_tuned_stage(self) -> tuple[TwoTower, Tensor]:
        """The towers of a second stage that is not served, and the text vectors (N, Dt) that go with them."""
        towers, rest = self._towers_from(self.folder / "tuned_stage.safetensors")
        return towers, rest["text_vec"]

    def _towers_from(self, file: Path) -> tuple[TwoTower, dict[str, Tensor]]:
        """Towers and whatever else the file is known to hold."""
        towers = build_towers(self.n_items, self.text_width, self.configs)
        try:
            weights = load_file(file)
            rest = {name: weights.pop(name) for name in ("text_vec",) if name in weights}
            towers.load_state_dict(weights)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RunFolderError(f"{file} does not fit its checkpoint.json ({error}). Fit the run again") from error
        return towers.eval(), rest

    def load_encoder(self, purpose: Purpose = "answer") -> TextEncoder:
        """The language model as it was tuned; with an adapter see `load_adapted`."""
        folder, config = self.folder / "encoder", self.configs.encoder
        if config.adapter.kind == "none":
            return load_encoder(folder, config).eval()
        return load_adapted(folder, config, purpose).eval()

    def load_tokenizer(self) -> "PreTrainedTokenizerBase":
        from lmrec.text.tokens import load_tokenizer

        return load_tokenizer(self.folder / "encoder")


def build_towers(n_items: int, text_width: int, configs: ModelConfigs) -> TwoTower:
    """Towers of the right shapes, to be filled by a state dict."""
    rank = min(configs.item.whiten, text_width)
    return TwoTower(
        np.zeros((1, text_width), np.float32),
        np.zeros(n_items, np.bool_),
        configs.item.model_copy(update={"whiten": rank}),
        configs.user_model,
        configs.head,
        configs.profile.n_values,
    )


def save_checkpoint(
    folder: Path,
    towers: TwoTower,
    encoder: TextEncoder,
    tokenizer: "PreTrainedTokenizerBase",
    template: Template,
    configs: ModelConfigs,
    frozen_stage: dict[str, Tensor] | None,
    tuned_stage: dict[str, Tensor] | None = None,
    fusion: Fusion | None = None,
) -> Checkpoint:
    """Write the folder whole, or not at all."""
    n_items = len(towers.item_tower.item_seen)
    with replaced_folder(folder) as fresh:
        if encoder.adapter_names:
            save_adapter(fresh / "encoder", encoder, configs.encoder)
        else:
            save_encoder(encoder, fresh / "encoder")
        tokenizer.save_pretrained(fresh / "encoder")
        save_file(_cpu(towers.state_dict()), fresh / "towers.safetensors")
        if frozen_stage is not None:
            save_file(_cpu(frozen_stage), fresh / "frozen_stage.safetensors")
        if tuned_stage is not None:
            save_file(_cpu(tuned_stage), fresh / "tuned_stage.safetensors")
        fusion = fusion or Fusion()
        for kind, table in fusion.neighbours.items():
            _save_matrix(fresh / f"{kind}.safetensors", table.matrix)
        if fusion.factors is not None:
            _save_arrays(fresh / _FACTORS, {"vectors": fusion.factors.vectors})
        if fusion.popularity is not None:
            _save_arrays(fresh / _POPULARITY, {"popularity": np.asarray(fusion.popularity, np.float32)})
        if fusion.loans is not None:
            _save_matrix(fresh / _LOANS, fusion.loans)
        weights = [*sorted((fresh / "encoder").glob("*.safetensors")), fresh / "towers.safetensors"]
        write_json(
            fresh / "checkpoint.json",
            {
                "encoder": configs.encoder.model_dump(mode="json"),
                "item": configs.item.model_dump(mode="json"),
                "user_model": configs.user_model.model_dump(mode="json"),
                "head": configs.head.model_dump(mode="json"),
                **({"profile": configs.profile.as_dict()} if configs.profile.n_values else {}),
                "template": {
                    "pattern": template.pattern,
                    "history_separator": template.history_separator,
                    "max_chars": template.max_chars,
                    "max_words": template.max_words,
                    "shorten": template.shorten,
                    "user": template.user,
                    "fingerprint": template.fingerprint,
                },
                "n_items": n_items,
                "text_width": encoder.width,
                "fusion": fusion.weights.model_dump(mode="json"),
                "fingerprint": fingerprint_files(*weights),
            },
        )
    return read_checkpoint(folder)


def replace_towers(folder: Path, source: Checkpoint, towers: TwoTower) -> Checkpoint:
    """A checkpoint at `folder` that is `source` with other towers, of one stage alone; other files are shared."""
    with replaced_folder(folder) as fresh:
        shutil.copytree(source.folder, fresh, copy_function=share_file, dirs_exist_ok=True)
        for name in ("towers", "frozen_stage", "tuned_stage"):
            (fresh / f"{name}.safetensors").unlink(missing_ok=True)  # never written into: they may be another run's too
        save_file(_cpu(towers.state_dict()), fresh / "towers.safetensors")
        weights = [*sorted((fresh / "encoder").glob("*.safetensors")), fresh / "towers.safetensors"]
        values = read_json(fresh / "checkpoint.json")
        write_json(fresh / "checkpoint.json", {**values, "fingerprint": fingerprint_files(*weights)})
    return read_checkpoint(folder)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Raises RunFolderError where the description is missing, damaged or of another shape."""
    values: dict[str, Any] = read_json(folder / "checkpoint.json")
    try:
        template = dict(values["template"])
        expected = template.pop("fingerprint")
        checkpoint = Checkpoint(
            folder=folder,
            configs=ModelConfigs(
                encoder=EncoderConfig(**values["encoder"]),
                item=ItemTowerConfig(**values["item"]),
                user_model=UserModelConfig(**values["user_model"]),
                head=HeadConfig(**values["head"]),
                profile=ProfileVocabulary.from_dict(values["profile"]) if "profile" in values else ProfileVocabulary(),
            ),
            template=Template(**template),
            n_items=values["n_items"],
            text_width=values["text_width"],
            fingerprint=values["fingerprint"],
            fusion=FusionWeights(**values["fusion"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{folder / 'checkpoint.json'} is not what lmrec writes ({error}). Fit again") from error
    if checkpoint.template.fingerprint != expected:
        raise RunFolderError(f"{folder / 'checkpoint.json'}: the template was edited by hand. Fit the run again")
    return checkpoint


@dataclass(frozen=True)
class ItemVectors:
    """text_vec (N, Dt) from the language model and item_vec (N, D) from the item tower, in catalog order."""

    text_vec: Tensor
    item_vec: Tensor


def save_vectors(file: Path, vectors: ItemVectors, checkpoint: Checkpoint, catalog_fingerprint: str) -> None:
    with replaced_folder(file.parent) as fresh:
        save_file(
            {"text_vec": vectors.text_vec.contiguous(), "item_vec": vectors.item_vec.contiguous()},
            fresh / file.name,
            metadata=_origin(checkpoint, catalog_fingerprint),
        )


def load_vectors(file: Path, checkpoint: Checkpoint, catalog_fingerprint: str) -> ItemVectors:
    """Refuses vectors that another template, checkpoint or catalog made."""
    from safetensors import safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            found = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in ("text_vec", "item_vec")}
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"{file} cannot be read ({error}). Fit the run again") from error
    for name, value in _origin(checkpoint, catalog_fingerprint).items():
        if found.get(name) != value:
            raise RunFolderError(
                f"{file} was made by another {name} ({found.get(name)}, expected {value}). Fit the run again"
            )
    return ItemVectors(**tensors)


def _origin(checkpoint: Checkpoint, catalog_fingerprint: str) -> dict[str, str]:
    return {
        "template": checkpoint.template.fingerprint,
        "checkpoint": checkpoint.fingerprint,
        "catalog": catalog_fingerprint,
    }


def _save_matrix(file: Path, matrix: sp.csr_matrix) -> None:
    _save_arrays(file, {"values": matrix.data, "columns": matrix.indices, "offsets": matrix.indptr})


def _load_matrix(file: Path, n_columns: int | None = None) -> sp.csr_matrix:
    """Square, unless n_columns says otherwise."""
    arrays = _load_arrays(file, ("values", "columns", "offsets"))
    n_rows = len(arrays["offsets"]) - 1
    try:
        shape = (n_rows, n_rows if n_columns is None else n_columns)
        matrix = sp.csr_matrix((arrays["values"], arrays["columns"], arrays["offsets"]), shape=shape)
        matrix.check_format(full_check=True)
        return matrix
    except ValueError as error:
        raise _damaged(file, error) from error


def _save_arrays(file: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    save_file({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}, file)


def _load_arrays(file: Path, names: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    try:
        tensors = load_file(file)
        return {name: tensors[name].numpy() for name in names}
    except (OSError, SafetensorError, KeyError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: object) -> RunFolderError:
    return RunFolderError(f"{file} is missing or damaged ({error}). Fit the run again")


def _cpu(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}


@torch.no_grad()
def compute_item_vectors(towers: TwoTower, text_vec: Tensor) -> ItemVectors:
    """Both kinds of vectors on the CPU, from text vectors (N, Dt)."""
    towers.eval()
    device = next(towers.parameters()).device
    return ItemVectors(text_vec.detach().cpu(), towers.item_tower(text_vec.to(device)).cpu())
