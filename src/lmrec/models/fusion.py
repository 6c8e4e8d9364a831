"""Fusion: the two towers' score plus what simpler models know, with weights found on validation. No torch.

    score = scale * u . v  +  transitions * T(history, item)  +  content * cos(newest texts, text)

The towers blur what is rare and learn what words mean for this log; item transitions remember that this followed that;
bare words are all that is known of a new item. The middle term is sparse, the others are one product of longer vectors.
"""

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from lmrec.models.transitions import ItemTransitions


class FusionConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    transitions: bool = Field(default=True, description="Add the scores of item transitions: what followed what.")
    content: bool = Field(default=True, description="Add the cosine between the history's newest texts and the item's.")
    search_cases: int = Field(default=4000, ge=1, description="Validation cases on which the weights are searched.")


class FusionWeights(BaseModel):
    """What each part counts beside the towers' score, in its units. Content: newest n_last texts, decay^age each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    transitions: float = Field(default=0.0, ge=0)
    content: float = Field(default=0.0, ge=0)
    n_last: int = Field(default=3, ge=1)
    decay: float = Field(default=0.7, gt=0, le=1)


# Where nothing validates (--split none): moderate values, below what validation chose on the data sets of docs/LOG.md.
UNSEARCHED = FusionWeights(transitions=20.0)


@dataclass(frozen=True, eq=False)
class Fusion:
    """`transitions` is None where they count nothing."""

    weights: FusionWeights = field(default_factory=FusionWeights)
    transitions: ItemTransitions | None = None
