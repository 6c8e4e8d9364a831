"""Fusion: the two towers' score plus what simpler models know, with weights found on validation. No torch.

    score = scale * u . v  +  transitions * T(history, item)  +  content * cos(newest texts, text)  +  popularity * p(item)

The towers blur what is rare and learn what words mean for this log; item transitions remember that this followed that;
bare words are all that is known of a new item; p(item) = log(1 + recent events) is what is in fashion, which towers that
learn from years of events do not know. The second term is sparse, the others are one product of longer vectors.
"""

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from lmrec.fields import FloatArray
from lmrec.models.transitions import ItemTransitions


class FusionConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    transitions: bool = Field(default=True, description="Add the scores of item transitions: what followed what.")
    content: bool = Field(default=True, description="Add the cosine between the history's newest texts and the item's.")
    popularity: bool = Field(default=True, description="Add how popular an item has been of late.")
    search_cases: int = Field(default=4000, ge=1, description="Validation cases on which the weights are searched.")


class FusionWeights(BaseModel):
    """What each part counts beside the towers' score, in its units.

    Content: newest n_last texts, decay^age each. Popularity: an event half_life_days before the log's end counts half;
    None, where all count alike.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    transitions: float = Field(default=0.0, ge=0)
    content: float = Field(default=0.0, ge=0)
    n_last: int = Field(default=3, ge=1)
    decay: float = Field(default=0.7, gt=0, le=1)
    popularity: float = Field(default=0.0, ge=0)
    half_life_days: float | None = Field(default=None, gt=0)

    @property
    def any(self) -> bool:
        """Whether anything is added to the towers' score."""
        return bool(self.transitions or self.content or self.popularity)


# Where nothing validates (--split none): moderate values, below what validation chose on the data sets of docs/LOG.md.
UNSEARCHED = FusionWeights(transitions=20.0)


@dataclass(frozen=True, eq=False)
class Fusion:
    """`transitions` and `popularity` are None where they count nothing. popularity: (N,) the p of each item."""

    weights: FusionWeights = field(default_factory=FusionWeights)
    transitions: ItemTransitions | None = None
    popularity: FloatArray | None = None
