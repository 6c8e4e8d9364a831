"""Update: learn from what the store has heard, and serve the result only where it beats what is served.

read -> hold out the newest events -> measure what is served -> learn on from it -> measure again -> decide -> keep -> promote

The held-out events are learnt by nobody in this update, also not after a promotion: what is served is exactly what was
judged, but for the counts of item transitions, which take in the whole log as they do in `fit`. The next update learns
from the held-out events as replay. An update that is not promoted uses nothing up: the next one hears the same
events again, and more of them.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from lmrec.artifacts.checkpoint import compute_item_vectors, read_checkpoint, save_checkpoint, save_vectors
from lmrec.artifacts.files import fingerprint_files, write_json
from lmrec.artifacts.generation import (
    discard_generation,
    finish_generation,
    generation_path,
    how_far,
    list_generations,
    new_generation_folder,
    promote,
    read_pointer,
    read_serving,
)
from lmrec.artifacts.list_stack import save_list_stack
from lmrec.artifacts.lock import UPDATING, locked
from lmrec.artifacts.reranker import share_reranker
from lmrec.artifacts.run import RunFolder, describe_environment, instant, open_run
from lmrec.data.history import Cases, HistoryIndex
from lmrec.data.interactions import Interactions
from lmrec.data.split import build_cases
from lmrec.errors import InputError, Interrupted
from lmrec.evaluation.drift import Drift
from lmrec.evaluation.evaluator import Evaluation, evaluate
from lmrec.evaluation.promotion import Decision, decide
from lmrec.evaluation.slices import slices_of
from lmrec.feedback.store import note_done
from lmrec.fields import BoolArray
from lmrec.models.fusion import Fusion
from lmrec.progress import progress_bar
from lmrec.recipe import Recipe, load_fitted, recipe_toml
from lmrec.training.batches import TrainBatch
from lmrec.training.continual import update_batches
from lmrec.training.interrupt import StopWish, stop_on_interrupt
from lmrec.training.regularisers import pull_to
from lmrec.training.trainer import Trainer, TrainingConfig, plan_stages
from lmrec.workflows.counting import fit_fusion
from lmrec.workflows.experiments import name_of_running
from lmrec.workflows.index import save_index
from lmrec.workflows.merge import MergeCounts, Merged
from lmrec.workflows.news import News, drift_of, read_news
from lmrec.workflows.news import store_url as address_of
from lmrec.workflows.prepare import prepare_dataset, save_dataset
from lmrec.workflows.train import learner_scorer, trend_record
from lmrec.workflows.warm import WarmStart, carry_fusion, warm_start

Status = Literal["nothing new", "waiting", "promoted", "kept", "dry run"]
REPORT: Final = "update.json"


@dataclass(frozen=True, eq=False)
class UpdateResult:
    """`generation`: the one that was made, None for none. `serving`: the one that is served now. `reason`: in words."""

    status: Status
    generation: str | None
    serving: str
    reason: str
    counts: MergeCounts
    decision: Decision | None = None
    drift: Drift | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "generation": self.generation,
            "serving": self.serving,
            "reason": self.reason,
            "counts": self.counts.as_dict(),
            "decision": self.decision.as_dict() if self.decision else None,
            "drift": self.drift.as_dict() if self.drift else None,
        }


@dataclass(frozen=True, eq=False)
class Slice:
    """held: (E,) the newest new events. learnt: (E,) all events strictly before them. cases: what is asked."""

    held: BoolArray
    learnt: BoolArray
    cases: Cases


def update_run(
    path: Path | str,
    store_url: str | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
    overrides: Sequence[str] = (),
    show: bool = True,
) -> UpdateResult:
    """Make a generation from what is served and what the store has heard since, and promote it if it is better.

    store_url: default RUN/service/store.db. force: also with fewer events than `update.min_events`; the rule of promotion
    stays. dry_run: do all of it, and keep nothing. overrides: `update.*` and `evaluation.*` settings.
    A failed or interrupted update leaves what is served, and no half generation. Raises RunFolderError where another update
    is at work; InputError, StoreError; Interrupted on Ctrl-C or SIGTERM.
    """
    run = open_run(path)
    if run.ensemble_file.exists():
        raise InputError(
            f"'{path}' is an ensemble, which learns nothing itself. Update a run of one model, or fit its members anew"
        )
    if read_checkpoint(run.checkpoint).fusion.ranks:
        raise InputError(
            f"'{path}' puts its parts together by ranks: it is served, but an update compares scores, which ranks are not. "
            "Fit it anew from the newer log, or with another fusion.method"
        )
    with locked(run.path / UPDATING, "update"), stop_on_interrupt() as should_stop:
        _remove_leftovers(run)
        news = read_news(path, store_url)
        recipe = load_fitted(news.folder.recipe_file, overrides, ["update.*", "evaluation.*"], "in an update")
        counts, needed = news.merged.counts, 2 if force else recipe.update.min_events
        if counts.new_events < needed:
            way = "" if force else "; --force learns from fewer"
            return UpdateResult(
                "nothing new",
                None,
                news.name,
                f"{counts.sentence()}. An update needs {needed:,} new events (update.min_events{way})",
                counts,
            )
        tried = None if force or dry_run or overrides else _tried_already(run, news)
        if tried is not None:
            return UpdateResult(
                "nothing new",
                None,
                news.name,
                f"nothing has been heard since generation {tried} was made of the same and not promoted; --force tries again",
                counts,
            )
        running = name_of_running(path, store_url)
        if running is not None and not dry_run:
            return UpdateResult(
                "waiting",
                None,
                news.name,
                f"the experiment '{running}' is running, and a promotion would change what it compares. End it first "
                f"(lmrec experiment {path} end {running} --why ...); nothing is lost by waiting",
                counts,
            )
        asked = hold_out(news.merged, recipe.update.held_out, repeats=not recipe.evaluation.exclude_seen)
        if not len(asked.cases) or not (asked.learnt & news.merged.is_new).any():
            return UpdateResult(
                "nothing new",
                None,
                news.name,
                f"{counts.sentence()}, but they leave nothing to judge on (all are repeats, which lists leave out) or nothing "
                "to learn (all came at one moment). Wait for more",
                counts,
            )
        return _make(run, news, recipe, asked, dry_run, should_stop, show, address_of(path, store_url))


def _tried_already(run: RunFolder, news: News) -> str | None:
    """The generation that was made of what is served and of all that the store has said so far, and refused."""
    for info in reversed(list_generations(run.path)):
        if info.metrics.get("better") is False:
            folder = RunFolder(generation_path(run.path, info.name))
            same = how_far(folder) == (news.heard.seq, news.heard.items_version)
            if same and folder.read_record()["update"]["parent"] == news.name:
                return info.name
    return None


def hold_out(merged: Merged, share: float, repeats: bool) -> Slice:
    """The newest `share` of the new events as questions. What is learnt comes strictly before all of them; old events of
    that time are neither learnt again nor asked. repeats: whether what somebody had is a right answer."""
    when = merged.when_ts
    new = np.sort(when[merged.is_new])
    cut_ts = new[min(len(new) - 1, round(len(new) * (1 - share)))]
    held = merged.is_new & (when >= cut_ts)
    dataset = merged.dataset
    return Slice(held, when < cut_ts, build_cases(dataset.interactions, held, dataset.catalog.n_items, repeats))


def _make(
    run: RunFolder,
    news: News,
    recipe: Recipe,
    asked: Slice,
    dry_run: bool,
    should_stop: StopWish,
    show: bool,
    store: str,
) -> UpdateResult:
    started = time.monotonic()
    merged, log = news.merged, news.merged.dataset.interactions
    n_items = merged.dataset.catalog.n_items
    drift = drift_of(news, recipe.training.seed)
    learnt = log.select(asked.learnt)
    with _fresh_generation(run) as folder:
        warm = warm_start(news.served, merged.dataset.catalog, merged.old_rows, learnt, recipe)
        served_fusion = news.served.fusion
        before = _evaluate(warm, recipe, asked.cases, carry_fusion(served_fusion, merged.old_rows), "served", show)
        _check(should_stop)
        if served_fusion.weights.towers:  # else what is counted answers alone
            _train(folder, warm, recipe, learnt, merged.is_new[asked.learnt], should_stop, show)
        candidate = fit_fusion(served_fusion.weights, learnt, n_items)
        after = _evaluate(warm, recipe, asked.cases, candidate, "candidate", show)
        _check(should_stop)
        decision = decide(
            before,
            after,
            slices_of(before.cases, learnt, n_items),
            recipe.evaluation,
            recipe.update.tolerance,
            recipe.update.min_slice_users,
        )
        if dry_run:
            would = "would be promoted" if decision.promote else "would not be promoted"
            return UpdateResult(
                "dry run", None, news.name, f"{decision.reason}: it {would}", merged.counts, decision, drift
            )
        _save(folder, news, recipe, warm, decision, drift, round(time.monotonic() - started, 1))
        _check(should_stop)
        name = finish_generation(folder.path, decision.reason, _metrics(decision, drift)).name
    status, reason = _promote(run, news.name, name, decision, store)
    _remove_refused(run, recipe.update.keep_refused)
    return UpdateResult(status, name, read_serving(run.path), reason, merged.counts, decision, drift)


def _evaluate(warm: WarmStart, recipe: Recipe, cases: Cases, fusion: Fusion, label: str, show: bool) -> Evaluation:
    """The learner as it is now, over the whole merged catalog."""
    scorer = learner_scorer(label, warm.learner, recipe).fused(fusion)
    with progress_bar(f"judge {label}", show) as bar:
        return evaluate(scorer, cases, scorer.bank.n_items, recipe.evaluation, bar)


def _train(
    folder: RunFolder,
    warm: WarmStart,
    recipe: Recipe,
    learnt: Interactions,
    is_new: BoolArray,
    should_stop: StopWish,
    show: bool,
) -> None:
    """Learn in place. The number of epochs is fixed: the newest events are for the decision, and choose nothing else."""
    config, update = _training_of(recipe), recipe.update
    index = HistoryIndex.from_interactions(learnt)
    new_by_user = is_new[np.argsort(learnt.user_idx, kind="stable")]  # in the index's order

    def batches(stage: int, epoch: int) -> list[TrainBatch]:
        size = config.batch_events if stage == 0 else config.tuned_batch_events
        seed = (config.seed, stage, epoch)
        return update_batches(index, new_by_user, recipe.user_model.max_history, size, update.replay, seed)

    warm.learner.pull = pull_to(warm.learner.towers, update.anchor)
    trainer = Trainer(
        warm.learner,
        config,
        batches=batches,
        validate=None,
        record=folder.curves.append,
        state_folder=folder.training_state,
        fingerprint="",
        should_stop=should_stop,
        label="update",
        show=show,
    )
    try:
        trainer.run(plan_stages(config, warm.can_tune), resume=False)
    except Interrupted:
        _check(should_stop)
        raise
    warm.learner.pull = None
    warm.learner.to("cpu").eval()
    shutil.rmtree(folder.training_state, ignore_errors=True)


def _training_of(recipe: Recipe) -> TrainingConfig:
    update, training = recipe.update, recipe.training
    return training.model_copy(
        update={
            "frozen_epochs": update.epochs,
            "tuned_epochs": update.tuned_epochs,
            "learning_rate": update.rate_share * training.learning_rate,
            "tuned_learning_rate": update.rate_share * training.tuned_learning_rate,
            "encoder_learning_rate": update.rate_share * training.encoder_learning_rate,
            "weight_decay": 0.0,  # the pull is to the served weights, not to zero
            "snapshots": 0,
        }
    )


def _save(
    folder: RunFolder, news: News, recipe: Recipe, warm: WarmStart, decision: Decision, drift: Drift, seconds: float
) -> None:
    """All that a run folder holds, so that it is one."""
    served, dataset = news.served.checkpoint, news.merged.dataset
    # All but the newest events are learnt: no later judgement of this folder could be fair, nor any choice by validation.
    kept = recipe.model_copy(update={"split": recipe.split.model_copy(update={"kind": "none", "validation": 0.0})})
    prepared = prepare_dataset(dataset, kept)
    save_dataset(dataset, folder.data)
    folder.recipe_file.write_text(recipe_toml(kept), encoding="utf-8")
    fusion = fit_fusion(served.fusion, dataset.interactions, dataset.catalog.n_items)
    scorer = learner_scorer("index", warm.learner, recipe).fused(fusion)
    checkpoint = save_checkpoint(
        folder.checkpoint,
        warm.learner.towers,
        warm.encoder,
        warm.source.tokenizer,
        served.template,
        served.configs,
        None,
        None,
        scorer.fusion,
    )
    _share_unchanged(served.folder / "encoder", folder.checkpoint / "encoder")
    if news.folder.reranker.exists():  # it reads texts alone, and an update leaves their template as it is
        share_reranker(news.folder.reranker, folder.reranker)
    if news.served.list_stack is not None:  # lists that were shown since are counted from the store
        save_list_stack(folder.list_stack, news.served.list_stack, dataset.catalog.ids)
    vectors = compute_item_vectors(warm.learner.towers, warm.learner.text_vec)
    save_vectors(folder.vectors_file, vectors, checkpoint, dataset.catalog.fingerprint)
    save_index(folder, scorer, dataset.interactions, recipe.index, checkpoint.fingerprint)
    parent = news.folder.read_record()
    report = {"decision": decision.as_dict(), "drift": drift.as_dict(), "counts": news.merged.counts.as_dict()}
    write_json(folder.path / REPORT, report)
    folder.update_record(
        status="trained",
        created=instant(),
        seed=recipe.training.seed,
        source=parent.get("source", ""),
        data_fingerprint=dataset.fingerprint,
        summary=prepared.summary.model_dump(mode="json"),
        proof=prepared.split.proof.as_dict(),
        notes=[news.merged.counts.sentence(), decision.reason],
        fusion=parent.get("fusion", served.fusion.model_dump(mode="json")),
        training={**parent["training"], "seconds": seconds, "refit_epochs": 0},
        **trend_record(warm.learner),
        update={
            "parent": news.name,
            "store_seq": news.heard.seq,
            "items_version": news.heard.items_version,
            "promoted_by_rule": decision.promote,
        },
        **describe_environment(),
    )


def _share_unchanged(old: Path, new: Path) -> None:
    """One copy on the disk of files that are the same: a language model that was not tuned. Nothing here is ever written
    in place, so no generation can change another one's."""
    for file in new.iterdir():
        twin = old / file.name
        if not twin.is_file() or twin.stat().st_size != file.stat().st_size:
            continue
        if fingerprint_files(twin) == fingerprint_files(file):
            link = file.with_name(f".{file.name}.link")
            try:
                os.link(twin, link)
            except OSError:  # a file system without links: then there are two copies
                return
            os.replace(link, file)


