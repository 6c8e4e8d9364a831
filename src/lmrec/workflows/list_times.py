"""What a list costs a user who waits for it: with the reranker reading, and without."""

import time
from dataclasses import replace

import numpy as np

from lmrec.evaluation.pairs import ListTimes
from lmrec.retrieval.recommender import Recommender

_N_TIMED = 10
# Half the retriever's word, half the reranker's: where validation gave it a weight of 0, nothing would be read.
HEARD = 0.5


def time_reading(recommender: Recommender) -> ListTimes:
    """As `time_lists`, where the run's reranker reads, whatever weight validation gave it."""
    reranker = recommender.reranker
    assert reranker is not None, "only a run with a reranker is asked"
    heard = replace(reranker, description=replace(reranker.description, weight=HEARD))
    return time_lists(replace(recommender, reranker=heard), rerank=True)


def time_lists(recommender: Recommender, rerank: bool) -> ListTimes:
    """Of a list of ten for one user with a history (of others there is nothing to read), one after the other, warm."""
    log = recommender.interactions
    users = [log.user_ids[row] for row in np.unique(log.user_idx)[: _N_TIMED + 1]]
    took, busy = [], []
    for user in users:
        started, began = time.perf_counter(), time.process_time()
        recommender.recommend(users=[user], k=10, rerank=rerank)
        took.append(1000 * (time.perf_counter() - started))
        busy.append(1000 * (time.process_time() - began))
    p50, p95 = np.percentile(took[1:] or took, (50, 95)).tolist()
    return ListTimes(p50, p95, float(np.percentile(busy[1:] or busy, 50)))
