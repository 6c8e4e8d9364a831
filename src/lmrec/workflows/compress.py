"""Compress: a run whose language model is smaller and whose vectors are narrower, as small as its quality allows.

teach students -> teach towers their vectors, and all widths -> ask validation, measure size and speed -> take the smallest
that is good enough -> save it as a run. Nothing is chosen on the test part.

Known items get the student's vectors too, not the teacher's: so validation tells what the student can do, and new items live
in the same space as old ones.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lmrec.artifacts.checkpoint import (
    Checkpoint,
    ModelConfigs,
    build_towers,
    compute_item_vectors,
    save_checkpoint,
    save_vectors,
)
from lmrec.artifacts.files import share_file, write_json
from lmrec.artifacts.reranker import share_reranker
from lmrec.artifacts.run import RunFolder, check_new, create_run, describe_environment, open_run
from lmrec.data.history import Cases
from lmrec.data.interactions import Interactions
from lmrec.data.split import Split, split_interactions
from lmrec.errors import InputError, Interrupted, MissingExtraError, RecipeError
from lmrec.evaluation.compression import CompressionCurve, CompressionPoint, draw_compression
from lmrec.evaluation.evaluator import evaluate
from lmrec.fields import Ragged
from lmrec.models.adapters import AdapterConfig
from lmrec.models.encoder import EncoderConfig, TextEncoder, encode_tokens, unique_rows
from lmrec.models.fusion import Fusion
from lmrec.models.layers import transformer_layers
from lmrec.models.pruning import can_prune
from lmrec.models.runtime import TorchRuntime
from lmrec.models.two_tower import TwoTower
from lmrec.progress import progress_bar
from lmrec.recipe import Recipe, load_recipe, recipe_toml
from lmrec.retrieval.recommender import Recommender
from lmrec.retrieval.scorer import Scorer, build_bank
from lmrec.text.tokens import tokenize_texts
from lmrec.topk import top_k
from lmrec.training.compress import (
    CompressConfig,
    Matryoshka,
    VectorTask,
    choose_taught,
    measure_importance,
    most_important,
    prune,
    shrink_layers,
)
from lmrec.training.interrupt import StopWish, stop_on_interrupt
from lmrec.training.perturb import AdversarialConfig
from lmrec.training.pretrain import learn, part_rows
from lmrec.training.trainer import Stage, Trainer
from lmrec.workflows.bench_encoder import time_runtime
from lmrec.workflows.fuse import fit_fusion
from lmrec.workflows.index import save_index
from lmrec.workflows.judge import has_refit, training_scorer
from lmrec.workflows.train import batch_source, build_learner

_Number = TypeVar("_Number", int, float)

_CPU = torch.device("cpu")
_TIMED_TEXTS = 512
_SEARCHES, _SEARCHED = 50, 10  # how many are timed, and how many items each asks for


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
    recipe = _recipe_of(source, overrides)
    recommender = Recommender.load(path)
    split = _checked(recommender, recipe, str(path))
    teacher = recommender.checkpoint.load_encoder()
    plan, notes = _plan(recipe, recommender.checkpoint, teacher, str(path))
    with stop_on_interrupt() as should_stop:
        work = _Work(recommender, recipe, split, teacher, plan, should_stop, show)
        whole = work.point(work.whole, len(transformer_layers(teacher)), 1.0, work.validated, plan.full_width, 0.0)
        tried: list[tuple[CompressionPoint, _Student, TwoTower, int]] = []
        for student in work.students():
            towers, epoch = work.teach_towers(student)
            for width in plan.widths:
                point = work.point(student, student.n_layers, student.kept, towers, width, student.off)
                tried.append((point, student, towers, epoch))
        curve = CompressionCurve(
            recipe.evaluation.metric, whole, tuple(point for point, *_ in tried), plan.config.tolerance
        )
        chosen = curve.chosen
        if chosen is None:
            return Compression(None, curve, tuple(notes), round(time.monotonic() - started, 1))
        _, student, towers, epoch = next(found for found in tried if found[0] is chosen)
        served = work.served_towers(student, towers, epoch)
    run = create_run(out, resume=False)
    try:
        _save(run, source, work, student, chosen, towers, served)
        notes += _save_curve(run, curve)
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)  # the folder was ours and empty
        raise
    return Compression(run, curve, tuple(notes), round(time.monotonic() - started, 1))


def _recipe_of(run: RunFolder, overrides: Sequence[str]) -> Recipe:
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not key.startswith("compress."):
            raise InputError(f"--set {key} cannot change here. compress.* can; for the rest fit a new run")
    return load_recipe(run.recipe_file if run.recipe_file.exists() else None, overrides)


def _checked(recommender: Recommender, recipe: Recipe, path: str) -> Split:
    """The run's split. Raises InputError for a run that cannot be compressed."""
    if recommender.ensemble is not None:
        raise InputError(f"'{path}' is an ensemble; compress its members")
    if recommender.towers.user_model is None:
        raise InputError(
            f"'{path}' reads histories as text (user_model.kind 'text'): a student of items' texts would not know them. Fit "
            "another user model"
        )
    if recipe.item.source == "id":
        raise InputError(f"'{path}' reads no words (item.source 'id'): it has no language model to compress")
    split = split_interactions(recommender.interactions, recommender.catalog.n_items, recipe.split)
    if not len(split.validation):
        raise InputError(
            f"what is kept is chosen on validation, and the split of '{path}' (split.kind '{recipe.split.kind}') leaves none. "
            "Compress the run that it was made from, or fit with split.validation above 0"
        )
    return split


