"""An adapter on disk: what it has learnt and which language model it belongs to, without that model itself.

adapter.safetensors   the adapter's weights, a few megabytes
adapter.json          the base: its name, where it was, and a fingerprint of its weights
config.json           the base's shape

Whoever reads an adapter brings its base, and a base with other weights is refused. One copy of a base is kept for all who
answer with it at the same time (`Purpose` "answer"): members of an ensemble, generations side by side.
"""

from dataclasses import asdict, replace
from pathlib import Path
from threading import Lock
from typing import Literal, TypeAlias
from weakref import WeakValueDictionary

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lmrec.artifacts.base import Base
from lmrec.artifacts.files import read_json, write_json
from lmrec.errors import RunFolderError
from lmrec.models.adaptation import (
    adapter_weights,
    attach_adapter,
    fingerprint_weights,
    merge_adapter,
    put_adapter_weights,
    share_weights,
)
from lmrec.models.encoder import EncoderConfig, TextEncoder, configure_encoder, load_encoder

Purpose: TypeAlias = Literal["answer", "learn"]

_WEIGHTS, _DESCRIPTION = "adapter.safetensors", "adapter.json"
_bases: "WeakValueDictionary[str, TextEncoder]" = WeakValueDictionary()
_lock = Lock()


def save_adapter(folder: Path, encoder: TextEncoder, config: EncoderConfig) -> None:
    """Write the three files; the folder is made where it is missing."""
    folder.mkdir(exist_ok=True)
    save_file(adapter_weights(encoder), folder / _WEIGHTS)
    encoder.backbone.config.save_pretrained(folder)  # type: ignore[union-attr, operator]
    write_json(folder / _DESCRIPTION, {"base": asdict(Base.of(config.name, encoder.base_fingerprint))})


def load_adapted(folder: Path, config: EncoderConfig, purpose: Purpose) -> TextEncoder:
    """The base with the adapter of this folder.

    To answer, the base's weights are shared with all others in this process that answer with it, and the adapter is merged
    where its kind allows that. To learn, they are this encoder's own. Raises RunFolderError where base or adapter are
    missing, damaged or do not belong together.
    """
    encoder = _base(folder / _DESCRIPTION, config, purpose)
    if purpose == "answer":
        encoder = share_weights(encoder)
        configure_encoder(encoder, config)
    attach_adapter(encoder, config)
    file = folder / _WEIGHTS
    try:
        put_adapter_weights(encoder, load_file(file))
    except (OSError, SafetensorError, ValueError) as error:
        raise RunFolderError(f"{file} does not fit its checkpoint.json ({error}). Fit the run again") from error
    if purpose == "answer":
        merge_adapter(encoder)
        encoder.requires_grad_(False)
    return encoder


def _base(file: Path, config: EncoderConfig, purpose: Purpose) -> TextEncoder:
    """Checked by its fingerprint; to answer, the one that others hold already."""
    try:
        base = replace(Base.read(read_json(file)["base"]), name=config.name)
    except (KeyError, TypeError) as error:
        raise RunFolderError(f"{file} is not what lmrec writes ({error}). Fit the run again") from error
    with _lock:
        held = _bases.get(base.fingerprint)
        if held is not None and purpose == "answer":
            return held
        encoder = base.load(
            lambda where: load_encoder(where, config),
            lambda found: fingerprint_weights(found.backbone),
            f"the adapter in {file.parent}",
            "fit again",
        )
        if purpose == "answer":
            _bases[base.fingerprint] = encoder
        return encoder
