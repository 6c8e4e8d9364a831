"""Rerankers on one fitted run: `python -m benchmarks.tuning.pairs RUN [ROW...]`, resumable, a line a row.

RUN is a run fitted on MovieLens-100K (or anything with ratings). Each row is taught to a copy of it and judged on a part of
the test cases: lists over the whole catalog with and without reading, single pairs from probabilities, and what a list costs.
A row that distils teaches the retriever from the lists of a reranker, and judges it by itself on all test cases. Results are
kept beside RUN in RUN-rerankers/ROW.json; a row that is there is not measured again. SMALL=1: a tenth of all.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.fitting import keep_if_made_of
from benchmarks.tuning.rows import Row, slug
from lmrec.artifacts.checkpoint import read_checkpoint
from lmrec.artifacts.files import read_json, share_file, write_json
from lmrec.artifacts.run import RunFolder, describe_environment
from lmrec.evaluation.compare import paired_difference
from lmrec.evaluation.evaluator import Evaluation
from lmrec.workflows.distil import distil_run
from lmrec.workflows.judge import judge_run, own_name
from lmrec.workflows.list_times import HEARD
from lmrec.workflows.rerank import fit_reranker
from lmrec.workflows.reranked import ALONE, RERANKED

_SMOLLM2 = "reranker.name=SmolLM2-135M-Instruct"


def reranker_rows(shrink: int = 1, reads: tuple[str, ...] = ()) -> tuple[Row, ...]:
    """What is taught and judged. shrink: by how much less of everything; reads: what is read of an item, and how long a pair
    may be, where that is not what the retriever reads in 64 tokens."""

    def sizes(top_k: int, validation: int, search: int, judge: int) -> tuple[str, ...]:
        return (
            *(reads or ("reranker.max_tokens=64",)),
            f"reranker.top_k={top_k}",
            f"reranker.validation_events={validation // shrink}",
            f"reranker.search_cases={search // shrink}",
            f"reranker.judge_cases={judge // shrink}",
        )

    learnt = (*sizes(20, 200, 100, 150), f"reranker.n_events={1500 // shrink}")
    gpt = (*sizes(10, 40, 40, 60), _SMOLLM2)
    yes_no = ("reranker.form=yes_no", "reranker.train=lora", "reranker.learning_rate=5e-4", "reranker.batch_pairs=8")
    return (
        Row("cross-encoder, binary", learnt, "MiniLM, chosen against the retriever's own best (Nogueira & Cho 2019)"),
        Row(
            "cross-encoder, popular negatives",
            (*learnt, "reranker.negatives=popularity"),
            "the same, easier wrong pairs",
        ),
        Row(
            "cross-encoder, random negatives, longer",
            (*sizes(20, 300, 300, 300), f"reranker.n_events={15000 // shrink}", "reranker.negatives=uniform"),
            "ten times the events, wrong pairs from the whole catalog: what it can learn at all",
        ),
        Row("cross-encoder, stars as classes", (*learnt, "reranker.task=classes"), "softmax over 1 to 5 stars"),
        Row("cross-encoder, stars as numbers", (*learnt, "reranker.task=regression"), "squared error"),
        Row(
            "SmolLM2, likelihood",
            (*gpt, "reranker.form=likelihood"),
            "log p(title | history) a token, nothing trained",
        ),
        Row(
            "SmolLM2, classifier, LoRA",
            (*gpt, *yes_no[1:], f"reranker.n_events={120 // shrink}"),
            "a head on its last token in place of words (sequence classification)",
        ),
        Row(
            "SmolLM2, yes or no, LoRA",
            (*gpt, *yes_no, f"reranker.n_events={120 // shrink}"),
            "TALLRec (Bao et al. 2023)",
        ),
        Row(
            "distilled from cross-encoder, binary",
            learnt,
            "the retriever, taught by that reranker's lists, whatever validation says of it (Hinton et al. 2015)",
            distil=(f"weight={HEARD:g}", f"distil.n_events={2000 // shrink}"),
        ),
    )


def measure(run: Path, row: Row, shrink: int = 1) -> dict[str, Any]:
    """Teach a copy of the run and judge it."""
    copy = run.with_name(f"{run.name}-rerankers") / slug(row.name)
    keep_if_made_of(copy, read_checkpoint(RunFolder(run).checkpoint).fingerprint, *row.overrides)
    if not copy.exists():  # an interrupted training goes on where it stopped
        shutil.copytree(run, copy)
    folder = RunFolder(copy)
    if not folder.reranker.exists():
        fit_reranker(copy, row.overrides, show=False)
    fit = folder.read_record()["reranker"]
    found = {
        "row": row.name,
        "about": row.about,
        "overrides": list(row.overrides),
        "weight": fit["description"]["weight"],
        "fit_seconds": fit["seconds"],
        "n_pairs": fit["n_pairs"],
        **(distilled(copy, row) if row.distil else reranked(copy)),
        **describe_environment(),
    }
    shutil.rmtree(copy)
    return found


def reranked(run: Path) -> dict[str, Any]:
    """What the judge says of a run and its reranker, and what a list costs."""
    judged = judge_run(run, ['baselines.names=["popularity"]'], show=False).reranking
    assert judged is not None
    metric = judged.table.metric
    lists = {one.name: one for one in judged.table.rows}
    plain = next(one for one in judged.table.rows if one.is_baseline)
    gained = lists[RERANKED].differences.get(metric)
    return {
        "metric": metric,
        "cases": judged.table.form.n_cases,
        "retriever": plain.metrics[metric].value,
        "reranked": lists[RERANKED].metrics[metric].value,
        "alone": lists[ALONE].metrics[metric].value,
        "difference": [gained.mean, gained.low, gained.high] if gained is not None else None,
        "pairs": judged.pairs.metrics,
        "temperature": judged.pairs.calibration.temperature,
        "list_read": {"k": judged.n_read, **asdict(judged.reading)},
        "ms_a_list_plain": asdict(judged.plain),
    }


def distilled(run: Path, row: Row) -> dict[str, Any]:
    """What the run answers by itself, before and after it was taught by its reranker, on all test cases; `validation` of the
    start and of each epoch, and the epoch that is kept (0: none was better than the start)."""
    out = run.with_name(f"{run.name}-taught")
    shutil.rmtree(out, ignore_errors=True)
    with heard(run) as copy:
        taught = distil_run(copy, out, [one for one in row.distil if one.startswith("distil.")], show=False)
    metric, before, after = taught.metric, *(_judged_alone(one) for one in (run, out))
    gap = paired_difference(after.metrics[metric], before.metrics[metric], before.groups)
    shutil.rmtree(out)
    return {
        "metric": metric,
        "cases": len(before.groups),
        "own": before.aggregate[metric],
        "distilled": after.aggregate[metric],
        "difference": [gap.mean, gap.low, gap.high],
        "validation": list(taught.metrics),
        "epoch": taught.epoch,
        "n_lists": taught.n_lists,
        "distil_seconds": taught.seconds,
    }


def _judged_alone(run: Path) -> Evaluation:
    return judge_run(run, ["baselines.names=[]"], show=False).evaluations[own_name(RunFolder(run))]


@contextmanager
def heard(run: Path) -> Iterator[Path]:
    """A copy of the run whose reranker has a weight, for as long as it is needed."""
    copy = run.with_name(f"{run.name}-heard")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(run, copy, copy_function=share_file)
    file = RunFolder(copy).reranker / "reranker.json"
    write_json(file, {**read_json(file), "weight": HEARD})
    try:
        yield copy
    finally:
        shutil.rmtree(copy)


def line(found: dict[str, Any]) -> str:
    """A row of the table in markdown: of rerankers, or of what was distilled. A time that was taken where nothing was read (of
    results from before it was seen to) is left out."""
    gained = "" if found["difference"] is None else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*found["difference"])
    if "own" in found:
        cells = [
            found["row"], f"{found['own']:.4f}", f"{found['distilled']:.4f}", gained,
            f"{found['epoch']} of {len(found['validation']) - 1}", f"{found['n_lists']:,}", f"{found['distil_seconds']:.0f}",
        ]  # fmt: skip
        return "| " + " | ".join(cells) + " |"
    pairs = ", ".join(f"{name} {value:.3f}" for name, value in found["pairs"].items() if "before" not in name)
    read, alone = found.get("list_read"), found["ms_a_list_plain"]
    cells = [
        found["row"], f"{found['retriever']:.4f}", f"{found['reranked']:.4f}", gained, f"{found['alone']:.4f}",
        f"{found['weight']:g}", pairs, f"{found['n_pairs']:,}", f"{found['fit_seconds']:.0f}",
        f"{read['processor_p50']:.0f} ({read['k']:.0f} read)" if read else "",
        f"{alone.get('processor_p50', alone['p50']):.1f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| reranker | retriever | reranked | difference [95 %] | alone | weight | pairs | pairs learnt | fit, s | ms a list, read "
    "| ms without |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)
DISTILLED_HEADER = (
    "| distilled | the run's own | distilled | difference [95 %] | epoch kept | lists read | s |",
    "|---|---|---|---|---|---|---|",
)
ABOUT_READING = (
    "On top of the plain run of that seed: NDCG@10 of the whole catalog's ranking on a part of the test cases, of the "
    "retriever, of both, and of the reranker alone; its weight was chosen on validation (0: its gain there was not clear, "
    "and nothing is put in another order). 'pairs' are judged against wrong items of the row's own kind. 'ms a list, "
    "read': the processor's time for one user's list where the reranker reads the retriever's best, so many as are named, "
    "whatever weight it has; 'without': the same list from the retriever alone. A gap: not measured that way."
)
ABOUT_DISTILLED = (
    "Distilled: the run's towers, taught by the order that the reranker (half its word, half the retriever's, whatever "
    "weight validation gave it) brings into lists of training histories; by themselves, on all test cases, beside the same "
    "run before. Epoch 0: on validation none was better than the start, which is kept."
)


def main(words: list[str]) -> None:
    shrink = 10 if os.environ.get("SMALL") else 1
    rows = reranker_rows(shrink)
    if not words:
        sys.exit("usage: python -m benchmarks.tuning.pairs RUN [ROW...]\nrows: " + "; ".join(row.name for row in rows))
    run, wanted = Path(words[0]), words[1:]
    out = run.with_name(f"{run.name}-rerankers")
    out.mkdir(exist_ok=True)
    print(*HEADER, sep="\n")
    for row in rows:
        if wanted and row.name not in wanted:
            continue
        file = out / f"{slug(row.name)}.json"
        if not file.exists():
            write_json(file, measure(run, row, shrink))
        found = json.loads(file.read_text())
        print(*(("", *DISTILLED_HEADER) if row.distil else ()), line(found), sep="\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
