"""What `lmrec tune` may vary: the search space of a recipe, and how it is searched."""

import math
from collections.abc import Mapping
from typing import Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Keys and whole parts that a search may not vary, and why.
_OTHER_QUESTION = "it changes what is asked, not how well it is answered"
_OTHER_COMMAND = "no trial does what it is about"
_FIXED: Mapping[str, str] = {
    **dict.fromkeys(("data", "split", "evaluation", "baselines"), _OTHER_QUESTION),
    **dict.fromkeys(
        ("tune", "tracking", "update", "index", "reranker", "distil", "pretrain", "compress"), _OTHER_COMMAND
    ),
    "fusion": "a trial is worth what its towers reach, before anything is fused",
    "training.refit": "a trial is worth what is validated, and nothing validates towers that learn once more",
    **dict.fromkeys(("training.seed", "training.start_seed"), "the luckiest seed is no better recipe"),
    "training.validation_cases": "trials would be compared on different cases",
}
_LEAF = frozenset({"low", "high", "log", "step", "choices"})


class Range(BaseModel):
    """Numbers from low to high; two whole numbers give whole numbers. log: equal chances for each factor."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low:g} and high {self.high:g}: low must be below high")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low:g}: on a log scale it must be above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together: leave one of them out")
        if self.is_whole and self.step is not None and self.step != int(self.step):
            raise ValueError(
                f"step is {self.step:g} between whole numbers: it is one, too. Or write low and high with a point"
            )
        return self

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def examples(self) -> tuple[Any, ...]:
        return self.low, self.high

    @property
    def tried(self) -> tuple[Any, ...]:
        """Of each kind of value that may be drawn, one: both ends, and one between them."""
        if self.is_whole:
            return self.examples
        inner = self.low + (self.high - self.low) / math.pi if self.step is None else self.low + self.step
        return (*self.examples, inner) if inner < self.high else self.examples


class Choices(BaseModel):
    """One of these values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choices: tuple[bool | int | float | str, ...] = Field(min_length=2)

    @property
    def examples(self) -> tuple[Any, ...]:
        return self.choices

    @property
    def tried(self) -> tuple[Any, ...]:
        return self.choices


Dimension: TypeAlias = Range | Choices


class TuneConfig(BaseModel):
    """How `lmrec tune` looks for a better recipe. Its trials are chosen by validation alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = Field(default=20, ge=1, description="Trials in all, also over several calls and several workers.")
    sampler: Literal["tpe", "random"] = Field(
        default="tpe", description="tpe: where it has been good so far (Bergstra et al. 2011); random."
    )
    startup: int = Field(default=5, ge=1, description="Random trials before tpe, and whole ones before any is pruned.")
    prune: bool = Field(
        default=True,
        description="Stop a trial whose best epoch so far is below the median of the others at that epoch.",
    )
    space: dict[str, Dimension] = Field(
        default_factory=dict,
        description="Key -> {low, high, log, step} or {choices}, such as training.learning_rate = {low = 1e-3, high = 1e-2, "
        "log = true}. Empty: learning rate, dropout, width.",
    )

    @field_validator("space", mode="before")
    @classmethod
    def _flatten(cls, value: Any) -> Any:
        """Dotted keys of TOML come as tables in tables; quoted ones as they are."""
        return _flat(value, "") if isinstance(value, Mapping) else value

    @property
    def searched(self) -> dict[str, Dimension]:
        """The space, or the one that stands for an empty one."""
        return self.space or dict(DEFAULT_SPACE)


DEFAULT_SPACE: Mapping[str, Dimension] = {
    "training.learning_rate": Range(low=1e-3, high=1e-2, log=True),
    "user_model.dropout": Range(low=0.0, high=0.5),
    "item.width": Choices(choices=(64, 128, 256)),
}


def why_fixed(key: str) -> str | None:
    """Why a search may not vary this key; None where it may."""
    return _FIXED.get(key) or _FIXED.get(key.partition(".")[0])


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and not set(value) & _LEAF:
            found |= _flat(value, f"{key}.")
        else:
            found[key] = value
    return found
