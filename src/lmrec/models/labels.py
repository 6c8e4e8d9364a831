"""What a history and a candidate share in words and labels, without training: the rival that news models often lose to."""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lmrec.fields import FloatArray, IntArray, Ragged

_WORDS, _LABELS = "cosine", "categories"


class LabelMatchConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    n_last: int = Field(default=50, ge=1, description="How many of the newest items of a history are looked at.")
    words: float = Field(default=1.0, ge=0, description="Weight of the cosine between mean history text and candidate.")
    labels: float = Field(default=1.0, ge=0, description="Weight of the share of the history with the same label.")


class LabelMatch:
    """score = words * cos(mean of the history's texts, text) + labels * mean over label columns of the history's share
    with the candidate's label.

    text_vec: (N, Dt) unit vectors of the un-tuned language model. label_idx: for each label column (category,
    subcategory) (N,) the label of each item as a number, -1 where it has none: that matches nothing.
    """

    def __init__(
        self, text_vec: FloatArray, label_idx: Sequence[IntArray], config: LabelMatchConfig | None = None
    ) -> None:
        self.text_vec, self.label_idx = text_vec, tuple(label_idx)
        self.config = config or LabelMatchConfig()

    @property
    def name(self) -> str:
        """What it looks at."""
        parts = [name for name, weight in ((_LABELS, self.config.labels), (_WORDS, self.config.words)) if weight]
        return f"{' + '.join(parts) or 'nothing'}, not trained"

    @classmethod
    def candidates(cls, text_vec: FloatArray, label_idx: Sequence[IntArray]) -> "list[tuple[LabelMatch, ...]]":
        """The settings of words alone, and where there are labels of labels alone and of both: three rivals, not one that may
        be called by what it does not look at."""
        kinds = [((1.0, 0.0),), ((0.0, 1.0),), ((1.0, 0.25), (1.0, 0.5), (1.0, 1.0), (1.0, 2.0))]
        return [
            tuple(
                cls(text_vec, label_idx, LabelMatchConfig(n_last=n_last, words=words, labels=labels))
                for n_last in (10, 50)
                for words, labels in weights
            )
            for weights in (kinds if label_idx else kinds[:1])
        ]

    def score_shown(self, history: Ragged, candidates: Ragged, time_ts: FloatArray) -> FloatArray:
        """(n_shown,)."""
        newest, rows, items = history.last(self.config.n_last), candidates.row_of_value, candidates.values
        scores = self.config.words * self._cosines(newest, rows, items)
        for label_idx in self.label_idx:
            shares = _label_shares(newest, label_idx)
            known = label_idx[items] >= 0
            matched = np.where(known, shares[rows, label_idx[items]], 0.0)
            scores = scores + self.config.labels / len(self.label_idx) * matched
        return np.asarray(scores, np.float64)

    def _cosines(self, history: Ragged, rows: IntArray, items: IntArray) -> FloatArray:
        mean = np.zeros((len(history), self.text_vec.shape[1]), np.float32)
        np.add.at(mean, history.row_of_value, self.text_vec[history.values])
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        cosines: FloatArray = np.einsum("sd,sd->s", mean[rows], self.text_vec[items])
        return cosines


def _label_shares(history: Ragged, label_idx: IntArray) -> FloatArray:
    """(I, labels) the share of each history's items with each label."""
    labels, rows = label_idx[history.values], history.row_of_value
    known = labels >= 0
    shares = np.zeros((len(history), max(1, int(label_idx.max(initial=-1)) + 1)))
    np.add.at(shares, (rows[known], labels[known]), 1.0)
    shares /= np.maximum(history.lengths, 1)[:, None]
    return shares
