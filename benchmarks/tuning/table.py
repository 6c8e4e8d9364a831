"""The table of techniques in markdown, from what was kept of the fits; rows and seeds that are not there yet are named."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.tuning.results import Answers, average
from benchmarks.tuning.rows import Row
from benchmarks.tuning.steps import NONE, cell
from lmrec.evaluation.compare import Difference, bootstrap_interval, paired_difference

Results = Mapping[str, Mapping[int, Answers]]  # row -> seed -> what was found

LEGEND = (
    "NDCG@10 and recall@10 are of the whole catalog, ranked. AUC: the chance that the right item stands above one drawn "
    "from all others of the catalog; with one right item at rank r among N it is 1 - (r - 1) / (N - 1). A row with several "
    "seeds is their mean, case by case; intervals redraw users. Differences are to plain, paired by case, over the seeds "
    "that both have; `*`: the interval leaves out zero. What one seed shows may be that seed's chance, of which the "
    "interval knows nothing. Judged are the towers of the second stage's best epoch, where a row has one; of rows that "
    "make one model of several fits, the stage that validation chose of each; a soup says which that is, and a greedy one how "
    "many of the fits are in it. LM steps: how "
    "often the optimizer stepped the language model in the first seed's fit; 'a of b': b in the fit, a of them before the "
    "end of the epoch that is judged; 'a + b': of several fits that became one model; steps of a pretraining (DAPT, domain "
    "words) come before and are not in it. PLM parameters: those that learn. Seconds are the processor's for an epoch of "
    "each stage on one thread, validation not counted; megabytes the most that the process held. Both come from `python -m "
    "benchmarks.tuning.costs`, each row in a process of its own; a gap: not measured."
)
_COLUMNS = (
    *(
        "technique",
        "NDCG@10 [95 %]",
        "difference to plain [95 %]",
        "recall@10",
        "AUC",
        "seeds",
        "seeds, lowest to highest",
    ),
    *("LM steps", "PLM parameters", "1st stage, s an epoch", "2nd stage, s an epoch", "peak MB"),
)
_COSTS = ("frozen_seconds", "tuned_seconds", "peak_mb")
_PARAMETERS = "trainable parameters of the language model"
BESIDE = ("| technique | beside | difference [95 %] |", "|---|---|---|")


def table(
    names: Sequence[str],
    results: Results,
    plain: str,
    same: Mapping[str, str],
    costs: Mapping[str, Mapping[str, Any]] | None = None,
    also: Mapping[str, str] | None = None,
) -> str:
    """One line a row that has a result. same: row -> the row whose fit it would repeat. costs: what `costs.py` measured, row by
    row. also: what is said behind a row's name."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    reference, costs, also = results.get(plain, {}), costs or {}, also or {}
    for name in names:
        if found := results.get(name):
            said = f"{name} ({also[name]})" if name in also else name
            lines.append(_line(said, found, {} if name == plain else reference, costs.get(name, {})))
        elif name in same:
            lines.append(f"| {name} | the same as {same[name]} here" + " |" * (len(_COLUMNS) - 1))
    missing = [name for name in names if not results.get(name) and name not in same]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    return "\n".join(lines)


def _line(
    name: str, found: Mapping[int, Answers], plain: Mapping[int, Answers], costs: Mapping[str, float | None]
) -> str:
    seeds = [found[seed] for seed in sorted(found)]
    values, groups = average(seeds, "ndcg@10"), seeds[0].groups
    low, high = bootstrap_interval(values, groups)
    apart = _difference(found, plain)
    means = [one.mean("ndcg@10") for one in seeds]
    recall, area = (average(seeds, metric).mean() for metric in ("recall@10", "auc"))
    cost: dict[str, float | None] = next((one.facts["cost"] for one in seeds if one.facts.get("cost")), {})
    steps = seeds[0].facts.get("lm_steps", [])
    learning = cost.get(_PARAMETERS)
    if cost and steps and not any(one["taken"] for one in steps):
        learning = 0
    cells = [
        name, f"{values.mean():.4f} [{low:.4f}, {high:.4f}]", apart, f"{recall:.4f}", f"{area:.4f}", str(len(seeds)),
        f"{min(means):.4f} to {max(means):.4f}" if len(means) > 1 else "",
        cell(steps),
        *("" if value is None else f"{value:,.0f}" for value in (learning, *(costs.get(key) for key in _COSTS))),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def gap_between(found: Mapping[int, Answers], reference: Mapping[int, Answers]) -> Difference | None:
    """How much higher NDCG@10 is, over the seeds that both have; None where there is none."""
    both = sorted(set(found) & set(reference))
    if not both:
        return None
    mine, theirs = (average([one[seed] for seed in both], "ndcg@10") for one in (found, reference))
    return paired_difference(mine, theirs, found[both[0]].groups)


def _difference(found: Mapping[int, Answers], reference: Mapping[int, Answers]) -> str:
    gap = gap_between(found, reference)
    if gap is None:
        return ""
    return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]{' *' if gap.is_clear else ''}"


def beside_controls(rows: Sequence[Row], results: Results) -> list[str]:
    """A line for each row whose question is another one than its difference to plain: beside which row it stands."""
    differences = ((row, _difference(results.get(row.name, {}), results.get(row.beside, {}))) for row in rows)
    return [f"| {row.name} | {row.beside} | {apart} |" for row, apart in differences if row.beside and apart]


def made_from(results: Results, rerankers: Sequence[Mapping[str, Any]]) -> str:
    """Which commits, machines, data and days the results are of, and how many fits."""
    facts = [one.facts for seeds in results.values() for one in seeds.values()]

    def all_of(key: str) -> str:
        return ", ".join(sorted({str(one[key]) for one in (*facts, *rerankers)}))

    fits = sum("fit_seconds" in one for one in facts)
    took = sum(float(one.get("seconds", 0.0)) for one in facts) / 3600
    learnt = sum(float(one["fit_seconds"]) for one in rerankers) / 3600
    return (
        f"commit {all_of('commit')}; {all_of('machine')}, {all_of('threads')} thread(s); data {all_of('data')}; "
        f"made {all_of('made')}; {fits} rows that were fitted, {took:.1f} hours with judging, and {len(rerankers)} of "
        f"rerankers, {learnt:.1f} hours of learning (on a machine that did other things as well)"
    )


def what_rows_set(rows: Sequence[Row], results: Results) -> list[str]:
    """A line a row: what it is, what it sets beside the common recipe, and which epoch of its second stage is judged."""
    lines = []
    for row in rows:
        told = [row.about]
        if row.overrides:
            told.append(_as_code(row.overrides))
        if row.pretrain:
            told.append(f"first `lmrec pretrain` with {_as_code(row.pretrain)}")
        if row.distil:
            told.append(f"then `lmrec distil` with {_as_code(row.distil)}")
        if row.members:
            told.append("fits: " + "; ".join(_as_code(member.overrides) or "plain" for member in row.members))
        for seed, one in sorted(results.get(row.name, {}).items()):
            (steps, *others) = one.facts.get("lm_steps") or [NONE]
            if steps["epoch"] and not others:
                told.append(f"seed {seed}: epoch {steps['epoch']} of {steps['epochs']} of the second stage")
        lines.append(f"- **{row.name}**: {'. '.join(told)}.")
    return lines


def _as_code(settings: Sequence[str]) -> str:
    return ", ".join(f"`{setting}`" for setting in settings)
