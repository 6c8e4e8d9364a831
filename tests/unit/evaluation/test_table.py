"""The judgement table: right numbers beside each other, JSON and back, and no comparison of unlike things."""

import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from lmrec.data.history import Cases
from lmrec.errors import InputError
from lmrec.evaluation.compare import bootstrap_interval, paired_difference
from lmrec.evaluation.evaluator import Evaluation, EvaluationConfig
from lmrec.evaluation.slices import slice_cases
from lmrec.evaluation.table import JudgementTable, TableForm, build_table
from lmrec.fields import IntArray

from .conftest import N_ITEMS, N_USERS

FORM = TableForm("time", "next", 60, 10, N_ITEMS, True, ("test from 1998-04-12",), ("3 cases without a new item",))


@pytest.fixture
def table(
    evaluations: list[Evaluation], cases: Cases, item_counts: IntArray, config: EvaluationConfig
) -> JudgementTable:
    user_counts = np.where(np.arange(N_USERS) < 5, 3, 0)
    slices = slice_cases(cases, item_counts, user_counts) | {"nobody": np.zeros(60, np.bool_)}
    return build_table(evaluations, ["weak", "fair"], FORM, config, slices, {"fair": "bonus=1.5"})


def test_intervals_and_differences_are_those_of_compare(
    table: JudgementTable, evaluations: list[Evaluation], config: EvaluationConfig
) -> None:
    _, fair, ours = evaluations
    estimate = table.row("our model").metrics["ndcg@10"]
    expected = bootstrap_interval(ours.metrics["ndcg@10"], ours.groups, config.n_bootstrap, config.confidence)
    assert estimate.value == ours.aggregate["ndcg@10"]
    assert (estimate.low, estimate.high) == pytest.approx(expected)
    gap = table.row("our model").differences["recall@5"]
    whole = paired_difference(ours.metrics["recall@5"], fair.metrics["recall@5"], ours.groups, config.n_bootstrap)
    assert (gap.mean, gap.low, gap.high) == pytest.approx((whole.mean, whole.low, whole.high))
    assert table.row("weak").differences["ndcg@10"].mean < 0


def test_the_best_baseline_has_no_difference_and_a_better_system_is_not_it(table: JudgementTable) -> None:
    assert table.best_baseline == "fair"
    assert table.row("fair").differences == {}
    assert [row.name for row in table.ranked] == ["our model", "fair", "weak"]


def test_without_baselines_there_is_nothing_to_differ_from(
    evaluations: list[Evaluation], config: EvaluationConfig
) -> None:
    table = build_table(evaluations[:1], [], FORM, config)
    assert table.best_baseline is None
    assert table.rows[0].differences == {}


def test_slices_hold_the_mean_of_their_cases(
    table: JudgementTable, evaluations: list[Evaluation], cases: Cases
) -> None:
    by_name = {part.name: part for part in table.slices}
    warm = cases.user_idx < 5
    assert by_name["warm users"].n_cases == warm.sum()
    assert by_name["warm users"].n_users == len(set(cases.user_idx[warm].tolist()))
    assert by_name["warm users"].values["weak"].value == pytest.approx(evaluations[0].metrics["ndcg@10"][warm].mean())
    assert by_name["all"].values["fair"].value == pytest.approx(table.row("fair").metrics["ndcg@10"].value)
    assert by_name["nobody"].values == {}


def test_the_table_goes_through_json_and_back(table: JudgementTable) -> None:
    assert JudgementTable.from_dict(json.loads(json.dumps(table.as_dict()))) == table


def test_the_terminal_shows_every_system_and_the_form(table: JudgementTable) -> None:
    console = Console(width=200)
    with console.capture() as shown:
        console.print(table.rich())
        console.print(table.rich_slices())
    for word in ("our model", "fair", "weak", "best baseline", "cold items", "3 cases without a new item", "excluded"):
        assert word in shown.get()


def test_a_name_with_brackets_is_shown_as_it_is(evaluations: list[Evaluation], config: EvaluationConfig) -> None:
    table = build_table([replace(evaluations[0], name="ALS [red]x[/red]")], [], FORM, config)
    console = Console(width=120)
    with console.capture() as shown:
        console.print(table.rich())
        console.print(table.rich_slices())
    assert "[red]x[/red]" in shown.get()


def test_unlike_things_are_not_put_side_by_side(evaluations: list[Evaluation], config: EvaluationConfig) -> None:
    weak, fair, _ = evaluations
    with pytest.raises(InputError, match="one name"):
        build_table([weak, weak], [], FORM, config)
    with pytest.raises(InputError, match="without an evaluation: .'none'"):
        build_table([weak], ["none"], FORM, config)
    other = replace(fair, cases=fair.cases.take(np.arange(60)[::-1]))
    with pytest.raises(InputError, match="different cases"):
        build_table([weak, other], [], FORM, config)
    with pytest.raises(InputError, match="at least one"):
        build_table([], [], FORM, config)


def test_an_unknown_row_is_refused_with_the_known_ones(table: JudgementTable) -> None:
    with pytest.raises(InputError, match="weak, fair, our model"):
        table.row("ours")
