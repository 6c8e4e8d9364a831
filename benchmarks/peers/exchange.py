"""What rivals outside lmrec read, and how what they hand over is measured. Numbers only; the answers of the test stay here."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.kept import question_of
from lmrec.artifacts.files import replaced_folder, write_json
from lmrec.data.history import Cases
from lmrec.data.interactions import Interactions
from lmrec.errors import DataError
from lmrec.evaluation.evaluator import Evaluation, EvaluationConfig, block_size, measure_lists
from lmrec.evaluation.metrics import Ranks, measure_ranks
from lmrec.evaluation.ranking import rank_relevant
from lmrec.fields import FloatArray, IntArray
from lmrec.workflows.prepare import Prepared


def write_split(prepared: Prepared, text_vec: FloatArray | None, folder: Path) -> None:
    """train.npz, train_and_validation.npz (user, item in time order), validation.npz (histories and what came next),
    test.npz (histories alone), text_vec.npy, facts.json."""
    split = prepared.split
    with replaced_folder(folder) as fresh:
        _write_log(fresh / "train.npz", split.train)
        _write_log(fresh / "train_and_validation.npz", split.train_and_validation)
        _write_cases(fresh / "validation.npz", split.validation, with_answers=True)
        _write_cases(fresh / "test.npz", split.test, with_answers=False)
        if text_vec is not None:
            np.save(fresh / "text_vec.npy", np.asarray(text_vec, np.float32))
        write_json(fresh / "facts.json", facts_of(prepared))


def facts_of(prepared: Prepared) -> dict[str, Any]:
    """What a split is of: the data, and the questions of the test part."""
    return {
        "n_items": prepared.dataset.catalog.n_items,
        "data_fingerprint": prepared.dataset.fingerprint,
        "question": question_of(prepared.split.test),
    }


def measure_handed_over(
    name: str,
    items: npt.NDArray[np.int32],
    scores: FloatArray,
    cases: Cases,
    n_items: int,
    config: EvaluationConfig,
    stand_in: FloatArray,
) -> Evaluation:
    """Ranked lists, items (B, k) with their scores (B, k), measured by the judge's own code.

    What is not in a list stands below it and is tied, so it has the worst rank: metrics at up to k are exact. A case with
    an empty list is answered with `stand_in` (N,), the popularity that every other rival falls back to. Raises DataError
    where the lists are no lists: not one for each case, not best first, an item twice or outside the catalog.
    """
    _check_lists(name, items, scores, len(cases), n_items)
    size, parts = block_size(n_items), []
    for start in range(0, len(cases), size):
        stop = min(start + size, len(cases))
        history, relevant = cases.history.slice(start, stop), cases.relevant.slice(start, stop)
        block = np.full((stop - start, n_items), -np.inf, np.float32)
        there = items[start:stop] >= 0
        block[np.nonzero(there)[0], items[start:stop][there]] = scores[start:stop][there]
        block[~there.any(axis=1)] = stand_in
        parts.append(rank_relevant(block, history, relevant, config.exclude_seen))
    top = np.full((len(cases), max(config.ks)), -1, np.int32)
    top[:, : items.shape[1]] = items[:, : top.shape[1]]
    return evaluation_of(name, Ranks.join(parts), top, cases, n_items, config.ks)


def evaluation_of(
    name: str, ranks: Ranks, top: IntArray, cases: Cases, n_items: int, ks: tuple[int, ...]
) -> Evaluation:
    """All that follows from ranks and lists, but for the AUC, which lists that end do not know."""
    metrics = {metric: value for metric, value in measure_ranks(ranks, ks).items() if metric != "auc"}
    aggregate = {metric: float(value.mean()) for metric, value in metrics.items()}
    aggregate |= measure_lists(top, n_items, ks, None)
    return Evaluation(name, ranks, metrics, np.asarray(top, np.int32), aggregate, cases, n_items)


def _check_lists(name: str, items: IntArray, scores: FloatArray, n_cases: int, n_items: int) -> None:
    if items.shape != scores.shape or len(items) != n_cases:
        raise DataError(f"'{name}' handed over lists {items.shape} with scores {scores.shape} for {n_cases:,} cases")
    if items.max(initial=-1) >= n_items or items.min(initial=0) < -1:
        raise DataError(f"'{name}' handed over items outside the catalog of {n_items:,}")
    there = items >= 0
    ordered = np.where(there, scores, -np.inf)
    # Two empty places make no step: -inf minus -inf is no number.
    if (there[:, 1:] & ~(ordered[:, :-1] >= ordered[:, 1:])).any():
        raise DataError(f"'{name}' handed over a list that is not best first")
    in_order = np.sort(np.where(there, items, -1), axis=1)
    if ((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).any():
        raise DataError(f"'{name}' handed over a list with one item twice")


def _write_log(path: Path, log: Interactions) -> None:
    np.savez(path, user=log.user_idx, item=log.item_idx)


def _write_cases(path: Path, cases: Cases, with_answers: bool) -> None:
    answers: dict[str, Any] = (
        {"relevant": cases.relevant.values, "relevant_offsets": cases.relevant.offsets} if with_answers else {}
    )
    np.savez(path, history=cases.history.values, history_offsets=cases.history.offsets, **answers)