def _metrics(decision: Decision, drift: Drift) -> dict[str, Any]:
    """What is shown of a generation wherever generations are listed."""
    whole = decision.slices[0]
    return {
        "metric": decision.metric,
        "serving": whole.serving,
        "candidate": whole.candidate,
        "difference": whole.difference.mean,
        "low": whole.difference.low,
        "high": whole.difference.high,
        "cases": whole.n_cases,
        "better": decision.promote,
        "drift": {"overall": drift.level, **{one.name: one.level for one in drift.measures}},
    }


def _promote(run: RunFolder, parent: str, name: str, decision: Decision, store: str) -> tuple[Status, str]:
    if not decision.promote:
        return "kept", f"{decision.reason}. Generation {name} is kept and not served"
    now = read_serving(run.path)
    if now != parent:
        return "kept", (
            f"{decision.reason}. But generation {now} has come to be served instead of {parent}, which this one was compared "
            f"with; {name} is kept and not served. Update again"
        )
    promote(run.path, name, decision.reason)
    said = f"{decision.reason}. Generation {name} is served now"
    error = note_done(store, "update", "promote", name, {"from": parent, "why": decision.reason})
    return "promoted", said if error is None else f"{said}. The audit table has no note of it: {error}"


def _check(should_stop: Callable[[], bool]) -> None:
    if should_stop():
        raise Interrupted("the update was stopped; what is served is served on, and nothing is kept. Update again")


@contextmanager
def _fresh_generation(run: RunFolder) -> Iterator[RunFolder]:
    """A folder to fill, which goes unless it is finished by the end of the block."""
    folder = new_generation_folder(run.path)
    try:
        yield RunFolder(folder)
    finally:
        if folder.exists():
            discard_generation(folder)


def _remove_leftovers(run: RunFolder) -> None:
    """Half generations of updates that were killed. We hold the lock, so nobody is filling them."""
    for folder in (run.path / "generations").glob(".*.new"):
        discard_generation(folder)


def _remove_refused(run: RunFolder, n_kept: int) -> None:
    """All but the newest generations that the rule refused and nobody has served."""
    pointer = read_pointer(run.path)
    used = {pointer.generation, *pointer.trail}
    refused = [
        info.name
        for info in list_generations(run.path)
        if info.name not in used and info.metrics.get("better") is False
    ]
    for name in refused[:-n_kept]:
        folder = generation_path(run.path, name)
        unnamed = folder.with_name(f".{name}.new")  # a kill from here on leaves what the next update removes
        folder.rename(unnamed)
        discard_generation(unnamed)
