"""A row that is kept: one system's answers with one seed, in a file of a few kilobytes.

Metrics count at up to 20 places (`KS`), so a rank beyond is kept as `BEYOND`, and a rank takes one byte. Of the lists there is
what was measured of them (coverage and so on), not the lists. With ranks, differences are paired and seeds averaged case by
case, whenever and wherever the others are made.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from lmrec.artifacts.run import describe_environment
from lmrec.data.history import Cases
from lmrec.errors import DataError
from lmrec.evaluation.evaluator import Evaluation
from lmrec.evaluation.metrics import Ranks, measure_ranks
from lmrec.fields import Ragged

KS = (10, 20)
METRICS = ("ndcg@10", "hit@10", "recall@10", "mrr@10", "ndcg@20", "hit@20")  # said in a row's facts
BEYOND = max(KS) + 1


def save_row(path: Path, evaluation: Evaluation, facts: dict[str, Any]) -> None:
    """`facts`: system, form, seed, settings, seconds and so on; what made the row is added. The file is whole or not there."""
    about = describe_environment()
    lists = {name: value for name, value in evaluation.aggregate.items() if name not in evaluation.metrics}
    said = {
        **facts,
        "n_cases": len(evaluation.cases),
        "n_items": evaluation.n_items,
        "question": question_of(evaluation.cases),
        **{metric: float(evaluation.metrics[metric].mean()) for metric in METRICS},
        "lists": lists,
        "commit": about["commit"],
        "machine": about["machine"],
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        ranks = np.minimum(evaluation.ranks.ranks.values, BEYOND).astype(np.uint8)
        np.savez_compressed(file, allow_pickle=False, ranks=ranks, facts=json.dumps(said))
    fresh.replace(path)


def read_facts(path: Path) -> dict[str, Any]:
    """What a row says beside its ranks."""
    with np.load(path, allow_pickle=False) as held:
        return dict(json.loads(str(held["facts"])))


def load_row(path: Path, cases: Cases) -> tuple[dict[str, Any], Evaluation]:
    """A row as an evaluation of the cases that it answers, without its lists. Raises DataError where it answers others."""
    facts = read_facts(path)
    if facts["question"] != question_of(cases):
        raise DataError("the row answers other questions than the split asks now. Remove it", file=path)
    with np.load(path, allow_pickle=False) as held:
        values = held["ranks"].astype(np.int64)
    ranks = Ranks(Ragged(values, cases.relevant.offsets), np.full(len(cases), facts["n_items"]), cases.relevant.lengths)
    metrics = {name: value for name, value in measure_ranks(ranks, KS).items() if name != "auc"}
    aggregate = {name: float(value.mean()) for name, value in metrics.items()} | facts["lists"]
    top = np.full((len(cases), 0), -1, np.int32)
    return facts, Evaluation(facts["system"], ranks, metrics, top, aggregate, cases, facts["n_items"])


def question_of(cases: Cases) -> str:
    """A fingerprint of who is asked what, after which history.

    Rows that answer the same cases can be paired.
    """
    digest = hashlib.sha256()
    for ragged in (cases.history, cases.relevant):
        for array in (ragged.values, ragged.offsets):
            digest.update(np.ascontiguousarray(array, np.int64).tobytes())
    digest.update(np.ascontiguousarray(cases.user_idx, np.int64).tobytes())
    return digest.hexdigest()[:16]
