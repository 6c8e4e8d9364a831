"""A snapshot: a run folder that is another run but for the towers' weights, and shares its files where the disk can.

snapshots/1, 2, ...    run folders inside the run that they were taken in, for `lmrec ensemble`
"""

import shutil
from collections.abc import Mapping
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from lmrec.artifacts.checkpoint import compute_item_vectors, read_checkpoint, save_vectors
from lmrec.artifacts.files import fingerprint_files, read_json, replaced_folder, share_file, write_json
from lmrec.artifacts.run import RunFolder
from lmrec.models.two_tower import TwoTower

_OF_THE_RUN = ("towers.safetensors", "frozen_stage.safetensors", "tuned_stage.safetensors", "checkpoint.json")


def save_snapshot(
    run: RunFolder,
    number: int,
    towers: TwoTower,
    validated: Mapping[str, Tensor] | None,
    text_vec: Tensor,
    catalog_fingerprint: str,
    record: Mapping[str, Any],
) -> RunFolder:
    """Write RUN/snapshots/NUMBER whole, or not at all; the run's own checkpoint and data must be there.

    towers: what the snapshot serves. validated: the weights of towers that learnt from training alone, where those that it
    serves know more. text_vec: (N, Dt). record: what its run.json says.
    """
    target = RunFolder(run.path / "snapshots" / str(number))
    with replaced_folder(target.path) as folder:
        fresh = RunFolder(folder)
        shutil.copytree(run.data, fresh.data, copy_function=share_file)
        share_file(str(run.recipe_file), str(fresh.recipe_file))
        own = shutil.ignore_patterns(*_OF_THE_RUN)
        shutil.copytree(run.checkpoint, fresh.checkpoint, copy_function=share_file, ignore=own)
        save_file(_plain(towers.state_dict()), fresh.checkpoint / "towers.safetensors")
        if validated is not None:
            save_file(_plain(validated), fresh.frozen_towers_file)
        weights = [
            *sorted((fresh.checkpoint / "encoder").glob("*.safetensors")),
            fresh.checkpoint / "towers.safetensors",
        ]
        description = read_json(run.checkpoint / "checkpoint.json")
        write_json(fresh.checkpoint / "checkpoint.json", {**description, "fingerprint": fingerprint_files(*weights)})
        vectors = compute_item_vectors(towers, text_vec)
        save_vectors(fresh.vectors_file, vectors, read_checkpoint(fresh.checkpoint), catalog_fingerprint)
        write_json(fresh.record_file, dict(record))
    return target


def _plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
