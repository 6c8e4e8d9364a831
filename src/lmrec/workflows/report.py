"""Report: one page about a run, from what the run folder holds."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lmrec.artifacts.run import RunFolder, open_run
from lmrec.data.split import Split
from lmrec.data.summary import DataSummary
from lmrec.errors import InputError
from lmrec.evaluation.report import ReportData, ReportExample, write_report
from lmrec.evaluation.table import JudgementTable
from lmrec.fields import IntArray
from lmrec.recipe import load_fitted
from lmrec.retrieval.recommender import Recommender
from lmrec.topk import exclude_items, top_k
from lmrec.workflows.judge import fair_scorer, own_name, read_table_of
from lmrec.workflows.prepare import split_log
from lmrec.workflows.reranked import read_reranking
from lmrec.workflows.tracking import record_judgement

_N_EXAMPLES = 4
_SHOWN_HISTORY = 8


def report_run(path: Path | str, out: Path | str | None = None) -> Path:
    """Write report.html (or `out`) of a judged run and return its path."""
    run = open_run(path)
    table = read_table_of(run)
    if table is None:
        raise InputError(f"'{path}' has not been judged yet, and a report is about that. Type: lmrec evaluate {path}")
    record, recipe_text = run.read_record(), run.recipe_file.read_text(encoding="utf-8")
    recommender = Recommender.load(path)
    recipe = load_fitted(run.recipe_file)
    split = split_log(recommender.interactions, recommender.catalog.n_items, recipe)
    training = record.get("training", {})
    examples = _examples(recommender, split)
    page = write_report(
        Path(out) if out is not None else run.report_file,
        ReportData(
            title=", ".join(Path(part).name for part in record["source"].split(", ")) or run.path.name,
            candidate=own_name(run),
            table=table,
            summary=DataSummary.model_validate(record["summary"]).rows(),
            proof=record["proof"],
            curves=_curves(run),
            curve_metric=recipe.evaluation.metric,
            examples=examples,
            recipe=recipe_text,
            facts=[
                ("run", str(run.path)),
                ("made", record["created"]),
                ("seed", str(record["seed"])),
                ("trained in", f"{training.get('seconds', '?')} s"),
                ("commit", record["commit"] or "unknown"),
                ("machine", record["machine"]),
                ("data fingerprint", record["data_fingerprint"]),
                ("checkpoint fingerprint", recommender.checkpoint.fingerprint),
                ("template", recommender.checkpoint.template.pattern),
                *sorted(record["versions"].items()),
            ],
            notes=record["notes"],
            reranking=read_reranking(run) if run.reranker.exists() else None,
        ),
    )
    record_judgement(run.curves, recipe.tracking, _plain_table(table), _samples(examples))
    return page


def _plain_table(table: JudgementTable) -> tuple[list[str], list[list[str]]]:
    """Names of columns, and a row of text for each row of the table."""
    metrics = list(table.rows[0].metrics)
    rows = [[row.name, *(f"{row.metrics[name].value:.4f}" for name in metrics)] for row in table.rows]
    return ["", *metrics], rows


def _samples(examples: Sequence[ReportExample]) -> dict[str, str]:
    """Who had what -> what they are recommended, and what they took."""
    return {
        f"{one.user}, after {'; '.join(one.history[-3:])}": "; ".join(title for title, _ in one.recommended[:5])
        + f" (took: {'; '.join(one.actual[:3])})"
        for one in examples
    }


def _curves(run: RunFolder) -> list[dict[str, float]]:
    """The training that validation watched; what learnt again from all begins anew and would bend the curve."""
    return [
        {
            "step": row["step"],
            "loss": row["loss"],
            "lr": row["learning_rate"],
            **({"metric": row["validation"]} if "validation" in row else {}),
        }
        for row in run.curves.read()
        if row["stage"] in ("frozen", "tuned")
    ]


def _examples(recommender: Recommender, split: Split) -> Sequence[ReportExample]:
    """A few users with a history, drawn by a fixed seed; one case of each."""
    cases = split.test
    with_history = np.flatnonzero(cases.history.lengths > 0)
    shuffled = np.random.default_rng(0).permutation(with_history)
    _, first = np.unique(cases.user_idx[shuffled], return_index=True)
    chosen = cases.take(shuffled[np.sort(first)[:_N_EXAMPLES]])
    if not len(chosen):
        return []
    scores = exclude_items(fair_scorer(recommender, split).score(chosen.history), chosen.history)
    top = top_k(scores, 10)
    titles = recommender.catalog.titles

    def names(items: IntArray) -> list[str]:
        return [titles[int(item)] for item in items]

    return [
        ReportExample(
            user=f"user {recommender.interactions.user_ids[int(chosen.user_idx[row])]}",
            history=names(chosen.history[row][-_SHOWN_HISTORY:]),
            recommended=[(titles[i], float(scores[row, i])) for i in top[row] if i >= 0],
            actual=names(chosen.relevant[row]),
        )
        for row in range(len(chosen))
    ]
