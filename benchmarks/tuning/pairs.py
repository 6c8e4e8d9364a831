"""Rerankers on one fitted run: `python -m benchmarks.tuning.pairs RUN [ROW...]`, resumable, a line a row.

RUN is a run fitted on MovieLens-100K (or anything with ratings). Each row is taught to a copy of it and judged on a part of the
test cases: lists over the whole catalog with and without reading, single pairs from probabilities, and what a list costs.
Results are kept beside RUN in RUN-rerankers/ROW.json; a row that is there is not measured again. SMALL=1: a tenth of all.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tuning.rows import Row, slug
from lmrec.artifacts.files import write_json
from lmrec.artifacts.run import RunFolder, describe_environment
from lmrec.retrieval.recommender import Recommender
from lmrec.workflows.distil import distil_run
from lmrec.workflows.judge import judge_run
from lmrec.workflows.rerank import fit_reranker
from lmrec.workflows.reranked import ALONE, RERANKED

DISTILLED = "cross-encoder, binary"
_N_TIMED = 20
_SMOLLM2 = "reranker.name=SmolLM2-135M-Instruct"


def reranker_rows(shrink: int = 1) -> tuple[Row, ...]:
    """What is taught and judged; `shrink`: by how much less of everything."""

    def sizes(top_k: int, validation: int, search: int, judge: int) -> tuple[str, ...]:
        return (
            "reranker.max_tokens=64",
            f"reranker.top_k={top_k}",
            f"reranker.validation_events={validation // shrink}",
            f"reranker.search_cases={search // shrink}",
            f"reranker.judge_cases={judge // shrink}",
        )

    learnt = (*sizes(20, 200, 100, 150), f"reranker.n_events={1500 // shrink}")
    gpt = (*sizes(10, 40, 40, 60), _SMOLLM2)
    yes_no = ("reranker.form=yes_no", "reranker.train=lora", "reranker.learning_rate=5e-4", "reranker.batch_pairs=8")
    return (
        Row(DISTILLED, learnt, "MiniLM, chosen against the retriever's own best (Nogueira & Cho 2019)"),
        Row(
            "cross-encoder, popular negatives",
            (*learnt, "reranker.negatives=popularity"),
            "the same, easier wrong pairs",
        ),
        Row("cross-encoder, stars as classes", (*learnt, "reranker.task=classes"), "softmax over 1 to 5 stars"),
        Row("cross-encoder, stars as numbers", (*learnt, "reranker.task=regression"), "squared error"),
        Row(
            "SmolLM2, likelihood",
            (*gpt, "reranker.form=likelihood"),
            "log p(title | history) a token, nothing trained",
        ),
        Row(
            "SmolLM2, yes or no, LoRA",
            (*gpt, *yes_no, f"reranker.n_events={120 // shrink}"),
            "TALLRec (Bao et al. 2023)",
        ),
    )


def measure(run: Path, row: Row, shrink: int = 1) -> dict[str, Any]:
    """Teach a copy of the run and judge it."""
    copy = run.with_name(f"{run.name}-rerankers") / slug(row.name)
    if not copy.exists():  # an interrupted training goes on where it stopped
        shutil.copytree(run, copy)
    folder = RunFolder(copy)
    if not folder.reranker.exists():
        fit_reranker(copy, row.overrides, show=False)
    fit = folder.read_record()["reranker"]
    judged = judge_run(copy, ['baselines.names=["popularity"]'], show=False).reranking
    assert judged is not None
    metric = judged.table.metric
    lists = {one.name: one for one in judged.table.rows}
    plain = next(one for one in judged.table.rows if one.is_baseline)
    gained = lists[RERANKED].differences.get(metric)
    found = {
        "row": row.name,
        "about": row.about,
        "overrides": list(row.overrides),
        "metric": metric,
        "cases": judged.table.form.n_cases,
        "retriever": plain.metrics[metric].value,
        "reranked": lists[RERANKED].metrics[metric].value,
        "alone": lists[ALONE].metrics[metric].value,
        "difference": [gained.mean, gained.low, gained.high] if gained is not None else None,
        "weight": fit["description"]["weight"],
        "pairs": judged.pairs.metrics,
        "temperature": judged.pairs.calibration.temperature,
        "fit_seconds": fit["seconds"],
        "n_pairs": fit["n_pairs"],
        "ms_a_list": time_lists(copy, rerank=True),
        "ms_a_list_plain": time_lists(copy, rerank=False),
        "distilled": distilled(copy, shrink) if row.name == DISTILLED else None,
        **describe_environment(),
    }
    shutil.rmtree(copy)
    return found


def distilled(run: Path, shrink: int) -> dict[str, Any] | None:
    """What the retriever takes from its reranker: its validation metric before and after, and the epoch that is kept."""
    if not json.loads((run / "reranker" / "reranker.json").read_text())["weight"]:
        return None
    out = run.with_name(f"{run.name}-distilled")
    shutil.rmtree(out, ignore_errors=True)
    found = distil_run(run, out, [f"distil.n_events={200 // shrink}"], show=False)
    shutil.rmtree(out)
    return {"metric": found.metric, "validation": found.metrics, "epoch": found.epoch, "seconds": found.seconds}


def time_lists(run: Path, rerank: bool) -> dict[str, float]:
    """Milliseconds of one list of ten for one user, at the middle and the 95th percentile, when everything is loaded."""
    recommender = Recommender.load(run)
    users = recommender.interactions.user_ids[: _N_TIMED + 1]
    took = []
    for user in users:
        started = time.perf_counter()
        recommender.recommend(users=[user], k=10, rerank=rerank)
        took.append(1000 * (time.perf_counter() - started))
    return {"p50": float(np.percentile(took[1:], 50)), "p95": float(np.percentile(took[1:], 95))}


def line(found: dict[str, Any]) -> str:
    """A row of the table in markdown."""
    gained = "" if found["difference"] is None else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*found["difference"])
    pairs = ", ".join(f"{name} {value:.3f}" for name, value in found["pairs"].items() if "before" not in name)
    cells = [
        found["row"], f"{found['retriever']:.4f}", f"{found['reranked']:.4f}", gained, f"{found['alone']:.4f}",
        f"{found['weight']:g}", pairs, f"{found['fit_seconds']:.0f}", f"{found['ms_a_list']['p50']:.0f}",
        f"{found['ms_a_list_plain']['p50']:.1f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| reranker | retriever | reranked | difference [95 %] | alone | weight | pairs | fit, s | ms a list | without |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def main(words: list[str]) -> None:
    shrink = 10 if os.environ.get("SMALL") else 1
    rows = reranker_rows(shrink)
    if not words:
        sys.exit("usage: python -m benchmarks.tuning.pairs RUN [ROW...]\nrows: " + "; ".join(row.name for row in rows))
    run, wanted = Path(words[0]), words[1:]
    out = run.with_name(f"{run.name}-rerankers")
    out.mkdir(exist_ok=True)
    print(HEADER)
    for row in rows:
        if wanted and row.name not in wanted:
            continue
        file = out / f"{slug(row.name)}.json"
        if not file.exists():
            write_json(file, measure(run, row, shrink))
        found = json.loads(file.read_text())
        print(line(found), flush=True)
        if found["distilled"] is not None:
            print(f"\ndistilled: {found['distilled']}\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
