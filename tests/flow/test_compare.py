"""`lmrec compare` on real runs: the same cases or a clear refusal."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lmrec.errors import InputError
from lmrec.workflows.compare import compare_runs
from lmrec.workflows.judge import judge_run

from .conftest import Invoke


@pytest.fixture(scope="module")
def twin(learnt: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, judged with one more baseline."""
    copy = tmp_path_factory.mktemp("twin") / "twin"
    shutil.copytree(learnt.run, copy)
    judge_run(copy, ['baselines.names=["popularity", "recent_popularity"]'], show=False)
    return copy


def test_a_run_is_compared_with_its_own_baselines(invoke: Invoke, learnt: Any, tmp_path: Path) -> None:
    page = tmp_path / "comparison.html"
    answer = json.loads(invoke("compare", learnt.run, "--json", "--out", page).stdout)
    judged = json.loads((learnt.run / "evaluation.json").read_text())
    values = {row["name"]: row["metrics"]["ndcg@10"]["value"] for row in judged["rows"]}
    assert set(answer["systems"]) == set(values)
    assert {name: cell["value"] for name, cell in answer["estimates"]["ndcg@10"].items()} == pytest.approx(values)
    by_rival = {pair["second"]: pair for pair in answer["pairs"]}
    assert len(by_rival) == len(values) - 1
    assert by_rival["popularity"]["marks"].startswith("**")
    assert by_rival["popularity"]["difference"]["mean"] > 0
    assert "<svg" in page.read_text()


def test_runs_are_compared_by_their_own_models_or_by_named_rows(learnt: Any, twin: Path) -> None:
    found = compare_runs([learnt.run, twin], n_bootstrap=200)
    assert [name.split("/", 1)[0] for name in found.systems] == ["run", "twin"]
    assert found.pairs[0].difference.mean == 0.0
    assert not found.pairs[0].marks
    rows = compare_runs([learnt.run, twin], rows=["all"], metrics=["hit@7"], n_bootstrap=200)
    assert "run/popularity" in rows.systems
    assert "twin/popularity" not in rows.systems  # the same answers stand there once
    assert "twin/recent popularity" in rows.systems


def test_other_questions_are_refused_with_what_differs(
    invoke: Invoke, learnt: Any, control: Any, twin: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "repeats"
    shutil.copytree(twin, copy)
    judge_run(copy, ["evaluation.exclude_seen=false", 'baselines.names=["popularity"]'], show=False)
    refused = invoke("compare", twin, copy, code=2).stderr
    assert "evaluation.exclude_seen (True against False)" in refused.replace("\n", " ")
    assert "the data they were fitted on" in invoke("compare", twin, control.run, code=2).stderr.replace("\n", " ")
    with pytest.raises(InputError, match="no row 'popular'. Did you mean 'popularity'"):
        compare_runs([twin], rows=["popular"])
    with pytest.raises(InputError, match="given twice"):
        compare_runs([twin, twin])
    (copy / "cases.parquet").unlink()
    with pytest.raises(InputError, match="lmrec evaluate"):
        compare_runs([twin, copy])


def test_of_a_sample_the_table_says_how_many_cases_and_users_were_asked(fitted: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(fitted, tmp_path / "run"))
    judged = judge_run(copy, ["evaluation.max_cases=5", 'baselines.names=["popularity"]'], show=False)
    asked = judged.evaluations["popularity"].cases
    assert (judged.table.form.n_cases, judged.table.form.n_users) == (5, len(set(asked.user_idx.tolist())))
