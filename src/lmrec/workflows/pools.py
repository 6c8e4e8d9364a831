"""What several scorers say of the items at the top of any of their lists: what weights of a fusion are learnt from."""

from collections.abc import Sequence

import numpy as np

from lmrec.data.history import Cases
from lmrec.fields import BoolArray, FloatArray, Ragged
from lmrec.retrieval.ensemble import AnyScorer
from lmrec.topk import exclude_items, top_k

POOL = 50  # items of each scorer's list that stand against the relevant ones


def pool_scores(
    scorers: Sequence[AnyScorer], cases: Cases, exclude_seen: bool, pool: int = POOL
) -> tuple[FloatArray, Ragged, BoolArray]:
    """For each case the items at the top of any scorer's list, and the relevant ones: (S, F) all scorers' scores of them,
    the items as rows, and (S,) which are relevant. What is relevant was found by nobody in cases that none answered, and
    stands in its pool all the same."""
    rows: list[FloatArray] = []
    items: list[np.ndarray] = []
    for start in range(0, len(cases), 256):
        part = cases.take(np.arange(start, min(start + 256, len(cases))))
        scores = [scorer.score(part.history) for scorer in scorers]
        seen_out = [exclude_items(one, part.history) if exclude_seen else one for one in scores]
        tops = [top_k(one, pool) for one in seen_out]
        for case in range(len(part)):
            found = np.unique(np.concatenate([*(top[case] for top in tops), part.relevant[case]]))
            found = found[found >= 0]
            items.append(found)
            rows.append(np.stack([one[case, found] for one in scores], axis=1))
    pools = Ragged.from_rows(items)
    relevant = np.concatenate([np.isin(items[case], cases.relevant[case]) for case in range(len(cases))])
    return np.concatenate(rows).astype(np.float64), pools, relevant
