"""Students of a run: smaller language models, the towers that go with them, and what both keep, weigh and cost."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from lmrec.artifacts.checkpoint import ModelConfigs, build_towers
from lmrec.data.history import Cases
from lmrec.data.interactions import Interactions
from lmrec.data.split import Split
from lmrec.errors import Interrupted
from lmrec.evaluation.compression import CompressionPoint
from lmrec.evaluation.evaluator import evaluate
from lmrec.fields import Ragged
from lmrec.models.encoder import TextEncoder, encode_tokens, unique_rows
from lmrec.models.fusion import Fusion
from lmrec.models.layers import transformer_layers
from lmrec.models.runtime import TorchRuntime
from lmrec.models.two_tower import TwoTower
from lmrec.progress import progress_bar
from lmrec.recipe import Recipe
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
from lmrec.training.interrupt import StopWish
from lmrec.training.perturb import AdversarialConfig
from lmrec.training.pretrain import learn, part_rows
from lmrec.training.trainer import Stage, Trainer
from lmrec.training.trend import go_on_from
from lmrec.workflows.bench_encoder import time_runtime
from lmrec.workflows.counting import fit_fusion
from lmrec.workflows.judge import has_refit, training_scorer
from lmrec.workflows.train import batch_source, build_learner, learnt_weight

_CPU = torch.device("cpu")
_ROUNDS = 3  # in which all that is timed takes turns; of each its best counts, for machines are not always quiet
_TIMED_TEXTS = 256
_SEARCHES, _SEARCHED = 50, 10  # how many are timed, and how many items each asks for


@dataclass(frozen=True)
class Plan:
    """What is tried, each from large to small."""

    config: CompressConfig
    layers: tuple[int, ...]
    kept: tuple[float, ...]
    widths: tuple[int, ...]
    full_width: int


@dataclass(frozen=True, eq=False)
class Student:
    """A smaller language model and what it makes of the catalog (N, Dt)."""

    n_layers: int
    kept: float
    encoder: TextEncoder
    text_vec: Tensor
    off: float


@dataclass(frozen=True, eq=False)
class Candidate:
    """A student with towers that know it, and the width of vectors that is compared. epoch: the towers' best, 0 for as they
    were; metric: on validation."""

    student: Student
    towers: TwoTower
    epoch: int
    width: int
    metric: float


class Workshop:
    """The run that is compressed, and what is done with it."""

    def __init__(
        self,
        recommender: Recommender,
        recipe: Recipe,
        split: Split,
        teacher: TextEncoder,
        plan: Plan,
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
        self.whole = Student(n_layers, 1.0, teacher, recommender.vectors.text_vec, 0.0)

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

    def students(self) -> Iterator[Student]:
        """Every number of layers, and every share of its heads and units."""
        for n_layers in self.plan.layers:
            base = self.whole
            if n_layers < self.whole.n_layers:
                encoder = shrink_layers(self.teacher, n_layers, self.configs.encoder)
                base = self._taught(encoder, n_layers, 1.0)
            for share in self.plan.kept:
                yield base if share == 1.0 else self._pruned(base, share)

    def _pruned(self, base: Student, share: float) -> Student:
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

    def _taught(self, encoder: TextEncoder, n_layers: int, share: float) -> Student:
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
        return Student(n_layers, share, encoder, torch.from_numpy(text_vec), task.held_out())

    def teach_towers(self, student: Student) -> tuple[TwoTower, int]:
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

    def served_towers(self, taken: Candidate) -> TwoTower:
        """The towers that are served: where the run's have learnt from validation too, these in the same way."""
        if not has_refit(self.recommender.run):
            return taken.towers
        served, log = self.recommender.towers, self.split.train_and_validation
        return self._learn_towers(taken.student, served, log, taken.epoch, None)[0] if taken.epoch else served

    def _learn_towers(
        self,
        student: Student,
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
        begun = go_on_from(learner.objective, learnt_weight(self.recommender.run))
        learner.objective = Matryoshka(begun, self.plan.widths, recipe.head.kind == "cosine")
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

    def candidate(self, student: Student, towers: TwoTower, epoch: int, width: int) -> Candidate:
        return Candidate(student, towers, epoch, width, self.metric(towers, student.text_vec, width))

    def measure(self, candidates: Sequence[Candidate]) -> list[CompressionPoint]:
        """Size and speed of each, in one go: what is timed takes turns."""
        encoders = list({id(one.student.encoder): one.student.encoder for one in candidates}.values())
        scorers = [self.scorer(one.towers, one.student.text_vec, one.width, self.fusion) for one in candidates]
        timed, config = self.tokens.take(self.unique[:_TIMED_TEXTS]), self.configs.encoder
        texts_per_s, text_ms = [0.0] * len(encoders), [np.inf] * len(encoders)
        search_ms = [np.inf] * len(scorers)
        with progress_bar("time all of them", self.show) as bar:
            for done in range(_ROUNDS):
                for place, encoder in enumerate(encoders):
                    speed, one_ms = time_runtime(TorchRuntime(encoder), timed, config.batch_tokens)
                    texts_per_s[place] = max(texts_per_s[place], speed)
                    text_ms[place] = min(text_ms[place], one_ms)
                    self._check_stop()
                search_ms = [
                    min(best, _search_ms(scorer, self.cases.history))
                    for best, scorer in zip(search_ms, scorers, strict=True)
                ]
                bar(done + 1, _ROUNDS)
        points = []
        for candidate, scorer, one_search_ms in zip(candidates, scorers, search_ms, strict=True):
            student, matrix = candidate.student, scorer.bank.matrix
            place = next(at for at, encoder in enumerate(encoders) if encoder is student.encoder)
            points.append(
                CompressionPoint(
                    layers=student.n_layers,
                    kept=student.kept,
                    width=candidate.width,
                    metric=candidate.metric,
                    encoder_mb=sum(p.numel() * p.element_size() for p in student.encoder.parameters()) / 1e6,
                    vectors_mb=matrix.numel() * matrix.element_size() / 1e6,
                    texts_per_s=texts_per_s[place],
                    text_ms=float(text_ms[place]),
                    search_ms=float(one_search_ms),
                    off=student.off,
                )
            )
        return points

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
