"""The table of what was shown: seeds are averaged list by list, and only where they were asked the same by one recipe."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.news.seeds import is_made, recipe_of
from benchmarks.news.table import Kept, build_section, kept_seeds
from benchmarks.peers.own import fingerprint_of
from lmrec.artifacts.files import write_json
from lmrec.errors import DataError
from lmrec.evaluation.casefile import JudgedLists
from lmrec.evaluation.evaluator import EvaluationConfig
from lmrec.evaluation.impressions import ListEvaluation, build_impression_table

N_LISTS = 60
METRICS = ("auc", "mrr", "ndcg@5", "ndcg@10", "hit@1")


def keep(folder: Path, seed: int, better: float = 0.1, recipe: str = "r", questions: str = "q") -> dict[str, float]:
    """A seed in which lmrec has `better` more than the rival in each list; the AUC of both."""
    rng = np.random.default_rng(seed)
    groups, values = np.arange(N_LISTS) // 2, rng.uniform(0.3, 0.8, N_LISTS)
    found = [
        ListEvaluation(name, dict.fromkeys(METRICS, values + more), np.ones((N_LISTS, 4)), groups)
        for name, more in (("popularity", 0.0), ("lmrec", better))
    ]
    table = build_impression_table(found, ["popularity"], "Lists.", 0.04, EvaluationConfig(n_bootstrap=200), {})
    kept = Kept(folder, "en", seed)
    JudgedLists.of(found, "Lists.", "data", questions, "lmrec").save_parquet(kept.lists)
    about = {"data_fingerprint": "data", "seconds": 10.0 * (seed + 1), "cpu_seconds": 5.0, "peak_mb": 100 + seed}
    facts = {
        "recipe": recipe,
        "table": table.as_dict(),
        **about,
        "commit": "abc",
        "machine": "m",
        "made": f"2026-11-3{seed}",
    }
    write_json(kept.file, facts)
    return {"popularity": float(values.mean()), "lmrec": float(values.mean() + better)}


def test_seeds_are_averaged_list_by_list_and_differences_are_paired(tmp_path: Path) -> None:
    found = [keep(tmp_path, 0, 0.1), keep(tmp_path, 1, 0.2)]
    text = build_section(tmp_path, "en")
    (own,) = [line for line in text.splitlines() if line.startswith("| **lmrec**")]
    (rival,) = [line for line in text.splitlines() if line.startswith("| popularity")]
    assert f"{np.mean([one['lmrec'] for one in found]):.4f} [" in own
    assert "+0.1500 [+0.1500, +0.1500]" in own, "the same in every list, however the users are redrawn"
    assert f"2: {min(one['lmrec'] for one in found):.4f} to {max(one['lmrec'] for one in found):.4f}" in own
    assert f"{np.mean([one['popularity'] for one in found]):.4f} [" in rival
    assert "15 s (5 of processors) to fit, 101 MB at most" in text
    assert build_section(tmp_path, "zh") == ""


def test_what_another_recipe_made_is_not_averaged_with_the_newest(tmp_path: Path) -> None:
    keep(tmp_path, 0, recipe="before")
    newer = keep(tmp_path, 1)
    assert [kept.seed for kept in kept_seeds(tmp_path, "en")] == [1]
    assert f"1: {newer['lmrec']:.4f} to {newer['lmrec']:.4f}" in build_section(tmp_path, "en")
    assert not is_made(Kept(tmp_path, "en", 1))
    keep(tmp_path, 1, recipe=fingerprint_of(recipe_of("en", 1)))
    assert is_made(Kept(tmp_path, "en", 1))
    assert not is_made(Kept(tmp_path, "en", 2))


def test_seeds_that_were_asked_other_lists_are_refused(tmp_path: Path) -> None:
    keep(tmp_path, 0)
    keep(tmp_path, 1, questions="others")
    with pytest.raises(DataError, match="other lists than the first seed"):
        build_section(tmp_path, "en")
