"""The table of what was shown: seeds averaged list by list, intervals that redraw users, differences paired by list."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from lmrec.artifacts.files import read_json
from lmrec.errors import DataError
from lmrec.evaluation.casefile import JudgedLists
from lmrec.evaluation.compare import bootstrap_means, difference_of, interval_of
from lmrec.evaluation.evaluator import EvaluationConfig
from lmrec.evaluation.impressions import ImpressionTable
from lmrec.fields import FloatArray

BEGIN: Final = "<!-- news: begin -->"
END: Final = "<!-- news: end -->"
MAIN: Final = "auc"
_SHOWN: Final = ("mrr", "ndcg@5", "ndcg@10")
_WORDS: Final = {"en": "English", "zh": "Chinese"}


@dataclass(frozen=True)
class Kept:
    """What is kept of one seed: the judge's table and facts, and the values of each list."""

    folder: Path
    language: str
    seed: int

    @property
    def file(self) -> Path:
        return self.folder / f"{self.language}-{self.seed}.json"

    @property
    def lists(self) -> Path:
        return self.file.with_suffix(".parquet")

    @property
    def is_there(self) -> bool:
        return self.file.exists() and self.lists.exists()

    def facts(self) -> dict[str, Any]:
        return dict(read_json(self.file))


@dataclass(frozen=True, eq=False)
class _Row:
    """One system: the mean of its seeds for each list (I, M), MAIN first, and of F1, which is of all lists together."""

    name: str
    is_rival: bool
    values: FloatArray
    per_seed: list[float]
    f1: float


def kept_seeds(folder: Path, language: str) -> list[Kept]:
    """Those of today's newest recipe; what an earlier one made stands beside no other."""
    found = [Kept(folder, language, int(file.stem.rpartition("-")[2])) for file in folder.glob(f"{language}-*.json")]
    there = sorted((kept for kept in found if kept.is_there), key=lambda kept: kept.seed)
    if not there:
        return []
    newest = max((kept.facts() for kept in there), key=lambda facts: str(facts["made"]))
    return [kept for kept in there if kept.facts()["recipe"] == newest["recipe"]]


def build_section(folder: Path, language: str) -> str:
    """Markdown; empty where nothing is kept. Raises DataError where seeds were asked different lists."""
    seeds = kept_seeds(folder, language)
    if not seeds:
        return ""
    facts, lists = [kept.facts() for kept in seeds], [JudgedLists.from_parquet(kept.lists) for kept in seeds]
    for kept, own in zip(seeds, lists, strict=True):
        if own.questions != lists[0].questions:
            raise DataError("it answers other lists than the first seed does. Remove it", file=kept.lists)
    tables = [ImpressionTable.from_dict(one["table"]) for one in facts]
    rows = _rows(tables, lists)
    best = max((row for row in rows if row.is_rival), key=lambda row: row.values[:, 0].mean())
    config, groups = EvaluationConfig(), lists[0].user_idx

    def redrawn(values: FloatArray) -> FloatArray:
        return bootstrap_means(values, groups, config.n_bootstrap, config.seed)

    lines, n_users = [], len(np.unique(groups))
    for row in sorted(rows, key=lambda row: row.values[:, 0].mean()):
        mean = row.values.mean(axis=0)
        low, high = interval_of(redrawn(row.values[:, :1])[:, 0], config.confidence, n_users)
        gap = ""
        if row is not best:
            gaps = row.values[:, :1] - best.values[:, :1]
            found = difference_of(float(gaps.mean()), redrawn(gaps)[:, 0], config.confidence, n_users)
            gap = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
        name = row.name if row.is_rival else f"**{row.name}**"
        spread = f"{len(row.per_seed)}: {min(row.per_seed):.4f} to {max(row.per_seed):.4f}"
        cells = [name, f"{mean[0]:.4f} [{low:.4f}, {high:.4f}]", gap, *(f"{value:.3f}" for value in mean[1:])]
        lines.append(f"| {' | '.join([*cells, f'{row.f1:.3f}', spread])} |")
    header = [
        "",
        "AUC [95 %]",
        f"difference to {best.name} [95 %]",
        "MRR",
        "NDCG@5",
        "NDCG@10",
        "F1",
        "seeds: AUC, lowest to highest",
    ]
    commits = ", ".join(sorted({str(one["commit"]) for one in facts}))
    machines = "; ".join(sorted({str(one["machine"]) for one in facts}))
    return "\n".join(
        [
            f"### MIND, {_WORDS[language]}, P3",
            "",
            f"{tables[0].sentence} {tables[0].base_rate:.1%} of all candidates were clicked. "
            f"`python -m benchmarks.news --language {language}`; data fingerprint {facts[0]['data_fingerprint']}; "
            f"commits {commits}; {machines}; {_spent(facts)}.",
            "",
            f"| {' | '.join(header)} |",
            "|" + "---|" * len(header),
            *lines,
        ]
    )


def _rows(tables: list[ImpressionTable], lists: list[JudgedLists]) -> list[_Row]:
    """Of the systems that every seed has."""
    rows = []
    for row in tables[0].rows:
        if not all(row.name in own.values for own in lists):
            continue
        seeds = [np.stack([own.values[row.name][metric] for metric in (MAIN, *_SHOWN)], axis=1) for own in lists]
        f1 = float(np.mean([one.metrics["f1"].value for table in tables for one in table.rows if one.name == row.name]))
        mean = np.mean(seeds, axis=0)
        rows.append(_Row(row.name, row.is_baseline, mean, [float(seed[:, 0].mean()) for seed in seeds], f1))
    return rows


def _spent(facts: list[dict[str, Any]]) -> str:
    wall, processor = (float(np.mean([one[key] for one in facts])) for key in ("seconds", "cpu_seconds"))
    return f"{wall:.0f} s ({processor:.0f} of processors) to fit, {max(one['peak_mb'] for one in facts):,} MB at most"
