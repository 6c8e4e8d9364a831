"""Compress: a run whose language model is smaller and whose vectors are narrower, as small as its quality allows.

teach students -> teach towers their vectors, and all widths -> ask validation, measure size and speed -> take the smallest
that is good enough -> save it as a run. Nothing is chosen on the test part.

Known items get the student's vectors too, not the teacher's: so validation tells what the student can do, and new items live
in the same space as old ones.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lmrec.artifacts.checkpoint import (
    Checkpoint,
    compute_item_vectors,
    save_checkpoint,
    save_vectors,
)
from lmrec.artifacts.files import share_file, write_json
from lmrec.artifacts.reranker import share_reranker
from lmrec.artifacts.run import RunFolder, check_new, create_run, describe_made, open_run
from lmrec.data.split import Split
from lmrec.errors import InputError, MissingExtraError, RecipeError
from lmrec.evaluation.compression import CompressionCurve, CompressionPoint, draw_compression
from lmrec.models.adapters import AdapterConfig
from lmrec.models.encoder import EncoderConfig, TextEncoder
from lmrec.models.layers import transformer_layers
from lmrec.models.pruning import can_prune
from lmrec.models.two_tower import TwoTower
from lmrec.recipe import Recipe, load_fitted, recipe_toml
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.scorer import Scorer, build_bank
from lmrec.training.interrupt import stop_on_interrupt
from lmrec.workflows.counting import fit_fusion
from lmrec.workflows.index import save_index
from lmrec.workflows.judge import has_refit
from lmrec.workflows.live_order import learn_live_order
from lmrec.workflows.prepare import split_log
from lmrec.workflows.students import Candidate, Plan, Workshop
from lmrec.workflows.teachable import require_teachable

_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Compression:
    """run: None where nothing smaller was within the tolerance, and nothing was kept."""

    run: RunFolder | None
    curve: CompressionCurve
    notes: tuple[str, ...]
    seconds: float


def compress_run(path: Path | str, out: Path | str, overrides: Sequence[str] = (), show: bool = True) -> Compression:
    """Try smaller models of the run at `path`, and save the smallest that is good enough as a run at `out`.

    overrides: `compress.*` settings. Ctrl-C keeps nothing and raises Interrupted. Raises InputError, RecipeError for a run
    that cannot be compressed, or a choice that it does not have.
    """
    started = time.monotonic()
    check_new(out)
    source = open_run(path)
    recipe = load_fitted(source.recipe_file if source.recipe_file.exists() else None, overrides, ["compress.*"])
    recommender = Recommender.load(path)
    split = _checked(recommender, recipe, str(path))
    teacher = recommender.checkpoint.load_encoder()
    plan, notes = _plan(recipe, recommender.checkpoint, teacher, str(path))
    with stop_on_interrupt() as should_stop:
        work = Workshop(recommender, recipe, split, teacher, plan, should_stop, show)
        tried = [work.candidate(work.whole, work.validated, 0, plan.full_width)]
        for student in work.students():
            towers, epoch = work.teach_towers(student)
            tried += [work.candidate(student, towers, epoch, width) for width in plan.widths]
        whole, *points = work.measure(tried)
        curve = CompressionCurve(recipe.evaluation.metric, whole, tuple(points), plan.config.tolerance)
        chosen = curve.chosen
        if chosen is None:
            return Compression(None, curve, tuple(notes), round(time.monotonic() - started, 1))
        taken = tried[1 + points.index(chosen)]
        served = work.served_towers(taken)
    run = create_run(out, resume=False)
    try:
        _save(run, source, work, taken, chosen, served)
        learn_live_order(run)
        notes += _save_curve(run, curve)
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)  # the folder was ours and empty
        raise
    return Compression(run, curve, tuple(notes), round(time.monotonic() - started, 1))


def _checked(recommender: Recommender, recipe: Recipe, path: str) -> Split:
    """The run's split. Raises InputError for a run that cannot be compressed."""
    require_teachable(
        recommender,
        path,
        "compress",
        "a smaller model has none to keep. Fit with a smaller language model (encoder.name), or train it: "
        "training.frozen_epochs above 0",
    )
    if recommender.towers.user_model is None:
        raise InputError(
            f"'{path}' reads histories as text (user_model.kind 'text'): a student of items' texts would not know them. Fit "
            "another user model"
        )
    if recipe.item.source == "id":
        raise InputError(f"'{path}' reads no words (item.source 'id'): it has no language model to compress")
    split = split_log(recommender.interactions, recommender.catalog.n_items, recipe)
    if not len(split.validation):
        raise InputError(
            f"what is kept is chosen on validation, and the split of '{path}' (split.kind '{recipe.split.kind}') leaves none. "
            "Compress the run that it was made from, or fit with split.validation above 0"
        )
    return split


