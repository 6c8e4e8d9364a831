"""A row's fit and its judgement. What is judged are the towers by themselves: the second stage's, where a row has one."""

import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fitting import fit_once
from benchmarks.tuning.bench import PLAIN, Bench
from benchmarks.tuning.first_stage import KeepFirstStage, begin_from, is_kept, is_shared
from benchmarks.tuning.pairs import measure as measure_reranker
from benchmarks.tuning.results import Answers, Question, read_answer, unfit
from benchmarks.tuning.rows import Row, slug
from benchmarks.tuning.steps import NONE, Steps, steps_by_recipe, steps_of
from benchmarks.tuning.what_trains import HEAD_ONLY, cost_cells
from benchmarks.tuning.words import encoder_folder
from lmrec.artifacts.files import read_json, write_json
from lmrec.artifacts.run import RunFolder, describe_environment
from lmrec.text.template import build_template
from lmrec.workflows.ensemble import ensemble_runs
from lmrec.workflows.judge import FROZEN, TUNED, Judgement, judge_run, own_name
from lmrec.workflows.soup import soup_runs

UNTUNED = Row(
    "un-tuned PLM", (), "the language model as it came, cosine to the mean of the last items; nothing is trained"
)
_QUICK = "baselines.names=[]"
_WITH_UNTUNED = 'baselines.names=["untuned"]'


def answer_row(bench: Bench, row: Row, seed: int) -> None:
    """Fit and judge one technique with one seed, and keep what was found."""
    if row.mix:
        answer_mixed(bench, row, seed)
    else:
        answer_fit(bench, PLAIN if row.name == UNTUNED.name else row, seed)


def answer_fit(bench: Bench, row: Row, seed: int) -> None:
    """Fit, judge and keep. The plain fit answers for the rows that it holds as well: the language model as it came, and the
    towers of its first stage, which are all that "head only" would be."""
    began = time.monotonic()
    run = fit_row(bench, row, seed)
    fitted = time.monotonic() - began
    is_plain = row.name == PLAIN.name
    judged = judge_run(run.path, [_WITH_UNTUNED if is_plain else _QUICK], show=False)
    seconds = round(time.monotonic() - began, 1)
    own = next(name for name in (TUNED, FROZEN, *judged.evaluations) if name in judged.evaluations)
    cost = {"seconds": seconds, "fit_seconds": round(fitted, 1), "cost": cost_cells(run)}
    keep(bench, row, seed, judged, own, **cost, lm_steps=[steps_of(run, own == TUNED)])
    if is_plain:
        (as_it_came,) = (one.name for one in judged.table.rows if one.is_baseline)
        keep(bench, UNTUNED, seed, judged, as_it_came, lm_steps=[NONE])
        keep(bench, HEAD_ONLY, seed, judged, FROZEN, cost=cost_cells(run, "frozen"), lm_steps=[NONE])
    shutil.rmtree(run.path)  # hundreds of megabytes that nobody asks for


def answer_mixed(bench: Bench, row: Row, seed: int) -> None:
    """Several fits as one model, judged as what it serves: each fit at the stage that validation chose. The members are left
    where they are, for another row of the same members; `remove_members` ends that."""
    began = time.monotonic()
    if row.mix == "snapshots":
        runs = [fit_row(bench, row, seed)]
        paths = sorted((runs[0].path / "snapshots").iterdir())
    else:
        runs = [fit_row(bench, row.member_at(at, seed), seed) for at in range(len(row.members))]
        paths = [run.path for run in runs]
    fitted, out = time.monotonic() - began, bench.runs / f"{slug(row.name)}-{seed}-mixed"
    shutil.rmtree(out, ignore_errors=True)
    if row.mix in ("uniform", "greedy"):
        mixed = soup_runs(paths, out, "uniform" if row.mix == "uniform" else "greedy", show=False).run
    else:
        mixed = ensemble_runs(paths, out, "ranks" if row.mix == "ranks" else "scores")
    judged = judge_run(mixed.path, [_QUICK], show=False)
    seconds = {"seconds": round(time.monotonic() - began, 1), "fit_seconds": round(fitted, 1)}
    soup = mixed.read_record().get("soup", {}).get("chosen")
    keep(
        bench,
        row,
        seed,
        judged,
        own_name(mixed),
        **seconds,
        soup=soup,
        lm_steps=[steps_of(run, _serves_tuned(run)) for run in runs],
    )
    shutil.rmtree(out)


