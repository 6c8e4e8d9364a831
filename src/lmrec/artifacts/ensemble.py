"""An ensemble's description: which runs answer together, by what, and how much each counts. The members are inside.

ensemble.json    kind, names, weights, fingerprint       members/0, 1, ...    their run folders, files shared where possible
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from lmrec.artifacts.files import fingerprint_files, read_json, share_file, write_json
from lmrec.artifacts.run import RunFolder
from lmrec.errors import RunFolderError

EnsembleKind: TypeAlias = Literal["scores", "ranks"]

_NEEDED = ("run.json", "recipe.toml", "data", "checkpoint", "vectors")


@dataclass(frozen=True)
class EnsembleDescription:
    """names: what the members were called. weights: in the members' own units. learnt: whether validation chose them."""

    by: EnsembleKind
    names: tuple[str, ...]
    weights: tuple[float, ...]
    learnt: bool
    fingerprint: str = ""


def save_ensemble(run: RunFolder, members: Sequence[Path], description: EnsembleDescription) -> None:
    """Copy what members need to answer, sharing files where the disk can, and describe them."""
    for number, member in enumerate(members):
        target = run.path / "members" / str(number)
        target.mkdir(parents=True)
        for name in _NEEDED:
            source = member / name
            if source.is_dir():
                shutil.copytree(source, target / name, copy_function=share_file)
            else:
                share_file(str(source), str(target / name))
    checkpoints = [path / "checkpoint" / "checkpoint.json" for path in run.member_paths]
    write_json(run.ensemble_file, {**asdict(description), "fingerprint": fingerprint_files(*checkpoints)})


def read_ensemble(run: RunFolder) -> EnsembleDescription:
    """Raises RunFolderError where the description is damaged or members are missing."""
    values: dict[str, Any] = read_json(run.ensemble_file)
    try:
        found = EnsembleDescription(**{**values, "names": tuple(values["names"]), "weights": tuple(values["weights"])})
    except (KeyError, TypeError) as error:
        raise RunFolderError(
            f"{run.ensemble_file} is not what lmrec writes ({error}). Make the ensemble again"
        ) from error
    if not len(found.names) == len(found.weights) == len(run.member_paths):
        raise RunFolderError(
            f"'{run.path}' names {len(found.names)} members and holds {len(run.member_paths)}. Make it again"
        )
    return found