def _plan(recipe: Recipe, checkpoint: Checkpoint, teacher: TextEncoder, path: str) -> tuple[Plan, list[str]]:
    """What is tried, each from large to small, and what there is to say of it. Raises RecipeError, InputError."""
    config, notes = recipe.compress, []
    if teacher.adapter_names:
        raise InputError(
            f"the language model of '{path}' has learnt in an adapter ({checkpoint.configs.encoder.adapter.kind}) that cannot "
            "be merged into its weights. Fit with encoder.adapter.kind 'lora', 'ia3' or 'none'"
        )
    n_layers = len(transformer_layers(teacher))
    full_width = checkpoint.configs.head.width or checkpoint.configs.item.width
    prunable = can_prune(teacher.backbone)
    layers = config.layers or tuple(round(n_layers / part) for part in (1, 2, 3) if round(n_layers / part))
    kept = config.kept or ((1.0, 0.5) if prunable else (1.0,))
    widths = config.widths or tuple(full_width // part for part in (1, 2, 4) if full_width // part >= 2)
    for key, values, least, most, has in (
        ("layers", layers, 1, n_layers, "layers of the language model"),
        ("widths", widths, 2, full_width, "numbers in the vectors that are compared"),
    ):
        for value in values:
            if not least <= value <= most:
                raise RecipeError(
                    f"compress.{key} names {value}, and '{path}' has {most} {has}. Name numbers from {least} to {most}"
                )
    if min(kept) < 1 and not prunable:
        raise RecipeError(
            f"compress.kept names {min(kept):g}, and heads and feed-forward units of this language model "
            f"({type(teacher.backbone).__name__}) cannot be pruned: that is known for BERT, RoBERTa, ELECTRA, MiniLM and "
            "DistilBERT. Set compress.kept to [1.0]; layers and widths go for any model"
        )
    if config.kept is None and not prunable:
        notes.append("heads and feed-forward units of this language model are not known here: only layers and widths")
    return Plan(config, _down(layers), _down(kept), _down(widths), full_width), notes


def _down(values: tuple[_Number, ...]) -> tuple[_Number, ...]:
    return tuple(sorted(set(values), reverse=True))


def _encoder_config(config: EncoderConfig, n_layers: int) -> EncoderConfig:
    """What a later training may do with fewer layers; an adapter is part of the weights now."""
    most = n_layers - (config.train == "all_but_first")
    train = config.train if most else "all"
    return config.model_copy(
        update={"adapter": AdapterConfig(), "train": train, "n_layers": min(config.n_layers, max(1, most))}
    )


def _save(
    run: RunFolder,
    source: RunFolder,
    work: Workshop,
    taken: Candidate,
    chosen: CompressionPoint,
    served: TwoTower,
) -> None:
    """taken: as validation has judged it; served: the towers that are served."""
    student = taken.student
    recommender, recipe, old = work.recommender, work.recipe, work.recommender.checkpoint
    shutil.rmtree(run.data)
    shutil.copytree(source.data, run.data, copy_function=share_file)
    configs = work.configs_at(chosen.width)
    configs = replace(configs, encoder=_encoder_config(configs.encoder, student.n_layers))
    kept = recipe.model_copy(update={"encoder": configs.encoder, "head": configs.head})
    run.recipe_file.write_text(recipe_toml(kept), encoding="utf-8")
    narrow, before = work.narrowed(served, chosen.width), work.narrowed(taken.towers, chosen.width)
    weights = work.fusion_at(chosen.width, recommender.fusion).weights
    fusion = fit_fusion(weights, recommender.interactions, recommender.catalog.n_items)
    tuned: dict[str, Any] | None = None
    if has_refit(source):
        tuned = {**before.state_dict(), "text_vec": student.text_vec}
    checkpoint = save_checkpoint(
        run.checkpoint, narrow, student.encoder, old.load_tokenizer(), old.template, configs, None, tuned, fusion
    )
    if source.reranker.exists():  # it reads texts alone, and they are as they were
        share_reranker(source.reranker, run.reranker)
    vectors = compute_item_vectors(narrow, student.text_vec)
    save_vectors(run.vectors_file, vectors, checkpoint, recommender.catalog.fingerprint)
    scorer = Scorer("index", narrow, build_bank(narrow, student.text_vec), configs.user_model.max_history)
    save_index(run, scorer.fused(fusion), recommender.interactions, recipe.index, checkpoint.fingerprint)
    made = describe_made(source, f"{source.path}, compressed: {chosen.name}", without=("auxiliary",))
    made["training"] = {**made["training"], "best_stage": "tuned", "best_metric": chosen.metric}
    compressed = {"from": str(source.path), "point": chosen.name, "validation": chosen.metric}
    run.update_record(**{**made, "compressed": compressed})


def _save_curve(run: RunFolder, curve: CompressionCurve) -> list[str]:
    """What there is to say of it."""
    write_json(run.compression_file, curve.as_dict())
    try:
        draw_compression(run.compression_picture, curve)
    except MissingExtraError as missing:
        return [f"no picture: {missing}"]
    return []
