"""The index of a run's items, made when the run is saved and measured on questions as users will ask them."""

import numpy as np

from lmrec.artifacts.run import RunFolder
from lmrec.data.history import HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.fields import FloatArray
from lmrec.retrieval.ann import IndexConfig, build_index
from lmrec.retrieval.scorer import Scorer

_QUERIES = 200
_SEED = 0


def save_index(run: RunFolder, scorer: Scorer, interactions: Interactions, config: IndexConfig, origin: str) -> None:
    """Beside the vectors; nothing where the catalog is so small that the plain product does, or where ranks are fused.

    scorer: what will be served. origin: the fingerprint of its checkpoint.
    """
    if scorer.fusion.weights.ranks:
        return
    index = build_index(scorer.bank.matrix.detach().cpu().numpy(), config, _asked(scorer, interactions))
    if index is not None:
        index.save(run.index, origin)


def _asked(scorer: Scorer, interactions: Interactions) -> FloatArray:
    """(M, Q) the questions of some users; none where histories are read as text, which would take a language model."""
    if scorer.towers.user_model is None:
        return np.zeros((0, scorer.bank.matrix.shape[1]), np.float32)
    users = np.unique(interactions.user_idx)
    drawn = np.random.default_rng(_SEED).choice(users, min(_QUERIES, len(users)), replace=False)
    return scorer.query(HistoryIndex.from_interactions(interactions).all(drawn)).numpy()
