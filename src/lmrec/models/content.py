"""Content alone: the un-tuned language model's vectors, cosine to the newest items of a history. Learns nothing."""

from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from lmrec.fields import FloatArray, Ragged
from lmrec.models.collaborative import LogArrays


class ContentKNNConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    n_last: int = Field(default=3, ge=1, description="How many of the newest items make the query.")
    decay: float = Field(default=0.7, gt=0, le=1, description="Weight of an item relative to the next newer one.")


class ContentKNN:
    """score(j) = v_j . sum_i decay^age(i) v_i over the `n_last` newest items i; a history without items is answered
    with popularity, as every other baseline answers it.

    text_vec: (N, Dt) unit vectors of the un-tuned language model.
    """

    name = "PLM not tuned (content)"

    def __init__(self, text_vec: FloatArray, config: ContentKNNConfig | None = None) -> None:
        self.text_vec = text_vec.astype(np.float32)
        self.config = config or ContentKNNConfig()
        self.popularity = np.zeros(len(text_vec), np.float32)

    @classmethod
    def candidates(cls, text_vec: FloatArray) -> "tuple[ContentKNN, ...]":
        grid = [(1, 1.0), (3, 0.7), (10, 0.9), (50, 1.0)]
        return tuple(cls(text_vec, ContentKNNConfig(n_last=n, decay=decay)) for n, decay in grid)

    def fit(self, log: LogArrays) -> Self:
        self.popularity = log.popularity().astype(np.float32)
        return self

    def score(self, history: Ragged) -> npt.NDArray[np.float32]:
        """(B, N)."""
        queries = np.zeros((len(history), self.text_vec.shape[1]), np.float32)
        for row in range(len(history)):
            newest = history[row][-self.config.n_last :]
            weight = self.config.decay ** np.arange(len(newest) - 1, -1, -1, dtype=np.float32)
            queries[row] = weight @ self.text_vec[newest]
        scores: npt.NDArray[np.float32] = queries @ self.text_vec.T
        scores[history.lengths == 0] = self.popularity
        return scores
