"""What a language model's files are known by, and where what is made of them is kept."""

import hashlib
from pathlib import Path

from lmrec.artifacts.files import fingerprint_files
from lmrec.artifacts.pretrained import cache_folder
from lmrec.models.encoder import Pooling
from lmrec.models.pruning import SIZES

# Beside the weights: the model's shape, what was cut off (lmrec.models.pruning), the base of an adapter.
_DESCRIPTIONS = ("config.json", SIZES, "adapter.json")


def fingerprint_encoder(location: Path | str, pooling: Pooling) -> str:
    """32 hex characters of all that decides a text's vector but its tokens: weights, shape, what is cut or adapted, pooling.

    A hub name stands for the copy of it in the hub's cache, whose folder is named by the revision.
    """
    folder = Path(location) if Path(location).is_dir() else _hub_snapshot(str(location))
    digest = hashlib.sha256(pooling.encode())
    if folder is None:
        digest.update(str(location).encode())
        return digest.hexdigest()[:32]
    weights = sorted(folder.glob("*.safetensors"))
    files = [*weights, *(file for name in _DESCRIPTIONS if (file := folder / name).exists())]
    for file in files:
        digest.update(f"{file.name} {fingerprint_files(file)}\n".encode())
    if not weights:
        digest.update(str(folder).encode())
    if folder.parent.name == "snapshots":
        digest.update(folder.name.encode())
    return digest.hexdigest()[:32]


def exported_folder(location: Path | str, pooling: Pooling) -> Path:
    """Where the forms that the model at `location` was exported to are kept."""
    return cache_folder() / "exported" / fingerprint_encoder(location, pooling)


def _hub_snapshot(name: str) -> Path | None:
    """The revision of a hub's model that is in the hub's cache; None where none is, or it is no name of a hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None
