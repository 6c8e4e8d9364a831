"""Where a training is followed besides its own metrics.jsonl: the choice. What is written: lmrec.workflows.tracking."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Tracker = Literal["tensorboard", "wandb"]


class TrackingConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    to: tuple[Tracker, ...] = Field(
        default=("tensorboard",),
        description="tensorboard: files in the run folder; wandb: Weights & Biases, whose key is read from WANDB_API_KEY and "
        "nowhere else, or WANDB_MODE=offline.",
    )
    project: str = Field(default="lmrec", min_length=1, description="wandb: the project that runs are shown in.")
