"""What a training tells of itself while it goes on, in the folder that it makes: a run's, or a pretrained language model's.

metrics.jsonl   one line an epoch           tensorboard/   the same for TensorBoard
wandb/          the same for Weights & Biases, and wandb.json: the id of its run there
"""

import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmrec.artifacts.files import read_json, share_file, write_json, write_text


@dataclass(frozen=True)
class Curves:
    folder: Path

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def wandb(self) -> Path:
        return self.folder / "wandb"

    @property
    def wandb_file(self) -> Path:
        return self.folder / "wandb.json"

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that may be there."""
        return (self.metrics_file, self.tensorboard, self.wandb, self.wandb_file)

    def append(self, row: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Written anew each time (a line an epoch): a kill can then leave no half line for the next one to be glued to.
        write_text(self.metrics_file, "".join(json.dumps(line) + "\n" for line in [*self.read(), row]))

    def read(self) -> list[dict[str, Any]]:
        if not self.metrics_file.exists():
            return []
        return [json.loads(line) for line in self.metrics_file.read_text(encoding="utf-8").splitlines() if line]

    def wandb_id(self) -> str:
        """One for all that is ever sent from this folder; drawn where there is none yet. A folder made of this one gets its
        own: what is sent from there is another run."""
        if not self.wandb_file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.wandb_file, {"id": uuid.uuid4().hex[:12]})
        return str(read_json(self.wandb_file)["id"])

    def clear(self) -> None:
        """Remove all that is there."""
        for path in self.paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def share(self, folder: Path) -> None:
        """Put all that is there into `folder` as well, as the same training's."""
        for path in self.paths:
            if path.is_dir():
                shutil.copytree(path, folder / path.name, copy_function=share_file, symlinks=True)
            elif path.exists():
                share_file(str(path), str(folder / path.name))