@dataclass(frozen=True)
class _Plan:
    config: CompressConfig
    layers: tuple[int, ...]
    kept: tuple[float, ...]
    widths: tuple[int, ...]
    full_width: int


def _plan(recipe: Recipe, checkpoint: Checkpoint, teacher: TextEncoder, path: str) -> tuple[_Plan, list[str]]:
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
    return _Plan(config, _down(layers), _down(kept), _down(widths), full_width), notes


def _down(values: tuple[_Number, ...]) -> tuple[_Number, ...]:
    return tuple(sorted(set(values), reverse=True))


@dataclass(frozen=True, eq=False)
class _Student:
    """A smaller language model and what it makes of the catalog (N, Dt)."""

    n_layers: int
    kept: float
    encoder: TextEncoder
    text_vec: Tensor
    off: float


class _Work:
    """The run that is compressed, and what is done with it."""

    def __init__(
        self,
        recommender: Recommender,
        recipe: Recipe,
        split: Split,
        teacher: TextEncoder,
        plan: _Plan,
        should_stop: StopWish,
        show: bool,
    ) -> None:
        self.recommender, self.recipe, self.split, self.teacher, self.plan = recommender, recipe, split, teacher, plan
        self.should_stop, self.show = should_stop, show
        self.configs = recommender.checkpoint.configs
        self.n_items = recommender.catalog.n_items
        tokenizer = recommender.checkpoint.load_tokenizer()
        self.tokens = tokenize_texts(tokenizer, recommender.texts, self.configs.encoder.max_tokens).ids
        self.unique, self.place = unique_rows(self.tokens)
        n_layers = len(transformer_layers(teacher))
        self.whole = _Student(n_layers, 1.0, teacher, recommender.vectors.text_vec, 0.0)

    @cached_property
    def cases(self) -> Cases:
        return self.split.validation.sample(self.recipe.training.validation_cases, self.recipe.training.seed)

    @cached_property
    def validated(self) -> TwoTower:
        """The run's towers before they learnt from validation."""
        scorer = training_scorer(self.recommender, self.split)
        assert isinstance(scorer, Scorer)
        return scorer.towers

    @cached_property
    def fusion(self) -> Fusion:
        """What is scored beside the towers, with counts of the training part."""
        return fit_fusion(self.recommender.checkpoint.fusion, self.split.train, self.n_items)

    def students(self) -> Iterator[_Student]:
        """Every number of layers, and every share of its heads and units."""
        for n_layers in self.plan.layers:
            base = self.whole
            if n_layers < self.whole.n_layers:
                encoder = shrink_layers(self.teacher, n_layers, self.configs.encoder)
                base = self._taught(encoder, n_layers, 1.0)
            for share in self.plan.kept:
                yield base if share == 1.0 else self._pruned(base, share)

    def _pruned(self, base: _Student, share: float) -> _Student:
        config = self.plan.config
        rng = np.random.default_rng((self.recipe.training.seed, 5))
        weighed = rng.permutation(self.unique)[: config.importance_texts]
        with progress_bar("weigh heads and units", self.show) as bar:
            importance = measure_importance(
                base.encoder,
                self.tokens.take(weighed),
                self.configs.encoder.batch_tokens,
                self.recipe.training.seed,
                bar,
            )
        rows = most_important(importance, share, config.parts)
        return self._taught(prune(base.encoder, rows, self.tokens.take(weighed[:8])), base.n_layers, share)

    def _taught(self, encoder: TextEncoder, n_layers: int, share: float) -> _Student:
        """The student, which has learnt the teacher's vectors of the catalog's texts."""
        config, seed = self.plan.config, self.recipe.training.seed
        drawn = np.random.default_rng((seed, 6)).permutation(self.unique)[: config.max_texts]
        learnt, measured = part_rows(len(drawn), config.held_out, seed)
        teacher = self.recommender.vectors.text_vec[torch.from_numpy(drawn)].numpy()
        task = VectorTask(encoder, self.tokens.take(drawn), teacher, learnt, measured, config.batch_texts)
        choose_taught(encoder)
        with progress_bar(f"teach {n_layers} layers, {100 * share:g} %", self.show) as bar:
            parts: list[tuple[torch.nn.Module, float]] = [(encoder, config.learning_rate)]
            learn(task, parts, config.epochs, seed, self.should_stop, bar, "compress.learning_rate")
        self._check_stop()
        encoder.eval().requires_grad_(False)
        with progress_bar("encode catalog", self.show) as bar:
            text_vec = encode_tokens(encoder, self.tokens, self.configs.encoder.batch_tokens, _CPU, bar)
        return _Student(n_layers, share, encoder, torch.from_numpy(text_vec), task.held_out())

    def teach_towers(self, student: _Student) -> tuple[TwoTower, int]:
        """The run's towers on the student's vectors, in all widths at once, and after how many epochs they were best: the
        mean metric of all widths, on validation. 0: as they were."""
        n_epochs = self.plan.config.tower_epochs

        def measure(towers: TwoTower) -> float:
            return float(np.mean([self.metric(towers, student.text_vec, width) for width in self.plan.widths]))

        before = measure(self.validated)
        if not n_epochs:
            return self.validated, 0
        towers, epoch, after = self._learn_towers(student, self.validated, self.split.train, n_epochs, measure)
        return (towers, epoch) if after is not None and after > before else (self.validated, 0)

    def served_towers(self, student: _Student, towers: TwoTower, n_epochs: int) -> TwoTower:
        """The towers that are served: where the run's have learnt from validation too, these in the same way."""
        if not has_refit(self.recommender.run):
            return towers
        served = self.recommender.towers
        if not n_epochs:
            return served
        return self._learn_towers(student, served, self.split.train_and_validation, n_epochs, None)[0]

    def _learn_towers(
        self,
        student: _Student,
        towers: TwoTower,
        log: Interactions,
        n_epochs: int,
        measure: Callable[[TwoTower], float] | None,
    ) -> tuple[TwoTower, int, float | None]:
        """(the towers after their best epoch, that epoch, its metric); without `measure` after the last."""
        recipe, rate = self.recipe, self.plan.config.rate_share * self.recipe.training.learning_rate
        training = recipe.training.model_copy(
            update={"learning_rate": rate, "patience": n_epochs, "snapshots": 0, "ema": None}
        )
        objective = recipe.objective.model_copy(update={"shown": 0.0, "shown_negatives": None})
        taught = recipe.model_copy(
            update={"training": training, "objective": objective, "adversarial": AdversarialConfig()}
        )
        learner = build_learner(taught, student.text_vec, log)
        learner.towers.load_state_dict(towers.state_dict())
        learner.objective = Matryoshka(learner.objective, self.plan.widths, recipe.head.kind == "cosine")
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                learner,
                training,
                batches=batch_source(taught, log),
                validate=None if measure is None else lambda: measure(learner.towers),
                record=lambda row: None,
                state_folder=Path(folder) / "state",
                fingerprint="",
                should_stop=self.should_stop,
                label=f"towers, {student.n_layers} layers, {100 * student.kept:g} %",
                show=self.show,
            )
            try:
                report = trainer.run([Stage("frozen", n_epochs, rate, 0.0)], resume=False)
            except Interrupted:
                self._check_stop()
                raise
        learner.to("cpu").eval()
        return learner.towers, report.best_epoch, report.best_metric

    def scorer(self, towers: TwoTower, text_vec: Tensor, width: int, fusion: Fusion) -> Scorer:
        """The towers with the first so many numbers of their vectors, and what is scored beside them."""
        narrow = self.narrowed(towers, width)
        bank = build_bank(narrow, text_vec)
        return Scorer("compressed", narrow, bank, self.configs.user_model.max_history).fused(
            self.fusion_at(width, fusion)
        )

    def narrowed(self, towers: TwoTower, width: int) -> TwoTower:
        narrow = build_towers(self.n_items, self.recommender.checkpoint.text_width, self.configs_at(width))
        narrow.load_state_dict(towers.state_dict())
        return narrow.eval()

    def configs_at(self, width: int) -> ModelConfigs:
        head = self.configs.head
        return (
            self.configs
            if width == self.plan.full_width
            else replace(self.configs, head=head.model_copy(update={"width": width}))
        )

    def fusion_at(self, width: int, fusion: Fusion) -> Fusion:
        """Bare words, which are wider than all that a narrower vector saves, are left out of it."""
        if width == self.plan.full_width:
            return fusion
        return replace(fusion, weights=fusion.weights.model_copy(update={"content": 0.0}))

    def metric(self, towers: TwoTower, text_vec: Tensor, width: int) -> float:
        self._check_stop()
        scorer = self.scorer(towers, text_vec, width, self.fusion)
        judged = evaluate(scorer, self.cases, self.n_items, self.recipe.evaluation)
        return float(judged.aggregate[self.recipe.evaluation.metric])

    def point(
        self, student: _Student, n_layers: int, kept: float, towers: TwoTower, width: int, off: float
    ) -> CompressionPoint:
        scorer = self.scorer(towers, student.text_vec, width, self.fusion)
        timed = self.tokens.take(self.unique[:_TIMED_TEXTS])
        texts_per_s, text_ms = time_runtime(TorchRuntime(student.encoder), timed, self.configs.encoder.batch_tokens)
        return CompressionPoint(
            layers=n_layers,
            kept=kept,
            width=width,
            metric=self.metric(towers, student.text_vec, width),
            encoder_mb=sum(p.numel() * p.element_size() for p in student.encoder.parameters()) / 1e6,
            vectors_mb=scorer.bank.matrix.numel() * scorer.bank.matrix.element_size() / 1e6,
            texts_per_s=texts_per_s,
            text_ms=text_ms,
            search_ms=_search_ms(scorer, self.cases.history),
            off=off,
        )

    def _check_stop(self) -> None:
        if self.should_stop():
            raise Interrupted("stopped; the run that is compressed is as it was, and nothing is kept. Type it again")


