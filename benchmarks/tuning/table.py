"""The table of techniques in markdown, from what was kept of the fits; rows and seeds that are not there yet are named."""

from collections.abc import Mapping, Sequence

from benchmarks.tuning.results import Answers, average
from benchmarks.tuning.rows import Row
from benchmarks.tuning.steps import cell
from lmrec.evaluation.compare import bootstrap_interval, paired_difference

Results = Mapping[str, Mapping[int, Answers]]  # row -> seed -> what was found

LEGEND = (
    "NDCG@10 and recall@10 are of the whole catalog, ranked. AUC: the chance that the right item stands above one drawn from "
    "all others of the catalog; with one right item at rank r among N it is 1 - (r - 1) / (N - 1). A row with several seeds is "
    "their mean, case by case; intervals redraw users. Differences are to plain, paired by case, over the seeds that both "
    "have; `*`: the interval leaves out zero. What one seed shows may be that seed's chance, of which the interval knows "
    "nothing. LM steps: how often the optimizer stepped the language model in the first seed's fit; 'a of b': b in the fit, "
    "a of them before the end of the epoch that is judged; 'a + b': of several fits that became one model; steps of a "
    "pretraining (DAPT, domain words) come before and are not in it. PLM parameters: those that learn. Seconds and "
    "megabytes are of the second stage's epochs (of the first's, where there is no second), on a machine that did other "
    "things as well; megabytes are of a process that fitted other rows before (each row by itself: `python -m "
    "benchmarks.tuning.costs`)."
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
    *("LM steps", "PLM parameters", "s an epoch", "peak MB"),
)
_COSTS = ("trainable parameters of the language model", "seconds an epoch", "peak memory, MB")
BESIDE = ("| technique | beside | difference [95 %] |", "|---|---|---|")


def table(names: Sequence[str], results: Results, plain: str, same: Mapping[str, str]) -> str:
    """One line a row that has a result. same: row -> the row whose fit it would repeat."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
    reference = results.get(plain, {})
    for name in names:
        if found := results.get(name):
            lines.append(_line(name, found, {} if name == plain else reference))
        elif name in same:
            lines.append(f"| {name} | the same as {same[name]} here" + " |" * (len(_COLUMNS) - 1))
    missing = [name for name in names if not results.get(name) and name not in same]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    return "\n".join(lines)


def _line(name: str, found: Mapping[int, Answers], plain: Mapping[int, Answers]) -> str:
    seeds = [found[seed] for seed in sorted(found)]
    values, groups = average(seeds, "ndcg@10"), seeds[0].groups
    low, high = bootstrap_interval(values, groups)
    apart = _difference(found, plain)
    means = [one.mean("ndcg@10") for one in seeds]
    recall, area = (average(seeds, metric).mean() for metric in ("recall@10", "auc"))
    cost: dict[str, float | None] = next((one.facts["cost"] for one in seeds if one.facts.get("cost")), {})
    steps = seeds[0].facts.get("lm_steps", [])
    if cost and steps and not any(one["taken"] for one in steps):
        cost = {**cost, _COSTS[0]: 0}
    cells = [
        name, f"{values.mean():.4f} [{low:.4f}, {high:.4f}]", apart, f"{recall:.4f}", f"{area:.4f}", str(len(seeds)),
        f"{min(means):.4f} to {max(means):.4f}" if len(means) > 1 else "",
        cell(steps),
        *("" if (value := cost.get(key)) is None else f"{value:,.0f}" for key in _COSTS),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _difference(found: Mapping[int, Answers], reference: Mapping[int, Answers]) -> str:
    """Over the seeds that both have; empty where there is none."""
    both = sorted(set(found) & set(reference))
    if not both:
        return ""
    mine, theirs = (average([one[seed] for seed in both], "ndcg@10") for one in (found, reference))
    gap = paired_difference(mine, theirs, found[both[0]].groups)
    return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]{' *' if gap.is_clear else ''}"


def beside_controls(rows: Sequence[Row], results: Results) -> list[str]:
    """A line for each row whose question is another one than its difference to plain: beside which row it stands."""
    differences = ((row, _difference(results.get(row.name, {}), results.get(row.beside, {}))) for row in rows)
    return [f"| {row.name} | {row.beside} | {apart} |" for row, apart in differences if row.beside and apart]


def made_from(results: Results) -> str:
    """Which commits, machines, data and days the results are of."""
    facts = [one.facts for seeds in results.values() for one in seeds.values()]

    def all_of(key: str) -> str:
        return ", ".join(sorted({str(one[key]) for one in facts}))

    n_fits = sum("fit_seconds" in one for one in facts)
    took = sum(float(one.get("seconds", 0.0)) for one in facts) / 3600
    return (
        f"commit {all_of('commit')}; {all_of('machine')}, {all_of('threads')} thread(s); data {all_of('data')}; "
        f"made {all_of('made')}; {n_fits} fits, {took:.1f} hours"
    )