def answer_reranker(bench: Bench, row: Row, seed: int) -> None:
    """Teach the plain run of this seed a reranker, judge it on a part of the cases, and keep that."""
    found = measure_reranker(fit_row(bench, PLAIN, seed).path, row, bench.shrink)
    question = question_of(bench, row, seed)
    facts = {**found, **question.as_dict(), "threads": _threads(), "made": time.strftime("%Y-%m-%d", time.gmtime())}
    bench.results.mkdir(parents=True, exist_ok=True)
    write_json(reranker_file(bench, row, seed), facts)


def reranker_file(bench: Bench, row: Row, seed: int) -> Path:
    return question_of(bench, row, seed).file(bench.results).with_suffix(".json")


def read_reranker(bench: Bench, row: Row, seed: int) -> tuple[dict[str, Any] | None, str]:
    """As `read_answer`, of a reranker."""
    file = reranker_file(bench, row, seed)
    if not file.exists():
        return None, ""
    found: dict[str, Any] = read_json(file)
    why = unfit(file, found, question_of(bench, row, seed))
    return (None, why) if why else (found, "")


def _serves_tuned(run: RunFolder) -> bool:
    return bool(run.read_record()["training"]["best_stage"] == "tuned")


def counted_steps(bench: Bench, row: Row, seed: int, judged: str) -> list[Steps]:
    """For a result that does not say it: what the row's fit must have taken. judged: which model. Nothing of several fits as
    one, for which stage each of them serves is not known."""
    if row.name == UNTUNED.name:
        return [NONE]
    if row.mix:
        return []
    counted = steps_by_recipe(bench.recipe(seed, row.overrides), bench.prepared.split.train)
    return [{**counted, "judged": 0, "epoch": 0} if judged == FROZEN else counted]


def remove_members(bench: Bench, rows: Sequence[Row], seed: int) -> None:
    """The run folders of mixed rows that have been answered."""
    for row in rows:
        for name in (PLAIN.name, row.name, *(member.name for member in row.members)):
            shutil.rmtree(bench.runs / f"{slug(name)}-{seed}", ignore_errors=True)


def question_of(bench: Bench, row: Row, seed: int) -> Question:
    return bench.question(row.name, seed, row.asked)


def read_row(bench: Bench, row: Row, seed: int) -> tuple[Answers | None, str]:
    """What is kept of it, or why that is not used."""
    return read_answer(bench.results, question_of(bench, row, seed))


def keep(bench: Bench, row: Row, seed: int, judged: Judgement, name: str, **facts: Any) -> None:
    """Write what the judge found of the model of that name."""
    question = question_of(bench, row, seed)
    facts = {**question.as_dict(), "judged": name, "threads": _threads(), **describe_environment(), **facts}
    facts["made"] = time.strftime("%Y-%m-%d", time.gmtime())
    Answers.of(judged.evaluations[name], facts).save(question.file(bench.results))


def fit_row(bench: Bench, row: Row, seed: int, run: Path | None = None) -> RunFolder:
    """The row's run: one that is there, one that goes on, or a new one, whose first stage is taken over where it is shared."""
    run = run or bench.runs / f"{slug(row.name)}-{seed}"
    overrides = row.overrides
    if row.pretrain:
        overrides = (*overrides, f"encoder.name={encoder_folder(bench, row)}")
    recipe, plain = bench.recipe(seed, overrides), bench.recipe(seed)
    place = bench.runs / "first-stages" / str(seed)
    kept = is_kept(place, plain, bench.prepared)
    begin = partial(begin_from, place, run, recipe, bench.prepared) if kept and is_shared(overrides) else None
    watch = KeepFirstStage(run, place) if row.name == PLAIN.name and not kept else None
    return fit_once(run, recipe, bench.prepared, begin, watch, show=False)


def same_as_plain(bench: Bench, row: Row) -> bool:
    """Whether the row's fit would be the plain one: a default said aloud, or a budget of words that no text here exceeds."""
    if row.pretrain or row.mix or row.name in (PLAIN.name, UNTUNED.name):
        return False
    mine, plain = bench.recipe(0, row.overrides), bench.recipe(0)
    if mine.model_copy(update={"template": plain.template}) != plain:
        return False
    catalog = bench.prepared.dataset.catalog
    texts = (build_template(recipe.template, catalog).render_items(catalog.frame) for recipe in (mine, plain))
    return next(texts) == next(texts)


def _threads() -> int:
    import torch

    return torch.get_num_threads()