def _search_ms(scorer: Scorer, history: Ragged) -> float:
    """The median for the first items of one question, whose user's vector is known."""
    queries = scorer.query(history.slice(0, min(_SEARCHES, len(history))))
    seconds = []
    for query in queries:
        began = time.perf_counter()
        top_k((query[None] @ scorer.bank.matrix.T).numpy(), _SEARCHED)
        seconds.append(time.perf_counter() - began)
    return 1000 * median(seconds)


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
    work: _Work,
    student: _Student,
    chosen: CompressionPoint,
    towers: TwoTower,
    served: TwoTower,
) -> None:
    """towers: as validation has judged them; served: those that are served."""
    recommender, recipe, old = work.recommender, work.recipe, work.recommender.checkpoint
    shutil.rmtree(run.data)
    shutil.copytree(source.data, run.data, copy_function=share_file)
    configs = work.configs_at(chosen.width)
    configs = replace(configs, encoder=_encoder_config(configs.encoder, student.n_layers))
    kept = recipe.model_copy(update={"encoder": configs.encoder, "head": configs.head})
    run.recipe_file.write_text(recipe_toml(kept), encoding="utf-8")
    narrow, before = work.narrowed(served, chosen.width), work.narrowed(towers, chosen.width)
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
    first = source.read_record()
    run.update_record(
        **{
            **{name: value for name, value in first.items() if name != "auxiliary"},
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "notes": [f"{source.path}, compressed: {chosen.name}"],
            "training": {**first["training"], "best_stage": "tuned", "best_metric": chosen.metric},
            "compressed": {"from": str(source.path), "point": chosen.name, "validation": chosen.metric},
            **describe_environment(),
        }
    )


def _save_curve(run: RunFolder, curve: CompressionCurve) -> list[str]:
    """What there is to say of it."""
    write_json(run.compression_file, curve.as_dict())
    try:
        draw_compression(run.compression_picture, curve)
    except MissingExtraError as missing:
        return [f"no picture: {missing}"]
    return []
